//! Shapes of partitions: which directions between nodes are cut.

use super::target::minority;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use std::fmt;

/// The shape of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One node is alone.
    One,
    /// Two halves, drawn at random.
    Halves,
    /// The leader is with the minority.
    LeaderInMinority,
    /// The leader is with the majority.
    LeaderInMajority,
    /// Each node hears a majority, each a different one.
    Ring,
    /// Two halves that do not hear each other, and one node that hears and is heard by both.
    Bridge,
    /// Nobody hears one of them; it hears all.
    Mute,
    /// One of them hears nobody; all hear it.
    Deaf,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 8] = [
        Shape::One,
        Shape::Halves,
        Shape::LeaderInMinority,
        Shape::LeaderInMajority,
        Shape::Ring,
        Shape::Bridge,
        Shape::Mute,
        Shape::Deaf,
    ];
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::One => "one alone",
            Shape::Halves => "halves",
            Shape::LeaderInMinority => "leader in minority",
            Shape::LeaderInMajority => "leader in majority",
            Shape::Ring => "majorities ring",
            Shape::Bridge => "bridge",
            Shape::Mute => "one-way, mute",
            Shape::Deaf => "one-way, deaf",
        })
    }
}

/// The directions to be cut, as (from, to).
pub(super) type Cuts = BTreeSet<(u64, u64)>;

/// Which directions a shape cuts between `nodes`, and how that looks. What is around one node is around one of `running`
/// where there is one: to cut off the dead is no fault.
pub(super) fn cuts(
    shape: Shape,
    nodes: &[u64],
    running: &[u64],
    leader: Option<u64>,
    rng: &mut ChaCha8Rng,
) -> (Cuts, String) {
    let mut order = nodes.to_vec();
    order.shuffle(rng);
    order.sort_by_key(|id| !running.contains(id));
    // Shapes around one node are around the leader half of the time.
    if let Some(leader) = leader
        && (matches!(shape, Shape::LeaderInMinority) || rng.random_bool(0.5))
    {
        order.sort_by_key(|id| *id != leader);
    }
    match shape {
        Shape::One => split(&order[..1], &order[1..]),
        Shape::Halves => {
            order.shuffle(rng);
            let (one, other) = order.split_at(order.len() / 2);
            split(one, other)
        }
        Shape::LeaderInMinority => {
            let (one, other) = order.split_at(minority(order.len()).max(1));
            split(one, other)
        }
        Shape::LeaderInMajority => {
            order.sort_by_key(|id| Some(*id) == leader);
            let (one, other) = order.split_at(minority(order.len()).max(1));
            split(one, other)
        }
        Shape::Ring => ring(&order),
        Shape::Bridge => {
            // Between followers alone there is hardly anything to be cut.
            order.sort_by_key(|id| Some(*id) == leader);
            let (bridge, rest) = (order[0], &order[1..]);
            let (one, other) = rest.split_at(rest.len() / 2);
            let (cuts, what) = split(one, other);
            (cuts, format!("{what}, {bridge} between"))
        }
        Shape::Mute => {
            let cuts = order[1..].iter().map(|other| (order[0], *other)).collect();
            (cuts, format!("nobody hears {}", order[0]))
        }
        Shape::Deaf => {
            let cuts = order[1..].iter().map(|other| (*other, order[0])).collect();
            (cuts, format!("{} hears nobody", order[0]))
        }
    }
}

/// Two sides that do not hear each other.
fn split(one: &[u64], other: &[u64]) -> (Cuts, String) {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
    let cuts = pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect();
    (cuts, format!("{} | {}", listed(one), listed(other)))
}

/// Everybody hears those around them in a ring, as many as make a majority.
fn ring(order: &[u64]) -> (Cuts, String) {
    let nodes = order.len();
    let majority = nodes / 2 + 1;
    let mut cuts = Cuts::new();
    for start in 0..nodes {
        let listener = order[(start + majority / 2) % nodes];
        let unheard = (majority..nodes).map(|step| order[(start + step) % nodes]);
        cuts.extend(unheard.map(|other| (other, listener)));
    }
    (cuts, format!("ring {}", listed(order)))
}

fn listed(nodes: &[u64]) -> String {
    let names: Vec<String> = nodes.iter().map(u64::to_string).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Whom each node hears, itself included.
    fn heard(cuts: &Cuts, nodes: &[u64]) -> Vec<BTreeSet<u64>> {
        let hears = |to: u64| {
            nodes
                .iter()
                .copied()
                .filter(|from| !cuts.contains(&(*from, to)))
                .collect()
        };
        nodes.iter().map(|to| hears(*to)).collect()
    }

    #[test]
    fn every_shape_cuts_what_its_name_says() {
        for nodes in [&[1, 2, 3][..], &[1, 2, 3, 4, 5]] {
            for seed in 0..50 {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let mut of = |shape| cuts(shape, nodes, nodes, Some(2), &mut rng).0;
                let n = nodes.len();
                assert_eq!(of(Shape::One).len(), 2 * (n - 1));
                assert_eq!(of(Shape::Halves).len(), 2 * (n / 2) * n.div_ceil(2));
                let minority = heard(&of(Shape::LeaderInMinority), nodes);
                assert_eq!(minority[1].len(), n / 2);
                let majority = heard(&of(Shape::LeaderInMajority), nodes);
                assert_eq!(majority[1].len(), n / 2 + 1);
                let ring = heard(&of(Shape::Ring), nodes);
                assert!(ring.iter().all(|heard| heard.len() == n / 2 + 1), "{ring:?}");
                let different: BTreeSet<_> = ring.iter().collect();
                assert_eq!(different.len(), n, "{ring:?}");
                let bridge = heard(&of(Shape::Bridge), nodes);
                assert_eq!(bridge.iter().filter(|heard| heard.len() == n).count(), 1);
                assert!(bridge.iter().all(|heard| heard.len() > n / 2), "{bridge:?}");
                let mute = heard(&of(Shape::Mute), nodes);
                assert_eq!(mute.iter().filter(|heard| heard.len() == n - 1).count(), n - 1);
                let deaf = heard(&of(Shape::Deaf), nodes);
                assert_eq!(deaf.iter().filter(|heard| heard.len() == 1).count(), 1);
                for shape in Shape::ALL {
                    assert!(!of(shape).is_empty());
                }
            }
        }
    }
}
