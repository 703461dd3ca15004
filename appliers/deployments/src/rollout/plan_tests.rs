//! What is planned, case by case: a log with one app, `web`, seen by node 1.

use super::*;
use onward_statemachine::deployments::apps::Protocol;
use onward_statemachine::deployments::instances::{Active, Kind, Process};
use onward_statemachine::deployments::releases;
use onward_statemachine::{Actor, Generation, Revision};

const NOW: Millis = Millis(100_000);

fn name() -> Name {
    Name("web".into())
}

fn id(ordinal: u64) -> InstanceId {
    InstanceId {
        app: name(),
        release: releases::Number(1),
        ordinal: Ordinal(ordinal),
        created: Revision(ordinal),
    }
}

fn instance(node: u64, state: State) -> Instance {
    Instance {
        rollout: RolloutNumber(1),
        node: NodeId(node),
        state,
        process: None,
        placed_at: NOW,
        active_from: None,
        draining_from: None,
        ended_at: None,
        reason: None,
        created: Revision(1),
        modified: Revision(1),
    }
}

fn rollout(step: Step, node: Option<u64>) -> Option<(RolloutNumber, Rollout)> {
    let rollout = Rollout {
        kind: Kind::Rollback,
        generation: Generation(1),
        commit: None,
        build: None,
        release: Some(releases::Number(1)),
        instance: None,
        step,
        attempt: 3,
        failures: 0,
        node: node.map(NodeId),
        next_attempt_at: Millis(0),
        trail: Vec::new(),
        reason: None,
        requested_by: Actor::new("test"),
        requested_at: NOW,
        created: Revision(1),
        modified: Revision(1),
    };
    Some((RolloutNumber(7), rollout))
}

/// A running app whose instance 1 serves on `node`.
fn serving(node: u64) -> App {
    let active = Active {
        release: releases::Number(1),
        ordinal: Ordinal(1),
        node: NodeId(node),
        address: "127.0.0.1".into(),
        port: 1,
        protocol: Protocol::Http,
        routes: Vec::new(),
        since: Revision(1),
    };
    App {
        running: true,
        serving: Serving {
            active: Some(active),
            release: Some(releases::Number(1)),
            ..Serving::default()
        },
        live: vec![(id(1), instance(node, State::Active))],
        ..App::default()
    }
}

/// Node 1 leads; nodes 1 and 2 are in contact, node 3 is not.
fn observed() -> Observed {
    Observed {
        node: NodeId(1),
        now: NOW,
        leads: true,
        contacts: [(NodeId(1), 0), (NodeId(2), 500), (NodeId(3), LOST_AFTER_MS + 1)].into(),
        statuses: BTreeMap::new(),
        found: Vec::new(),
    }
}

fn follower() -> Observed {
    Observed {
        leads: false,
        ..observed()
    }
}

fn planned(app: App, observed: &Observed) -> Vec<Action> {
    let apps = [(name(), app)].into();
    plan(&Desired { apps }, observed).actions
}

fn assign(node: u64, instead_of: Option<u64>) -> Vec<Action> {
    vec![Action::Assign {
        app: name(),
        rollout: RolloutNumber(7),
        node: NodeId(node),
        instead_of: instead_of.map(NodeId),
    }]
}

fn restart(replaces: Option<u64>, reason: &str) -> Vec<Action> {
    vec![Action::Restart {
        app: name(),
        replaces: replaces.map(Ordinal),
        reason: reason.into(),
    }]
}

#[test]
fn what_runs_is_left_alone() {
    assert_eq!(planned(serving(1), &observed()), []);
    assert_eq!(planned(serving(2), &observed()), []);
    let declared = App {
        running: true,
        ..App::default()
    };
    assert_eq!(planned(declared, &observed()), []);
}

#[test]
fn rollouts_are_assigned_where_the_files_are_and_else_where_there_is_room() {
    let queued = |app: App| App {
        rollout: rollout(Step::Queued, None),
        ..app
    };
    let fresh = || App {
        running: true,
        ..App::default()
    };
    assert_eq!(planned(queued(serving(2)), &observed()), assign(2, None));
    assert_eq!(planned(queued(serving(3)), &observed()), assign(1, None));
    assert_eq!(planned(queued(serving(3)), &follower()), []);
    let built = App {
        built_on: Some(NodeId(2)),
        ..fresh()
    };
    assert_eq!(planned(queued(built), &observed()), assign(2, None));
    let crowded = App {
        live: vec![(id(9), instance(1, State::Draining))],
        ..fresh()
    };
    let apps = [(name(), queued(fresh())), (Name("x".into()), crowded)].into();
    let actions = plan(&Desired { apps }, &observed()).actions;
    assert!(actions.contains(&assign(2, None)[0]), "{actions:?}");
    // A leader that hears of nobody keeps the work to itself.
    let alone = Observed {
        contacts: [(NodeId(1), 0)].into(),
        ..observed()
    };
    assert_eq!(planned(queued(serving(2)), &alone), assign(1, None));
}

#[test]
fn work_waits_for_its_time() {
    let mut app = App {
        rollout: rollout(Step::Starting, Some(1)),
        ..serving(1)
    };
    let work = Action::Work {
        app: name(),
        rollout: RolloutNumber(7),
        step: Step::Starting,
        attempt: 3,
    };
    assert_eq!(planned(app.clone(), &follower()), [work]);
    app.rollout.as_mut().unwrap().1.next_attempt_at = NOW.plus(5);
    let apps = [(name(), app)].into();
    let later = plan(&Desired { apps }, &follower());
    assert_eq!((later.actions, later.wake_at), (vec![], Some(NOW.plus(5))));

    let mut queued = App {
        rollout: rollout(Step::Queued, None),
        ..serving(1)
    };
    queued.rollout.as_mut().unwrap().1.next_attempt_at = NOW.plus(5);
    let apps = [(name(), queued)].into();
    assert_eq!(plan(&Desired { apps }, &observed()).wake_at, Some(NOW.plus(5)));

    for step in [Step::Queued, Step::Draining] {
        let app = App {
            rollout: rollout(step, Some(1)),
            ..serving(1)
        };
        assert_eq!(planned(app, &follower()), [], "{step}");
    }
    let elsewhere = App {
        rollout: rollout(Step::Starting, Some(2)),
        ..serving(1)
    };
    assert_eq!(planned(elsewhere, &observed()), []);
}

#[test]
fn lost_nodes_lose_their_work() {
    let abandoned = App {
        rollout: rollout(Step::Building, Some(3)),
        ..serving(1)
    };
    assert_eq!(planned(abandoned, &observed()), assign(1, Some(3)));
    let switched = App {
        rollout: rollout(Step::Draining, Some(3)),
        ..serving(3)
    };
    assert_eq!(planned(switched, &observed()), []);

    // What serves there is replaced first, and given up only when it is to go.
    assert_eq!(
        planned(serving(3), &observed()),
        restart(Some(1), "node 3 is out of contact")
    );
    assert_eq!(planned(serving(3), &follower()), []);
    let mut draining = serving(1);
    draining.live.push((id(2), instance(3, State::Draining)));
    let lose = Action::Lose {
        id: id(2),
        node: NodeId(3),
    };
    assert_eq!(planned(draining, &observed()), [lose]);
}

#[test]
fn what_crashed_is_reported_and_restarted() {
    let exited = Observed {
        statuses: [(
            id(1),
            Status::Exited {
                reason: "it exited with status 1".into(),
            },
        )]
        .into(),
        ..follower()
    };
    let report = Action::ReportExit {
        id: id(1),
        reason: "it exited with status 1".into(),
    };
    assert_eq!(planned(serving(1), &exited), [report]);
    assert_eq!(planned(serving(2), &exited), []);
    let absent = Observed {
        statuses: [(id(1), Status::Absent)].into(),
        ..follower()
    };
    assert!(matches!(
        planned(serving(1), &absent)[..],
        [Action::ReportExit { .. }]
    ));

    let gone = App {
        live: Vec::new(),
        serving: Serving {
            release: Some(releases::Number(1)),
            ..Serving::default()
        },
        ..serving(1)
    };
    assert_eq!(
        planned(gone.clone(), &observed()),
        restart(None, "no instance serves")
    );
    let under_way = App {
        rollout: rollout(Step::Starting, Some(2)),
        ..gone
    };
    assert_eq!(planned(under_way, &observed()), []);
}

#[test]
fn what_is_stopped_or_deleted_goes() {
    let stopped = App {
        running: false,
        ..serving(1)
    };
    assert_eq!(
        planned(stopped.clone(), &observed()),
        [Action::Halt { app: name() }]
    );
    assert_eq!(planned(stopped, &follower()), []);
    let halted = |state| App {
        running: false,
        deleting: true,
        live: vec![(id(1), instance(1, state))],
        ..App::default()
    };
    assert_eq!(
        planned(halted(State::Draining), &observed()),
        [Action::Drain { id: id(1) }]
    );
    let empty = App {
        live: Vec::new(),
        ..halted(State::Draining)
    };
    assert_eq!(
        planned(empty.clone(), &observed()),
        [Action::Forget { app: name() }]
    );
    let kept = App {
        deleting: false,
        ..empty
    };
    assert_eq!(planned(kept, &observed()), []);
}

#[test]
fn what_the_log_does_not_have_is_ended() {
    let running = || {
        Status::Running(Process {
            address: "127.0.0.1".into(),
            port: 1,
            pid: 1,
            start_ticks: 1,
        })
    };
    let exited = || Status::Exited {
        reason: String::new(),
    };
    let remove = |ordinal, forget| Action::Remove {
        id: id(ordinal),
        forget,
    };
    let found = vec![
        (id(1), Known::Live, running()),
        (id(2), Known::Ended, running()),
        (id(3), Known::Ended, exited()),
        (id(4), Known::Unknown, running()),
        (id(5), Known::Unknown, exited()),
    ];
    let observed = Observed { found, ..follower() };
    assert_eq!(
        planned(serving(1), &observed),
        [remove(2, false), remove(4, true), remove(5, true)]
    );
}
