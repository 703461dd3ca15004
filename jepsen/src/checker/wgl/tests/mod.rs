mod revisions;

use super::register::{Input, Output, Register};
use super::{BUDGET, Fate, Model, Op, check};
use crate::checker::testing::{Rng, Simulated, cases, simulate};
use crate::verdict::Finding;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

type RegisterOp = Op<u32, Input<u32>, Output<u32>>;

fn op<I, O>(process: u64, input: I, invoked_ns: u64, completed: Option<(u64, O)>) -> Op<u32, I, O> {
    Op {
        call: invoked_ns,
        process,
        key: 0,
        input,
        invoked_ns,
        fate: completed.map_or(Fate::Unknown, |(completed_ns, output)| Fate::Done {
            completed_ns,
            output,
        }),
    }
}

fn write(process: u64, value: u32, from: u64, to: u64) -> RegisterOp {
    op(
        process,
        Input::Write(Some(value)),
        from,
        Some((to, Output::Written)),
    )
}

fn read(process: u64, value: u32, from: u64, to: u64) -> RegisterOp {
    op(process, Input::Read, from, Some((to, Output::Read(Some(value)))))
}

fn judge(ops: &[RegisterOp]) -> Finding {
    check(&Register::default(), ops, BUDGET).finding()
}

/// Herlihy and Wing, "Linearizability", 1990, figure 1: a first-in first-out queue.
struct Queue;

#[derive(Debug, Clone, Copy)]
enum Ask {
    Enqueue(char),
    Dequeue,
}

impl Model for Queue {
    type State = VecDeque<char>;
    type Input = Ask;
    type Output = Option<char>;

    fn initial(&self) -> VecDeque<char> {
        VecDeque::new()
    }

    fn step(
        &self,
        state: &VecDeque<char>,
        input: &Ask,
        output: Option<&Option<char>>,
    ) -> Option<VecDeque<char>> {
        let mut state = state.clone();
        let answer = match input {
            Ask::Enqueue(item) => {
                state.push_back(*item);
                None
            }
            Ask::Dequeue => Some(state.pop_front()?),
        };
        output.is_none_or(|output| *output == answer).then_some(state)
    }
}

fn enqueue(process: u64, item: char, from: u64, to: u64) -> Op<u32, Ask, Option<char>> {
    op(process, Ask::Enqueue(item), from, Some((to, None)))
}

fn dequeue(process: u64, item: char, from: u64, to: u64) -> Op<u32, Ask, Option<char>> {
    op(process, Ask::Dequeue, from, Some((to, Some(item))))
}

#[test]
fn queues_of_herlihy_and_wing() {
    let judge = |ops: &[_]| check(&Queue, ops, BUDGET).finding();
    // H1: x and y are enqueued at the same time, and come out in either order.
    let h1 = [
        enqueue(0, 'x', 0, 10),
        enqueue(1, 'y', 5, 15),
        dequeue(1, 'x', 20, 30),
        dequeue(0, 'y', 25, 35),
        enqueue(0, 'z', 40, 50),
    ];
    assert_eq!(judge(&h1), Finding::Pass);
    // H2: x is in before y is, and y comes out first.
    let h2 = [
        enqueue(0, 'x', 0, 10),
        enqueue(1, 'y', 20, 30),
        dequeue(0, 'y', 40, 50),
    ];
    assert_eq!(judge(&h2), Finding::Fail);
    // H3: the dequeue is under way while x is enqueued.
    let h3 = [enqueue(0, 'x', 0, 20), dequeue(1, 'x', 10, 30)];
    assert_eq!(judge(&h3), Finding::Pass);
    // H4: y comes out twice.
    let h4 = [
        enqueue(0, 'x', 0, 10),
        enqueue(1, 'y', 5, 15),
        dequeue(0, 'y', 20, 30),
        dequeue(2, 'y', 25, 35),
    ];
    assert_eq!(judge(&h4), Finding::Fail);
}

#[test]
fn registers_of_herlihy_and_wing() {
    // Figure 1, H5 and H6: once a read has found 1, another that begins later cannot find 0.
    let good = [
        write(0, 0, 0, 10),
        write(1, 1, 15, 60),
        read(0, 1, 20, 30),
        read(2, 1, 40, 50),
    ];
    assert_eq!(judge(&good), Finding::Pass);
    let bad = [
        write(0, 0, 0, 10),
        write(1, 1, 15, 60),
        read(0, 1, 20, 30),
        read(2, 0, 40, 50),
    ];
    let findings = check(&Register::default(), &bad, BUDGET);
    assert_eq!(findings.finding(), Finding::Fail);
    let violation = &findings.violations[0];
    assert_eq!(violation.calls, [0, 15, 20, 40]);
    assert!(violation.summary.contains("call 40 of process 2"));
}

#[test]
fn a_write_of_what_is_there_already_counts() {
    // It changes nothing if it comes first, and must come second.
    let ops = [
        write(0, 0, 0, 1),
        write(1, 0, 6, 9),
        write(2, 1, 7, 8),
        read(0, 0, 11, 12),
    ];
    assert_eq!(judge(&ops), Finding::Pass);
}

#[test]
fn an_unknown_write_takes_place_late_or_never() {
    let unknown = op(1, Input::Write(Some(2)), 5, None);
    let before = write(0, 1, 0, 10);
    assert_eq!(judge(&[before.clone(), unknown.clone()]), Finding::Pass);
    // Never, so far; then, long after, once.
    let (old, new) = (read(0, 1, 20, 30), read(0, 2, 100, 110));
    assert_eq!(
        judge(&[before.clone(), unknown.clone(), old.clone(), new.clone()]),
        Finding::Pass
    );
    let again = read(0, 1, 120, 130);
    assert_eq!(
        judge(&[before.clone(), unknown.clone(), old, new.clone(), again]),
        Finding::Fail
    );
    // Not before it was asked for.
    let early = read(0, 2, 1, 3);
    assert_eq!(judge(&[before.clone(), unknown.clone(), early]), Finding::Fail);
    let failed = Op {
        fate: Fate::Failed,
        ..unknown
    };
    assert_eq!(judge(&[before, failed, new]), Finding::Fail);
}

#[test]
fn keys_come_into_being_and_go() {
    let cas = |from, to, at: u64, done| {
        op(
            0,
            Input::CompareAndSet { from, to },
            at,
            Some((at + 1, Output::Compared(done))),
        )
    };
    let absent = |at: u64| op(0, Input::Read, at, Some((at + 1, Output::Read(None))));
    let good = [
        absent(0),
        cas(None, Some(1), 10, true),
        cas(None, Some(2), 20, false),
        cas(Some(1), None, 30, true),
        absent(40),
    ];
    assert_eq!(judge(&good), Finding::Pass);
    let bad = [cas(None, Some(1), 10, true), cas(None, Some(2), 20, true)];
    assert_eq!(judge(&bad), Finding::Fail);
}

#[test]
fn a_search_without_end_is_undecided() {
    // Twenty writes at once, and a read of what none of them wrote: every order is tried.
    let mut ops: Vec<_> = (0..20)
        .map(|value| write(u64::from(value), value, 0, 1000))
        .collect();
    ops.push(read(30, 99, 0, 1000));
    assert_eq!(
        check(&Register::default(), &ops, 1000).finding(),
        Finding::Unknown
    );
    assert_eq!(judge(&[]), Finding::Unknown);
}

/// A history of registers that are some.
fn simulated(seed: u64, keys: u32, clients: usize, calls: usize) -> Vec<RegisterOp> {
    let mut next = 0;
    let mut registers = vec![None; keys as usize];
    let history = simulate(
        &mut Rng::new(seed),
        clients,
        calls,
        &mut registers,
        |rng, registers| {
            let key = rng.below(u64::from(keys)) as u32;
            next += 1;
            let to = Some(next);
            let input = match rng.below(5) {
                0 | 1 => Input::Read,
                2 => Input::Write(to),
                3 => Input::CompareAndSet {
                    from: registers[key as usize],
                    to,
                },
                _ => Input::CompareAndSet { from: Some(0), to },
            };
            (key, input)
        },
        |registers, (key, input)| {
            let value = &mut registers[*key as usize];
            match input {
                Input::Write(to) => {
                    *value = *to;
                    Output::Written
                }
                Input::CompareAndSet { from, to } => {
                    let done = from == value;
                    if done {
                        *value = *to;
                    }
                    Output::Compared(done)
                }
                _ => Output::Read(*value),
            }
        },
    );
    let op = |call: Simulated<_, _>| {
        let (key, input) = call.input;
        Op {
            call: call.id,
            process: call.process,
            key,
            input,
            invoked_ns: call.invoked_ns,
            fate: call.fate,
        }
    };
    history.into_iter().map(op).collect()
}

#[test]
fn fifty_keys_of_two_hundred_operations_take_no_time() {
    let ops = simulated(1, 50, 10, 10_000);
    assert!(ops.len() == 10_000);
    let began = Instant::now();
    assert_eq!(judge(&ops), Finding::Pass);
    // A search that goes astray would take minutes, so a slow machine does not matter here.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// As clients of a system under partition see it: of every other write, nothing was heard again.
fn half_unknown(mut ops: Vec<RegisterOp>) -> Vec<RegisterOp> {
    let writes = ops.iter_mut().filter(|op| written(op).is_some());
    for op in writes.step_by(2) {
        if matches!(op.fate, Fate::Done { .. }) {
            op.fate = Fate::Unknown;
        }
    }
    ops
}

#[test]
fn many_unknown_writes_do_not_drown_the_search() {
    let mut ops = half_unknown(simulated(2, 10, 10, 2000));
    assert_eq!(judge(&ops), Finding::Pass);
    // One that is not linearizable is found out all the same: all that is tried, is tried once.
    let stale = stale_reads(&ops);
    let (place, value) = stale[stale.len() / 2];
    if let Fate::Done { output, .. } = &mut ops[place].fate {
        *output = Output::Read(Some(value));
    }
    assert_eq!(judge(&ops), Finding::Fail);
}

/// Whether an order of `ops` exists, by trying all of them.
fn brute_force(ops: &[RegisterOp]) -> bool {
    fn go(ops: &[RegisterOp], taken: u32, state: Option<u32>) -> bool {
        let end = |op: &RegisterOp| match op.fate {
            Fate::Done { completed_ns, .. } => completed_ns,
            _ => u64::MAX,
        };
        let open = |place: &usize| taken & 1 << place == 0;
        let open: Vec<_> = (0..ops.len()).filter(open).collect();
        let barrier = open.iter().map(|place| end(&ops[*place])).min();
        let Some(barrier) = barrier.filter(|barrier| *barrier < u64::MAX) else {
            return true;
        };
        open.iter().any(|place| {
            let op = &ops[*place];
            let output = match &op.fate {
                Fate::Done { output, .. } => Some(output),
                _ => None,
            };
            let next = Register::default().step(&state, &op.input, output);
            op.invoked_ns <= barrier && next.is_some_and(|next| go(ops, taken | 1 << place, next))
        })
    }
    go(ops, 0, None)
}

fn small_op() -> impl Strategy<Value = RegisterOp> {
    let input = prop_oneof![
        3 => Just(Input::Read),
        2 => (0..3u32).prop_map(|value| Input::Write(Some(value))),
        1 => (0..3u32, 0..3u32).prop_map(|(from, to)| Input::CompareAndSet { from: Some(from), to: Some(to) }),
    ];
    (input, 0..20u64, 0..8u64, proptest::option::weighted(0.8, 0..3u32)).prop_map(
        |(input, from, lasts, answer)| {
            let output = answer.map(|answer| match input {
                Input::Read => Output::Read(Some(answer)),
                Input::CompareAndSet { .. } => Output::Compared(answer > 0),
                _ => Output::Written,
            });
            op(0, input, from, output.map(|output| (from + lasts, output)))
        },
    )
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn the_search_finds_what_trying_all_orders_finds(
        ops in proptest::collection::vec(small_op(), 1..9)
    ) {
        prop_assume!(ops.iter().any(|op| matches!(op.fate, Fate::Done { .. })));
        let expected = if brute_force(&ops) { Finding::Pass } else { Finding::Fail };
        prop_assert_eq!(judge(&ops), expected);
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn what_a_register_did_passes(seed: u64) {
        prop_assert_eq!(judge(&simulated(seed, 3, 5, 200)), Finding::Pass);
    }

    #[test]
    fn a_read_of_what_was_overwritten_is_found(seed: u64, pick: prop::sample::Index) {
        let mut ops = simulated(seed, 2, 4, 60);
        let stale = stale_reads(&ops);
        prop_assume!(!stale.is_empty());
        let (place, value) = *pick.get(&stale);
        let Fate::Done { output, .. } = &mut ops[place].fate else { unreachable!("it was answered") };
        *output = Output::Read(Some(value));
        prop_assert_eq!(judge(&ops), Finding::Fail);
    }

    #[test]
    fn a_write_that_is_gone_is_found(seed: u64, pick: prop::sample::Index) {
        let mut ops = simulated(seed, 2, 4, 60);
        let read: Vec<_> = ops.iter().filter_map(|op| match op.fate {
            Fate::Done { output: Output::Read(value), .. } => value,
            _ => None,
        }).collect();
        prop_assume!(!read.is_empty());
        let gone = *pick.get(&read);
        ops.retain(|op| written(op) != Some(gone));
        prop_assert_eq!(judge(&ops), Finding::Fail);
    }
}

/// What an operation writes, if it may have written.
fn written(op: &RegisterOp) -> Option<u32> {
    match op.input {
        Input::Write(value) | Input::CompareAndSet { to: value, .. } => value,
        _ => None,
    }
}

/// Reads, each with a value that was overwritten before it began: every value is written once.
fn stale_reads(ops: &[RegisterOp]) -> Vec<(usize, u32)> {
    let ends = |op: &RegisterOp| match op.fate {
        Fate::Done { completed_ns, .. } => Some((op.invoked_ns, completed_ns)),
        _ => None,
    };
    let plain: Vec<_> = ops
        .iter()
        .filter(|op| matches!(op.input, Input::Write(_)))
        .filter_map(|op| Some((op.key, ends(op)?, written(op)?)))
        .collect();
    let mut stale = Vec::new();
    for (place, read) in ops.iter().enumerate() {
        let Some((began, _)) = ends(read).filter(|_| read.input == Input::Read) else {
            continue;
        };
        for (key, (_, old_end), value) in &plain {
            let overwritten = plain.iter().any(|(other, (new_begin, new_end), _)| {
                other == key && old_end < new_begin && *new_end < began
            });
            if *key == read.key && overwritten {
                stale.push((place, *value));
            }
        }
    }
    stale
}
