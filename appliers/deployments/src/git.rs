//! Source from git repositories, by the git command line.
//!
//! Nothing of the machine's or a user's configuration is read, no prompt is ever shown, only the transports that an app
//! may declare are allowed, hooks, filters and submodules are not run, and every call has a deadline. ssh uses the keys
//! of the user that this node runs as.
//!
//! Each repository has one bare cache, into which single commits are fetched without their history.

use onward_statemachine::deployments::apps::Commit;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long asking a repository for its refs may take.
const RESOLVE: Duration = Duration::from_secs(30);
/// How long fetching a commit may take.
const FETCH: Duration = Duration::from_secs(600);
/// How long writing out a tree may take.
const EXPORT: Duration = Duration::from_secs(600);

/// Why source is not there.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git could not be run.
    #[error("git cannot be run: {0}; is it installed on this node?")]
    Spawn(std::io::Error),
    /// The cache could not be written.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// git took too long.
    #[error("git {what} took longer than {} s", .after.as_secs())]
    TimedOut {
        /// Its subcommand.
        what: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// git said no.
    #[error("git {what} failed: {message}")]
    Failed {
        /// Its subcommand.
        what: &'static str,
        /// The last of what it said.
        message: String,
    },
    /// The repository has no such ref.
    #[error(
        "repository {repository} has no branch or tag `{reference}` (a commit is named by all 40 digits of its id)"
    )]
    NoSuchRef {
        /// Where it was looked for.
        repository: String,
        /// What was looked for.
        reference: String,
    },
    /// The repository has no such commit, or does not hand it out.
    #[error("repository {repository} does not hand out commit {commit}: {message}")]
    NoSuchCommit {
        /// Where it was looked for.
        repository: String,
        /// What was looked for.
        commit: Commit,
        /// What git said.
        message: String,
    },
}

impl GitError {
    /// Whether trying again would most likely end the same way.
    pub fn is_permanent(&self) -> bool {
        matches!(self, GitError::NoSuchRef { .. } | GitError::NoSuchCommit { .. })
    }
}

/// The git caches of this node.
#[derive(Debug)]
pub struct Git {
    folder: PathBuf,
}

impl Git {
    /// Caches below `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Git { folder }
    }

    fn cache(&self, repository: &str) -> PathBuf {
        let digest = Sha256::digest(repository.as_bytes());
        let name: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{name}.git"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            )
            .env("LANG", "C.UTF-8")
            .env("HOME", &self.folder)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=10")
            .env("GIT_ALLOW_PROTOCOL", "file:https:ssh:git")
            .env("GIT_ADVICE", "0")
            .args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"])
            .args(["-c", "transfer.fsckObjects=true", "-c", "protocol.version=2"])
            .args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=30"])
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(
        &self,
        what: &'static str,
        after: Duration,
        mut command: Command,
    ) -> Result<String, GitError> {
        let output = tokio::time::timeout(after, command.output())
            .await
            .map_err(|_| GitError::TimedOut { what, after })?
            .map_err(GitError::Spawn)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = explain(&String::from_utf8_lossy(&output.stderr));
        Err(GitError::Failed { what, message })
    }

    /// The commit that a ref means now: a branch, a tag, a full ref name, or a full commit id as it is.
    pub async fn resolve(&self, repository: &str, reference: &str) -> Result<Commit, GitError> {
        if let Some(commit) = Commit::parse(reference) {
            return Ok(commit);
        }
        self.prepare().await?;
        // An annotated tag is an object of its own; `^{}` is what it stands for, and comes first.
        let names = if reference == "HEAD" || reference.starts_with("refs/") {
            vec![format!("{reference}^{{}}"), reference.to_owned()]
        } else {
            vec![
                format!("refs/heads/{reference}"),
                format!("refs/tags/{reference}^{{}}"),
                format!("refs/tags/{reference}"),
            ]
        };
        let mut command = self.command();
        command.args(["ls-remote", "--", repository]).args(&names);
        let listing = self.run("ls-remote", RESOLVE, command).await?;
        let found = |name: &String| {
            let mut lines = listing.lines().filter_map(|line| line.split_once('\t'));
            lines.find(|(_, listed)| listed == name).map(|(id, _)| id)
        };
        names
            .iter()
            .find_map(found)
            .and_then(Commit::parse)
            .ok_or_else(|| GitError::NoSuchRef {
                repository: repository.to_owned(),
                reference: reference.to_owned(),
            })
    }

    /// Brings a commit into the cache. `reference` is where it was found, for servers that hand out nothing else.
    pub async fn fetch(&self, repository: &str, commit: &Commit, reference: &str) -> Result<(), GitError> {
        let cache = self.cache(repository);
        self.prepare().await?;
        if !cache.join("HEAD").exists() {
            let mut command = self.command();
            command.args(["init", "--quiet", "--bare", "--"]).arg(&cache);
            self.run("init", RESOLVE, command).await?;
        }
        if self.has(&cache, commit).await {
            return Ok(());
        }
        let alone = self
            .fetch_refs(&cache, repository, &["--depth=1"], &[commit.as_str()])
            .await;
        if self.has(&cache, commit).await {
            return Ok(());
        }
        // A server may not hand out commits by their id, and the ref may have moved on since.
        let all = [
            "+refs/heads/*:refs/cache/heads/*",
            "+refs/tags/*:refs/cache/tags/*",
        ];
        let named = match Commit::parse(reference) {
            None => {
                self.fetch_refs(&cache, repository, &["--depth=1"], &[reference])
                    .await
            }
            Some(_) => Ok(()),
        };
        if !self.has(&cache, commit).await {
            self.fetch_refs(&cache, repository, &[], &all).await?;
        }
        if self.has(&cache, commit).await {
            return Ok(());
        }
        let message = match alone.and(named) {
            Err(error) => error.to_string(),
            Ok(()) => "it is on no branch or tag".to_owned(),
        };
        Err(GitError::NoSuchCommit {
            repository: repository.to_owned(),
            commit: commit.clone(),
            message,
        })
    }

    /// Writes the tree of a fetched commit into `folder`, which must be empty.
    pub async fn export(&self, repository: &str, commit: &Commit, folder: &Path) -> Result<(), GitError> {
        let cache = self.cache(repository);
        let index = folder.with_extension("index");
        let git = |arguments: &[&str]| {
            let mut command = self.command();
            command
                .env("GIT_INDEX_FILE", &index)
                .arg("--git-dir")
                .arg(&cache)
                .arg("--work-tree")
                .arg(folder)
                .args(arguments)
                .current_dir(folder);
            command
        };
        self.run("read-tree", EXPORT, git(&["read-tree", commit.as_str()]))
            .await?;
        self.run(
            "checkout-index",
            EXPORT,
            git(&["checkout-index", "--all", "--force"]),
        )
        .await?;
        let _ = tokio::fs::remove_file(&index).await;
        Ok(())
    }

    async fn prepare(&self) -> Result<(), GitError> {
        tokio::fs::create_dir_all(&self.folder)
            .await
            .map_err(|error| GitError::Io(format!("making {}", self.folder.display()), error))
    }

    async fn has(&self, cache: &Path, commit: &Commit) -> bool {
        // The commit alone is not enough: a fetch that was killed may have left some of its tree out.
        let mut command = self.command();
        command
            .arg("--git-dir")
            .arg(cache)
            .args([
                "rev-list",
                "--objects",
                "--quiet",
                "--max-count=1",
                "--missing=error",
            ])
            .arg(commit.as_str());
        self.run("rev-list", RESOLVE, command).await.is_ok()
    }

    async fn fetch_refs(
        &self,
        cache: &Path,
        repository: &str,
        options: &[&str],
        refs: &[&str],
    ) -> Result<(), GitError> {
        let mut command = self.command();
        command
            .arg("--git-dir")
            .arg(cache)
            .args([
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
            ])
            .args(options)
            .args(["--", repository])
            .args(refs);
        self.run("fetch", FETCH, command).await.map(|_| ())
    }
}

/// The part of git's words that says what is wrong.
fn explain(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .collect();
    let telling =
        |line: &&&str| line.starts_with("fatal:") || line.starts_with("error:") || line.contains("denied");
    let chosen: Vec<&str> = lines.iter().filter(telling).take(3).copied().collect();
    let message = if chosen.is_empty() {
        lines.join("; ")
    } else {
        chosen.join("; ")
    };
    message.chars().filter(|c| !c.is_control()).take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Repository;

    #[tokio::test]
    async fn resolves_fetches_and_exports() {
        let scratch = tempfile::tempdir().unwrap();
        let repository = Repository::new(scratch.path().join("source"));
        let first = repository.commit(&[("a", "1"), ("sub/b", "2")]);
        repository.git(&["tag", "-a", "v1", "-m", "one"]);
        let second = repository.commit(&[("a", "3")]);
        let git = Git::new(scratch.path().join("cache"));
        let url = repository.url();
        assert_eq!(git.resolve(&url, "main").await.unwrap(), second);
        assert_eq!(git.resolve(&url, "v1").await.unwrap(), first);
        assert_eq!(git.resolve(&url, "refs/tags/v1").await.unwrap(), first);
        assert_eq!(git.resolve(&url, "HEAD").await.unwrap(), second);
        let missing = git.resolve(&url, "nope").await.unwrap_err();
        assert!(
            missing.is_permanent() && missing.to_string().contains("`nope`"),
            "{missing}"
        );

        // A commit that no ref is at any more, into an empty cache, twice.
        for _ in 0..2 {
            git.fetch(&url, &first, "main").await.unwrap();
        }
        let tree = scratch.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        git.export(&url, &first, &tree).await.unwrap();
        assert_eq!(std::fs::read_to_string(tree.join("a")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(tree.join("sub/b")).unwrap(), "2");
        assert!(!tree.join(".git").exists());

        let unknown = Commit::parse(&"0123456789".repeat(4)).unwrap();
        let error = git.fetch(&url, &unknown, "main").await.unwrap_err();
        assert!(matches!(error, GitError::NoSuchCommit { .. }), "{error}");
        let nowhere = git.resolve("/nonexistent/repository", "main").await.unwrap_err();
        assert!(
            !nowhere.is_permanent() && nowhere.to_string().contains("nonexistent"),
            "{nowhere}"
        );
    }
}
