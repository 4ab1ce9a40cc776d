//! kill -9 at random moments while requests are on their way: what was acknowledged is there afterwards, once.
//!
//! The seed is printed; `TERCET_TEST_SEED` repeats a run. `TERCET_TEST_ROUNDS` sets the number of rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::server::Server;

/// First timestamp of the test's lines: 2026-02-01, in nanoseconds.
const BASE_NS: u64 = 1_769_904_000_000_000_000;
const LINES_PER_PUSH: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_once() {
    let from_env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = from_env("TERCET_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    let rounds = from_env("TERCET_TEST_ROUNDS").unwrap_or(8);
    eprintln!("seed {seed}, {rounds} rounds");
    let mut random = StdRng::seed_from_u64(seed);
    // A tiny head makes flushes happen in the middle of a round.
    let mut server = Server::start_with(&["--retention", "0", "TERCET_STORAGE_HEAD_BYTES_MAX=64KiB"]).await;
    let next = Arc::new(AtomicU64::new(0));
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut refused: Vec<u64> = Vec::new();
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|_| tokio::spawn(write(server.url("/loki/api/v1/push"), Arc::clone(&next), Arc::clone(&stop))))
            .collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(50..700))).await;
        server = server.kill_and_restart().await;
        stop.store(true, Ordering::SeqCst);
        for writer in writers {
            let (done, unknown) = writer.await.expect("the writer ends");
            acknowledged.extend(done);
            refused.extend(unknown);
        }
        check(&server, &acknowledged, &refused, &format!("seed {seed}, round {round}")).await;
    }
    assert!(!acknowledged.is_empty(), "no push was acknowledged at all");
    server.flush().await;
    check(&server, &acknowledged, &refused, &format!("seed {seed}, after flush")).await;
}

/// Pushes until told to stop; returns the pushes that were acknowledged, and those without an answer.
async fn write(url: String, next: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> (Vec<u64>, Vec<u64>) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let (mut done, mut unknown) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::SeqCst) {
        let push = next.fetch_add(1, Ordering::SeqCst);
        let values: Vec<_> = lines_of(push).map(|(ts, line)| serde_json::json!([ts.to_string(), line])).collect();
        let body = serde_json::json!({ "streams": [{ "stream": { "app": "crash", "shard": (push % 3).to_string() }, "values": values }] });
        let request = client.post(&url).header("Content-Type", "application/json").body(body.to_string());
        match request.send().await {
            Ok(answer) if answer.status() == 204 => done.push(push),
            Ok(answer) => panic!("a push was answered {}", answer.status()),
            Err(_) => {
                unknown.push(push);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    (done, unknown)
}

fn lines_of(push: u64) -> impl Iterator<Item = (u64, String)> {
    (0..LINES_PER_PUSH).map(move |n| {
        let number = push * LINES_PER_PUSH + n;
        (BASE_NS + number * 1_000_000, format!("line {number} {}", "x".repeat(200)))
    })
}

async fn check(server: &Server, acknowledged: &[u64], unknown: &[u64], when: &str) {
    let mut wanted: Vec<String> = acknowledged.iter().flat_map(|push| lines_of(*push)).map(|(_, line)| line).collect();
    wanted.sort();
    let mut found = Vec::new();
    let highest = acknowledged.iter().chain(unknown).max().map_or(0, |push| (push + 1) * LINES_PER_PUSH);
    // 1,000 lines a request: within the default limit of entries.
    for from in (0..highest).step_by(1000) {
        let start = (BASE_NS + from * 1_000_000).to_string();
        let end = (BASE_NS + (from + 1000) * 1_000_000).to_string();
        let query = [("query", r#"{app="crash"}"#), ("start", &start), ("end", &end), ("limit", "5000")];
        let answer = server.json("/loki/api/v1/query_range", &query).await;
        for stream in answer["data"]["result"].as_array().expect("a list") {
            let values = stream["values"].as_array().expect("a list").iter();
            found.extend(values.map(|value| value[1].as_str().expect("a line").to_owned()));
        }
    }
    found.sort();
    assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "{when}: a line is there twice");
    let missing = wanted.iter().filter(|line| found.binary_search(line).is_err()).count();
    assert_eq!(missing, 0, "{when}: of {} acknowledged lines {missing} are missing", wanted.len());
    let allowed: std::collections::HashSet<String> =
        acknowledged.iter().chain(unknown).flat_map(|push| lines_of(*push)).map(|(_, line)| line).collect();
    let foreign = found.iter().filter(|line| !allowed.contains(*line)).count();
    assert_eq!(foreign, 0, "{when}: lines nobody sent");
}
