//! Plans are what their seed says, and every kind of fault really happens to a real cluster.

use super::*;
use crate::cluster::tests::{PATIENCE, cluster, eventually};
use crate::cluster::{Cluster, Skew};
use crate::disk::{Errors, Loss};
use crate::history::{self, Edge, Record};
use crate::net::Isolation;
use crate::run::Recorder;
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_plan_is_what_its_seed_says() {
    let long = Duration::from_secs(60);
    for seed in 0..20 {
        let first = plan(&Kind::ALL, seed, long);
        assert_eq!(first.to_string(), plan(&Kind::ALL, seed, long).to_string());
        assert_eq!(first, plan(&Kind::ALL, seed, long));
        assert_ne!(first, plan(&Kind::ALL, seed + 1, long));
        assert!(first.strikes.is_sorted_by_key(|strike| strike.at));
        for strike in &first.strikes {
            assert!(strike.at < strike.until && strike.until <= long, "{strike:?}");
        }
        // What a kind is composed with does not change it.
        let alone = plan(&[Kind::Partition], seed, long);
        let among = first
            .strikes
            .iter()
            .filter(|strike| strike.fault.kind() == Kind::Partition);
        assert!(among.eq(&alone.strikes));
        let composed = compose(seed, &Kind::ALL);
        assert!((2..=3).contains(&composed.len()));
        assert_eq!(composed, compose(seed, &Kind::ALL));
    }
}

#[test]
fn every_kind_strikes_even_in_a_short_run() {
    for seed in 0..100 {
        let plan = plan(&Kind::ALL, seed, Duration::from_secs(5));
        for kind in Kind::ALL {
            assert!(
                plan.strikes.iter().any(|strike| strike.fault.kind() == kind),
                "{kind}"
            );
        }
    }
}

#[test]
fn kinds_are_read_by_name() {
    for kind in Kind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        super::named(&names, 3, Isolation::Loopback, false)
    };
    assert_eq!(
        named(&["pause", "kill", "pause"]),
        Ok(vec![Kind::Kill, Kind::Pause])
    );
    let drawn = named(&["random"]).expect("all of them are possible");
    assert!((2..=3).contains(&drawn.len()), "{drawn:?}");
    assert!(!drawn.contains(&Kind::Lossy) && !drawn.contains(&Kind::Rolling));
    let error = "earthquake".parse::<Kind>().expect_err("there is none");
    assert!(error.contains("partition"), "{error}");
}

/// One fault after another.
fn in_a_row(faults: &[Fault], lasts: Duration) -> Plan {
    let strikes = faults.iter().zip(0..).map(|(fault, turn)| Strike {
        at: turn * 2 * lasts,
        until: (turn * 2 + 1) * lasts,
        fault: *fault,
        draw: u64::from(turn),
    });
    Plan {
        seed: 0,
        kinds: faults.iter().map(Fault::kind).collect(),
        strikes: strikes.collect(),
    }
}

/// Writes all the time, to whoever takes it, until dropped.
async fn write(cluster: &Cluster) {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_millis(500))
        .build()
        .expect("a client");
    let clients = (0..4).map(|client| {
        let http = http.clone();
        async move {
            let mut turn = client;
            loop {
                let node = &cluster.nodes()[turn % cluster.nodes().len()];
                let put = http.put(format!("{}/v1/kv/{client}", node.http));
                let put = put.header("Content-Type", "application/octet-stream").body("x");
                // What is not taken now is not missed; who takes it is asked again.
                if !put.send().await.is_ok_and(|answer| answer.status().is_success()) {
                    turn += 1;
                }
            }
        }
    });
    futures::future::join_all(clients).await;
}

/// Carries a plan out under load, heals, and sees that all happened and all is well.
async fn carry_out(cluster: &Cluster, dir: &std::path::Path, plan: &Plan) -> Vec<Record> {
    let recorder = Recorder::create(dir).expect("a history");
    let mut campaign = Campaign::new(cluster, &recorder);
    tokio::select! {
        () = campaign.run(plan) => {}
        () = write(cluster) => {}
    }
    assert_eq!(campaign.outcome(), &Outcome::default(), "{plan}");
    campaign.heal_all().await;
    cluster.wait_until_ready(PATIENCE).await.expect("all serve");
    assert_eq!(campaign.outcome(), &Outcome::default(), "{plan}");
    recorder.finish().expect("written");
    let records = history::read(&dir.join("history.jsonl")).expect("reads");
    let mut struck: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for record in &records {
        let Record::Fault(fault) = record else {
            continue;
        };
        let (began, ended) = struck.entry(fault.nemesis.clone()).or_default();
        *began += u64::from(fault.edge != Edge::End);
        *ended += u64::from(fault.edge != Edge::Begin);
    }
    for kind in &plan.kinds {
        let (began, ended) = struck.get(kind.name()).copied().unwrap_or_default();
        assert!(began > 0, "{kind} never happened: {struck:?}");
        assert_eq!(began, ended, "{kind}");
    }
    records
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn processes_are_struck_and_come_back() {
    let faults = [
        Fault::Kill(Target::Leader),
        Fault::Pause(Target::Leader),
        Fault::Restart(Target::Leader),
        Fault::Power(Target::All),
        Fault::Rolling,
        Fault::Replace(Target::Leader),
    ];
    for isolation in [Isolation::Namespaces, Isolation::Loopback] {
        if let Some((dir, cluster)) = cluster(isolation, 3, fittings(&[], 0)).await {
            let records = carry_out(&cluster, dir.path(), &in_a_row(&faults, SECOND)).await;
            assert!(!records.is_empty());
            let members = cluster.status(1).await.expect("answers").members;
            assert_eq!(members.len(), 3, "{members:?}");
        }
    }
}

#[tokio::test]
async fn members_leave_join_and_hand_over() {
    let faults = [
        Fault::Transfer(Heir::Best),
        Fault::Member(Target::Leader),
        Fault::Transfer(Heir::Named),
        Fault::Member(Target::Follower),
    ];
    for isolation in [Isolation::Namespaces, Isolation::Loopback] {
        if let Some((dir, cluster)) = cluster(isolation, 3, fittings(&[], 0)).await {
            carry_out(&cluster, dir.path(), &in_a_row(&faults, 3 * SECOND)).await;
            let members = cluster.status(1).await.expect("answers").members;
            assert_eq!(members.len(), 3, "{members:?}");
            let newest = members.iter().map(|member| member.id).max();
            assert!(newest > Some(4), "two have joined: {members:?}");
            assert!(members.iter().all(|member| member.voter), "{members:?}");
        }
    }
}

#[tokio::test]
async fn what_finds_nobody_to_strike_is_tried_again() {
    let (dir, cluster) = cluster(Isolation::Loopback, 3, fittings(&[], 0))
        .await
        .expect("loopback needs nothing");
    let mut plan = in_a_row(&[Fault::Power(Target::All), Fault::Pause(Target::Leader)], SECOND);
    // All are dead when somebody is to be paused.
    plan.strikes[1].at = SECOND / 5;
    plan.strikes[1].until = SECOND / 2;
    carry_out(&cluster, dir.path(), &plan).await;
}

#[tokio::test]
async fn links_are_struck_and_come_back() {
    let late = Stream::Late {
        delay_ms: 30,
        jitter_ms: 30,
    };
    let thin = Stream::Thin {
        bytes_per_second: 2_000,
    };
    let mut faults: Vec<Fault> = Shape::ALL.map(Fault::Partition).into();
    faults.extend(
        [late, thin, Stream::Stuck, Stream::Broken].map(|stream| Fault::Slow(Target::Leader, stream)),
    );
    for isolation in [Isolation::Namespaces, Isolation::Loopback] {
        let lossy = Fault::Lossy(Target::Leader, 30);
        let lossy = (isolation == Isolation::Namespaces).then_some(lossy);
        let plan = in_a_row(&[&faults[..], lossy.as_slice()].concat(), SECOND / 2);
        if let Some((dir, cluster)) = cluster(isolation, 3, fittings(&plan.kinds, 0)).await {
            carry_out(&cluster, dir.path(), &plan).await;
        }
    }
}

#[tokio::test]
async fn clocks_are_struck_and_come_back() {
    let ahead = Skew {
        ahead_ms: 600_000,
        ..Skew::default()
    };
    let behind = Skew {
        ahead_ms: -3_000,
        ..Skew::default()
    };
    let fast = Skew {
        rate: 3.0,
        ..Skew::default()
    };
    let faults = [
        Fault::Clock(Target::Leader, Time::Off(behind)),
        Fault::Clock(Target::Follower, Time::Strobe(ahead)),
        Fault::Clock(Target::All, Time::Off(fast)),
    ];
    let plan = in_a_row(&faults, SECOND);
    if let Some((dir, cluster)) = cluster(Isolation::Namespaces, 3, fittings(&plan.kinds, 0)).await {
        carry_out(&cluster, dir.path(), &plan).await;
        for id in cluster.ids() {
            let ahead = cluster.clock_ahead_ms(id).await.expect("follows");
            assert!(ahead.abs() < 2_000, "node {id} is {ahead} ms ahead");
        }
    }
}

#[tokio::test]
async fn disks_are_struck_and_nodes_come_back() {
    let faults = [
        Fault::PowerLoss(Target::All, Loss::All),
        Fault::PowerLoss(Target::All, Loss::Sectors),
        Fault::Disk(Target::Leader, Media::SyncErrors(Errors::Always)),
        Fault::Disk(Target::Leader, Media::Full(0)),
        Fault::Disk(
            Target::Leader,
            Media::Slow {
                sync_ms: 50,
                other_ms: 1,
            },
        ),
        Fault::Bitflip(64),
    ];
    let plan = in_a_row(&faults, SECOND);
    if let Some((dir, cluster)) = cluster(Isolation::Namespaces, 3, fittings(&plan.kinds, 1)).await {
        carry_out(&cluster, dir.path(), &plan).await;
        let status = cluster.status(1).await.expect("answers");
        assert_eq!(status.members.len(), 3, "{status:?}");
    }
}

#[tokio::test]
async fn a_follower_that_is_held_back_needs_a_snapshot() {
    let faults = [Hold::Paused, Hold::Killed, Hold::Alone].map(Fault::Snapshot);
    let plan = in_a_row(&faults, 2 * SECOND);
    if let Some((dir, cluster)) = cluster(Isolation::Namespaces, 3, fittings(&plan.kinds, 0)).await {
        carry_out(&cluster, dir.path(), &plan).await;
        eventually("all have the same", async || {
            let mut applied = Vec::new();
            for id in cluster.ids() {
                applied.push(cluster.status(id).await.map(|status| status.applied).ok());
            }
            applied
                .iter()
                .all(|revision| revision.is_some() && *revision == applied[0])
        })
        .await;
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_replaced_by_another() {
    let Some((dir, cluster)) = cluster(Isolation::Namespaces, 3, fittings(&[], 0)).await else {
        return;
    };
    let leader = cluster.leader().await.expect("all serve");
    let recorder = Recorder::create(dir.path()).expect("a history");
    let mut campaign = Campaign::new(&cluster, &recorder);
    let plan = in_a_row(&[Fault::Partition(Shape::LeaderInMinority)], PATIENCE);
    let elsewhere = eventually("another leads, and the one that is cut off knows", async || {
        let status = cluster.status(leader).await;
        let alone = status.is_ok_and(|status| !status.healthy);
        alone && cluster.leader().await.is_some_and(|now| now != leader)
    });
    tokio::select! {
        () = campaign.run(&plan) => panic!("the partition ended first"),
        () = elsewhere => {}
    }
    campaign.heal_all().await;
    cluster.wait_until_ready(PATIENCE).await.expect("all serve");
}

#[tokio::test]
async fn what_cannot_be_done_is_a_failure_of_the_harness() {
    let (dir, cluster) = cluster(Isolation::Loopback, 3, fittings(&[], 0))
        .await
        .expect("loopback needs nothing");
    assert!(Kind::Lossy.obstacle(Isolation::Loopback, true).is_some());
    assert!(Kind::Rolling.obstacle(Isolation::Loopback, false).is_some());
    let recorder = Recorder::create(dir.path()).expect("a history");
    let mut campaign = Campaign::new(&cluster, &recorder);
    let faults = [
        Fault::Lossy(Target::All, 50),
        Fault::Clock(Target::All, Time::Off(Skew::default())),
    ];
    campaign.run(&in_a_row(&faults, Duration::from_millis(10))).await;
    assert_eq!(campaign.outcome().failures.len(), 2, "{:?}", campaign.outcome());
    recorder.finish().expect("written");
    let records = history::read(&dir.path().join("history.jsonl")).expect("reads");
    assert!(records.is_empty(), "{records:?}");
}
