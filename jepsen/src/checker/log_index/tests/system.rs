//! A correct system, what its clients are told, and everything of it that may be broken.

use super::{command, entry, judge, put};
use crate::checker::log_index::{Claim, Level, Query, Said, check};
use crate::checker::testing::{Rng, cases, simulate};
use crate::checker::wgl::Fate;
use crate::final_state::Entry;
use crate::verdict::Finding;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A demand on a system that is correct.
#[derive(Debug, Clone)]
enum Ask {
    Put(String, String),
    Get(String),
    List,
}

/// A system that is correct: pairs, each with its revisions and its version, and a journal.
#[derive(Default)]
struct System {
    revision: u64,
    pairs: BTreeMap<String, Value>,
    journal: Vec<Entry>,
}

impl System {
    fn apply(&mut self, (number, ask): &(u64, Ask)) -> (u64, Value) {
        match ask {
            Ask::Get(key) => (self.revision, self.pairs.get(key).cloned().unwrap_or_default()),
            Ask::List => (self.revision, self.pairs.values().cloned().collect()),
            Ask::Put(key, value) => {
                self.revision += 1 + number % 2;
                let revision = self.revision;
                let before = self.pairs.get(key);
                let (created, version) = before.map_or((revision, 0), |pair| {
                    let number = |member: &str| pair[member].as_u64().expect("it is a number");
                    (number("created"), number("version"))
                });
                let pair = json!({
                    "key": key, "value": value, "created": created, "modified": revision, "version": version + 1,
                });
                self.pairs.insert(key.clone(), pair);
                let mut entry = entry(revision, vec![put(key, value)]);
                entry.command_id = command(*number);
                self.journal.push(entry);
                (revision, Value::Null)
            }
        }
    }
}

/// What clients of a system that is correct say, and its journal.
fn simulated(seed: u64) -> (Vec<Claim>, Vec<Entry>) {
    let mut system = System::default();
    let mut number = 0;
    let mut rng = Rng::new(seed);
    let history = simulate(
        &mut rng,
        5,
        120,
        &mut system,
        |rng, _| {
            number += 1;
            let key = format!("k{}", rng.below(4));
            let ask = match rng.below(5) {
                0..3 => Ask::Put(key, number.to_string()),
                3 => Ask::Get(key),
                _ => Ask::List,
            };
            (number, ask)
        },
        System::apply,
    );
    let mut claims = Vec::new();
    for call in history {
        let (number, ask) = call.input;
        let (completed_ns, said) = match (ask, call.fate) {
            (Ask::Put(key, value), Fate::Done { completed_ns, output }) => {
                let said = Said::Wrote {
                    command: command(number),
                    revision: output.0,
                    events: vec![put(&key, &value)],
                    answer: None,
                };
                (completed_ns, said)
            }
            (ask, Fate::Done { completed_ns, output }) => {
                let query = match ask {
                    Ask::Get(key) => Query::KvGet(key),
                    _ => Query::KvList("k".to_owned()),
                };
                let said = Said::Read {
                    level: Level::Linearizable,
                    revision: output.0,
                    answers: vec![(query, output.1)],
                };
                (completed_ns, said)
            }
            (Ask::Put(..), Fate::Failed) => (
                0,
                Said::Failed {
                    command: command(number),
                },
            ),
            (Ask::Put(..), Fate::Unknown) => (
                0,
                Said::Unknown {
                    command: command(number),
                },
            ),
            _ => continue,
        };
        claims.push(Claim {
            call: call.id,
            invoked_ns: call.invoked_ns,
            completed_ns,
            said,
        });
    }
    (claims, system.journal)
}

/// The claims that a write was done, by place, with its revision.
fn acknowledged(claims: &[Claim]) -> Vec<(usize, u64)> {
    let revision = |(place, claim): (usize, &Claim)| match claim.said {
        Said::Wrote { revision, .. } => Some((place, revision)),
        _ => None,
    };
    claims.iter().enumerate().filter_map(revision).collect()
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn what_a_correct_system_said_passes(seed: u64) {
        let (claims, journal) = simulated(seed);
        let findings = judge(&claims, &journal);
        prop_assert_eq!(findings.finding(), Finding::Pass, "{:?}", findings.violations);
    }

    #[test]
    fn what_is_gone_from_a_journal_is_found(seed: u64, pick: prop::sample::Index, node in 0..4usize) {
        let (claims, journal) = simulated(seed);
        let (_, revision) = *pick.get(&acknowledged(&claims));
        let mut cut = journal.clone();
        cut.retain(|entry| entry.revision != revision);
        let of = |which: usize| if node == which || node == 3 { &cut[..] } else { &journal[..] };
        let findings = check(&claims, &[(1, of(0)), (2, of(1)), (3, of(2))]);
        prop_assert!(findings.kinds().contains(&"lost-write"));
    }

    #[test]
    fn entries_that_change_come_twice_or_failed_are_found(seed: u64, pick: prop::sample::Index, what in 0..3) {
        let (mut claims, mut journal) = simulated(seed);
        let whole = journal.clone();
        let (place, revision) = *pick.get(&acknowledged(&claims));
        let kind = match what {
            0 => {
                let entry = journal.iter_mut().find(|entry| entry.revision == revision).expect("it is there");
                entry.events[0]["value"] = "other".into();
                "wrong-effect"
            }
            1 => {
                let mut again = journal.last().expect("there is one").clone();
                again.revision += 1;
                again.command_id = journal.iter().find(|entry| entry.revision == revision).expect("it is there").command_id;
                journal.push(again);
                "applied-twice"
            }
            _ => {
                let Said::Wrote { command, .. } = claims[place].said else { unreachable!("it was a write") };
                claims[place].said = Said::Failed { command };
                "failed-write"
            }
        };
        prop_assert!(judge(&claims, &journal).kinds().contains(&kind));
        if what < 2 {
            prop_assert!(check(&claims, &[(1, &whole), (2, &journal)]).kinds().contains(&"journals-differ"));
        }
    }

    #[test]
    fn acknowledgements_that_change_places_are_found(seed: u64, one: prop::sample::Index, other: prop::sample::Index) {
        let (mut claims, journal) = simulated(seed);
        let acknowledged = acknowledged(&claims);
        let ((one, first), (other, second)) = (*one.get(&acknowledged), *other.get(&acknowledged));
        prop_assume!(first != second);
        for (place, to) in [(one, second), (other, first)] {
            if let Said::Wrote { revision, .. } = &mut claims[place].said {
                *revision = to;
            }
        }
        prop_assert!(judge(&claims, &journal).kinds().contains(&"wrong-command"));
    }

    #[test]
    fn reads_that_are_changed_or_late_are_found(seed: u64, pick: prop::sample::Index, late: bool) {
        let (mut claims, journal) = simulated(seed);
        let newest = claims.iter().map(|claim| claim.completed_ns).max().unwrap_or(0);
        let last = journal.last().map_or(0, |entry| entry.revision);
        let mut reads: Vec<_> = claims.iter_mut().filter_map(|claim| {
            let Said::Read { revision, answers, .. } = &mut claim.said else { return None };
            Some((&mut claim.invoked_ns, &mut claim.completed_ns, *revision, answers))
        }).filter(|(_, _, revision, answers)| !late && !answers[0].1.is_null() && answers[0].1 != json!([]) || late && *revision < last).collect();
        prop_assume!(!reads.is_empty());
        let place = pick.index(reads.len());
        let (invoked, completed, _, answers) = &mut reads[place];
        if late {
            // It says what was so, and by then is so no more.
            **invoked = newest + 1;
            **completed = newest + 2;
        } else {
            let answer = &mut answers[0].1;
            let pair = if answer.is_array() { &mut answer[0] } else { answer };
            pair["value"] = "other".into();
        }
        let kinds = judge(&claims, &journal).kinds();
        // The last entry may be one of unknown outcome, which nobody was told of.
        let told = acknowledged(&claims).iter().any(|(_, revision)| *revision == last);
        prop_assert!(kinds.contains(&if late { "stale-read" } else { "wrong-answer" }) || late && !told, "{:?}", kinds);
    }
}
