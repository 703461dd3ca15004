//! Consuming a committed entry: duplicate check, `decide`, `evolve`, journal, reply. The only road by which state
//! changes, the same on every node.

use crate::codec;
use crate::command::{Accepted, Command, Context, Envelope, Event, Outcome, Refusal, Reply, Stop};
use crate::ids::Revision;
use crate::mutant::{self, Mutant};
use crate::store::{Fault, View};
use crate::system;
use crate::txn::Txn;
use crate::{deployments, journal, machines, objects, replies, services};

/// The largest encoded envelope, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 4 << 20;

/// The most commands in a batch.
pub const BATCH_COMMANDS_MAX: usize = 4096;

/// Applies the committed entry at `revision`, whose payload is an encoded [`Envelope`].
pub fn apply(txn: &mut Txn<'_>, revision: Revision, payload: &[u8]) -> Result<Outcome, Fault> {
    apply_envelope(txn, revision, decode(revision, payload)?)
}

/// The envelope in the payload of the entry at `revision`.
pub fn decode(revision: Revision, payload: &[u8]) -> Result<Envelope, Fault> {
    codec::decode(payload).map_err(|error| Fault::corrupt(format!("log entry {revision}: {error}")))
}

/// As [`apply`], for an envelope that is decoded already.
pub fn apply_envelope(txn: &mut Txn<'_>, revision: Revision, envelope: Envelope) -> Result<Outcome, Fault> {
    let mut clock = system::clock(txn)?;
    if revision <= clock.revision {
        return Err(Fault::invariant(format!(
            "entry {revision} comes after entry {} was applied",
            clock.revision
        )));
    }
    clock.revision = revision;
    clock.now = clock.now.max(envelope.proposed_at);
    replies::sweep(txn, &mut clock)?;
    system::set_clock(txn, &clock);

    if let Some(outcome) = replies::find(txn, envelope.command_id)?
        && !mutant::on(Mutant::DuplicateTableOff)
    {
        return Ok(outcome);
    }
    if let Err(refusal) = replies::check(envelope.command_id, clock.now) {
        return Ok(Outcome::Refused {
            revision,
            refusal: Refusal::System(refusal),
        });
    }
    let ctx = Context {
        revision,
        now: clock.now,
        actor: envelope.actor,
    };
    let outcome = match execute(txn, &ctx, &envelope.command) {
        Ok(Accepted { mut events, reply }) => {
            if mutant::on(Mutant::ApplyTwice)
                && let Ok(again) = execute(txn, &ctx, &envelope.command)
            {
                events.extend(again.events);
            }
            if !events.is_empty() {
                let Context { actor, now: at, .. } = ctx;
                let record = journal::Record {
                    at,
                    actor,
                    command_id: envelope.command_id,
                    events,
                };
                journal::append(txn, revision, &record)?;
            }
            Outcome::Accepted { revision, reply }
        }
        Err(Stop::Refuse(refusal)) => Outcome::Refused { revision, refusal },
        Err(Stop::Fault(fault)) => return Err(fault),
    };
    replies::keep(txn, envelope.command_id, &outcome);
    Ok(outcome)
}

/// Runs the whole path of `envelope` on throw-away state: what would fault here would stop every node once it is in
/// the log, so the leader tries it first. The outcome is only this view's; the log may decide otherwise.
pub fn rehearse(view: &dyn View, envelope: &Envelope) -> Result<(), Fault> {
    let clock = system::clock(view)?;
    let revision = Revision(clock.revision.0 + 1);
    let ctx = Context {
        revision,
        now: clock.now.max(envelope.proposed_at),
        actor: envelope.actor.clone(),
    };
    match execute(&mut Txn::new(view), &ctx, &envelope.command) {
        Ok(_) | Err(Stop::Refuse(_)) => Ok(()),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// Folds the events of one revision into `txn`: how a projection, a restored cluster or a test gets from the journal to
/// the rows of the domains. It does not write the machinery's own rows (clock, journal, replies).
pub fn replay(txn: &mut Txn<'_>, revision: Revision, record: &journal::Record) -> Result<(), Fault> {
    let ctx = Context {
        revision,
        now: record.at,
        actor: record.actor.clone(),
    };
    record
        .events
        .iter()
        .try_for_each(|event| evolve(txn, &ctx, event))
}

/// Decides and evolves `command`; a refusal leaves `txn` as it was.
fn execute(txn: &mut Txn<'_>, ctx: &Context, command: &Command) -> Result<Accepted<Event>, Stop<Refusal>> {
    let Command::Batch(commands) = command else {
        return step(txn, ctx, command);
    };
    let nested = commands
        .iter()
        .any(|command| matches!(command, Command::Batch(_)));
    if commands.is_empty() || commands.len() > BATCH_COMMANDS_MAX || nested {
        let refusal = system::Refusal::BatchShape {
            length: commands.len(),
            max: BATCH_COMMANDS_MAX,
        };
        return Err(Stop::Refuse(Refusal::System(refusal)));
    }
    let mut overlay = Txn::new(txn);
    let mut events = Vec::new();
    let mut replies = Vec::with_capacity(commands.len());
    for (index, command) in commands.iter().enumerate() {
        let accepted = step(&mut overlay, ctx, command).map_err(|stop| {
            stop.map(|refusal| Refusal::Batch {
                index,
                refusal: Box::new(refusal),
            })
        })?;
        events.extend(accepted.events);
        replies.push(accepted.reply);
    }
    let changes = overlay.into_changes();
    txn.merge(changes);
    Ok(Accepted {
        events,
        reply: Reply::Batch(replies),
    })
}

/// One command: decide on what is there, then evolve event by event.
fn step(txn: &mut Txn<'_>, ctx: &Context, command: &Command) -> Result<Accepted<Event>, Stop<Refusal>> {
    let accepted = decide(txn, ctx, command)?;
    for event in &accepted.events {
        evolve(txn, ctx, event)?;
    }
    Ok(accepted)
}

/// Chooses the events of one command, reading `view` and nothing else.
pub fn decide(view: &dyn View, ctx: &Context, command: &Command) -> Result<Accepted<Event>, Stop<Refusal>> {
    macro_rules! area {
        ($variant:ident, $decision:expr) => {
            match $decision {
                Ok(Accepted { events, reply }) => Ok(Accepted {
                    events: events.into_iter().map(Event::$variant).collect(),
                    reply,
                }),
                Err(stop) => Err(stop.map(Refusal::$variant)),
            }
        };
    }
    match command {
        Command::Batch(_) => unreachable!("batches are taken apart before, and refused where they nest"),
        Command::System(command) => area!(System, system::decide(view, ctx, command)),
        Command::Kv(command) => area!(Kv, services::kv::decide(view, ctx, command)),
        Command::Catalog(command) => area!(Catalog, services::catalog::decide(view, ctx, command)),
        Command::Registry(command) => area!(Registry, machines::registry::decide(view, ctx, command)),
        Command::Ipam(command) => area!(Ipam, machines::ipam::decide(view, ctx, command)),
        Command::Netboot(command) => area!(Netboot, machines::netboot::decide(view, ctx, command)),
        Command::Objects(command) => area!(Objects, objects::decide(view, ctx, command)),
        Command::Apps(command) => area!(Apps, deployments::apps::decide(view, ctx, command)),
        Command::Builds(command) => area!(Builds, deployments::builds::decide(view, ctx, command)),
        Command::Releases(command) => area!(Releases, deployments::releases::decide(view, ctx, command)),
        Command::Instances(command) => area!(Instances, deployments::instances::decide(view, ctx, command)),
    }
}

/// Writes one event: the only code that changes the state of the domains.
pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    match event {
        Event::System(event) => system::evolve(txn, event),
        Event::Kv(event) => services::kv::evolve(txn, ctx, event),
        Event::Catalog(event) => services::catalog::evolve(txn, ctx, event),
        Event::Registry(event) => machines::registry::evolve(txn, ctx, event),
        Event::Ipam(event) => machines::ipam::evolve(txn, ctx, event),
        Event::Netboot(event) => machines::netboot::evolve(txn, ctx, event),
        Event::Objects(event) => objects::evolve(txn, ctx, event),
        Event::Apps(event) => deployments::apps::evolve(txn, ctx, event),
        Event::Builds(event) => deployments::builds::evolve(txn, ctx, event),
        Event::Releases(event) => deployments::releases::evolve(txn, ctx, event),
        Event::Instances(event) => deployments::instances::evolve(txn, ctx, event),
    }
}
