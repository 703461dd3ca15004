//! Where each operation is drawn: a lane for each client, and one bar for many operations where there are too many.

use super::run::Run;
use crate::history::{Call, Outcome, TimeNs};
use std::collections::{BTreeMap, BTreeSet};

/// Which lane a process has. A client that goes on under a new process number, because an outcome stayed unknown,
/// stays in its lane.
pub struct Lanes {
    of: BTreeMap<u64, usize>,
    /// The processes of each lane, by their beginning.
    pub processes: Vec<Vec<u64>>,
}

impl Lanes {
    /// The lanes of a run.
    pub fn new(run: &Run) -> Lanes {
        let mut lives: BTreeMap<u64, (TimeNs, TimeNs)> = BTreeMap::new();
        for call in &run.calls {
            let until = call
                .complete
                .as_ref()
                .map_or(TimeNs::MAX, |complete| complete.time_ns);
            let life = lives
                .entry(call.invoke.process)
                .or_insert((call.invoke.time_ns, until));
            life.1 = life.1.max(until);
        }
        let mut by_start: Vec<(TimeNs, u64, TimeNs)> = lives
            .into_iter()
            .map(|(process, (from, to))| (from, process, to))
            .collect();
        by_start.sort_unstable();
        let mut lanes = Lanes {
            of: BTreeMap::new(),
            processes: Vec::new(),
        };
        let mut free_from: Vec<TimeNs> = Vec::new();
        for (from, process, to) in by_start {
            // The lane that fell free last is the one whose client this is.
            let free = (0..free_from.len())
                .filter(|lane| free_from[*lane] <= from)
                .max_by_key(|lane| free_from[*lane]);
            let lane = free.unwrap_or_else(|| {
                free_from.push(0);
                lanes.processes.push(Vec::new());
                free_from.len() - 1
            });
            free_from[lane] = to;
            lanes.processes[lane].push(process);
            lanes.of.insert(process, lane);
        }
        lanes.in_order_of_clients()
    }

    fn in_order_of_clients(mut self) -> Lanes {
        self.processes.sort_by_key(|processes| processes[0]);
        for (lane, processes) in self.processes.iter().enumerate() {
            self.of.extend(processes.iter().map(|process| (*process, lane)));
        }
        self
    }

    /// The lane of a call.
    pub fn of(&self, call: &Call) -> usize {
        self.of[&call.invoke.process]
    }
}

/// Operations of one lane and outcome that are drawn as one.
#[derive(Debug, PartialEq, Eq)]
pub struct Bar {
    /// Where.
    pub lane: usize,
    /// What became of them.
    pub outcome: Outcome,
    /// When the first began.
    pub from_ns: TimeNs,
    /// When the last was over.
    pub to_ns: TimeNs,
    /// The first of them: its place in `Run::calls`.
    pub first: usize,
    /// How many of each kind.
    pub kinds: BTreeMap<String, usize>,
}

impl Bar {
    /// How many operations it stands for.
    pub fn calls(&self) -> usize {
        self.kinds.values().sum()
    }
}

/// At most about `max` bars for all calls but those of `apart`: as fine as that allows, one for each call if it does.
pub fn bars(run: &Run, lanes: &Lanes, apart: &BTreeSet<u64>, max: usize) -> Vec<Bar> {
    let finest = bars_of_grain(run, lanes, apart, 0);
    if finest.len() <= max {
        return finest;
    }
    let mut grain_ns = (run.end_ns >> 16).max(1);
    loop {
        let bars = bars_of_grain(run, lanes, apart, grain_ns);
        if bars.len() <= max || grain_ns > run.end_ns {
            return bars;
        }
        grain_ns *= 2;
    }
}

/// Calls of one lane and outcome that begin in the same `grain_ns` share a bar; with 0, none do.
fn bars_of_grain(run: &Run, lanes: &Lanes, apart: &BTreeSet<u64>, grain_ns: TimeNs) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let mut last: BTreeMap<(usize, Outcome), usize> = BTreeMap::new();
    for (place, call) in run.calls.iter().enumerate() {
        if apart.contains(&call.id) {
            continue;
        }
        let (lane, outcome) = (lanes.of(call), call.outcome());
        let (from_ns, to_ns) = (call.invoke.time_ns, run.until(call));
        let shared = last
            .get(&(lane, outcome))
            .copied()
            .filter(|bar| grain_ns > 0 && bars[*bar].from_ns / grain_ns == from_ns / grain_ns);
        let bar = shared.unwrap_or_else(|| {
            bars.push(Bar {
                lane,
                outcome,
                from_ns,
                to_ns,
                first: place,
                kinds: BTreeMap::new(),
            });
            last.insert((lane, outcome), bars.len() - 1);
            bars.len() - 1
        });
        bars[bar].to_ns = bars[bar].to_ns.max(to_ns);
        match bars[bar].kinds.get_mut(&call.invoke.f) {
            Some(count) => *count += 1,
            None => {
                bars[bar].kinds.insert(call.invoke.f.clone(), 1);
            }
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Complete, Invoke};
    use serde_json::Value;

    fn call(id: u64, process: u64, from: TimeNs, to: Option<TimeNs>, outcome: Outcome) -> Call {
        Call {
            id,
            invoke: Invoke {
                time_ns: from,
                process,
                node: 1,
                f: "read".to_owned(),
                value: Value::Null,
                command: None,
            },
            complete: to.map(|time_ns| Complete {
                time_ns,
                process,
                outcome,
                value: Value::Null,
                revision: None,
                error: None,
            }),
        }
    }

    fn run(calls: Vec<Call>) -> Run {
        Run {
            calls,
            end_ns: 1000,
            ..Run::default()
        }
    }

    #[test]
    fn a_client_stays_in_its_lane_under_a_new_number() {
        let run = run(vec![
            call(0, 0, 0, Some(10), Outcome::Info),
            call(1, 1, 1, Some(30), Outcome::Ok),
            call(2, 2, 11, Some(40), Outcome::Ok),
            call(3, 1, 31, None, Outcome::Info),
            call(4, 3, 45, Some(50), Outcome::Ok),
        ]);
        assert_eq!(Lanes::new(&run).processes, [vec![0, 2, 3], vec![1]]);
    }

    #[test]
    fn many_operations_share_bars_but_none_is_lost_and_offenders_stay_out() {
        let calls = (0..500)
            .map(|id| {
                let outcome = if id % 2 == 0 { Outcome::Ok } else { Outcome::Fail };
                call(id, 0, id * 2, Some(id * 2 + 1), outcome)
            })
            .collect();
        let run = run(calls);
        let lanes = Lanes::new(&run);
        let apart = BTreeSet::from([7]);
        assert_eq!(bars(&run, &lanes, &apart, 10_000).len(), 499);
        let few = bars(&run, &lanes, &apart, 20);
        assert!((2..=20).contains(&few.len()), "{}", few.len());
        assert_eq!(few.iter().map(Bar::calls).sum::<usize>(), 499);
    }
}
