use super::*;
use onward_statemachine::Revision;
use onward_statemachine::deployments::apps::Name;
use onward_statemachine::deployments::instances::Ordinal;
use onward_statemachine::deployments::releases;
use std::collections::BTreeMap;

/// A driver in a folder, under a mark of its own; what it runs ends with it.
struct Bed {
    scratch: tempfile::TempDir,
    cluster: uuid::Uuid,
}

impl Bed {
    fn new() -> Self {
        Bed {
            scratch: tempfile::tempdir().unwrap(),
            cluster: uuid::Uuid::new_v4(),
        }
    }

    /// As after a restart of the node.
    fn driver(&self) -> ProcessDriver {
        let folder = self.scratch.path().join("instances");
        ProcessDriver::new(folder, [127, 0, 0, 1].into(), self.cluster, NodeId(1))
    }

    fn order(&self, ordinal: u64, run: &str) -> Order {
        Order {
            id: InstanceId {
                app: Name("web".into()),
                release: releases::Number(1),
                ordinal: Ordinal(ordinal),
                created: Revision(ordinal + 100),
            },
            run: run.to_owned(),
            tree: self.scratch.path().to_owned(),
            env: BTreeMap::from([("COLOR".to_owned(), "blue".to_owned())]),
        }
    }

    fn marked(&self) -> Vec<procfs::Marked> {
        procfs::marked(&format!("{MARK}={}/", self.cluster))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        signal(&self.marked(), Signal::SIGKILL);
    }
}

async fn until<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < give_up, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn exit(driver: &ProcessDriver, id: &InstanceId) -> String {
    until(|| match driver.status(id) {
        Status::Exited { reason } => Some(reason),
        _ => None,
    })
    .await
}

fn running(status: &Status) -> &Process {
    match status {
        Status::Running(process) => process,
        other => panic!("it does not run: {other:?}"),
    }
}

#[test]
fn ids_are_read_as_written() {
    let id = Bed::new().order(3, "true").id;
    assert_eq!(id.to_string(), "web/1/3@103");
    assert_eq!(InstanceId::parse("web/1/3@103"), Some(id));
    for other in [
        "",
        "web",
        "web/1/3",
        "web/1@3",
        "We/1/3@4",
        "web/1/3/4@5",
        "../1/3@4",
        "web/1/x@4",
    ] {
        assert_eq!(InstanceId::parse(other), None, "{other}");
    }
}

#[tokio::test]
async fn an_instance_has_its_environment_and_nothing_else() {
    let bed = Bed::new();
    let driver = bed.driver();
    let order = bed.order(1, "env | sort; pwd; exit 3");
    driver.start(order.clone()).await.unwrap();
    assert!(
        exit(&driver, &order.id)
            .await
            .starts_with("it exited with status 3; its last output: /")
    );
    let log = fs::read_to_string(driver.log_file(&order.id)).unwrap();
    let names: Vec<&str> = log
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    let expected = [
        "COLOR",
        "HOME",
        "HOST",
        "LANG",
        "ONWARD_APP",
        "ONWARD_INSTANCE",
        "ONWARD_RELEASE",
        "PATH",
        "PORT",
        "PWD",
        "TMPDIR",
    ];
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| !matches!(*name, "_" | "OLDPWD" | "SHLVL"))
        .collect();
    assert_eq!(names, expected);
    // What has ended is not started again.
    let again = driver.start(order.clone()).await.unwrap();
    assert!(matches!(again, Status::Exited { .. }));
    driver.forget(&order.id);
    assert_eq!(driver.status(&order.id), Status::Absent);
    assert_eq!(driver.known(), []);
}

#[tokio::test]
async fn a_start_that_was_not_noted_is_found_by_its_mark() {
    let bed = Bed::new();
    let order = bed.order(1, "exec sleep 600");
    let first = bed.driver().start(order.clone()).await.unwrap();
    let (handle, home) = (
        bed.driver().handle(&order.id).unwrap(),
        bed.driver().home(&order.id),
    );

    // As if the node had been killed between the start and its note: the intention is all there is.
    let intention = Handle {
        pid: None,
        start_ticks: None,
        ..handle.clone()
    };
    bed.driver().write_handle(&order.id, &intention).unwrap();
    assert_eq!(bed.driver().status(&order.id), first);
    assert_eq!(bed.driver().start(order.clone()).await.unwrap(), first);
    assert_eq!(bed.driver().handle(&order.id).unwrap().pid, handle.pid);
    assert_eq!(bed.marked().iter().filter(|found| found.leads()).count(), 1);

    // As if its folder were gone: still known, and stopped.
    fs::remove_dir_all(home).unwrap();
    assert_eq!(bed.driver().known(), std::slice::from_ref(&order.id));
    bed.driver()
        .stop(&order.id, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(bed.marked(), []);
}

#[tokio::test]
async fn an_intention_that_came_to_nothing_is_started_and_one_that_ended_is_not() {
    let bed = Bed::new();
    let driver = bed.driver();
    let order = bed.order(1, "exec sleep 600");
    let home = driver.home(&order.id);
    fs::create_dir_all(home.join("home")).unwrap();
    let intention = Handle {
        scope: driver.scope.clone(),
        port: 4444,
        boot: procfs::boot_id(),
        pid: None,
        start_ticks: None,
    };
    driver.write_handle(&order.id, &intention).unwrap();
    assert_eq!(driver.status(&order.id), Status::Absent);
    let status = driver.start(order.clone()).await.unwrap();
    assert_eq!(running(&status).port, 4444);

    let over = bed.order(2, "exec sleep 600");
    fs::create_dir_all(driver.home(&over.id)).unwrap();
    driver.write_handle(&over.id, &intention).unwrap();
    fs::write(driver.home(&over.id).join("exit"), "0\n").unwrap();
    assert!(matches!(driver.start(over).await.unwrap(), Status::Exited { .. }));

    // Ids and ticks of another boot mean nothing.
    let before = bed.order(3, "exec sleep 600");
    fs::create_dir_all(driver.home(&before.id)).unwrap();
    let foreign = Handle {
        boot: "another".to_owned(),
        ..driver.handle(&order.id).unwrap()
    };
    driver.write_handle(&before.id, &foreign).unwrap();
    assert!(
        matches!(driver.start(before).await.unwrap(), Status::Exited { reason } if reason.contains("anew"))
    );
}

#[tokio::test]
async fn stopping_reaches_all_of_it() {
    let bed = Bed::new();
    let driver = bed.driver();
    // One that ends as asked, and says so.
    let polite = bed.order(
        1,
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    );
    driver.start(polite.clone()).await.unwrap();
    until(|| last_line(&driver.log_file(&polite.id))).await;
    driver.stop(&polite.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(
        exit(&driver, &polite.id).await,
        "it exited with status 0; its last output: bye"
    );

    // One that does not listen, with a child in a session of its own.
    let stubborn = bed.order(
        2,
        "trap '' TERM; setsid sleep 600 & echo up; while :; do sleep 0.05; done",
    );
    driver.start(stubborn.clone()).await.unwrap();
    until(|| last_line(&driver.log_file(&stubborn.id))).await;
    until(|| (bed.marked().iter().filter(|found| found.leads()).count() == 2).then_some(())).await;
    driver
        .stop(&stubborn.id, Duration::from_millis(100))
        .await
        .unwrap();
    assert_eq!(bed.marked(), []);
    // Stopping what is gone, or never was, is no error.
    driver.stop(&stubborn.id, Duration::ZERO).await.unwrap();
    driver
        .stop(&bed.order(9, "true").id, Duration::ZERO)
        .await
        .unwrap();

    // All at once, knowing nothing but the folder.
    driver.start(bed.order(3, "exec sleep 600")).await.unwrap();
    stop_all(&driver.folder, Duration::from_secs(30)).await.unwrap();
    assert_eq!(bed.marked(), []);
}

#[test]
fn logs_are_put_aside() {
    let scratch = tempfile::tempdir().unwrap();
    let log = scratch.path().join("log");
    fs::write(&log, "short").unwrap();
    put_aside(&log).unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "short");
    File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(LOG_BYTES_MAX + 1)
        .unwrap();
    put_aside(&log).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    assert_eq!(
        fs::metadata(log.with_extension("old")).unwrap().len(),
        LOG_BYTES_MAX + 1
    );
    put_aside(&scratch.path().join("none")).unwrap();
}
