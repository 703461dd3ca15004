//! The shape of a declaration: every rule that looks at nothing but the declaration itself.

use super::Refusal;
use super::types::*;
use crate::ids::check_length;
use std::collections::BTreeMap;

/// Names that every instance is given by the node that runs it.
const ENV_RESERVED: [&str; 2] = ["PORT", "HOST"];
const ENV_RESERVED_PREFIX: &str = "ONWARD_";
const ENV_NAME_BYTES_MAX: usize = 128;

/// Checks all of a declaration.
pub(super) fn check_spec(app: &Name, spec: &Spec) -> Result<(), Refusal> {
    check_repository(&spec.source.repository)?;
    check_reference(&spec.source.reference)?;
    if let Some(build) = &spec.build {
        check_command("build", build)?;
    }
    check_command("run", &spec.run)?;
    check_env("build_env", &spec.build_env)?;
    check_env("env", &spec.env)?;
    check_routes(app, spec)?;
    check_times(&spec.health, spec.stop_grace_ms, spec.drain_ms)
}

/// Checks a repository URL.
pub fn check_repository(url: &str) -> Result<(), Refusal> {
    check_length("source.repository", url, URL_BYTES_MAX)?;
    let bad = |rule: &str| {
        Err(Refusal::Repository {
            repository: without_credentials(url),
            rule: rule.to_owned(),
        })
    };
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return bad("it takes neither spaces nor control characters");
    }
    if url.starts_with('/') {
        return Ok(());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        // `user@host:path`, as ssh takes it.
        return match url.split_once(':') {
            Some((address, path)) if !path.is_empty() && is_ssh_address(address) => Ok(()),
            _ => bad("it is an https, ssh, git or file URL, `user@host:path`, or an absolute path"),
        };
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match scheme {
        "file" if rest.starts_with('/') => Ok(()),
        "file" => bad("a file URL names an absolute path, `file:///...`"),
        "https" | "git" if authority.contains('@') => {
            bad("credentials do not belong into a URL that is stored and shown")
        }
        "https" | "git" if is_host(authority) => Ok(()),
        "ssh"
            if authority
                .split_once('@')
                .is_some_and(|(user, _)| user.contains(':')) =>
        {
            bad("credentials do not belong into a URL that is stored and shown")
        }
        "ssh" if is_host(authority) || is_ssh_address(authority) => Ok(()),
        "https" | "ssh" | "git" => bad("its host is not a host name"),
        _ => bad("its scheme is not one of https, ssh, git and file"),
    }
}

/// What of a refused URL may be repeated in a message that is kept.
fn without_credentials(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}...{}", &url[..start], &url[start + at..]),
        None => url.to_owned(),
    }
}

/// `user@host[:port]`, neither of which could be taken for an option.
fn is_ssh_address(text: &str) -> bool {
    let user_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !user.starts_with('-') && user.bytes().all(user_byte) && is_host(host)
    })
}

/// `host[:port]`.
fn is_host(text: &str) -> bool {
    let host_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let bracketed = |inner: &str| {
        inner
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
    };
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, port)) if bracketed(inner) && !inner.is_empty() => ("v6", port.strip_prefix(':')),
        Some(_) => return false,
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    !host.is_empty()
        && !host.starts_with('-')
        && host.bytes().all(host_byte)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// Checks a git ref or commit (the rules of git-check-ref-format(1), and no leading `-`).
pub fn check_reference(reference: &str) -> Result<(), Refusal> {
    check_length("ref", reference, REFERENCE_BYTES_MAX)?;
    let bad_byte = |b: u8| b <= b' ' || b == 0x7f || b"~^:?*[\\".contains(&b);
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let bad = reference.starts_with('-')
        || reference.ends_with('.')
        || reference.contains("..")
        || reference.contains("@{")
        || reference == "@"
        || reference.bytes().any(bad_byte)
        || reference.split('/').any(bad_part);
    if bad {
        return Err(Refusal::Reference {
            reference: reference.to_owned(),
        });
    }
    Ok(())
}

fn check_command(field: &'static str, text: &str) -> Result<(), Refusal> {
    check_length(field, text, COMMAND_BYTES_MAX)?;
    if text.contains('\0') || text.trim().is_empty() {
        return Err(Refusal::CommandText {
            field: field.to_owned(),
        });
    }
    Ok(())
}

fn check_env(field: &'static str, env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let field = field.to_owned();
    if env.len() > ENV_ENTRIES_MAX {
        let count = env.len();
        return Err(Refusal::EnvEntries { field, count });
    }
    let bytes = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENV_BYTES_MAX {
        return Err(Refusal::EnvBytes { field, bytes });
    }
    for (name, value) in env {
        check_length(&format!("name in {field}"), name, ENV_NAME_BYTES_MAX)?;
        let first = |b: u8| b.is_ascii_uppercase() || b == b'_';
        let named =
            name.bytes().all(|b| first(b) || b.is_ascii_digit()) && name.bytes().next().is_some_and(first);
        let name = name.clone();
        if !named {
            return Err(Refusal::EnvName { field, name });
        }
        if ENV_RESERVED.contains(&name.as_str()) || name.starts_with(ENV_RESERVED_PREFIX) {
            return Err(Refusal::EnvReserved { field, name });
        }
        if value.contains('\0') {
            return Err(Refusal::EnvValue { field, name });
        }
    }
    Ok(())
}

fn check_routes(app: &Name, spec: &Spec) -> Result<(), Refusal> {
    let count = spec.routes.len();
    if count > ROUTES_MAX {
        return Err(Refusal::Routes { count });
    }
    if spec.protocol == Protocol::Tcp && count > 0 {
        return Err(Refusal::RouteOfTcp { app: app.clone() });
    }
    for route in &spec.routes {
        check_length("host of a route", &route.host, 253)?;
        for label in route.host.split('.') {
            crate::ids::check_label("label in the host of a route", label)?;
        }
        check_path("path of a route", &route.path)?;
        let canonical = route.path == "/" || !route.path.split('/').skip(1).any(str::is_empty);
        if !canonical || route.path.contains(['?', '#']) {
            return Err(Refusal::RoutePath { route: route.clone() });
        }
    }
    if !spec.routes.is_sorted_by(|a, b| a < b) {
        return Err(Refusal::RouteOrder { app: app.clone() });
    }
    Ok(())
}

fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    check_length(field, path, PATH_BYTES_MAX)?;
    if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Refusal::Path {
        field: field.to_owned(),
        path: path.to_owned(),
    })
}

fn check_times(health: &Health, stop_grace_ms: u64, drain_ms: u64) -> Result<(), Refusal> {
    if let Probe::Http { path } = &health.probe {
        check_path("path of the health check", path)?;
    }
    let rules = [
        ("health.interval_ms", health.interval_ms, 20, 60_000),
        ("health.timeout_ms", health.timeout_ms, 20, 60_000),
        ("health.deadline_ms", health.deadline_ms, 100, 3_600_000),
        ("stop_grace_ms", stop_grace_ms, 0, 600_000),
        ("drain_ms", drain_ms, 0, 3_600_000),
    ];
    for (field, value_ms, min_ms, max_ms) in rules {
        if !(min_ms..=max_ms).contains(&value_ms) {
            return Err(Refusal::Time {
                field: field.to_owned(),
                value_ms,
                min_ms,
                max_ms,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for url in [
            "https://git.example.org/a/b.git",
            "https://git.example.org:8443/a",
            "ssh://git@git.example.org/a/b.git",
            "git@git.example.org:a/b.git",
            "git://[fd00::1]:9418/a",
            "file:///srv/git/a.git",
            "/srv/git/a.git",
        ] {
            assert_eq!(check_repository(url), Ok(()), "{url}");
        }
        for url in [
            "http://git.example.org/a",
            "https://user@git.example.org/a",
            "https://user:secret@git.example.org/a",
            "ssh://git:secret@git.example.org/a",
            "ssh://-oProxyCommand=x/a",
            "-oProxyCommand=x@host:a",
            "a@-host:path",
            "ext::sh -c x",
            "ext::sh",
            "file://relative",
            "relative/path",
            "https:///a",
            "https://host:0/a",
        ] {
            let refusal = check_repository(url).expect_err(url);
            assert!(!refusal.to_string().contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn references() {
        for good in ["main", "v1.0", "refs/heads/feature/x", "0123456789abcdef", "a@b"] {
            assert_eq!(check_reference(good), Ok(()), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a~1", "a^", "a:b", "x.lock", ".x", "a//b", "/a", "a/", "@", "a@{1}",
            "a.",
        ] {
            assert!(check_reference(bad).is_err(), "{bad}");
        }
    }
}
