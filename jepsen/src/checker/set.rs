//! Sets that only grow: what was added stays, and nothing else is there.
//!
//! Every element is added once. Of an addition of unknown outcome, any look may or may not see the element, but once
//! one did, those that begin later do as well.

use super::{Findings, Violation};
use crate::history::{Outcome, TimeNs};
use std::collections::{BTreeMap, BTreeSet};

/// An element was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Add {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// To which set.
    pub set: u64,
    /// The element.
    pub element: u64,
    /// When it was asked for.
    pub invoked_ns: TimeNs,
    /// When it was answered; of no meaning unless it took place.
    pub completed_ns: Option<TimeNs>,
    /// What is known of it.
    pub outcome: Outcome,
}

/// Somebody looked at a whole set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Which call it is; none for the last look of all.
    pub call: Option<u64>,
    /// At which set.
    pub set: u64,
    /// When it was asked for.
    pub invoked_ns: TimeNs,
    /// When it was answered.
    pub completed_ns: TimeNs,
    /// What was there.
    pub elements: Vec<u64>,
}

impl Look {
    fn name(&self) -> String {
        match self.call {
            Some(call) => format!("call {call}"),
            None => "the last look".to_owned(),
        }
    }
}

/// What is known of an element.
struct Element {
    /// Since when it must be there, and the call that says so.
    since: Option<(TimeNs, Option<u64>)>,
    /// The call that added it.
    add: Add,
}

/// Whether the sets lost, made up or doubled anything. Looks are linearizable reads.
pub fn check(adds: &[Add], looks: &[Look]) -> Findings {
    let looked_at = format!("{} additions and {} looks", adds.len(), looks.len());
    let mut findings = Findings::new(looked_at, looks.len());
    let mut sets: BTreeMap<u64, BTreeMap<u64, Element>> = BTreeMap::new();
    for add in adds {
        let done = (add.outcome == Outcome::Ok).then_some(add.completed_ns).flatten();
        let element = Element {
            since: done.map(|done| (done, Some(add.call))),
            add: *add,
        };
        if sets
            .entry(add.set)
            .or_default()
            .insert(add.element, element)
            .is_some()
        {
            let why = format!("{} is added to set {} twice", add.element, add.set);
            findings.undecided.push(why);
        }
    }
    for look in looks {
        let set = sets.entry(look.set).or_default();
        let mut seen = BTreeSet::new();
        for value in &look.elements {
            let mut report = |kind, what: &str, other: Option<u64>| {
                let summary = format!("{} saw {value} in set {}, {what}", look.name(), look.set);
                findings.violations.push(violation(kind, summary, look, other));
            };
            if !seen.insert(*value) {
                report("duplicate", "twice", None);
            }
            match set.get_mut(value) {
                None => report("phantom", "which nobody added", None),
                Some(Element { add, .. }) if add.outcome == Outcome::Fail => {
                    report("phantom", "whose addition failed", Some(add.call));
                }
                Some(Element { add, .. }) if look.completed_ns < add.invoked_ns => {
                    report("phantom", "before anybody asked for it", Some(add.call));
                }
                Some(element) => {
                    let known = element.since.is_some_and(|(since, _)| since <= look.completed_ns);
                    if !known {
                        element.since = Some((look.completed_ns, look.call));
                    }
                }
            }
        }
    }
    for look in looks {
        let seen: BTreeSet<_> = look.elements.iter().collect();
        for (value, element) in &sets[&look.set] {
            let Some((since, by)) = element.since.filter(|(since, _)| *since < look.invoked_ns) else {
                continue;
            };
            if !seen.contains(value) {
                let summary = format!(
                    "{} missed {value} in set {}, which was there {} ms before",
                    look.name(),
                    look.set,
                    (look.invoked_ns - since) / 1_000_000
                );
                findings.violations.push(violation("lost", summary, look, by));
            }
        }
    }
    findings
}

fn violation(kind: &'static str, summary: String, look: &Look, other: Option<u64>) -> Violation {
    let calls: Vec<u64> = other.into_iter().chain(look.call).collect();
    Violation::new(kind, summary, calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::testing::{Rng, cases, simulate};
    use crate::checker::wgl::Fate;
    use crate::verdict::Finding;
    use proptest::prelude::*;

    fn add(element: u64, from: u64, to: u64) -> Add {
        Add {
            call: element,
            set: 0,
            element,
            invoked_ns: from,
            completed_ns: Some(to),
            outcome: Outcome::Ok,
        }
    }

    fn look(from: u64, to: u64, elements: &[u64]) -> Look {
        Look {
            call: Some(100 + from),
            set: 0,
            invoked_ns: from,
            completed_ns: to,
            elements: elements.to_vec(),
        }
    }

    #[test]
    fn elements_stay_once_they_are_there() {
        let info = Add {
            outcome: Outcome::Info,
            ..add(2, 5, 6)
        };
        let fail = Add {
            outcome: Outcome::Fail,
            ..add(3, 5, 6)
        };
        let adds = [add(1, 0, 10), info, fail];
        let kinds = |looks: &[Look]| check(&adds, looks).kinds();
        assert_eq!(kinds(&[look(20, 30, &[1]), look(40, 50, &[1, 2])]), [""; 0]);
        assert_eq!(kinds(&[look(5, 30, &[])]), [""; 0]);
        assert_eq!(kinds(&[look(20, 30, &[])]), ["lost"]);
        assert_eq!(kinds(&[look(20, 30, &[1, 2]), look(40, 50, &[1])]), ["lost"]);
        assert_eq!(kinds(&[look(25, 45, &[1]), look(20, 30, &[1, 2])]), [""; 0]);
        assert_eq!(kinds(&[look(20, 30, &[1, 1])]), ["duplicate"]);
        assert_eq!(kinds(&[look(20, 30, &[1, 3])]), ["phantom"]);
        assert_eq!(kinds(&[look(20, 30, &[1, 4])]), ["phantom"]);
        assert_eq!(kinds(&[look(1, 2, &[2])]), ["phantom"]);
        assert_eq!(check(&adds, &[]).finding(), Finding::Unknown);
    }

    fn simulated(seed: u64) -> (Vec<Add>, Vec<Look>) {
        let mut next = 0;
        let history = simulate(
            &mut Rng::new(seed),
            5,
            100,
            &mut Vec::new(),
            |rng, _| {
                next += 1;
                (!rng.percent(20)).then_some(next)
            },
            |set: &mut Vec<u64>, element| {
                set.extend(element);
                set.clone()
            },
        );
        let (mut adds, mut looks) = (Vec::new(), Vec::new());
        for call in history {
            let (outcome, completed_ns) = match call.fate {
                Fate::Done { completed_ns, .. } => (Outcome::Ok, Some(completed_ns)),
                Fate::Failed => (Outcome::Fail, None),
                Fate::Unknown => (Outcome::Info, None),
            };
            match (call.input, call.fate) {
                (Some(element), _) => adds.push(Add {
                    call: call.id,
                    set: 0,
                    element,
                    invoked_ns: call.invoked_ns,
                    completed_ns,
                    outcome,
                }),
                (None, Fate::Done { completed_ns, output }) => looks.push(Look {
                    call: Some(call.id),
                    set: 0,
                    invoked_ns: call.invoked_ns,
                    completed_ns,
                    elements: output,
                }),
                _ => {}
            }
        }
        (adds, looks)
    }

    proptest! {
        #![proptest_config(cases(100))]

        #[test]
        fn what_is_lost_made_up_or_doubled_is_found(seed: u64, pick: prop::sample::Index, what in 0..4) {
            let (adds, mut looks) = simulated(seed);
            prop_assert!(check(&adds, &looks).violations.is_empty());
            let late = |look: &Look, element: &u64| adds.iter().any(|add| {
                add.element == *element && add.outcome == Outcome::Ok && add.completed_ns < Some(look.invoked_ns)
            });
            let sure: Vec<_> = looks.iter().enumerate().flat_map(|(place, look)| {
                look.elements.iter().filter(|element| late(look, element)).map(move |element| (place, *element))
            }).collect();
            prop_assume!(!sure.is_empty());
            let (place, element) = *pick.get(&sure);
            let elements = &mut looks[place].elements;
            let kind = match what {
                0 => { elements.retain(|other| *other != element); "lost" }
                1 => { elements.push(element); "duplicate" }
                2 => { elements.push(10_000); "phantom" }
                _ => { looks[place].completed_ns = 0; looks[place].invoked_ns = 0; "phantom" }
            };
            let kinds = check(&adds, &looks).kinds();
            prop_assert!(kinds.contains(&kind), "{:?}", kinds);
        }
    }
}
