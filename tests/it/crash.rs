//! kill -9 at random moments while metrics, logs and spans, flushes, compactions and queries are on their way: what was
//! acknowledged is there afterwards, once.
//!
//! The seed is printed; `TERCET_TEST_SEED` repeats a run. `TERCET_CRASH_ROUNDS` sets the number of rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::oracle::{Oracle, SMALL_HEADS, keep_maintaining};
use super::server::Server;

/// The number that the environment gives, if it gives one.
fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seed of a test that draws lots, printed.
pub fn seed() -> u64 {
    let seed = from_env("TERCET_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    eprintln!("seed {seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_once() {
    let (seed, rounds) = (seed(), from_env("TERCET_CRASH_ROUNDS").unwrap_or(20));
    eprintln!("{rounds} rounds");
    let mut random = StdRng::seed_from_u64(seed);
    let oracle = Oracle::new();
    let mut server = Server::start_with(&SMALL_HEADS).await;
    for round in 0..rounds {
        let when = format!("seed {seed}, round {round}");
        let before = oracle.sent();
        server = one_round(&oracle, server, &mut random, &when).await;
        // What lies further back was checked by earlier rounds and is checked again now and then.
        let all = round % 25 == 24 || round + 1 == rounds;
        oracle.check(&server, if all { 0 } else { before.saturating_sub(200) }, oracle.sent().max(1), &when).await;
    }
    eprintln!("{} requests sent, {} acknowledged", oracle.sent(), oracle.acknowledged());
    assert!(oracle.acknowledged() > 0, "no request was acknowledged at all");
    server.flush().await;
    oracle.check_all(&server, &format!("seed {seed}, after flush")).await;
    let server = server.stop_and_restart().await;
    oracle.check_all(&server, &format!("seed {seed}, after SIGTERM")).await;
    let reader = server.reader().await;
    oracle.check_all(&reader, &format!("seed {seed}, as a second process reads it")).await;
}

/// Senders, a questioner and maintenance on `server`, which is killed meanwhile and started again.
async fn one_round(oracle: &Arc<Oracle>, server: Server, random: &mut StdRng, when: &str) -> Server {
    let stop = Arc::new(AtomicBool::new(false));
    let base = server.url("");
    let senders: Vec<_> = (0..random.random_range(1..5))
        .map(|_| tokio::spawn(Arc::clone(oracle).keep_sending(base.clone(), Arc::clone(&stop))))
        .collect();
    let maintenance = random
        .random_bool(0.7)
        .then(|| tokio::spawn(keep_maintaining(base.clone(), random.random(), Arc::clone(&stop))));
    let server = Arc::new(server);
    let checking = Arc::new(AtomicBool::new(false));
    let checks = Arc::clone(oracle).keep_checking(Arc::clone(&server), Arc::clone(&checking), when.to_owned());
    let checks = tokio::spawn(checks);
    tokio::time::sleep(Duration::from_millis(random.random_range(5..500))).await;
    // The questioner must not see the server die: it ends first, the others are caught in the act.
    checking.store(true, Ordering::SeqCst);
    checks.await.expect("every acknowledged row was found while others were on their way");
    tokio::time::sleep(Duration::from_millis(random.random_range(0..120))).await;
    let server = Arc::into_inner(server).expect("nobody else holds it");
    // Some die again while they recover.
    let starts = if random.random_bool(0.3) { random.random_range(1..3) } else { 0 };
    let lives = (0..starts).map(|_| Duration::from_millis(random.random_range(0..250))).collect();
    let server = server.kill_and_restart_after(lives).await;
    stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.await.expect("the sender ends");
    }
    if let Some(maintenance) = maintenance {
        maintenance.await.expect("maintenance ends");
    }
    server
}
