//! What happens when, drawn from a seed and from nothing else.

use super::Kind;
use super::partition::Shape;
use super::target::Target;
use crate::cluster::Skew;
use crate::disk::{Errors, Loss};
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use std::fmt;
use std::time::Duration;

/// When the first strike of each kind comes, at the latest.
const FIRST_MAX: Duration = Duration::from_millis(2_500);
const FIRST_MIN: Duration = Duration::from_millis(300);
/// A fault and the calm after it take about five seconds.
const LASTS_MIN: Duration = Duration::from_millis(800);
const LASTS_MAX: Duration = Duration::from_millis(4_500);
const CALM_MIN: Duration = Duration::from_millis(1_000);
const CALM_MAX: Duration = Duration::from_millis(4_000);

/// What happens when.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it was drawn from.
    pub seed: u64,
    /// The kinds that it is composed of.
    pub kinds: Vec<Kind>,
    /// In order of time. Strikes of different kinds overlap.
    pub strikes: Vec<Strike>,
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Strike {
    /// When it begins, from the start of the plan.
    pub at: Duration,
    /// When it is taken back.
    pub until: Duration,
    /// What it is.
    pub fault: Fault,
    /// What is still to be drawn when it begins is drawn from this.
    pub draw: u64,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// See [`Kind::Kill`].
    Kill(Target),
    /// See [`Kind::Pause`].
    Pause(Target),
    /// See [`Kind::Restart`].
    Restart(Target),
    /// See [`Kind::Power`].
    Power(Target),
    /// See [`Kind::Partition`].
    Partition(Shape),
    /// See [`Kind::Slow`].
    Slow(Target, Stream),
    /// See [`Kind::Lossy`]: how many of a hundred packets.
    Lossy(Target, u8),
    /// See [`Kind::Clock`].
    Clock(Target, Time),
    /// See [`Kind::Replace`].
    Replace(Target),
    /// See [`Kind::Snapshot`].
    Snapshot(Hold),
    /// See [`Kind::Rolling`].
    Rolling,
    /// See [`Kind::Unsynced`] and [`Kind::Torn`].
    PowerLoss(Target, Loss),
    /// See [`Kind::Eio`], [`Kind::Full`] and [`Kind::SlowDisk`].
    Disk(Target, Media),
    /// See [`Kind::Bitflip`]: how many.
    Bitflip(usize),
    /// See [`Kind::Member`].
    Member(Target),
    /// See [`Kind::Transfer`].
    Transfer(Heir),
}

/// To whom leadership is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heir {
    /// To whom the leader finds best.
    Best,
    /// To a node that is named.
    Named,
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// So many syncs fail, or all.
    SyncErrors(Errors),
    /// So many bytes are left.
    Full(u64),
    /// Each sync, read and write takes so much longer.
    Slow {
        /// A sync.
        sync_ms: u64,
        /// A read, and a write.
        other_ms: u64,
    },
}

/// What is wrong with streams from and to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// All is late, in both directions.
    Late {
        /// By so much.
        delay_ms: u64,
        /// And at most so much more.
        jitter_ms: u64,
    },
    /// Little passes, in both directions.
    Thin {
        /// So much in a second.
        bytes_per_second: u32,
    },
    /// Nothing that the node sends arrives, and connections stay.
    Stuck,
    /// Connections break off, and new ones too.
    Broken,
}

/// What is wrong with a clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Time {
    /// It is off, and right again afterwards.
    Off(Skew),
    /// It jumps there and back all the time.
    Strobe(Skew),
}

/// How a follower is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is paused.
    Paused,
    /// It is killed.
    Killed,
    /// It is cut off.
    Alone,
}

impl Hold {
    /// The kind of fault that this is by itself.
    pub fn kind(self) -> Kind {
        match self {
            Hold::Paused => Kind::Pause,
            Hold::Killed => Kind::Kill,
            Hold::Alone => Kind::Partition,
        }
    }
}

impl Fault {
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Kill(_) => Kind::Kill,
            Fault::Pause(_) => Kind::Pause,
            Fault::Restart(_) => Kind::Restart,
            Fault::Power(_) => Kind::Power,
            Fault::Partition(_) => Kind::Partition,
            Fault::Slow(..) => Kind::Slow,
            Fault::Lossy(..) => Kind::Lossy,
            Fault::Clock(..) => Kind::Clock,
            Fault::Replace(_) => Kind::Replace,
            Fault::Snapshot(_) => Kind::Snapshot,
            Fault::Rolling => Kind::Rolling,
            Fault::PowerLoss(_, Loss::All) => Kind::Unsynced,
            Fault::PowerLoss(_, Loss::Pages | Loss::Sectors) => Kind::Torn,
            Fault::Disk(_, Media::SyncErrors(_)) => Kind::Eio,
            Fault::Disk(_, Media::Full(_)) => Kind::Full,
            Fault::Disk(_, Media::Slow { .. }) => Kind::SlowDisk,
            Fault::Bitflip(_) => Kind::Bitflip,
            Fault::Member(_) => Kind::Member,
            Fault::Transfer(_) => Kind::Transfer,
        }
    }
}

/// Two or three kinds of those that are possible, for a run that names none.
pub fn compose(seed: u64, possible: &[Kind]) -> Vec<Kind> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut kinds = possible.to_vec();
    kinds.shuffle(&mut rng);
    kinds.truncate(rng.random_range(2..=3));
    kinds
}

/// Draws a plan of these kinds over `duration`.
pub fn plan(kinds: &[Kind], seed: u64, duration: Duration) -> Plan {
    let mut strikes = Vec::new();
    for kind in kinds {
        // A stream for each kind: what is composed with it does not change it.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(*kind as u64 + 1);
        let mut at = rng.random_range(FIRST_MIN..FIRST_MAX).min(duration / 4);
        while at < duration {
            let until = (at + rng.random_range(LASTS_MIN..LASTS_MAX)).min(duration);
            strikes.push(Strike {
                at,
                until,
                fault: fault(*kind, &mut rng),
                draw: rng.next_u64(),
            });
            at = until + rng.random_range(CALM_MIN..CALM_MAX);
        }
    }
    strikes.sort_by_key(|strike| (strike.at, strike.fault.kind()));
    Plan {
        seed,
        kinds: kinds.to_vec(),
        strikes,
    }
}

fn fault(kind: Kind, rng: &mut ChaCha8Rng) -> Fault {
    match kind {
        Kind::Kill => Fault::Kill(one_of(
            rng,
            &[Target::Leader, Target::Leader, Target::Follower, Target::Minority],
        )),
        Kind::Pause => {
            let targets = [
                Target::Leader,
                Target::Leader,
                Target::Follower,
                Target::Minority,
                Target::All,
            ];
            Fault::Pause(one_of(rng, &targets))
        }
        Kind::Restart => Fault::Restart(one_of(rng, &[Target::Leader, Target::Leader, Target::Follower])),
        Kind::Power => Fault::Power(power_target(rng)),
        Kind::Partition => Fault::Partition(one_of(rng, &Shape::ALL)),
        Kind::Slow => Fault::Slow(link_target(rng), stream(rng)),
        Kind::Lossy => Fault::Lossy(link_target(rng), rng.random_range(10..=60)),
        Kind::Clock => {
            let targets = [Target::Leader, Target::Follower, Target::Minority, Target::All];
            let target = one_of(rng, &targets);
            Fault::Clock(target, time(rng, target))
        }
        Kind::Replace => Fault::Replace(one_of(rng, &[Target::Leader, Target::Follower])),
        Kind::Snapshot => Fault::Snapshot(one_of(rng, &[Hold::Paused, Hold::Killed, Hold::Alone])),
        Kind::Rolling => Fault::Rolling,
        Kind::Unsynced => Fault::PowerLoss(power_target(rng), Loss::All),
        Kind::Torn => Fault::PowerLoss(power_target(rng), one_of(rng, &[Loss::Pages, Loss::Sectors])),
        Kind::Eio => {
            let errors = one_of(rng, &[Errors::Next(1), Errors::Next(5), Errors::Always]);
            Fault::Disk(disk_target(rng), Media::SyncErrors(errors))
        }
        Kind::Full => Fault::Disk(disk_target(rng), Media::Full(one_of(rng, &[0, 4_096, 100_000]))),
        Kind::SlowDisk => {
            let slow = Media::Slow {
                sync_ms: one_of(rng, &[10, 50, 200, 800]),
                other_ms: one_of(rng, &[0, 0, 5]),
            };
            Fault::Disk(
                one_of(rng, &[Target::Leader, Target::Minority, Target::All]),
                slow,
            )
        }
        Kind::Bitflip => Fault::Bitflip(one_of(rng, &[1, 8, 64])),
        Kind::Member => Fault::Member(one_of(rng, &[Target::Leader, Target::Follower])),
        Kind::Transfer => Fault::Transfer(one_of(rng, &[Heir::Best, Heir::Named])),
    }
}

fn power_target(rng: &mut ChaCha8Rng) -> Target {
    one_of(rng, &[Target::All, Target::All, Target::Majority, Target::Leader])
}

fn disk_target(rng: &mut ChaCha8Rng) -> Target {
    one_of(rng, &[Target::Leader, Target::Follower, Target::Minority])
}

fn one_of<T: Copy>(rng: &mut ChaCha8Rng, choices: &[T]) -> T {
    *choices.choose(rng).expect("there is a choice")
}

fn link_target(rng: &mut ChaCha8Rng) -> Target {
    one_of(
        rng,
        &[Target::Leader, Target::Leader, Target::Follower, Target::All],
    )
}

/// From what disturbs hardly anybody to what makes every election fail.
fn stream(rng: &mut ChaCha8Rng) -> Stream {
    match rng.random_range(0..4) {
        0 => {
            let delay_ms = one_of(rng, &[5, 20, 60, 150, 400]);
            Stream::Late {
                delay_ms,
                jitter_ms: delay_ms,
            }
        }
        1 => Stream::Thin {
            bytes_per_second: one_of(rng, &[200, 2_000, 20_000]),
        },
        2 => Stream::Stuck,
        _ => Stream::Broken,
    }
}

/// From less than a lease to a day, in either direction. Where all clocks are wrong, it is less than the quarter of an
/// hour for which commands are remembered: log time goes by most clocks, and every command id of the right time would
/// be refused as stale for good.
fn time(rng: &mut ChaCha8Rng, target: Target) -> Time {
    let sign = one_of(rng, &[-1, 1]);
    let far = if target == Target::All {
        600_000
    } else {
        86_400_000
    };
    let ahead_ms = sign * one_of(rng, &[50, 400, 3_000, 30_000, far]);
    let off = Skew {
        ahead_ms,
        ..Skew::default()
    };
    match rng.random_range(0..3) {
        0 => Time::Off(off),
        1 => Time::Strobe(off),
        _ => Time::Off(Skew {
            ahead_ms: 0,
            rate: one_of(rng, &[0.9, 0.99, 1.01, 1.1, 3.0]),
        }),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        writeln!(f, "seed {}: {}", self.seed, kinds.join(", "))?;
        for Strike { at, until, fault, .. } in &self.strikes {
            let (at, until) = (at.as_secs_f64(), until.as_secs_f64());
            writeln!(
                f,
                "{at:7.2} to {until:7.2} s  {:<10} {fault}",
                fault.kind().name()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill(target) | Fault::Pause(target) | Fault::Restart(target) | Fault::Replace(target) => {
                write!(f, "{target}")
            }
            Fault::Power(target) => write!(f, "{target} at once"),
            Fault::Partition(shape) => write!(f, "{shape}"),
            Fault::Slow(target, stream) => write!(f, "{stream} around {target}"),
            Fault::Lossy(target, percent) => write!(f, "{percent}% around {target}"),
            Fault::Clock(target, time) => write!(f, "{time} on {target}"),
            Fault::Snapshot(hold) => write!(f, "a follower is {hold}"),
            Fault::Rolling => write!(f, "to the other binary and back"),
            Fault::PowerLoss(target, loss) => write!(f, "{target} at once, leaving {}", left(loss)),
            Fault::Disk(target, media) => write!(f, "{media} on {target}"),
            Fault::Bitflip(count) => write!(f, "{count} on one disk"),
            Fault::Member(target) => write!(f, "{target} leaves"),
            Fault::Transfer(Heir::Best) => write!(f, "to whom the leader finds best"),
            Fault::Transfer(Heir::Named) => write!(f, "to a follower that is named"),
        }
    }
}

fn left(loss: &Loss) -> &'static str {
    match loss {
        Loss::All => "nothing unsynced",
        Loss::Pages => "some pages",
        Loss::Sectors => "some sectors",
    }
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Media::SyncErrors(Errors::Next(count)) => write!(f, "{count} syncs fail"),
            Media::SyncErrors(_) => write!(f, "syncs fail"),
            Media::Full(left) => write!(f, "{left} bytes left"),
            Media::Slow { sync_ms, other_ms } => {
                write!(f, "{sync_ms} ms a sync, {other_ms} ms all else")
            }
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stream::Late { delay_ms, jitter_ms } => {
                write!(f, "{delay_ms} to {} ms late", delay_ms + jitter_ms)
            }
            Stream::Thin { bytes_per_second } => write!(f, "{bytes_per_second} bytes a second"),
            Stream::Stuck => write!(f, "stuck"),
            Stream::Broken => write!(f, "broken off"),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Time::Off(skew) => write!(f, "{skew}"),
            Time::Strobe(skew) => write!(f, "{skew} and back, over and over"),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hold::Paused => "paused",
            Hold::Killed => "killed",
            Hold::Alone => "cut off",
        })
    }
}
