//! Why a key is not linearizable, in words.

use super::search::Stuck;
use super::{Fate, Model, Op, OpOf};
use crate::checker::Violation;
use std::fmt::Debug;

/// The last steps of the longest order that are spelled out.
const STEPS_MAX: usize = 12;

/// The violation that a stuck search shows.
pub(super) fn violation<M: Model, K: Debug>(
    model: &M,
    key: &K,
    ops: &[&OpOf<M, K>],
    stuck: &Stuck,
) -> Violation {
    let culprit = ops[stuck.op];
    let mut lines = vec![format!(
        "the longest order has {} operations{}",
        stuck.prefix.len(),
        if stuck.prefix.len() > STEPS_MAX {
            ", the last of them:"
        } else {
            ":"
        }
    )];
    let mut calls = Vec::new();
    let mut state = model.initial();
    let omitted = stuck.prefix.len().saturating_sub(STEPS_MAX);
    for (place, op) in stuck.prefix.iter().map(|op| ops[*op]).enumerate() {
        let output = match &op.fate {
            Fate::Done { output, .. } => Some(output),
            Fate::Failed | Fate::Unknown => None,
        };
        state = model
            .step(&state, &op.input, output)
            .expect("the search took this step");
        if place >= omitted {
            lines.push(format!("{}, then the key is {state:?}", words(op)));
            calls.push(op.call);
        }
    }
    lines.push(format!("fits nowhere: {}", words(culprit)));
    calls.push(culprit.call);
    for (place, op) in ops.iter().enumerate() {
        if place != stuck.op && !stuck.prefix.contains(&place) && concurrent(op, culprit) {
            lines.push(format!("under way meanwhile: {}", words(op)));
        }
    }
    Violation {
        kind: "not-linearizable",
        summary: format!("key {key:?}: {} fits nowhere", words(culprit)),
        lines,
        calls,
    }
}

fn words<K, I: Debug, O: Debug>(op: &Op<K, I, O>) -> String {
    let Op {
        call, process, input, ..
    } = op;
    let began = op.invoked_ns / 1000;
    match &op.fate {
        Fate::Done { completed_ns, output } => {
            let ended = completed_ns / 1000;
            format!("call {call} of process {process}, {began} to {ended} µs: {input:?} -> {output:?}")
        }
        Fate::Failed | Fate::Unknown => {
            format!("call {call} of process {process}, from {began} µs: {input:?} -> unknown")
        }
    }
}

fn concurrent<K, I, O>(one: &Op<K, I, O>, other: &Op<K, I, O>) -> bool {
    let ended = |op: &Op<K, I, O>| match op.fate {
        Fate::Done { completed_ns, .. } => completed_ns,
        Fate::Failed | Fate::Unknown => u64::MAX,
    };
    one.invoked_ns <= ended(other) && other.invoked_ns <= ended(one)
}
