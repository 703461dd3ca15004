//! Answers, against what the models say at their revision.

use super::journals::Journals;
use super::model::{Verdict, World};
use super::writes::includes;
use super::{Claim, Demand, Query, Said};
use crate::checker::{Findings, Violation};
use crate::final_state::Entry;
use serde_json::Value;

/// What is to be asked of the models once they stand at a revision.
enum Question<'a> {
    /// The same as a client asked.
    Read(&'a Query, &'a Value),
    /// What a command must come to, which was done at this revision.
    Write(&'a Demand, u64),
}

pub(super) fn check(claims: &[Claim], journals: &Journals<'_>, findings: &mut Findings) {
    let questions = questions(claims);
    if journals.floor > 0 {
        if questions.is_empty() {
            return;
        }
        let why = format!(
            "the journal was compacted below revision {}: answers are not judged",
            journals.floor
        );
        findings.undecided.push(why);
        return;
    }
    let mut questions = questions.into_iter().peekable();
    let mut world = World::default();
    for entry in journals.longest {
        while let Some((_, call, question)) = questions.next_if(|(at, _, _)| *at < entry.revision) {
            ask(&world, call, &question, journals, findings);
        }
        for broken in world.apply(entry) {
            let summary = format!("revision {}: {}", entry.revision, broken.what);
            findings.violations.push(Violation::new(broken.rule, summary, []));
        }
    }
    for (_, call, question) in questions {
        ask(&world, call, &question, journals, findings);
    }
}

/// All questions, by the revision at which they are to be asked.
fn questions(claims: &[Claim]) -> Vec<(u64, u64, Question<'_>)> {
    let mut questions = Vec::new();
    for claim in claims {
        match &claim.said {
            Said::Wrote {
                revision,
                answer: Some(demand),
                ..
            } => {
                // It saw the state before its own revision.
                let question = Question::Write(demand, *revision);
                questions.push((revision.saturating_sub(1), claim.call, question));
            }
            Said::Read {
                revision, answers, ..
            } => {
                let each = answers
                    .iter()
                    .map(|(query, answer)| Question::Read(query, answer));
                questions.extend(each.map(|question| (*revision, claim.call, question)));
            }
            _ => {}
        }
    }
    questions.sort_by_key(|(revision, call, _)| (*revision, *call));
    questions
}

fn ask(world: &World, call: u64, question: &Question<'_>, journals: &Journals<'_>, findings: &mut Findings) {
    let mut report = |summary| {
        let violation = Violation::new("wrong-answer", summary, [call]);
        findings.violations.push(violation);
    };
    match question {
        Question::Read(query, answer) => {
            let expected = world.answer(query);
            if !agrees(&sorted(answer), &expected) {
                report(format!(
                    "call {call} asked for {query:?} and read {answer}, not {expected}"
                ));
            }
        }
        Question::Write(demand, revision) => {
            let Verdict { answer, events } = world.decide(demand);
            if let Err(difference) = answer {
                report(format!("call {call} at revision {revision}: {difference}"));
            }
            let entry = journals.at(*revision);
            if let Some(difference) = effects(entry, &events) {
                report(format!("call {call} at revision {revision}: {difference}"));
            }
        }
    }
}

/// Whether what was answered is what the models say, as far as either of them says something: a client may have kept a
/// part of the answer, and the models know nothing of some members of an object.
pub(super) fn agrees(answer: &Value, expected: &Value) -> bool {
    match (answer, expected) {
        (Value::Object(answered), Value::Object(known)) => known.iter().all(|(name, known)| {
            let answered = answered.get(name);
            answered.is_none_or(|answered| agrees_within(answered, known))
        }),
        (Value::Array(answered), Value::Array(known)) => {
            let pairs = answered.iter().zip(known);
            answered.len() == known.len() && pairs.into_iter().all(|(one, other)| agrees(one, other))
        }
        (answered, known) => answered == known,
    }
}

/// The same below the first level, where the models know all members that there are.
fn agrees_within(answer: &Value, expected: &Value) -> bool {
    let made_up = match (answer.as_object(), expected.as_object()) {
        (Some(answered), Some(known)) => {
            let told = answered.iter().filter(|(_, value)| !value.is_null());
            told.into_iter().any(|(name, _)| !known.contains_key(name))
        }
        _ => false,
    };
    !made_up && agrees(answer, expected)
}

/// What a command did otherwise than it must have.
fn effects(entry: Option<&Entry>, expected: &[Value]) -> Option<String> {
    let events = entry.map_or(&[][..], |entry| &entry.events);
    if events.len() != expected.len() {
        let count = expected.len();
        return Some(format!(
            "it must have caused {count} events, and the journal has {}",
            events.len()
        ));
    }
    let (event, expected) = events
        .iter()
        .zip(expected)
        .find(|(event, expected)| !includes(event, expected))?;
    Some(format!("it must have caused {expected}, and caused {event}"))
}

/// Lists of machines come in an order of their own; the models have them by serial.
fn sorted(answer: &Value) -> Value {
    let mut answer = answer.clone();
    if let Some(items) = answer.as_array_mut()
        && items
            .iter()
            .all(|item| item["serial"].is_string() && item["rack"].is_u64())
    {
        items.sort_by(|one, other| one["serial"].as_str().cmp(&other["serial"].as_str()));
    }
    answer
}
