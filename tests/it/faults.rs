//! Faults around the real binary: full disks, stopped processes, two writers on one store. The oracle compares.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::crash::seed;
use super::oracle::{Oracle, keep_maintaining};
use super::server::Server;

/// How old a process' view of the store may be in these tests.
const REFRESH: &str = "TERCET_STORAGE_REFRESH_AGE_MAX=100ms";
const REFRESH_AGE: Duration = Duration::from_millis(100);

/// A small file system of its own.
struct TinyDisk {
    folder: Arc<TempDir>,
}

impl TinyDisk {
    /// `None`, said aloud, where this process may not mount one.
    fn mount(bytes: u64) -> Option<Self> {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        eprintln!("skipped: a file system of its own cannot be mounted here");
        None
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Leaves no more than `bytes` free.
    fn fill(&self, bytes: usize) {
        let mut file = File::options().create(true).append(true).open(self.ballast()).expect("opens");
        while file.write_all(&[7; 4096]).is_ok() {}
        let full = file.metadata().expect("its size").len();
        file.set_len(full.saturating_sub(bytes as u64)).expect("shrinks");
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).expect("removes");
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

fn options(all: &[&str]) -> Vec<String> {
    all.iter().map(|option| (*option).to_owned()).collect()
}

/// Sends until requests of all signals were refused.
async fn send_until_full(oracle: &Oracle, server: &Server) {
    let mut refused = 0;
    for _ in 0..20_000 {
        let status = oracle.send(&server.url("")).await.expect("an answer");
        if !(200..300).contains(&status) {
            refused += 1;
            assert!([429, 503].contains(&status), "an answer that says to try again, not {status}");
        }
        if refused == 9 {
            return;
        }
    }
    panic!("the disk did not get full");
}

async fn send_well(oracle: &Oracle, server: &Server, requests: usize) {
    for _ in 0..requests {
        let status = oracle.send(&server.url("")).await;
        assert!(matches!(status, Some(200..300)), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_wal_refuses_loses_nothing_and_recovers_without_a_restart() {
    let Some(disk) = TinyDisk::mount(4 << 20) else { return };
    let store = TempDir::new().expect("a folder");
    let store_path = store.path().display().to_string();
    let all = options(&["--retention", "0", "--store", &store_path]);
    let server = Server::start_in(Arc::clone(&disk.folder), all).await;
    let oracle = Oracle::new();
    send_well(&oracle, &server, 12).await;
    disk.fill(100 << 10);
    send_until_full(&oracle, &server).await;
    oracle.check_all(&server, "while the disk is full").await;
    disk.free();
    send_well(&oracle, &server, 30).await;
    oracle.check_all(&server, "with room again").await;

    // A flush needs no room in the folder of the WAL, and makes some.
    disk.fill(0);
    server.flush().await;
    oracle.check_all(&server, "flushed on a full disk").await;
    send_until_full(&oracle, &server).await;
    let server = server.kill_and_restart().await;
    oracle.check_all(&server, "restarted on a full disk").await;
    disk.free();
    send_well(&oracle, &server, 30).await;
    let server = server.kill_and_restart().await;
    oracle.check_all(&server, "at the end").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_store_delays_a_flush_and_loses_nothing() {
    let Some(disk) = TinyDisk::mount(6 << 20) else { return };
    let server = Server::start_in(Arc::clone(&disk.folder), options(&["--retention", "0"])).await;
    let oracle = Oracle::new();
    for room in [0, 8 << 10, 40 << 10, 120 << 10] {
        send_well(&oracle, &server, 60).await;
        disk.fill(room);
        for path in ["/-/flush", "/-/compact"] {
            let (status, body) = server.post(&server.url(path), &[], "").await;
            // With some room left it may succeed.
            assert!((200..300).contains(&status) || status >= 500, "{path}: {status} {body}");
        }
        oracle.check_all(&server, &format!("with {room} bytes left")).await;
        disk.free();
        server.flush().await;
        oracle.check_all(&server, &format!("flushed after {room} bytes were left")).await;
    }
    let server = server.kill_and_restart().await;
    oracle.check_all(&server, "at the end").await;
    assert_eq!(staged(&disk.folder.path().join("store")), Vec::<PathBuf>::new(), "no half-written file stays");
}

/// Files that were begun and never got their name.
fn staged(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(staged(&path)),
            path if path.display().to_string().contains('#') => found.push(path),
            _ => {}
        }
    }
    found
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copies")),
        }
    }
}

/// A is stopped, B takes over its store under its name, with a copy of its folder or with a folder of its own. A goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_was_stopped_and_replaced_is_fenced_and_its_rows_are_not_lost() {
    for copied in [true, false] {
        let store = TempDir::new().expect("a folder");
        let store_path = store.path().display().to_string();
        let named = |name: &str| {
            let name = format!("TERCET_STORAGE_WRITER_ID={name}");
            options(&["--retention", "0", "--store", &store_path, &name, REFRESH])
        };
        let data = [(); 2].map(|()| Arc::new(TempDir::new().expect("a folder")));
        let mut a = Server::start_in(Arc::clone(&data[0]), named("w")).await;
        let oracle = Oracle::new();
        send_well(&oracle, &a, 30).await;
        a.flush().await;
        if copied {
            send_well(&oracle, &a, 30).await;
        }
        a.signal("STOP");
        if copied {
            copy_folder(data[0].path(), data[1].path());
        }
        let b = Server::start_in(Arc::clone(&data[1]), named("w")).await;
        oracle.check_all(&b, &format!("B has taken over, folder copied: {copied}")).await;
        send_well(&oracle, &b, 30).await;
        b.flush().await;
        oracle.check_all(&b, &format!("B has flushed, folder copied: {copied}")).await;

        a.signal("CONT");
        // It does not know yet, and these rows are in its WAL only.
        send_well(&oracle, &a, 30).await;
        let (status, body) = a.post(&a.url("/-/flush"), &[], "").await;
        assert!(status >= 500 && body.contains("another process writes"), "A is fenced: {status} {body}");
        let status = oracle.send(&a.url("")).await;
        assert_eq!(status, Some(503), "A takes no more data");
        send_well(&oracle, &b, 30).await;
        b.flush().await;

        // Under a name of its own, A's folder gives what only it has.
        a.kill();
        drop(a);
        let a = Server::start_in(Arc::clone(&data[0]), named("rescue")).await;
        tokio::time::sleep(REFRESH_AGE).await;
        oracle.check_all(&a, &format!("A again, folder copied: {copied}")).await;
        a.flush().await;
        tokio::time::sleep(REFRESH_AGE).await;
        oracle.check_all(&b, &format!("B at the end, folder copied: {copied}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_on_one_store_are_killed_in_turn_and_both_answer_with_everything() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let store = TempDir::new().expect("a folder");
    let store_path = store.path().display().to_string();
    let all = ["--retention", "0", "--store", &store_path, "TERCET_STORAGE_HEAD_BYTES_MAX=48KiB", REFRESH];
    let mut servers = vec![Server::start_with(&all).await, Server::start_with(&all).await];
    let oracle = Oracle::new();
    for round in 0..4 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for server in &servers {
            let base = server.url("");
            tasks.push(tokio::spawn(Arc::clone(&oracle).keep_sending(base.clone(), Arc::clone(&stop))));
            tasks.push(tokio::spawn(keep_maintaining(base, random.random(), Arc::clone(&stop))));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(200..900))).await;
        let killed = servers.remove(random.random_range(0..2)).kill_and_restart().await;
        servers.push(killed);
        stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.expect("ends");
        }
        for server in &servers {
            server.flush().await;
        }
        tokio::time::sleep(REFRESH_AGE).await;
        for (server, number) in servers.iter().zip(0..) {
            oracle.check_all(server, &format!("seed {seed}, round {round}, server {number}")).await;
        }
    }
}
