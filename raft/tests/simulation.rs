//! Nodes on simulated machines: a cluster forms, works, survives what the models do to it, and a seed repeats.

use onward_raft::sim::{DiskFaults, Link, Machine, World};
use onward_raft::{Config, InitialMember, Join, Node, SnapshotPolicy};
use onward_statemachine::hash::state_hash;
use onward_statemachine::ports::{Freshness, Proposal};
use onward_statemachine::services::kv;
use onward_statemachine::{Actor, Command, CommandId, NodeId, Outcome, Revision};
use std::time::Duration;

const DEADLINE_MS: u64 = 30_000;

fn config(machines: &[Machine], place: usize) -> Config {
    let mut config = Config::new("/data", "simulated");
    config.node_id = Some(NodeId(machines[place].id()));
    config.peer_listen = machines[place].address();
    config.initial_members = machines
        .iter()
        .map(|machine| InitialMember {
            id: NodeId(machine.id()),
            peer_address: machine.address(),
            http_url: String::new(),
        })
        .collect();
    config.snapshots = SnapshotPolicy {
        entries: 20,
        log_bytes: 1 << 20,
        keep_entries: 5,
        ..SnapshotPolicy::default()
    };
    config
}

async fn start(machines: &[Machine], place: usize) -> Node {
    let started = machines[place].start(config(machines, place)).await;
    started.expect("goes on").expect("starts")
}

fn put(world: &World, number: u64) -> Proposal {
    let now_ms = 1_800_000_000_000 + world.elapsed().as_millis() as u64;
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms, &[number as u8; 10]).into_uuid();
    Proposal {
        command_id: Some(CommandId(id)),
        actor: Actor::new("test"),
        command: Command::Kv(kv::Command::Put {
            key: kv::Key(format!("key-{}", number % 7).into_bytes()),
            value: vec![number as u8; 50],
            expect: None,
        }),
    }
}

async fn write(world: &World, machine: &Machine, node: &Node, number: u64) -> Revision {
    let proposed = machine
        .run(node.proposer().propose(put(world, number), DEADLINE_MS))
        .await;
    match proposed.expect("goes on") {
        Ok(Outcome::Accepted { revision, .. }) => revision,
        other => panic!("not written: {other:?}"),
    }
}

/// Three nodes, a crash of each kind, a partition; comes to the state's hash and the trace.
fn scenario(seed: u64) -> (u64, Vec<String>) {
    World::run(seed, true, async |world| {
        let machines: Vec<Machine> = (1..=3).map(|id| world.machine(id)).collect();
        for machine in &machines {
            machine.set_disk(DiskFaults {
                sync_us_min: 100,
                sync_us_max: 3_000,
                ..DiskFaults::default()
            });
        }
        let mut nodes = Vec::new();
        for place in 0..3 {
            nodes.push(start(&machines, place).await);
        }
        for number in 0..30 {
            write(&world, &machines[0], &nodes[0], number).await;
        }
        machines[1].power_off();
        machines[2].kill();
        nodes[1] = start(&machines, 1).await;
        for number in 30..60 {
            write(&world, &machines[1], &nodes[1], number).await;
        }
        nodes[2] = start(&machines, 2).await;
        let blocked = Link {
            blocked: true,
            ..Link::default()
        };
        machines[2].set_link(&machines[0], blocked);
        machines[0].set_link(&machines[2], blocked);
        for number in 60..90 {
            write(&world, &machines[1], &nodes[1], number).await;
        }
        machines[2].set_link(&machines[0], Link::default());
        machines[0].set_link(&machines[2], Link::default());
        let mut hashes = Vec::new();
        for (machine, node) in machines.iter().zip(&nodes) {
            let reader = node.reader();
            let fresh = machine.run(reader.barrier(Freshness::Linearizable)).await;
            fresh.expect("goes on").expect("is fresh");
            hashes.push(reader.read(state_hash));
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
        assert_eq!(world.complaints(), Vec::<String>::new());
        assert!(world.elapsed() < Duration::from_secs(60));
        (hashes[0], world.take_trace())
    })
}

#[test]
fn a_seed_repeats_byte_for_byte_and_another_does_not() {
    for seed in 0..5 {
        let (hash, trace) = scenario(seed);
        let (again, repeated) = scenario(seed);
        for (one, other) in trace.iter().zip(&repeated) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(trace.len(), repeated.len());
        assert_eq!(hash, again);
        assert!(trace.len() > 500, "{}", trace.len());
    }
    assert_ne!(scenario(0).1, scenario(1).1);
}

/// Once a cluster is formed, by anyone, any one machine may be lost with its disk: before others have the first entry, before
/// they were told that none had a log, and with the power of all of them.
#[test]
fn once_a_cluster_is_formed_any_machine_may_be_lost() {
    let mut alone = 0;
    for seed in 1..=60 {
        for count in [3, 5] {
            World::run(seed, false, async |world| {
                let machines: Vec<Machine> = (1..=count).map(|id| world.machine(id)).collect();
                let mut nodes = Vec::new();
                for place in 0..machines.len() {
                    machines[place].set_disk(DiskFaults {
                        sync_us_min: 0,
                        sync_us_max: seed % 3 * 10_000,
                        ..DiskFaults::default()
                    });
                    nodes.push(start(&machines, place).await);
                }
                let formed = |node: &&Node| !node.cluster().status().members.is_empty();
                while !nodes.iter().any(|node| formed(&node)) {
                    tokio::time::sleep(Duration::from_micros(20)).await;
                }
                // At once, or with its requests for votes or its first entries on their way.
                tokio::time::sleep(Duration::from_micros(seed % 10 * 600)).await;
                alone += u32::from(nodes.iter().filter(formed).count() == 1);
                let first = nodes.iter().position(|node| formed(&node)).expect("one has");
                let lost = (first + seed as usize % 4) % machines.len();
                machines[lost].power_off();
                machines[lost].wipe();
                let other = (lost + 1) % machines.len();
                if seed % 2 == 0 {
                    for place in (0..machines.len()).filter(|place| *place != lost) {
                        machines[place].power_off();
                        nodes[place] = start(&machines, place).await;
                    }
                }
                write(&world, &machines[other], &nodes[other], seed).await;
            });
        }
    }
    assert!(
        alone > 5,
        "in {alone} of 120 runs one node alone had formed the cluster"
    );
}

/// A node is killed while its request to be let in is on its way through a member that stands still; what it asked is
/// carried out when its successor is let in already. That one gets its vote, with the same directory or an empty one.
#[test]
fn what_a_dead_joiner_asked_takes_nobodys_place() {
    for seed in 1..=16 {
        for wiped in [false, true] {
            World::run(seed, false, async |world| {
                let machines: Vec<Machine> = (1..=4).map(|id| world.machine(id)).collect();
                let mut nodes = Vec::new();
                for place in 0..3 {
                    nodes.push(start(&machines[..3], place).await);
                }
                write(&world, &machines[0], &nodes[0], 1).await;
                let leader = nodes[0].cluster().status().leader.expect("one leads").0 as usize - 1;
                let (leader, other, joins) = (&machines[leader], &machines[(leader + 1) % 3], &machines[3]);
                let joining = |through: &Machine| {
                    let mut config = Config::new("/data", "simulated");
                    config.peer_listen = joins.address();
                    config.join = Some(Join {
                        peer_address: through.address(),
                        replaces: None,
                    });
                    config
                };
                let (machine, config) = (joins.clone(), joining(other));
                let asking = tokio::spawn(async move { machine.start(config).await.is_some() });
                tokio::time::sleep(Duration::from_millis(seed)).await;
                other.pause();
                tokio::time::sleep(Duration::from_millis(20)).await;
                joins.kill();
                asking.await.expect("was killed");
                if wiped {
                    joins.wipe();
                }
                let joined = joins.start(joining(leader)).await;
                let joined = joined.expect("goes on").expect("is let in");
                other.resume();
                let votes = || {
                    let members = joined.cluster().status().members;
                    members
                        .iter()
                        .any(|member| member.id == joined.id() && member.voter)
                };
                let since = world.elapsed();
                while !votes() {
                    assert!(
                        world.elapsed() - since < Duration::from_secs(60),
                        "seed {seed}, wiped {wiped}: {:?}",
                        joined.cluster().status()
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                write(&world, joins, &joined, 2).await;
            });
        }
    }
}
