//! What a command does to the disk: for a cluster that is short of room and takes what frees it, and no more.

use crate::command::Command;
use crate::{deployments, machines, objects, services};

/// How a command leaves the disk, coarsely and by its kind alone. Every command adds its entry to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Footprint {
    /// It deletes, or keeps the machinery going that does.
    Frees,
    /// It rewrites what is there: leases and health, steps of what is under way.
    Keeps,
    /// It adds.
    Grows,
}

use Footprint::{Frees, Grows, Keeps};

impl Command {
    /// What the command does to the disk: of a batch, the worst of its parts.
    pub fn footprint(&self) -> Footprint {
        match self {
            Command::Batch(commands) => commands.iter().map(Command::footprint).max().unwrap_or(Frees),
            // Of a compaction, too: what follows from it each node does as it has room.
            Command::System(_) => Frees,
            Command::Kv(command) => kv(command),
            Command::Catalog(command) => catalog(command),
            Command::Registry(command) => registry(command),
            Command::Ipam(command) => match command {
                machines::ipam::Command::SetPlan { .. } => Grows,
                machines::ipam::Command::ClearPlan { .. } => Frees,
            },
            Command::Netboot(command) => match command {
                machines::netboot::Command::SetTemplate { .. } => Grows,
                machines::netboot::Command::DeleteTemplate { .. } => Frees,
            },
            Command::Objects(command) => match command {
                objects::Command::Commit { .. } => Grows,
                objects::Command::AllocateOids { .. } => Keeps,
            },
            Command::Apps(command) => apps(command),
            Command::Builds(command) => builds(command),
            Command::Releases(command) => match command {
                deployments::releases::Command::Create { .. } => Grows,
                deployments::releases::Command::Forget { .. } => Frees,
            },
            Command::Instances(command) => instances(command),
        }
    }
}

fn kv(command: &services::kv::Command) -> Footprint {
    use services::kv::{Command, Op};
    match command {
        Command::Put { .. } => Grows,
        Command::Delete { .. } => Frees,
        Command::Txn { then, otherwise, .. } => {
            let puts = |op: &Op| matches!(op, Op::Put { .. });
            if then.iter().chain(otherwise).any(puts) {
                Grows
            } else {
                Frees
            }
        }
    }
}

fn catalog(command: &services::catalog::Command) -> Footprint {
    use services::catalog::Command;
    match command {
        Command::Register { .. } => Grows,
        Command::Renew { .. } | Command::SetHealth { .. } | Command::SetMaintenance { .. } => Keeps,
        Command::Deregister { .. } | Command::Expire { .. } => Frees,
    }
}

fn registry(command: &machines::registry::Command) -> Footprint {
    use machines::registry::Command;
    match command {
        Command::Register { .. } | Command::Declare { .. } | Command::SetLabels { .. } => Grows,
        Command::SetState { .. } | Command::Retire { .. } => Keeps,
        Command::Delete { .. } => Frees,
    }
}

fn apps(command: &deployments::apps::Command) -> Footprint {
    use deployments::apps::Command;
    match command {
        Command::Set { .. } => Grows,
        Command::Start { .. } => Keeps,
        Command::Stop { .. } | Command::Delete { .. } | Command::Remove { .. } => Frees,
    }
}

fn builds(command: &deployments::builds::Command) -> Footprint {
    use deployments::builds::Command;
    match command {
        Command::Queue { .. } => Grows,
        Command::Start { .. } | Command::Finish { .. } => Keeps,
        Command::Forget { .. } => Frees,
    }
}

/// What ends and is forgotten is what deleting an app waits for.
fn instances(command: &deployments::instances::Command) -> Footprint {
    use deployments::instances::Command;
    match command {
        Command::Deploy { .. } | Command::Rollback { .. } => Grows,
        Command::Restart { .. } | Command::Assign { .. } => Keeps,
        Command::Advance { .. }
        | Command::Fail { .. }
        | Command::ReportEnded { .. }
        | Command::Halt { .. }
        | Command::Forget { .. } => Frees,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::kv::{self, Key, Op, Selection};

    #[test]
    fn a_batch_is_as_large_as_its_largest_part() {
        let key = || Key(b"key".to_vec());
        let delete = || {
            Command::Kv(kv::Command::Delete {
                keys: Selection::Key(key()),
                expect: None,
            })
        };
        let put = Command::Kv(kv::Command::Put {
            key: key(),
            value: Vec::new(),
            expect: None,
        });
        assert_eq!(Command::Batch(vec![delete(), delete()]).footprint(), Frees);
        assert_eq!(Command::Batch(vec![delete(), put]).footprint(), Grows);
        let txn = |then| {
            Command::Kv(kv::Command::Txn {
                compares: Vec::new(),
                then,
                otherwise: Vec::new(),
            })
        };
        assert_eq!(txn(vec![Op::Get(key())]).footprint(), Frees);
        let value = Vec::new();
        assert_eq!(txn(vec![Op::Put { key: key(), value }]).footprint(), Grows);
    }
}
