//! All of it at work: a real repository, real processes, real requests, and one node's log in memory.

use crate::ingress::Ingress;
use crate::testing::{Bed, Repository, SERVER, get, spec};
use onward_statemachine::deployments::apps::{self, Spec};
use onward_statemachine::deployments::instances::{self, Kind, State, Step};
use onward_statemachine::deployments::{builds, releases};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn text(version: &str) -> [(&'static str, String); 2] {
    [("server.py", SERVER.to_owned()), ("version", version.to_owned())]
}

fn commit(repository: &Repository, version: &str) -> apps::Commit {
    let files = text(version);
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    repository.commit(&files)
}

/// An ingress that has not looked yet stands for one that looks a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_served_at_once() {
    let bed = Bed::new();
    let repository = bed.repository();
    commit(&repository, "one");
    bed.declare("web", spec(&repository)).await;
    let node = bed.start().await;
    let ingress = Ingress::new(None, bed.reader());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    tokio::spawn(ingress.serve(listener, token.clone()));
    assert_eq!(get(address, "web.test", "/").await.unwrap().0, 503);
    let first = bed.deploy("web").await;
    bed.until_step("web", first, Step::Done).await;
    assert_eq!(
        get(address, "web.test", "/").await,
        Some((200, "one 1".to_owned()))
    );
    token.cancel();
    bed.crash(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deploys_switches_and_goes_back_without_a_failed_request() {
    let bed = Bed::new();
    let repository = bed.repository();
    commit(&repository, "one");
    bed.declare("web", spec(&repository)).await;
    let node = bed.start().await;
    let first = bed.deploy("web").await;
    bed.until_step("web", first, Step::Done).await;
    bed.until_get(&node, "web.test", (200, "one 1")).await;

    let failed = Arc::new(AtomicUsize::new(0));
    let served = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (failed, served, stop) = (Arc::clone(&failed), Arc::clone(&served), Arc::clone(&stop));
            let address = node.ingress_addr;
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match get(address, "web.test", "/").await {
                        Some((200, _)) => served.fetch_add(1, Ordering::SeqCst),
                        other => {
                            eprintln!("a request failed: {other:?}");
                            failed.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            })
        })
        .collect();
    commit(&repository, "two");
    let second = bed.deploy("web").await;
    bed.until_step("web", second, Step::Done).await;
    assert_eq!(
        bed.get(&node, "web.test", "/").await,
        Some((200, "two 2".to_owned()))
    );
    let back = bed
        .instances(instances::Command::Rollback {
            app: apps::Name("web".into()),
            release: None,
        })
        .await;
    bed.until_step("web", back, Step::Done).await;
    assert_eq!(
        bed.get(&node, "web.test", "/").await,
        Some((200, "one 1".to_owned()))
    );
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(failed.load(Ordering::SeqCst), 0);
    assert!(served.load(Ordering::SeqCst) > 100);

    let steps: Vec<Step> = bed
        .rollout("web", second)
        .trail
        .iter()
        .map(|passage| passage.step)
        .collect();
    use Step::*;
    assert_eq!(
        steps,
        [
            Queued, Fetching, Building, Starting, Checking, Switching, Draining, Done
        ]
    );
    bed.crash(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_environment_is_a_new_release_of_the_same_build() {
    let bed = Bed::new();
    let repository = bed.repository();
    commit(&repository, "one");
    let counter = bed.path("builds");
    let declared = Spec {
        build: Some(format!("echo built >>{}", counter.display())),
        ..spec(&repository)
    };
    bed.declare("web", declared.clone()).await;
    let node = bed.start().await;
    let first = bed.deploy("web").await;
    bed.until_step("web", first, Step::Done).await;
    let env = [("GREETING".to_owned(), "hello".to_owned())].into();
    bed.declare("web", Spec { env, ..declared }).await;
    let second = bed.deploy("web").await;
    bed.until_step("web", second, Step::Done).await;
    assert_eq!(
        bed.get(&node, "web.test", "/").await,
        Some((200, "one 2hello".to_owned()))
    );
    assert_eq!(std::fs::read_to_string(&counter).unwrap(), "built\n");
    let app = apps::Name("web".into());
    let newest = bed.read(|view| builds::newest(view, &app)).unwrap();
    assert_eq!(newest.0, builds::Number(1));
    let releases = bed.read(|view| releases::list(view, &app, None, 10)).releases;
    assert_eq!(releases.len(), 2);
    bed.crash(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_leaves_the_old_one_serving_and_says_why() {
    let bed = Bed::new();
    let repository = bed.repository();
    commit(&repository, "one");
    bed.declare("web", spec(&repository)).await;
    let node = bed.start().await;
    let first = bed.deploy("web").await;
    bed.until_step("web", first, Step::Done).await;

    let missing = bed
        .instances(instances::Command::Deploy {
            app: apps::Name("web".into()),
            reference: Some("nope".into()),
        })
        .await;
    bed.until_step("web", missing, Step::Failed).await;
    let broken = Spec {
        build: Some("echo no compiler >&2; exit 2".into()),
        ..spec(&repository)
    };
    bed.declare("web", broken).await;
    let second = bed.deploy("web").await;
    bed.until_step("web", second, Step::Failed).await;
    let reason = bed.rollout("web", second).reason.unwrap();
    assert!(
        reason.contains("status 2") && reason.contains("no compiler"),
        "{reason}"
    );

    let crashing = Spec {
        run: "echo cannot bind; exit 7".into(),
        ..spec(&repository)
    };
    bed.declare("web", crashing).await;
    let third = bed.deploy("web").await;
    bed.until_step("web", third, Step::Failed).await;
    let app = apps::Name("web".into());
    let failures = bed
        .read(|view| instances::failures(view, &app, None, 100))
        .failures;
    let of_third: Vec<_> = failures
        .iter()
        .filter(|(_, failure)| failure.rollout == third)
        .collect();
    assert_eq!(of_third.len(), instances::ATTEMPTS_MAX as usize);
    assert!(
        of_third[0]
            .1
            .reason
            .contains("status 7; its last output: cannot bind"),
        "{failures:?}"
    );
    assert_eq!(
        bed.get(&node, "web.test", "/").await,
        Some((200, "one 1".to_owned()))
    );
    bed.until("its instances are gone", || bed.live("web").len() == 1)
        .await;
    bed.crash(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_outlive_the_node_and_are_found_again() {
    let bed = Bed::new();
    let repository = bed.repository();
    commit(&repository, "one");
    bed.declare("web", spec(&repository)).await;
    let node = bed.start().await;
    let first = bed.deploy("web").await;
    bed.until_step("web", first, Step::Done).await;
    let before = bed.processes();
    assert!(!before.is_empty());
    bed.crash(node).await;
    let node = bed.start().await;
    bed.until_get(&node, "web.test", (200, "one 1")).await;
    assert_eq!(bed.processes(), before);

    // What crashes is replaced, under the same release.
    let (_, instance) = bed.live("web").remove(0);
    let pid = instance.process.unwrap().pid;
    nix::sys::signal::killpg(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    bed.until("another instance serves", || {
        let live = bed.live("web");
        live.len() == 1 && live[0].1.state == State::Active && live[0].1.process.as_ref().unwrap().pid != pid
    })
    .await;
    bed.until_get(&node, "web.test", (200, "one 1")).await;
    let last = bed.serving("web").last_rollout;
    assert!(matches!(bed.rollout("web", last).kind, Kind::Restart { .. }));
    let app = apps::Name("web".into());
    let failures = bed
        .read(|view| instances::failures(view, &app, None, 100))
        .failures;
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].1.step, None);

    // Stopped, started, deleted.
    bed.apps(apps::Command::Stop {
        name: app.clone(),
        expect: None,
    })
    .await;
    bed.until("nothing runs", || bed.processes().is_empty()).await;
    bed.until_get(&node, "web.test", (503, "")).await;
    bed.apps(apps::Command::Start {
        name: app.clone(),
        expect: None,
    })
    .await;
    bed.until_get(&node, "web.test", (200, "one 1")).await;
    bed.apps(apps::Command::Delete {
        name: app.clone(),
        expect: None,
    })
    .await;
    bed.until("the app is forgotten", || {
        bed.read(|view| apps::get(view, &app)).is_none()
    })
    .await;
    assert!(bed.processes().is_empty());
    bed.until_get(&node, "web.test", (404, "")).await;
    bed.crash(node).await;
}

/// The node is killed at each report that it makes, just before and just after that is in the log; whatever was under
/// way is then completed once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_report_changes_nothing() {
    let bed = Bed::new();
    let repository = bed.repository();
    commit(&repository, "one");
    let declared = Spec {
        build: Some("true".into()),
        ..spec(&repository)
    };
    bed.declare("web", declared).await;
    let mut round = 0;
    for after in [false, true] {
        for report in 1.. {
            round += 1;
            commit(&repository, &format!("v{round}"));
            let rollout = bed.deploy("web").await;
            let crash = bed.crash_at(report, after);
            let node = bed.start().await;
            let crashed = tokio::select! {
                () = crash => true,
                () = bed.until_step("web", rollout, Step::Done) => false,
            };
            bed.crash(node).await;
            bed.heal();
            let node = bed.start().await;
            bed.until_step("web", rollout, Step::Done).await;
            bed.until_get(&node, "web.test", (200, &format!("v{round} {round}")))
                .await;
            bed.until("one instance is left", || {
                bed.live("web").len() == 1 && bed.instances_running() == 1
            })
            .await;
            let row = bed.rollout("web", rollout);
            assert_eq!(row.attempt, 1, "report {report}: {:?}", row.trail);
            let app = apps::Name("web".into());
            assert_eq!(bed.read(|view| releases::newest(view, &app)).unwrap().0.0, round);
            assert_eq!(bed.read(|view| builds::newest(view, &app)).unwrap().0.0, round);
            bed.crash(node).await;
            if !crashed {
                // Assign, queue, fetched, start, finish, create, built, started, checked, switched, ended.
                assert!(report > 8, "only {report} reports");
                break;
            }
        }
    }
}
