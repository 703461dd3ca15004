use super::types::*;
use super::{Cause, Event, query};
use crate::command::{Accepted, Context, Decision, Stop};
use crate::ids::{NameError, Revision, check_label, check_label_key, check_length};
use crate::store::View;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Demands on instances of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Let these instances be registered, exactly so. One that is so already is renewed.
    Register {
        /// Which, each once.
        registrations: Vec<Registration>,
    },
    /// An instance lives: its TTL begins anew, and it passes.
    Renew {
        /// Which.
        id: Id,
    },
    /// Remove an instance.
    Deregister {
        /// Which.
        id: Id,
        /// Only if its modified revision is this.
        expect: Option<Revision>,
    },
    /// Say what an instance's health is. Passing is a renewal; critical lasts until the next one.
    SetHealth {
        /// Whose.
        id: Id,
        /// What it is.
        health: Health,
    },
    /// Take an instance out of service, or put it back.
    SetMaintenance {
        /// Which.
        id: Id,
        /// Whether it is to be out of service.
        on: bool,
        /// Only if its modified revision is this.
        expect: Option<Revision>,
    },
    /// Deadlines passed: of these instances, those whose deadline still is the one named, and is not after log time,
    /// become critical, or are deregistered where they were critical. The others are left alone.
    Expire {
        /// What the proposer saw.
        due: Vec<Due>,
    },
}

/// Why a demand on instances of services is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A name that is none.
    #[error(transparent)]
    Name(NameError),
    /// No instance of that id.
    #[error("service instance `{id}` is not registered")]
    NotFound {
        /// Which.
        id: Id,
    },
    /// A renewal of what does not expire.
    #[error("service instance `{id}` has no TTL, so there is nothing to renew")]
    NoTtl {
        /// Which.
        id: Id,
    },
    /// An edit of what has changed meanwhile.
    #[error("service instance `{id}` was last modified at revision {actual}, not at {expected}")]
    RevisionMismatch {
        /// Which.
        id: Id,
        /// What the caller had read.
        expected: Revision,
        /// What is there; 0 where nothing is.
        actual: Revision,
    },
    /// An address that no client can connect to.
    #[error(
        "service instance `{id}` has address {address}, which is {kind}; it takes the address of one host"
    )]
    Address {
        /// Whose.
        id: Id,
        /// What was given.
        address: IpAddr,
        /// What kind of address it is.
        kind: AddressKind,
    },
    /// No port.
    #[error("service instance `{id}` has port 0; it takes 1 to 65535")]
    Port {
        /// Whose.
        id: Id,
    },
    /// Too many parts.
    #[error("service instance `{id}` has {count} {what}; the most is {max}")]
    TooMany {
        /// Whose.
        id: Id,
        /// Of what.
        what: Countable,
        /// How many there were.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A metadata value that is too long.
    #[error(
        "service instance `{id}` has {length} bytes under metadata key `{key}`; the most is {METADATA_VALUE_BYTES_MAX}"
    )]
    MetadataLength {
        /// Whose.
        id: Id,
        /// Under which key.
        key: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A time out of range.
    #[error("service instance `{id}` has {what} {ms} ms; it takes {min} to {max} ms")]
    Time {
        /// Whose.
        id: Id,
        /// Which time.
        what: Timing,
        /// What was given.
        ms: u64,
        /// The shortest.
        min: u64,
        /// The longest.
        max: u64,
    },
    /// One instance twice.
    #[error("service instance `{id}` is registered twice in one command")]
    Duplicate {
        /// Which.
        id: Id,
    },
    /// None or too many instances at once.
    #[error("the command names {count} service instances; it takes 1 to {BULK_MAX}")]
    BulkLength {
        /// How many there were.
        count: usize,
    },
    /// Too many instances of one service.
    #[error("service `{service}` would have more than {SERVICE_INSTANCES_MAX} instances")]
    ServiceFull {
        /// Which.
        service: String,
    },
}

impl From<NameError> for Stop<Refusal> {
    fn from(error: NameError) -> Self {
        Stop::Refuse(Refusal::Name(error))
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $word,)* })
            }
        }
    };
}
words! {
    /// Addresses that no instance has.
    AddressKind {
        /// `0.0.0.0` or `::`.
        Unspecified => "unspecified",
        /// A group of hosts.
        Multicast => "multicast",
        /// `255.255.255.255`.
        Broadcast => "broadcast",
    }
}
words! {
    /// What an instance has several of.
    Countable {
        /// Tags.
        Tags => "tags",
        /// Pairs of metadata.
        Metadata => "metadata pairs",
    }
}
words! {
    /// The times of an instance.
    Timing {
        /// How long it passes without renewing.
        Ttl => "a TTL of",
        /// How long it may be critical.
        DeregisterAfter => "deregistration after",
    }
}

fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on instances of services.
pub fn decide(view: &dyn View, ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    let event = match command {
        Command::Register { registrations } => return register(view, ctx, registrations),
        Command::Expire { due } => return expire(view, ctx, due),
        Command::Renew { id } => {
            let instance = existing(view, id, None)?;
            if instance.spec.ttl_ms.is_none() {
                return refuse(Refusal::NoTtl { id: id.clone() });
            }
            pass(ctx, id, &instance, Cause::Renewed)
        }
        Command::SetHealth { id, health } => {
            let instance = existing(view, id, None)?;
            match health {
                Health::Passing => pass(ctx, id, &instance, Cause::Asked),
                Health::Critical => (instance.health == Health::Passing).then(|| Event::HealthChanged {
                    id: id.clone(),
                    health: Health::Critical,
                    cause: Cause::Asked,
                }),
            }
        }
        Command::SetMaintenance { id, on, expect } => {
            let instance = existing(view, id, *expect)?;
            (instance.maintenance != *on).then(|| Event::MaintenanceSet {
                id: id.clone(),
                on: *on,
            })
        }
        Command::Deregister { id, expect } => {
            existing(view, id, *expect)?;
            Some(Event::Deregistered {
                id: id.clone(),
                cause: Cause::Asked,
            })
        }
    };
    Ok(Accepted::events(event.into_iter().collect()))
}

fn register(view: &dyn View, ctx: &Context, registrations: &[Registration]) -> Decision<Event, Refusal> {
    check_bulk(registrations.len())?;
    let mut seen = BTreeSet::new();
    let mut arriving: BTreeMap<&str, usize> = BTreeMap::new();
    let mut events = Vec::new();
    for Registration { id, spec, expect } in registrations {
        check_registered(id, spec)?;
        if !seen.insert(id) {
            return refuse(Refusal::Duplicate { id: id.clone() });
        }
        let before = query::get(view, id)?;
        check_expected(id, before.as_ref(), *expect)?;
        match before {
            Some(before) if before.spec == *spec => {
                // Without a TTL there is no promise to renew, and an equal declaration changes nothing.
                if spec.ttl_ms.is_some() {
                    events.extend(pass(ctx, id, &before, Cause::Renewed));
                }
                continue;
            }
            Some(_) => {}
            None => *arriving.entry(&id.service).or_default() += 1,
        }
        events.push(Event::Registered {
            id: id.clone(),
            spec: spec.clone(),
        });
    }
    for (service, count) in arriving {
        let present = query::service(view, service)?.map_or(0, |service| service.instances as usize);
        if present + count > SERVICE_INSTANCES_MAX {
            return refuse(Refusal::ServiceFull {
                service: service.to_owned(),
            });
        }
    }
    Ok(Accepted::events(events))
}

/// What a sign of life changes, if anything.
fn pass(ctx: &Context, id: &Id, instance: &Instance, cause: Cause) -> Option<Event> {
    let id = id.clone();
    if instance.health == Health::Critical {
        let health = Health::Passing;
        return Some(Event::HealthChanged { id, health, cause });
    }
    let deadline = instance.spec.ttl_ms.map(|ms| ctx.now.plus(ms));
    (deadline != instance.deadline).then_some(Event::Renewed { id })
}

fn expire(view: &dyn View, ctx: &Context, due: &[Due]) -> Decision<Event, Refusal> {
    check_bulk(due.len())?;
    let mut events = Vec::new();
    for Due { deadline, id } in due.iter().collect::<BTreeSet<_>>() {
        let Some(instance) = query::get(view, id)? else {
            continue;
        };
        if instance.deadline != Some(*deadline) || *deadline > ctx.now {
            continue;
        }
        let (id, cause) = (id.clone(), Cause::Expired);
        events.push(match instance.health {
            Health::Passing => Event::HealthChanged {
                id,
                health: Health::Critical,
                cause,
            },
            Health::Critical => Event::Deregistered { id, cause },
        });
    }
    Ok(Accepted::events(events))
}

fn existing(view: &dyn View, id: &Id, expect: Option<Revision>) -> Result<Instance, Stop<Refusal>> {
    let instance = query::get(view, id)?;
    let Some(instance) = instance else {
        return refuse(Refusal::NotFound { id: id.clone() });
    };
    check_expected(id, Some(&instance), expect)?;
    Ok(instance)
}

fn check_expected(
    id: &Id,
    instance: Option<&Instance>,
    expect: Option<Revision>,
) -> Result<(), Stop<Refusal>> {
    let Some(expected) = expect else { return Ok(()) };
    let actual = instance.map_or(Revision(0), |instance| instance.modified);
    if actual == expected {
        return Ok(());
    }
    refuse(Refusal::RevisionMismatch {
        id: id.clone(),
        expected,
        actual,
    })
}

fn check_bulk(count: usize) -> Result<(), Stop<Refusal>> {
    if (1..=BULK_MAX).contains(&count) {
        Ok(())
    } else {
        refuse(Refusal::BulkLength { count })
    }
}

/// Whether `spec` can be registered as `id`.
pub(super) fn check_registered(id: &Id, spec: &Spec) -> Result<(), Stop<Refusal>> {
    check_label("service", &id.service)?;
    check_label("instance", &id.instance)?;
    check_address(id, spec.address)?;
    if spec.port == 0 {
        return refuse(Refusal::Port { id: id.clone() });
    }
    if let Some(name) = &spec.port_name {
        check_port_name(name)?;
    }
    check_count(id, Countable::Tags, spec.tags.len(), TAGS_MAX)?;
    for tag in &spec.tags {
        check_tag(tag)?;
    }
    check_count(id, Countable::Metadata, spec.metadata.len(), METADATA_PAIRS_MAX)?;
    for (key, value) in &spec.metadata {
        check_label_key("metadata key", key)?;
        if value.len() > METADATA_VALUE_BYTES_MAX {
            return refuse(Refusal::MetadataLength {
                id: id.clone(),
                key: key.clone(),
                length: value.len(),
            });
        }
    }
    check_time(id, Timing::Ttl, spec.ttl_ms, TTL_MS_MIN, TTL_MS_MAX)?;
    let after = spec.deregister_after_ms;
    check_time(
        id,
        Timing::DeregisterAfter,
        after,
        TTL_MS_MIN,
        DEREGISTER_AFTER_MS_MAX,
    )
}

fn check_address(id: &Id, address: IpAddr) -> Result<(), Stop<Refusal>> {
    let kind = match address {
        address if address.is_unspecified() => AddressKind::Unspecified,
        address if address.is_multicast() => AddressKind::Multicast,
        IpAddr::V4(address) if address.is_broadcast() => AddressKind::Broadcast,
        _ => return Ok(()),
    };
    let id = id.clone();
    refuse(Refusal::Address { id, address, kind })
}

/// A service name of RFC 6335 section 5.1, lower case: a label with a letter in it, so that it is never a number.
fn check_port_name(name: &str) -> Result<(), NameError> {
    const FIELD: &str = "port name";
    check_length(FIELD, name, PORT_NAME_BYTES_MAX)?;
    check_label(FIELD, name)?;
    if name.bytes().any(|b| b.is_ascii_lowercase()) && !name.contains("--") {
        return Ok(());
    }
    Err(NameError::Characters {
        field: FIELD.to_owned(),
        value: name.to_owned(),
        rule: "at least one letter, and no two `-` in a row".to_owned(),
    })
}

fn check_tag(tag: &str) -> Result<(), NameError> {
    const FIELD: &str = "tag";
    check_length(FIELD, tag, TAG_BYTES_MAX)?;
    if !tag.chars().any(char::is_control) {
        return Ok(());
    }
    Err(NameError::Characters {
        field: FIELD.to_owned(),
        value: tag.to_owned(),
        rule: "no control characters".to_owned(),
    })
}

fn check_count(id: &Id, what: Countable, count: usize, max: usize) -> Result<(), Stop<Refusal>> {
    if count <= max {
        return Ok(());
    }
    let id = id.clone();
    refuse(Refusal::TooMany { id, what, count, max })
}

fn check_time(id: &Id, what: Timing, ms: Option<u64>, min: u64, max: u64) -> Result<(), Stop<Refusal>> {
    let Some(ms) = ms.filter(|ms| !(min..=max).contains(ms)) else {
        return Ok(());
    };
    let id = id.clone();
    refuse(Refusal::Time {
        id,
        what,
        ms,
        min,
        max,
    })
}
