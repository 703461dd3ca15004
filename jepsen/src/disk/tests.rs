//! Real files on a real mount, each fault once.

use super::*;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

/// A mounted disk in a directory of its own; `None`, with the reason printed, where none can be mounted.
fn mounted(seed: u64) -> Option<(tempfile::TempDir, FaultyDisk)> {
    if let Err(reason) = usable() {
        eprintln!("not tested: {reason}");
        return None;
    }
    let dir = tempfile::tempdir().expect("temp dir");
    let disk =
        FaultyDisk::mount(&dir.path().join("backing"), &dir.path().join("data"), seed).expect("mounts");
    Some((dir, disk))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A file whose bytes and name are durable.
fn durable(path: &Path, bytes: &[u8]) -> File {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .expect("opens");
    file.write_all(bytes).expect("writes");
    file.sync_all().expect("syncs");
    sync_dir(path.parent().expect("a parent")).expect("syncs");
    file
}

fn errno(error: &io::Error) -> Option<nix::errno::Errno> {
    error.raw_os_error().map(nix::errno::Errno::from_raw)
}

#[test]
fn it_is_a_file_system() {
    let Some((dir, disk)) = mounted(1) else { return };
    let root = disk.path().to_owned();
    fs::create_dir_all(root.join("a/b")).expect("makes");
    fs::write(root.join("a/b/file"), b"first").expect("writes");
    fs::hard_link(root.join("a/b/file"), root.join("a/link")).expect("links");
    assert_eq!(fs::metadata(root.join("a/link")).expect("is there").nlink(), 2);
    let mut file = File::options()
        .append(true)
        .open(root.join("a/link"))
        .expect("opens");
    file.write_all(b", second").expect("appends");
    assert_eq!(fs::read(root.join("a/b/file")).expect("reads"), b"first, second");
    fs::rename(root.join("a/b/file"), root.join("top")).expect("renames");
    let names = |path: &Path| {
        let entries = fs::read_dir(path).expect("lists");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&root), ["a", "top"]);
    assert_eq!(names(&root.join("a/b")), [""; 0]);
    let full = fs::remove_dir(root.join("a")).expect_err("is not empty");
    assert_eq!(errno(&full), Some(nix::errno::Errno::ENOTEMPTY));
    fs::remove_dir(root.join("a/b")).expect("removes");
    file.set_len(5).expect("cuts");
    assert_eq!(fs::read(root.join("top")).expect("reads"), b"first");
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20)
        .expect("allocates");
    assert_eq!(fs::metadata(root.join("top")).expect("is there").len(), 5);
    let locked = File::open(root.join("top")).expect("opens");
    locked.try_lock().expect("locks");
    File::open(root.join("top"))
        .expect("opens")
        .try_lock()
        .expect_err("is locked");
    std::os::unix::fs::symlink("a/link", root.join("soft")).expect("links");
    assert_eq!(fs::read(root.join("soft")).expect("reads"), b"first");
    fs::remove_file(root.join("top")).expect("removes");
    drop((file, locked));
    disk.unmount().expect("unmounts");

    let backing = dir.path().join("backing");
    assert_eq!(names(&backing), ["a", "soft"]);
    assert_eq!(fs::read(backing.join("a/link")).expect("reads"), b"first");
    let again = FaultyDisk::mount(&backing, &root, 1).expect("mounts again");
    again.power_cut(Loss::All).expect("cuts");
    assert_eq!(fs::read(root.join("a/link")).expect("reads"), b"first");
}

/// The kernel maps the program's file to run it.
#[test]
fn files_can_be_mapped() {
    let Some((_dir, disk)) = mounted(13) else { return };
    let program = disk.path().join("true");
    fs::copy("/bin/true", &program).expect("copies");
    let status = std::process::Command::new(&program).status().expect("runs");
    assert!(status.success());
}

#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let Some((_dir, disk)) = mounted(2) else { return };
    let path = |name: &str| disk.path().join(name);
    let kept = durable(&path("kept"), b"old old old");
    let renamed = durable(&path("new-name.tmp"), b"renamed");
    durable(&path("removed"), b"removed");
    kept.write_all_at(b"new", 0).expect("writes");
    kept.set_len(8).expect("cuts");
    fs::remove_file(path("removed")).expect("removes");
    fs::rename(path("new-name.tmp"), path("new-name")).expect("renames");
    let mut unnamed = File::create(path("unnamed")).expect("creates");
    unnamed
        .write_all(b"synced, but its directory is not")
        .expect("writes");
    unnamed.sync_all().expect("syncs");
    assert_eq!(fs::read(path("kept")).expect("reads"), b"new old ");
    drop((kept, renamed, unnamed));

    let lost = disk.power_cut(Loss::All).expect("cuts");
    assert_eq!(fs::read(path("kept")).expect("reads"), b"old old old");
    assert_eq!(fs::read(path("removed")).expect("reads"), b"removed");
    assert_eq!(fs::read(path("new-name.tmp")).expect("reads"), b"renamed");
    assert!(!path("new-name").exists() && !path("unnamed").exists());
    assert_eq!(lost.names.len(), 3, "{lost:?}");
    assert_eq!(lost.files.len(), 1, "{lost:?}");
    assert_eq!(disk.counts().lost_names, 3);
}

#[test]
fn what_was_synced_survives_every_power_cut() {
    for loss in [Loss::All, Loss::Pages, Loss::Sectors] {
        let Some((_dir, disk)) = mounted(3) else { return };
        let path = |name: &str| disk.path().join(name);
        fs::create_dir(path("log")).expect("makes");
        let mut file = durable(&path("log/1.tmp"), &[7; 10_000]);
        fs::rename(path("log/1.tmp"), path("log/1")).expect("renames");
        sync_dir(&path("log")).expect("syncs");
        sync_dir(disk.path()).expect("syncs");
        file.write_all(&[8; 100]).expect("writes");
        file.sync_data().expect("syncs");
        let direct = File::options()
            .write(true)
            .custom_flags(nix::fcntl::OFlag::O_DSYNC.bits())
            .open(path("log/1"))
            .expect("opens");
        direct.write_all_at(&[9; 100], 10_100).expect("writes");
        file.write_all_at(&[1; 50_000], 20_000).expect("writes");
        disk.power_cut(loss).expect("cuts");
        let bytes = fs::read(path("log/1")).expect("reads");
        let expected = [vec![7; 10_000], vec![8; 100], vec![9; 100]].concat();
        assert_eq!(&bytes[..expected.len()], expected, "{loss:?}");
        assert!(!path("log/1.tmp").exists());
    }
}

#[test]
fn torn_writes_are_whole_sectors() {
    let Some((_dir, disk)) = mounted(4) else { return };
    let path = disk.path().join("file");
    let mut torn_pages = 0;
    for _ in 0..20 {
        let file = durable(&path, &[1; 64 << 10]);
        file.write_all_at(&[2; 64 << 10], 0).expect("writes");
        disk.power_cut(Loss::Sectors).expect("cuts");
        let bytes = fs::read(&path).expect("reads");
        assert!(
            bytes
                .chunks(512)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
        );
        torn_pages += bytes
            .chunks(4096)
            .filter(|page| page.contains(&1) && page.contains(&2))
            .count();
    }
    assert!(torn_pages > 0, "no write was ever torn");
}

#[test]
fn what_a_failed_sync_dropped_never_reaches_the_disk() {
    let Some((_dir, disk)) = mounted(5) else { return };
    let path = disk.path().join("file");
    let file = durable(&path, &[1; 8192]);
    file.write_all_at(&[2; 8192], 0).expect("writes");
    disk.set(Faults {
        sync_errors: Errors::Next(1),
        ..Faults::default()
    });
    let error = file.sync_data().expect_err("fails");
    assert_eq!(errno(&error), Some(nix::errno::Errno::EIO));
    file.write_all_at(&[3; 10], 0).expect("writes");
    file.sync_data().expect("succeeds, as on Linux");
    assert_eq!(
        fs::read(&path).expect("reads")[4096],
        2,
        "the page cache has it still"
    );
    disk.power_cut(Loss::All).expect("cuts");
    let bytes = fs::read(&path).expect("reads");
    assert_eq!((bytes[0], bytes[10], bytes[4096]), (3, 2, 1));
    assert_eq!(
        (disk.counts().failed_syncs, disk.faults().sync_errors),
        (1, Errors::Next(0))
    );
}

#[test]
fn dropped_bytes_can_leave_the_page_cache() {
    let Some((_dir, disk)) = mounted(6) else { return };
    let path = disk.path().join("file");
    let file = durable(&path, b"old");
    file.write_all_at(b"new and longer", 0).expect("writes");
    disk.set(Faults {
        sync_errors: Errors::Always,
        ..Faults::default()
    });
    file.sync_all().expect_err("fails");
    disk.set(Faults::default());
    assert!(disk.evict_dropped().expect("evicts") > 0);
    assert_eq!(fs::read(&path).expect("reads"), b"old\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_lying_sync_loses_what_it_promised() {
    let Some((_dir, disk)) = mounted(7) else { return };
    let path = disk.path().join("file");
    let file = durable(&path, b"old");
    disk.set(Faults {
        lying_sync: true,
        ..Faults::default()
    });
    file.write_all_at(b"new", 0).expect("writes");
    file.sync_all().expect("lies");
    disk.power_cut(Loss::All).expect("cuts");
    assert_eq!(fs::read(&path).expect("reads"), b"old");
    assert_eq!(disk.counts().lying_syncs, 1);
}

#[test]
fn a_full_disk_reads_cuts_and_removes() {
    let Some((_dir, disk)) = mounted(8) else { return };
    let path = |name: &str| disk.path().join(name);
    let file = durable(&path("file"), &[1; 4096]);
    durable(&path("other"), &[1; 8192]);
    disk.set(Faults {
        space_left: Some(8192),
        ..Faults::default()
    });
    let left = nix::sys::statvfs::statvfs(disk.path()).expect("asks");
    assert_eq!(left.blocks_available() * left.fragment_size(), 8192);
    file.write_all_at(&[2; 8192], 4096).expect("fits");
    let error = file.write_all_at(&[2; 1], 12_288).expect_err("is full");
    assert_eq!(errno(&error), Some(nix::errno::Errno::ENOSPC));
    let error = File::create(path("more")).expect_err("is full");
    assert_eq!(errno(&error), Some(nix::errno::Errno::ENOSPC));
    file.write_all_at(&[3; 4096], 0)
        .expect("writes over what is there");
    assert_eq!(fs::read(path("file")).expect("reads").len(), 12_288);
    fs::remove_file(path("other")).expect("removes");
    file.write_all_at(&[2; 8192], 12_288).expect("fits again");
    file.set_len(0).expect("cuts");
    assert_eq!(disk.faults().space_left, Some(20_480));
    assert!(disk.counts().full >= 2);
    disk.set(Faults::default());
    file.write_all_at(&[2; 1 << 20], 0).expect("fits");
}

#[test]
fn reads_and_writes_fail_and_heal() {
    let Some((_dir, disk)) = mounted(9) else { return };
    let path = disk.path().join("file");
    let file = durable(&path, b"old");
    disk.set(Faults {
        read_errors: Errors::Next(1),
        write_errors: Errors::Always,
        ..Faults::default()
    });
    let eio = Some(nix::errno::Errno::EIO);
    let mut bytes = [0; 3];
    assert_eq!(errno(&file.read_exact_at(&mut bytes, 0).expect_err("fails")), eio);
    assert_eq!(errno(&file.write_all_at(b"new", 0).expect_err("fails")), eio);
    file.read_exact_at(&mut bytes, 0).expect("reads");
    disk.set(Faults::default());
    assert_eq!(&bytes, b"old");
    file.write_all_at(b"new", 0).expect("writes");
    let counts = disk.counts();
    assert_eq!((counts.failed_reads, counts.failed_writes), (1, 1));
}

#[test]
fn a_slow_disk_takes_its_time() {
    let Some((_dir, disk)) = mounted(10) else { return };
    let file = durable(&disk.path().join("file"), b"old");
    let delay = std::time::Duration::from_millis(50);
    disk.set(Faults {
        sync_delay: delay,
        ..Faults::default()
    });
    let began = std::time::Instant::now();
    file.sync_all().expect("syncs");
    assert!(began.elapsed() >= delay);
    assert_eq!(disk.counts().delayed, 1);
}

#[test]
fn flipped_bits_are_where_the_record_says() {
    let Some((_dir, disk)) = mounted(11) else { return };
    let before: Vec<u8> = (0..50_000).map(|byte| byte as u8).collect();
    for name in ["a.sst", "b.log"] {
        durable(&disk.path().join(name), &before);
    }
    let flips = disk
        .flip_bits(
            |path| path.extension().is_some_and(|extension| extension == "sst"),
            3,
        )
        .expect("flips");
    let mut expected = before.clone();
    for flip in &flips {
        assert_eq!(flip.file, Path::new("a.sst"));
        expected[flip.offset as usize] ^= 1 << flip.bit;
    }
    assert_ne!(expected, before);
    assert_eq!(fs::read(disk.path().join("a.sst")).expect("reads"), expected);
    assert_eq!(fs::read(disk.path().join("b.log")).expect("reads"), before);
    disk.power_cut(Loss::All).expect("cuts");
    assert_eq!(fs::read(disk.path().join("a.sst")).expect("reads"), expected);
    assert_eq!((flips.len() as u64, disk.counts().flips), (3, 3));
}

#[test]
fn a_busy_disk_is_unmounted_and_live_ones_are_not_stale() {
    let Some((dir, disk)) = mounted(12) else { return };
    let file = durable(&disk.path().join("file"), b"old");
    assert_eq!(
        unmount_stale(dir.path()).expect("looks"),
        [""; 0].map(PathBuf::from)
    );
    disk.unmount().expect("unmounts");
    assert!(file.sync_all().is_err());
    assert_eq!(fs::read(dir.path().join("backing/file")).expect("reads"), b"old");
    let overlapping = FaultyDisk::mount(&dir.path().join("backing"), &dir.path().join("backing/below"), 1);
    assert!(
        overlapping.is_err(),
        "a mount point inside the backing directory would vanish"
    );
}

/// Says where the process of the test below is to mount.
const DIR_OF_THE_KILLED: &str = "ONWARD_JEPSEN_DIR_OF_THE_KILLED";

#[test]
fn mounts_of_a_killed_harness_are_cleared() {
    if let Err(reason) = usable() {
        return eprintln!("not tested: {reason}");
    }
    let dir = tempfile::tempdir().expect("temp dir");
    let mut harness = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "disk::tests::a_harness_that_is_killed", "--ignored"])
        .env(DIR_OF_THE_KILLED, dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let (data, backing) = (dir.path().join("data"), dir.path().join("backing"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !data.join("here").exists() {
        assert!(
            std::time::Instant::now() < deadline,
            "the other harness mounts nothing"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(
        unmount_stale(dir.path()).expect("looks"),
        [""; 0].map(PathBuf::from)
    );
    harness.kill().expect("kills");
    harness.wait().expect("ends");
    assert_eq!(
        unmount_stale(dir.path()).expect("clears"),
        [data.canonicalize().expect("is a directory again")]
    );
    assert!(!data.join("here").exists());
    let error = FaultyDisk::mount(&backing, &data, 1)
        .err()
        .expect("its files have no names");
    assert!(error.to_string().contains("killed"), "{error}");
}

#[test]
#[ignore = "a process of its own, for the test above"]
fn a_harness_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR_OF_THE_KILLED).map(PathBuf::from) else {
        return;
    };
    let disk = FaultyDisk::mount(&dir.join("backing"), &dir.join("data"), 1).expect("mounts");
    durable(&disk.path().join("here"), b"here");
    // Until it is killed, or the test that started it is.
    io::stdin().read_line(&mut String::new()).expect("reads");
}
