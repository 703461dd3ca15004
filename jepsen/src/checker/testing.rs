//! Histories for the checkers' tests, made by a system that is correct because it does one thing at a time.

use super::wgl::Fate;
use proptest::test_runner::Config;

/// Property tests of so many cases.
pub fn cases(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

/// Numbers that a seed decides (SplitMix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Whether something happens that does so this often.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A call of a simulated client.
#[derive(Debug, Clone)]
pub struct Simulated<I, O> {
    pub id: u64,
    pub process: u64,
    pub invoked_ns: u64,
    pub input: I,
    pub fate: Fate<O>,
}

/// How a simulated call goes on.
enum Stage<O> {
    /// It will be applied.
    Sent,
    /// It will be answered.
    Applied(O),
    /// It will be refused.
    Refused,
    /// It may be applied, and nobody will hear of it.
    Abandoned,
}

/// Clients that ask at the same time, of a `system` that answers one after another: each call takes effect at one
/// instant between its two ends. Some are refused, and of some nothing is heard again: they take effect late or never.
pub fn simulate<S, I: Clone, O>(
    rng: &mut Rng,
    clients: usize,
    calls: usize,
    system: &mut S,
    mut demand: impl FnMut(&mut Rng, &S) -> I,
    mut apply: impl FnMut(&mut S, &I) -> O,
) -> Vec<Simulated<I, O>> {
    let mut history: Vec<Simulated<I, O>> = Vec::new();
    let mut open: Vec<(usize, Stage<O>)> = Vec::new();
    let mut idle: Vec<u64> = (0..clients as u64).collect();
    let mut processes = clients as u64;
    let mut now = 0;
    while history.len() < calls || !open.is_empty() {
        now += 1 + rng.below(3);
        let begin = history.len() < calls && !idle.is_empty() && (open.is_empty() || rng.percent(50));
        if begin {
            let process = idle.swap_remove(rng.below(idle.len() as u64) as usize);
            let input = demand(rng, system);
            let stage = match rng.below(100) {
                0..3 => Stage::Refused,
                3..8 => Stage::Abandoned,
                _ => Stage::Sent,
            };
            if matches!(stage, Stage::Abandoned) {
                idle.push(processes);
                processes += 1;
            }
            open.push((history.len(), stage));
            history.push(Simulated {
                id: history.len() as u64,
                process,
                invoked_ns: now,
                input,
                fate: Fate::Unknown,
            });
            continue;
        }
        let (place, stage) = open.swap_remove(rng.below(open.len() as u64) as usize);
        let call = &mut history[place];
        match stage {
            Stage::Sent => {
                let output = apply(system, &call.input);
                open.push((place, Stage::Applied(output)));
            }
            Stage::Applied(output) => {
                call.fate = Fate::Done {
                    completed_ns: now,
                    output,
                };
                idle.push(call.process);
            }
            Stage::Refused => {
                call.fate = Fate::Failed;
                idle.push(call.process);
            }
            Stage::Abandoned => {
                if rng.percent(50) {
                    apply(system, &call.input);
                }
            }
        }
    }
    history
}
