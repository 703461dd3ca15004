//! The faults of a simulation, drawn one after the other; most end by themselves after a while.

use super::client::{Client, Ledger};
use super::site::{Seat, Site};
use super::swarm::{Kind, chance};
use crate::history::Edge;
use onward_raft::sim::Link;
use onward_statemachine::NodeId;
use onward_statemachine::membership::Change;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a transfer of leadership is tried, in ms.
const TRANSFER_MS: u64 = 5_000;

/// From here on are the numbers of the clients that ask a machine as it goes on, by its id: above all others.
const PROBES_FROM: u64 = 1_000;
/// How many clients ask a leader that may have been usurped.
const USURP_PROBES: u64 = 3;

/// How often each kind of fault struck.
pub(super) type Struck = BTreeMap<Kind, u64>;

/// The links that a partition blocks, from the place of one machine to that of another.
type Blocked = Vec<(usize, usize)>;

/// Strikes until the time is over, and says how often.
pub(super) async fn run(site: Arc<Site>, ledger: Arc<Ledger>) -> Struck {
    let until = Instant::now() + site.plan.safety;
    let mut nemesis = Nemesis {
        rng: chance(site.plan.seed, 1),
        site,
        ledger,
        until,
        struck: Struck::new(),
        replaced: false,
    };
    loop {
        let pause = nemesis
            .rng
            .random_range(Duration::from_millis(20)..=nemesis.site.plan.pace_max);
        if Instant::now() + pause >= until {
            tokio::time::sleep_until(until).await;
            return nemesis.struck;
        }
        tokio::time::sleep(pause).await;
        let kinds = nemesis.site.plan.faults.clone();
        if let Some(kind) = kinds.choose(&mut nemesis.rng).copied()
            && nemesis.strike(kind).await
        {
            *nemesis.struck.entry(kind).or_default() += 1;
        }
    }
}

struct Nemesis {
    site: Arc<Site>,
    ledger: Arc<Ledger>,
    rng: ChaCha8Rng,
    /// When the faults end.
    until: Instant,
    struck: Struck,
    /// A machine was replaced: once in a run is enough, and keeps a majority of what was acknowledged.
    replaced: bool,
}

impl Nemesis {
    fn seat(&mut self) -> Option<Arc<Seat>> {
        self.site.seats().choose(&mut self.rng).cloned()
    }

    /// A link that blocks.
    fn cut(&self) -> Link {
        Link {
            blocked: true,
            ..self.site.plan.link
        }
    }

    fn while_(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(50..=2_500))
    }

    fn begin(&self, kind: Kind, edge: Edge, what: impl Into<String>, seats: &[&Arc<Seat>]) {
        let nodes = seats.iter().map(|seat| seat.machine.id()).collect();
        self.site.fault(kind.name(), edge, what.into(), nodes);
    }

    /// Undoes something after a while.
    fn later(&mut self, after: Duration, kind: Kind, undo: impl FnOnce(&Arc<Site>) + Send + 'static) {
        let site = self.site.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            site.fault(kind.name(), Edge::End, String::new(), Vec::new());
            undo(&site);
        });
    }

    /// Starts a node again after a while.
    fn start_later(&mut self, seat: Arc<Seat>) {
        let (site, after) = (self.site.clone(), self.while_());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            site.start(&seat);
        });
    }

    async fn strike(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::SiteDown => self.site_down(),
            Kind::Partition => self.partition(),
            Kind::Transfer => self.transfer().await,
            Kind::Replace => self.replace(),
            Kind::Usurp => self.usurp().await,
            kind => {
                let Some(seat) = self.seat() else { return false };
                self.strike_one(kind, &seat)
            }
        }
    }

    fn strike_one(&mut self, kind: Kind, seat: &Arc<Seat>) -> bool {
        let machine = seat.machine.clone();
        match kind {
            Kind::Kill | Kind::PowerCut | Kind::Shutdown => {
                if !machine.is_running() {
                    return false;
                }
                self.begin(kind, Edge::Moment, "", &[seat]);
                match kind {
                    Kind::Kill => machine.kill(),
                    Kind::PowerCut => machine.power_off(),
                    _ => {
                        let (site, seat) = (self.site.clone(), seat.clone());
                        tokio::spawn(async move {
                            seat.shut_down().await;
                            site.start(&seat);
                        });
                        return true;
                    }
                }
                self.start_later(seat.clone());
            }
            Kind::Pause => {
                self.begin(kind, Edge::Begin, "", &[seat]);
                machine.pause();
                let after = self.while_();
                let (ledger, seat) = (self.ledger.clone(), seat.clone());
                self.later(after, kind, move |site| {
                    machine.resume();
                    // It may take itself for the leader that it was.
                    tokio::spawn(
                        Client::new(site.clone(), ledger, PROBES_FROM + seat.machine.id()).probe(seat),
                    );
                });
            }
            Kind::SlowDisk | Kind::FailingDisk | Kind::FullDisk => self.disk(kind, seat),
            Kind::SlowLinks | Kind::LossyLinks => self.links(kind, seat),
            Kind::Clock => {
                let offset_ms = self.rng.random_range(-60_000..=60_000);
                self.begin(kind, Edge::Moment, format!("{offset_ms} ms off"), &[seat]);
                machine.set_clock_offset(offset_ms);
            }
            Kind::Snapshot => {
                let Some(node) = seat.node() else { return false };
                self.begin(kind, Edge::Moment, "", &[seat]);
                tokio::spawn(async move { machine.run(node.trigger_snapshot()).await.is_some() });
            }
            Kind::SiteDown | Kind::Partition | Kind::Transfer | Kind::Replace | Kind::Usurp => return false,
        }
        true
    }

    fn disk(&mut self, kind: Kind, seat: &Arc<Seat>) {
        let mut disk = self.site.plan.disk;
        match kind {
            Kind::SlowDisk => {
                disk.sync_us_min = 20_000;
                disk.sync_us_max = self.rng.random_range(20_000..=400_000);
            }
            Kind::FullDisk => disk.room_bytes = Some(self.rng.random_range(0..=20_000)),
            _ => disk.failed_syncs_ppm = self.rng.random_range(5_000..=200_000),
        }
        self.begin(kind, Edge::Begin, format!("{disk:?}"), &[seat]);
        seat.machine.set_disk(disk);
        let (after, seat) = (self.while_(), seat.clone());
        self.later(after, kind, move |site| {
            seat.machine.set_disk(site.plan.disk);
            // A node that its disk stopped is started again by whoever looks after it.
            site.start(&seat);
        });
    }

    fn links(&mut self, kind: Kind, seat: &Arc<Seat>) {
        let mut link = self.site.plan.link;
        if kind == Kind::SlowLinks {
            link.latency_us_max = self.rng.random_range(20_000..=300_000);
        } else {
            link.breaks_ppm = self.rng.random_range(1_000..=50_000);
        }
        self.begin(kind, Edge::Begin, format!("{link:?}"), &[seat]);
        for other in self.site.seats() {
            self.site.set_links(seat, &other, link);
        }
        let (after, seat) = (self.while_(), seat.clone());
        self.later(after, kind, move |site| {
            for other in site.seats() {
                site.set_links(&seat, &other, site.plan.link);
            }
        });
    }

    fn site_down(&mut self) -> bool {
        let seats = self.site.seats();
        let power = self.rng.random_bool(0.7);
        let what = if power { "power cut" } else { "killed" };
        self.begin(
            Kind::SiteDown,
            Edge::Moment,
            what,
            &seats.iter().collect::<Vec<_>>(),
        );
        for seat in seats {
            if power {
                seat.machine.power_off();
            } else {
                seat.machine.kill();
            }
            self.start_later(seat);
        }
        true
    }

    fn partition(&mut self) -> bool {
        let mut seats = self.site.seats();
        seats.shuffle(&mut self.rng);
        if let Some(leader) = self.leader(&seats)
            && self.rng.random_bool(0.5)
        {
            seats.swap(0, leader);
        }
        let (shape, blocked) = self.shape(seats.len());
        let all: Vec<&Arc<Seat>> = seats.iter().collect();
        self.begin(Kind::Partition, Edge::Begin, shape, &all);
        let cut = self.cut();
        let breaks = self.rng.random_bool(0.3);
        for (from, to) in &blocked {
            self.site.set_link(&seats[*from], &seats[*to], cut);
            if breaks {
                seats[*from].machine.break_connections(&seats[*to].machine);
            }
        }
        let after = self.while_();
        self.later(after, Kind::Partition, move |site| {
            for (from, to) in blocked {
                site.set_link(&seats[from], &seats[to], site.plan.link);
            }
        });
        true
    }

    /// A shape of partition over machines of which the first may be the leader.
    fn shape(&mut self, count: usize) -> (&'static str, Blocked) {
        let both = |pairs: Vec<(usize, usize)>| -> Blocked {
            pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect()
        };
        let apart = |cut: usize| -> Vec<(usize, usize)> {
            (0..cut).flat_map(|a| (cut..count).map(move |b| (a, b))).collect()
        };
        match self.rng.random_range(0..6) {
            0 => ("one alone", both(apart(1))),
            1 => ("halves", both(apart(count / 2))),
            2 => ("one is not heard", apart(1)),
            3 => (
                "one does not hear",
                apart(1).into_iter().map(|(a, b)| (b, a)).collect(),
            ),
            4 => {
                // All on either side reach one in the middle.
                let bridge = count / 2;
                let pairs = (0..bridge).flat_map(|a| (bridge + 1..count).map(move |b| (a, b)));
                ("bridge", both(pairs.collect()))
            }
            _ => {
                let rng = &mut self.rng;
                let all = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
                let some = all.filter(|(a, b)| a != b && rng.random_bool(0.3));
                ("some links", some.collect())
            }
        }
    }

    fn leader(&self, seats: &[Arc<Seat>]) -> Option<usize> {
        let leader = self.leader_id()?;
        seats.iter().position(|seat| {
            let ports = seat.ports();
            ports.is_some_and(|ports| ports.id == leader)
        })
    }

    /// Who leads, by the word of most terms.
    fn leader_id(&self) -> Option<NodeId> {
        let running = self.site.running();
        let said = running.iter().filter_map(|(_, ports)| {
            let status = ports.cluster.status();
            Some((status.term, status.leader?))
        });
        said.max().map(|(_, leader)| leader)
    }

    async fn transfer(&mut self) -> bool {
        let running = self.site.running();
        let (Some((from, ports)), Some((_, to))) = (
            running.choose(&mut self.rng).cloned(),
            running.choose(&mut self.rng).cloned(),
        ) else {
            return false;
        };
        self.begin(
            Kind::Transfer,
            Edge::Moment,
            format!("to node {}", to.id),
            &[&from],
        );
        tokio::spawn(async move {
            let change = Change::Transfer { to: Some(to.id) };
            let handed = from.machine.run(ports.cluster.change(change, TRANSFER_MS)).await;
            drop(handed);
        });
        true
    }

    /// The leader still counts on those whom it heard a moment ago. They forget whom they heard when they are started
    /// anew, unless they take care, and who was not heard for longer asks them for their votes. They give them only if it
    /// lacks nothing of what they have, so nothing is asked for until then. Nothing else strikes meanwhile.
    async fn usurp(&mut self) -> bool {
        let election_max = Duration::from_millis(self.site.plan.timings.election_max_ms);
        // What was asked for before is done by then.
        let quiet = self.rng.random_range(election_max / 4..=election_max);
        // Its lease runs out, and between half an election and a whole one after that it stands for the first time.
        let unheard = self
            .rng
            .random_range(election_max * 14 / 10..=election_max * 19 / 10);
        let after = self.while_();
        let mut others = self.site.seats();
        others.shuffle(&mut self.rng);
        let Some(leader) = self.leader(&others) else {
            return false;
        };
        if Instant::now() + quiet + unheard + after > self.until {
            return false;
        }
        let leader = others.swap_remove(leader);
        let Some(usurper) = others.pop() else { return false };
        let what = format!("node {} stands for election", usurper.machine.id());
        self.begin(Kind::Usurp, Edge::Begin, what, &[&leader, &usurper]);
        self.ledger.keep_quiet(true);
        tokio::time::sleep(quiet).await;
        let cut = self.cut();
        self.site.set_links(&leader, &usurper, cut);
        tokio::time::sleep(unheard).await;
        self.ledger.keep_quiet(false);
        for follower in &others {
            self.site.set_links(&leader, follower, cut);
            follower.machine.kill();
            self.site.start(follower);
        }
        for probe in 0..USURP_PROBES {
            let number = PROBES_FROM * (2 + probe) + leader.machine.id();
            let client = Client::new(self.site.clone(), self.ledger.clone(), number);
            tokio::spawn(client.probe(leader.clone()));
        }
        tokio::time::sleep(after).await;
        self.site
            .fault(Kind::Usurp.name(), Edge::End, String::new(), Vec::new());
        for other in others.iter().chain([&usurper]) {
            self.site.set_links(&leader, other, self.site.plan.link);
        }
        true
    }

    fn replace(&mut self) -> bool {
        let running = self.site.running();
        // Until the cluster is formed it waits for each of its initial members.
        let formed = running
            .iter()
            .any(|(_, ports)| !ports.cluster.status().members.is_empty());
        if self.replaced || running.len() < self.site.seats().len() || !formed {
            return false;
        }
        let mut order: Vec<usize> = (0..running.len()).collect();
        order.shuffle(&mut self.rng);
        let [gone, member, ..] = order[..] else {
            return false;
        };
        let ((gone, ports), (member, _)) = (&running[gone], &running[member]);
        self.begin(Kind::Replace, Edge::Moment, "", &[gone]);
        gone.machine.power_off();
        gone.machine.wipe();
        gone.retire();
        let seat = self.site.replacement(ports.id, member);
        self.join_later(seat);
        self.replaced = true;
        true
    }

    /// Starts a node that joins, after a while; and may kill it on its way and start it again, soon enough that what its
    /// dead process asked is still under way.
    fn join_later(&mut self, seat: Arc<Seat>) {
        let (site, after) = (self.site.clone(), self.while_());
        let killed = self.rng.random_bool(0.5).then(|| {
            let ms = |rng: &mut ChaCha8Rng, max| Duration::from_millis(rng.random_range(0..=max));
            (ms(&mut self.rng, 400), ms(&mut self.rng, 60))
        });
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            site.start(&seat);
            if let Some((begun, down)) = killed {
                tokio::time::sleep(begun).await;
                site.fault(
                    Kind::Replace.name(),
                    Edge::Moment,
                    "killed as it joins".to_owned(),
                    vec![seat.machine.id()],
                );
                seat.machine.kill();
                tokio::time::sleep(down).await;
                site.start(&seat);
            }
        });
    }
}
