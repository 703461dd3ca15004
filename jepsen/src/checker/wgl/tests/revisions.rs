//! Registers whose answers carry revisions.

use super::op;
use crate::checker::testing::{Rng, Simulated, cases, simulate};
use crate::checker::wgl::register::{Input, Sighting, Stamped, Version, Versioned, settle};
use crate::checker::wgl::{BUDGET, Fate, Model, Op, check};
use crate::verdict::Finding;
use proptest::prelude::*;

type VersionedOp = Op<u32, Input<u32>, Stamped<u32>>;

/// A history of one register with revisions, among writes of other keys, which take revisions too.
fn versioned(seed: u64, calls: usize, deletes: bool) -> Vec<VersionedOp> {
    type System = (u64, Option<(u64, u32)>);
    let mut next = 0;
    let history = simulate(
        &mut Rng::new(seed),
        4,
        calls,
        &mut (0, None),
        |rng, (_, found): &System| {
            next += 1;
            let modified = found.map_or(0, |(modified, _)| modified);
            match rng.below(6) {
                0 | 1 => Input::Read,
                2 => Input::Write(Some(next)),
                3 if deletes => Input::Write(None),
                3 => Input::Write(Some(next)),
                4 => Input::CompareRevision {
                    modified,
                    to: Some(next),
                },
                _ => Input::CompareAndSet {
                    from: found.map(|(_, value)| value),
                    to: Some(next),
                },
            }
        },
        |(revision, found): &mut System, input| {
            *revision += 1 + *revision % 3 % 2;
            let at = *revision;
            let matches = match input {
                Input::Read => return Stamped::Read { at, found: *found },
                Input::Write(to) => {
                    *found = to.map(|to| (at, to));
                    return Stamped::Written { at };
                }
                Input::CompareAndSet { from, .. } => found.map(|(_, value)| value) == *from,
                Input::CompareRevision { modified, .. } => {
                    found.map_or(0, |(modified, _)| modified) == *modified
                }
            };
            if let (true, Input::CompareAndSet { to, .. } | Input::CompareRevision { to, .. }) =
                (matches, input)
            {
                *found = to.map(|to| (at, to));
            }
            Stamped::Compared { at, done: matches }
        },
    );
    let op = |call: Simulated<Input<u32>, _>| Op {
        call: call.id,
        process: call.process,
        key: 0,
        input: call.input,
        invoked_ns: call.invoked_ns,
        fate: call.fate,
    };
    history.into_iter().map(op).collect()
}

/// Of every so many writes nothing was heard again.
fn forgotten(mut ops: Vec<VersionedOp>, every: usize) -> Vec<VersionedOp> {
    let writes = ops.iter_mut().filter(|op| op.input != Input::Read);
    for op in writes.step_by(every) {
        if matches!(op.fate, Fate::Done { .. }) {
            op.fate = Fate::Unknown;
        }
    }
    ops
}

/// The same, with what reads tell of writes of unknown outcome.
fn settled(mut ops: Vec<VersionedOp>) -> Vec<VersionedOp> {
    let found = |op: &VersionedOp| match op.fate {
        Fate::Done {
            completed_ns,
            output:
                Stamped::Read {
                    found: Some((modified, value)),
                    ..
                },
        } => Some(Sighting {
            key: op.key,
            value,
            modified,
            at_ns: completed_ns,
        }),
        _ => None,
    };
    let sightings: Vec<_> = ops.iter().filter_map(found).collect();
    settle(&mut ops, sightings);
    ops
}

/// The model without what makes searches shorter.
struct Plain(Versioned<u32>);

impl Model for Plain {
    type State = Version<u32>;
    type Input = Input<u32>;
    type Output = Stamped<u32>;

    fn initial(&self) -> Version<u32> {
        self.0.initial()
    }

    fn step(
        &self,
        state: &Version<u32>,
        input: &Input<u32>,
        output: Option<&Stamped<u32>>,
    ) -> Option<Version<u32>> {
        self.0.step(state, input, output)
    }
}

#[test]
fn revisions_are_held_to() {
    let judge = |ops: &[_]| check(&Versioned::default(), ops, BUDGET).finding();
    let put = |value: u32, at, from: u64| {
        let output = Stamped::Written { at };
        op(0, Input::Write(Some(value)), from, Some((from + 1, output)))
    };
    let get = |at, found, from: u64| {
        let output = Stamped::Read { at, found };
        op(1, Input::Read, from, Some((from + 1, output)))
    };
    let cas = |modified, value: u32, at, done, from: u64| {
        let input = Input::CompareRevision {
            modified,
            to: Some(value),
        };
        op(2, input, from, Some((from + 1, Stamped::Compared { at, done })))
    };
    let good = [
        put(1, 5, 0),
        get(7, Some((5, 1)), 10),
        cas(5, 2, 8, true, 20),
        cas(5, 3, 9, false, 30),
        get(9, Some((8, 2)), 40),
    ];
    assert_eq!(judge(&good), Finding::Pass);
    assert_eq!(
        judge(&[put(1, 5, 0), put(2, 4, 10)]),
        Finding::Fail,
        "revisions fall"
    );
    assert_eq!(
        judge(&[put(1, 5, 0), get(6, Some((4, 1)), 10)]),
        Finding::Fail,
        "the value's revision is another"
    );
    assert_eq!(
        judge(&[put(1, 5, 0), get(4, Some((5, 1)), 10)]),
        Finding::Fail,
        "older than what it found"
    );
    // Nobody was told the revision of an unknown write, and yet it is one.
    let lost: Op<u32, Input<u32>, Stamped<u32>> = op(3, Input::Write(Some(9)), 2, None);
    let found = |revision| [put(1, 5, 0), lost.clone(), get(8, Some((revision, 9)), 10)];
    assert_eq!(judge(&found(7)), Finding::Pass);
    assert_eq!(judge(&found(5)), Finding::Fail);
    assert_eq!(judge(&found(9)), Finding::Fail);
    // What is answered behind it does not move it.
    let behind = |revision| {
        [
            put(1, 5, 0),
            lost.clone(),
            cas(5, 3, 8, false, 10),
            get(9, Some((revision, 9)), 20),
        ]
    };
    assert_eq!(judge(&behind(7)), Finding::Pass);
    assert_eq!(judge(&behind(5)), Finding::Fail);
    let followed = [
        put(1, 5, 0),
        lost.clone(),
        cas(5, 3, 8, false, 10),
        cas(7, 4, 9, true, 20),
    ];
    assert_eq!(judge(&followed), Finding::Pass);
}

/// As a client sees a node that it cannot reach: a hundred writes without an answer, each after the other, and then one of
/// them is there.
#[test]
fn what_is_found_tells_which_unknown_writes_took_place() {
    let mut ops: Vec<VersionedOp> = (0..100)
        .map(|value| {
            op(
                u64::from(value),
                Input::Write(Some(value)),
                u64::from(value),
                None,
            )
        })
        .collect();
    let found = |at, revision, value| {
        let output = Stamped::Read {
            at,
            found: Some((revision, value)),
        };
        op(200, Input::Read, 1000 + at, Some((1001 + at, output)))
    };
    let refused = Input::CompareRevision {
        modified: 0,
        to: Some(900),
    };
    ops.push(op(
        201,
        refused,
        900,
        Some((901, Stamped::Compared { at: 3, done: false })),
    ));
    ops.push(found(7, 6, 40));
    ops.push(found(9, 8, 20));
    let judge = |ops: &[_], budget| check(&Versioned::default(), ops, budget).finding();
    assert_eq!(judge(&settled(ops.clone()), 2000), Finding::Pass);
    ops.push(found(12, 10, 40));
    assert_eq!(
        judge(&settled(ops), BUDGET),
        Finding::Fail,
        "it was written twice"
    );
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn what_a_register_with_revisions_did_passes(seed: u64, forget in 3..20usize) {
        let ops = forgotten(versioned(seed, 50, true), forget);
        let findings = check(&Versioned::default(), &ops, BUDGET);
        prop_assert!(findings.violations.is_empty(), "{:?}", findings.violations);
    }

    #[test]
    fn revisions_that_change_places_are_found(seed: u64, pick: prop::sample::Index) {
        let mut ops = versioned(seed, 60, true);
        let written: Vec<_> = ops.iter().enumerate().filter_map(|(place, op)| match op.fate {
            Fate::Done { completed_ns, output: Stamped::Written { at } } => Some((place, op.invoked_ns, completed_ns, at)),
            _ => None,
        }).collect();
        let mut apart = Vec::new();
        for (one, _, ended, first) in &written {
            apart.extend(written.iter().filter(|(_, began, ..)| ended < began).map(|(other, _, _, second)| {
                (*one, *other, *first, *second)
            }));
        }
        prop_assume!(!apart.is_empty());
        let (one, other, first, second) = *pick.get(&apart);
        for (place, to) in [(one, second), (other, first)] {
            if let Fate::Done { output: Stamped::Written { at }, .. } = &mut ops[place].fate {
                *at = to;
            }
        }
        prop_assert_eq!(check(&Versioned::default(), &ops, BUDGET).finding(), Finding::Fail);
    }

    #[test]
    fn a_search_by_revision_goes_straight(seed: u64, forget in 3..20usize) {
        let ops = settled(forgotten(versioned(seed, 300, false), forget));
        let findings = check(&Versioned::default(), &ops, 100 * ops.len());
        prop_assert_eq!(findings.finding(), Finding::Pass, "{:?}", findings);
    }

    #[test]
    fn a_search_by_revision_finds_what_any_other_finds(
        seed: u64, forget in 2..20usize, pick: prop::sample::Index, by in -3..=3i64
    ) {
        let mut ops = forgotten(versioned(seed, 16, true), forget);
        let place = pick.index(ops.len());
        if let Fate::Done { output, .. } = &mut ops[place].fate {
            let (Stamped::Read { at, .. } | Stamped::Written { at } | Stamped::Compared { at, .. }) = output;
            *at = at.saturating_add_signed(by);
        }
        let expected = check(&Plain(Versioned::default()), &ops, BUDGET).finding();
        prop_assume!(expected != Finding::Unknown);
        prop_assert_eq!(check(&Versioned::default(), &ops, BUDGET).finding(), expected);
        prop_assert_eq!(check(&Versioned::default(), &settled(ops), BUDGET).finding(), expected);
    }
}
