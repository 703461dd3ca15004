//! What holds for any commands in any order: the promises that replication rests on.
//!
//! A case mixes commands made up from bytes (`testing::generate`, for every area) with those of the golden scripts, whose
//! order leads to states that chance would not find.

#[path = "../scripts/notation.rs"]
mod notation;

use onward_statemachine::digest::StateHash;
use onward_statemachine::{
    Actor, Command, CommandId, Envelope, MemoryStore, Millis, Outcome, Refusal, Revision, Txn, apply, check,
    codec, hash, history, journal, keys, system, testing::generate,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Commands of scripts that encode to more are left to the scripts.
const SCRIPT_COMMAND_BYTES_MAX: usize = 16 << 10;

/// One entry of the log to be.
#[derive(Debug, Clone)]
enum Step {
    /// A command made up from these bytes.
    MadeUp(Vec<u8>),
    /// Several of those in one batch.
    Batch(Vec<Vec<u8>>),
    /// The next command of one of the scripts that this case plays.
    Script(prop::sample::Index),
    /// An earlier entry again, under its id.
    Again(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..48);
    let step = prop_oneof![
        6 => bytes().prop_map(Step::MadeUp),
        2 => prop::collection::vec(bytes(), 0..4).prop_map(Step::Batch),
        6 => any::<prop::sample::Index>().prop_map(Step::Script),
        1 => any::<prop::sample::Index>().prop_map(Step::Again),
    ];
    let pause_ms = prop_oneof![4 => Just(0), 4 => Just(1000), 1 => Just(61_000)];
    prop::collection::vec((step, pause_ms), 1..60)
}

/// The commands of each script, in order.
fn scripts() -> Vec<Vec<Command>> {
    fn below(folder: &Path, found: &mut Vec<Vec<Command>>) {
        let mut entries: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder of the scripts is readable")
            .map(|entry| entry.expect("its entries are too").path())
            .collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                below(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a script is readable");
            let lines = notation::lines(&text);
            let commands = lines.iter().filter(|(_, line)| line.starts_with('>'));
            let commands = commands.map(|(_, line)| notation::command(line).expect("scripts are tested too"));
            found.push(
                commands
                    .filter(|it| codec::encode(it).len() <= SCRIPT_COMMAND_BYTES_MAX)
                    .collect(),
            );
        }
    }
    let mut found = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"), &mut found);
    found
}

/// The log that `steps` come to.
fn log(steps: &[(Step, u64)], scripts: &[&[Command]]) -> Vec<Envelope> {
    let mut cursors = vec![0; scripts.len()];
    let mut now = Millis(1_000_000);
    let mut log: Vec<Envelope> = Vec::new();
    for (step, pause_ms) in steps {
        now = now.plus(*pause_ms);
        let command = match step {
            Step::MadeUp(bytes) => generate::command(bytes),
            Step::Batch(batch) => {
                let commands = batch.iter().filter_map(|bytes| generate::command(bytes));
                Some(Command::Batch(commands.collect()))
            }
            Step::Script(index) => {
                let script = index.index(scripts.len());
                let command = scripts[script].get(cursors[script]).cloned();
                cursors[script] += 1;
                command
            }
            Step::Again(index) => {
                if !log.is_empty() {
                    let mut envelope = log[index.index(log.len())].clone();
                    envelope.proposed_at = now;
                    log.push(envelope);
                }
                continue;
            }
        };
        let Some(command) = command.filter(|command| !is_beyond_this_build(command)) else {
            continue;
        };
        let mut random = [0; 10];
        random[2..].copy_from_slice(&(log.len() as u64).to_be_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid();
        log.push(Envelope {
            command_id: CommandId(id),
            actor: Actor::new("cli:tester"),
            proposed_at: now,
            command,
        });
    }
    log
}

/// A level that this build does not know is a fault by design; the leader's rehearsal keeps it out of the log.
fn is_beyond_this_build(command: &Command) -> bool {
    match command {
        Command::Batch(commands) => commands.iter().any(is_beyond_this_build),
        Command::System(system::Command::RaiseFeatureLevel { level }) => *level > system::FEATURE_LEVEL_MAX,
        _ => false,
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What commands and events make, without the clock, the journal and its measure, the replies kept for duplicates, and
/// the base.
fn domain_rows(store: &MemoryStore) -> Rows {
    let machinery = |key: &[u8]| {
        matches!(
            key,
            [
                keys::JOURNAL | keys::REPLIES | keys::JOURNAL_MARKS | keys::BASE,
                ..
            ] | [keys::SYSTEM, 1 | 5]
        )
    };
    let rows = store.rows().filter(|(key, _)| !machinery(key));
    rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn revision(place: usize) -> Revision {
    Revision(place as u64 + 1)
}

/// Applies the entry at `place`, or leaves the store as it was where that is a fault.
fn apply_one(store: &mut MemoryStore, place: usize, envelope: &Envelope) -> Option<Outcome> {
    let mut txn = Txn::new(store);
    let outcome = apply::apply(&mut txn, revision(place), &codec::encode(envelope)).ok()?;
    let changes = txn.into_changes();
    store.write(changes);
    Some(outcome)
}

/// Applies entry by entry, and checks what must hold after each.
fn live(log: &[Envelope]) -> Result<(MemoryStore, Vec<Outcome>), TestCaseError> {
    let mut store = MemoryStore::default();
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (place, envelope) in log.iter().enumerate() {
        let shown = notation::show(&envelope.command);
        let before = store.clone();
        let outcome = apply_one(&mut store, place, envelope);
        prop_assert!(outcome.is_some(), "a fault from {shown}");
        let outcome = outcome.expect("it was just found");
        let first = log
            .iter()
            .position(|earlier| earlier.command_id == envelope.command_id);
        let duplicate = first.filter(|first| *first < place);
        if let Some(first) = duplicate {
            prop_assert_eq!(
                &outcome,
                &outcomes[first],
                "a retry is answered otherwise: {}",
                shown
            );
        }
        if duplicate.is_some() || matches!(outcome, Outcome::Refused { .. }) {
            prop_assert_eq!(domain_rows(&store), domain_rows(&before), "changed by {}", shown);
        }
        if let (Command::Batch(commands), Outcome::Refused { refusal, .. }) = (&envelope.command, &outcome)
            && duplicate.is_none()
        {
            refused_where_it_says(&before, place, envelope, commands, refusal)?;
        }
        let violations = check::check(&store).expect("the store is sound");
        prop_assert!(violations.is_empty(), "after {shown}: {violations:?}");
        outcomes.push(outcome);
    }
    Ok((store, outcomes))
}

/// A batch that was refused for one of its commands is accepted up to that one, and refused with it.
fn refused_where_it_says(
    before: &MemoryStore,
    place: usize,
    envelope: &Envelope,
    commands: &[Command],
    refusal: &Refusal,
) -> Result<(), TestCaseError> {
    let Refusal::Batch { index, .. } = refusal else {
        return Ok(());
    };
    let part = |length: usize| Envelope {
        command: Command::Batch(commands[..length].to_vec()),
        ..envelope.clone()
    };
    let outcome = apply_one(&mut before.clone(), place, &part(index + 1));
    let same = matches!(&outcome, Some(Outcome::Refused { refusal: again, .. }) if again == refusal);
    prop_assert!(
        same,
        "refused for command {index} of {commands:?}, and up to there: {outcome:?}"
    );
    if *index > 0 {
        let outcome = apply_one(&mut before.clone(), place, &part(*index));
        let accepted = matches!(outcome, Some(Outcome::Accepted { .. }));
        prop_assert!(
            accepted,
            "refused for command {index} of {commands:?}, and before it: {outcome:?}"
        );
    }
    Ok(())
}

/// Several entries in one overlay, as a node applies them, with the overlays ending where `ends` says.
fn in_batches(log: &[Envelope], ends: &[bool]) -> (MemoryStore, Vec<Outcome>, StateHash) {
    let mut store = MemoryStore::default();
    let mut hash = StateHash::default();
    hash.mark();
    let mut outcomes = Vec::new();
    let mut place = 0;
    while place < log.len() {
        let mut txn = Txn::new(&store);
        loop {
            let payload = codec::encode(&log[place]);
            let outcome = apply::apply(&mut txn, revision(place), &payload).expect("no fault, as before");
            hash.take_entry(&txn, log[place].command_id, &outcome, revision(place));
            outcomes.push(outcome);
            place += 1;
            if place == log.len() || ends[place % ends.len()] {
                break;
            }
        }
        let changes = txn.into_changes();
        hash.take_changes(&store, &changes).expect("memory never fails");
        store.write(changes);
    }
    (store, outcomes, hash)
}

/// The fold of the journal's events over nothing.
fn folded(store: &MemoryStore, entries: usize) -> MemoryStore {
    let mut folded = MemoryStore::default();
    for revision in (0..entries).map(revision) {
        if let Some(record) = journal::at(store, revision).expect("the store is sound") {
            let mut txn = Txn::new(&folded);
            apply::replay(&mut txn, revision, &record).expect("what was applied can be replayed");
            let changes = txn.into_changes();
            folded.write(changes);
        }
    }
    folded
}

/// The rows of the domains after each entry, as they were when it was applied.
fn as_they_were(log: &[Envelope]) -> Vec<Rows> {
    let mut store = MemoryStore::default();
    let mut rows = vec![domain_rows(&store)];
    for (place, envelope) in log.iter().enumerate() {
        apply_one(&mut store, place, envelope);
        rows.push(domain_rows(&store));
    }
    rows
}

/// The state as of any revision that is kept is what it was then, wherever the base stands and in whatever steps it
/// came there; and nothing of that shows in the state itself.
fn the_past_is_as_it_was(
    log: &[Envelope],
    store: &MemoryStore,
    base: usize,
    steps: usize,
) -> Result<(), TestCaseError> {
    let were = as_they_were(log);
    let mut store = store.clone();
    let (hash, present) = (hash::state_hash(&store).ok(), domain_rows(&store));
    let base = Revision(base as u64);
    while history::base_revision(&store) != Ok(base) {
        let folded =
            history::fold(&history::Base(&store), &store, base, steps).expect("the journal is whole");
        prop_assert!(folded.records <= steps);
        let changes = history::to_base(folded.changes);
        store.write(changes);
    }
    let (from, to) = journal::range_below(Revision(base.0 + 1));
    let rows = store.rows();
    let gone = rows.filter(|(key, _)| (&from[..]..&to[..]).contains(key));
    let gone = gone.map(|(key, _)| (key.to_vec(), None)).collect();
    store.write(gone);
    prop_assert_eq!(domain_rows(&store), present);
    if base.0 == 0 {
        prop_assert_eq!(hash::state_hash(&store).ok(), hash);
    }
    prop_assert!(check::check(&store).expect("the store is sound").is_empty());
    // A few of them, the first and the last kept among these.
    let kept = were.iter().enumerate().skip(base.0 as usize);
    let stride = (were.len() - base.0 as usize).div_ceil(6).max(1);
    for (at, rows) in kept.clone().step_by(stride).chain(kept.last()) {
        let past = history::in_memory(&store, Revision(at as u64)).expect("what was applied can be folded");
        prop_assert_eq!(
            &domain_rows(&past),
            rows,
            "as of {}, with the base at {}",
            at,
            base
        );
        prop_assert_eq!(system::clock(&past).map(|clock| clock.revision.0), Ok(at as u64));
    }
    Ok(())
}

/// How often each area's commands were accepted and refused, so that a generator that only makes nonsense is noticed.
type Tally = BTreeMap<String, [u32; 2]>;

fn area(command: &Command) -> String {
    let name = notation::show(command);
    name.split(['.', ' ']).next().unwrap_or_default().to_owned()
}

fn count(tally: &mut Tally, log: &[Envelope], outcomes: &[Outcome]) {
    for (envelope, outcome) in log.iter().zip(outcomes) {
        let refused = matches!(outcome, Outcome::Refused { .. });
        tally.entry(area(&envelope.command)).or_default()[usize::from(refused)] += 1;
    }
}

#[test]
fn any_log_leads_every_replica_to_the_same_state() {
    let scripts = scripts();
    let tally = RefCell::new(Tally::new());
    let ends = prop::collection::vec(any::<bool>(), 1..8);
    // Few scripts, so that each gets on.
    let played = prop::collection::vec(any::<prop::sample::Index>(), 1..4);
    let mut runner = TestRunner::new(Config {
        cases: 192,
        failure_persistence: None,
        ..Config::default()
    });
    let base = (any::<prop::sample::Index>(), 1usize..8);
    let result = runner.run(&(steps(), ends, played, base), |(steps, ends, played, base)| {
        let played: Vec<&[Command]> = played
            .iter()
            .map(|index| index.get(&scripts).as_slice())
            .collect();
        let log = log(&steps, &played);
        let (store, outcomes) = live(&log)?;
        let (again, outcomes_again, hash_again) = in_batches(&log, &[true]);
        prop_assert_eq!(&outcomes, &outcomes_again, "a replay answers otherwise");
        prop_assert!(store == again, "a replay leads to other rows");
        let (batched, outcomes_batched, kept) = in_batches(&log, &ends);
        prop_assert_eq!(&outcomes, &outcomes_batched, "batches answer otherwise");
        prop_assert!(store == batched, "batches lead to other rows");
        prop_assert_eq!(hash::state_hash(&store).ok(), hash::state_hash(&batched).ok());
        prop_assert_eq!(kept, hash_again, "the hash that is kept depends on the batches");
        let scanned = StateHash::scan(&batched).expect("memory never fails");
        prop_assert!(
            kept.has_rows_of(&scanned),
            "the hash that is kept is not that of the rows"
        );
        let folded = folded(&store, log.len());
        prop_assert_eq!(
            domain_rows(&folded),
            domain_rows(&store),
            "the fold of the events is not the state"
        );
        let (base, at_once) = (base.0.index(log.len() + 1), base.1);
        the_past_is_as_it_was(&log, &store, base, at_once)?;
        count(&mut tally.borrow_mut(), &log, &outcomes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let tally = tally.into_inner();
    let in_scripts: BTreeSet<String> = scripts.iter().flatten().map(area).collect();
    for area in in_scripts {
        let counts = tally.get(&area).copied().unwrap_or_default();
        assert!(!counts.contains(&0), "{area}, accepted and refused: {tally:?}");
    }
}
