//! Running a script.
//!
//! | a line | does |
//! |---|---|
//! | `# text` | nothing |
//! | `> COMMAND` | proposes the command, which goes on over the lines below that begin with `>` and two spaces |
//! | `again` | proposes the last command again, under the same id |
//! | `after 5s` | lets log time go on (ms, s, m, h) |
//! | `as cli:alice` | proposes as somebody else from here on |
//! | `under UUID` | proposes the next command under this id |
//!
//! Log time begins at 1000 s and stands still between commands. What the state machine answers is indented below the
//! command: the outcome, the events, and the rows that were added (`+`), changed (`~`) and taken away (`-`).

use crate::notation;
use crate::variants::Names;
use onward_statemachine::{
    Actor, CommandId, Envelope, MemoryStore, Millis, Outcome, Revision, Txn, apply, check, codec, dump,
    journal, keys,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use uuid::Uuid;

/// Of a long list of events or rows, this many are shown.
const SHOWN_MAX: usize = 8;
/// A longer line is cut.
const LINE_CHARS_MAX: usize = 300;

/// What came of a script.
pub struct Run {
    /// The script with the answers of this run.
    pub text: String,
    /// The rules that were broken on the way.
    pub violations: Vec<String>,
    /// What it showed.
    pub names: Names,
}

/// The state machine, and who talks to it.
struct Stage {
    store: MemoryStore,
    revision: Revision,
    now: Millis,
    actor: Actor,
    next_id: Option<CommandId>,
    last: Option<Envelope>,
    proposals: u64,
    log: crc32fast::Hasher,
    run: Run,
}

impl Run {
    /// Runs `script`.
    pub fn of(script: &str) -> Result<Run, String> {
        let mut stage = Stage {
            store: MemoryStore::default(),
            revision: Revision(0),
            now: Millis(1_000_000),
            actor: Actor::new("cli:tester"),
            next_id: None,
            last: None,
            proposals: 0,
            log: crc32fast::Hasher::new(),
            run: Run {
                text: String::new(),
                violations: Vec::new(),
                names: Names::default(),
            },
        };
        for (number, line) in notation::lines(script) {
            let _ = writeln!(stage.run.text, "{line}");
            stage
                .line(&line)
                .map_err(|error| format!("line {number}: {error}"))?;
        }
        stage.finish();
        Ok(stage.run)
    }
}

impl Stage {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if line.starts_with('>') {
            let command = notation::command(line)?;
            self.run.names.command(&command);
            let envelope = Envelope {
                command_id: self.command_id(),
                actor: self.actor.clone(),
                proposed_at: self.now,
                command,
            };
            return self.propose(envelope);
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" | "#" => {}
            "again" => {
                let mut envelope = self.last.clone().ok_or("there is no command before")?;
                envelope.proposed_at = self.now;
                return self.propose(envelope);
            }
            "after" => self.now = self.now.plus(duration_ms(rest)?),
            "as" => self.actor = Actor::new(rest),
            "under" => {
                let id = Uuid::parse_str(rest).map_err(|error| error.to_string())?;
                self.next_id = Some(CommandId(id));
            }
            _ => return Err(format!("`{line}` is no line of a script")),
        }
        Ok(())
    }

    /// Ids as a client makes them, with a counter in place of the random part.
    fn command_id(&mut self) -> CommandId {
        self.proposals += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.proposals.to_be_bytes());
        let fresh = uuid::Builder::from_unix_timestamp_millis(self.now.0, &random).into_uuid();
        self.next_id.take().unwrap_or(CommandId(fresh))
    }

    fn propose(&mut self, envelope: Envelope) -> Result<(), String> {
        self.revision.0 += 1;
        let payload = codec::encode(&envelope);
        self.log.update(&payload);
        self.last = Some(envelope);
        let before = self.rows();
        let mut txn = Txn::new(&self.store);
        let outcome = apply::apply(&mut txn, self.revision, &payload).map_err(|fault| fault.to_string())?;
        let changes = txn.into_changes();
        self.store.write(changes);
        self.show_outcome(&outcome);
        let record = journal::at(&self.store, self.revision).map_err(|fault| fault.to_string())?;
        let events = record.map(|record| record.events).unwrap_or_default();
        for event in &events {
            self.run.names.event(event);
        }
        let shown = |event| format!("event {}", notation::show(event));
        self.show_some(&events.iter().map(shown).collect::<Vec<String>>());
        let after = self.rows();
        self.show_some(&difference(&before, &after)?);
        self.check()
    }

    fn show_outcome(&mut self, outcome: &Outcome) {
        let line = match outcome {
            Outcome::Accepted { revision, reply } => match notation::show(reply).as_str() {
                "None" => format!("accepted at {revision}"),
                reply => format!("accepted at {revision}: {reply}"),
            },
            Outcome::Refused { revision, refusal } => {
                let name = self.run.names.refusal(refusal);
                format!("refused at {revision}, {name}: {refusal}")
            }
        };
        self.show(&line);
    }

    fn show_some(&mut self, lines: &[String]) {
        for line in lines.iter().take(SHOWN_MAX) {
            self.show(line);
        }
        if lines.len() > SHOWN_MAX {
            self.show(&format!("... and {} more", lines.len() - SHOWN_MAX));
        }
    }

    fn show(&mut self, line: &str) {
        let count = line.chars().count();
        let mut shown: String = line.chars().take(LINE_CHARS_MAX).collect();
        if count > LINE_CHARS_MAX {
            let _ = write!(shown, "... ({} characters more)", count - LINE_CHARS_MAX);
        }
        let _ = writeln!(self.run.text, "  {shown}");
    }

    fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        rows(&self.store)
    }

    fn check(&mut self) -> Result<(), String> {
        let violations = check::check(&self.store).map_err(|fault| fault.to_string())?;
        for violation in violations {
            let line = format!("VIOLATION of {}: {}", violation.area, violation.what);
            self.show(&line);
            self.run.violations.push(line);
        }
        Ok(())
    }

    /// The fold of the events is the state; and the checksums that pin what is stored.
    fn finish(&mut self) {
        let mut folded = MemoryStore::default();
        for revision in (1..=self.revision.0).map(Revision) {
            let Ok(Some(record)) = journal::at(&self.store, revision) else {
                continue;
            };
            let mut txn = Txn::new(&folded);
            apply::replay(&mut txn, revision, &record).expect("what was applied can be replayed");
            let changes = txn.into_changes();
            folded.write(changes);
        }
        let rows = self.rows();
        if self::rows(&folded) != rows {
            let line = "VIOLATION of all: the fold of the events is not the state".to_owned();
            self.show(&line);
            self.run.violations.push(line);
        }
        let mut sums = [crc32fast::Hasher::new(), crc32fast::Hasher::new()];
        for (key, value) in self.store.rows() {
            let journal = dump::row(key, value).is_ok_and(|row| row.table == "journal");
            let sum = &mut sums[usize::from(journal)];
            sum.update(key);
            sum.update(value);
        }
        let [rows, journal] = sums.map(crc32fast::Hasher::finalize);
        let log = self.log.clone().finalize();
        self.show(&format!(
            "= bytes: log {log:08x}, journal {journal:08x}, rows {rows:08x}"
        ));
    }
}

fn difference(
    before: &BTreeMap<Vec<u8>, Vec<u8>>,
    after: &BTreeMap<Vec<u8>, Vec<u8>>,
) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let mut keys: Vec<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (sign, value) = match (before.get(key), after.get(key)) {
            (None, Some(value)) => ('+', value),
            (Some(old), Some(value)) if old != value => ('~', value),
            (Some(old), None) => ('-', old),
            _ => continue,
        };
        let dump::Row { table, key, value } = dump::row(key, value).map_err(|fault| fault.to_string())?;
        let head = format!("{sign} {table} {key}").trim_end().to_owned();
        lines.push(match sign {
            '-' => head,
            _ => format!("{head}: {value}"),
        });
    }
    Ok(lines)
}

fn duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` is not a time as 5s or 15m")),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a time as 5s or 15m"))?;
    Ok(count * unit)
}

/// What commands and events make, which leaves out the clock, the journal with its measure, and the replies kept for
/// duplicates.
fn rows(store: &MemoryStore) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let machinery = |key: &[u8]| {
        matches!(
            key,
            [keys::JOURNAL | keys::REPLIES | keys::JOURNAL_MARKS, ..] | [keys::SYSTEM, 1 | 5]
        )
    };
    let rows = store.rows().filter(|(key, _)| !machinery(key));
    rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}
