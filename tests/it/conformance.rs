//! Replays the recorded answers of the real Prometheus, Loki and Tempo against the real binary, over data in the head
//! and again over flushed data after a restart.
//!
//! `tests/conformance.floors` holds for each area the number of cases that passed when it was last raised. Fewer is a
//! failure, so that nothing that once worked is lost unnoticed; more asks for the floor to be raised.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::clients::{python, root, shared};
use super::server::Server;

#[tokio::test]
async fn recorded_answers_of_prometheus() {
    let (Some(shared), Some(python)) = (shared(), python()) else { return };
    let server = Server::start().await;
    let base = server.url("");
    let replay = Replay::new(&shared, &python, "metrics", "replay.py");
    let load = ["--load", "metrics/dataset.jsonl.gz"];
    let read = ["--base", &base, "--corpus", "metrics/corpus-*.jsonl"];
    replay.run(&[&read[..], &load[..]].concat(), "in the head");
    server.flush().await;
    let server = server.kill_and_restart().await;
    replay.run(&["--base", &server.url(""), "--corpus", "metrics/corpus-*.jsonl"], "flushed");
}

#[tokio::test]
async fn recorded_writes_to_prometheus() {
    let (Some(shared), Some(python)) = (shared(), python()) else { return };
    let server = Server::start().await;
    let replay = Replay::new(&shared, &python, "writes", "replay.py");
    replay.run(&["--base", &server.url(""), "--corpus", "metrics/write-cases.jsonl"], "in the head");
}

#[tokio::test]
async fn recorded_answers_of_loki() {
    let (Some(shared), Some(python)) = (shared(), python()) else { return };
    let server = Server::start().await;
    let replay = Replay::new(&shared, &python, "logs", "replay_logs.py");
    let base = server.url("");
    let load = ["--load", "logs/dataset.jsonl.gz", "--load", "logs/dataset-otlp.jsonl.gz"];
    replay.run(&[&["--base", &base, "--corpus", "logs/corpus-*.jsonl"][..], &load[..]].concat(), "in the head");

    // The cases that push have run; the data set again on a fresh server, now flushed before it is read.
    let server = Server::start().await;
    let base = server.url("");
    replay.load(&[&["--base", &base, "--settle", "0"][..], &load[..]].concat());
    server.flush().await;
    let server = server.kill_and_restart().await;
    replay.run(&["--base", &server.url(""), "--corpus", "logs/corpus-*.jsonl"], "flushed");
}

#[tokio::test]
async fn recorded_answers_of_tempo() {
    let (Some(shared), Some(python)) = (shared(), python()) else { return };
    let server = Server::start().await;
    let (base, otlp) = (server.url(""), format!("http://{}", server.otlp));
    let replay = Replay::new(&shared, &python, "traces", "replay_traces.py");
    let mut read = vec!["--base", &base, "--otlp", &otlp, "--load", "traces/dataset.jsonl.gz", "--corpus"];
    let corpora: Vec<String> = ["search", "metrics", "tags", "trace", "streaming", "misc", "parse"]
        .map(|name| format!("traces/corpus-{name}.jsonl"))
        .to_vec();
    read.extend(corpora.iter().map(String::as_str));
    replay.run(&read, "in the head");
    server.flush().await;
    let server = server.kill_and_restart().await;
    let (base, otlp) = (server.url(""), format!("http://{}", server.otlp));
    let mut read = vec!["--base", &base, "--otlp", &otlp, "--corpus"];
    read.extend(corpora.iter().map(String::as_str));
    replay.run(&read, "flushed");
}

struct Replay<'a> {
    shared: &'a Path,
    python: &'a Path,
    corpus: &'a str,
    script: &'a str,
}

impl<'a> Replay<'a> {
    fn new(shared: &'a Path, python: &'a Path, corpus: &'a str, script: &'a str) -> Self {
        Self { shared, python, corpus, script }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.python);
        let folder = self.shared.join("conformance");
        command.arg(folder.join(self.script)).args(arguments).current_dir(folder).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Loads only.
    fn load(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().expect("Python starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "loading failed: {text}\n{}", String::from_utf8_lossy(&output.stdout));
    }

    /// Replays and holds the result to the floors.
    fn run(&self, arguments: &[&str], state: &str) {
        let folder = TempDir::new().expect("a folder");
        let out = folder.path().join("result.json");
        let failures = if self.script == "replay.py" { "--failures" } else { "--show" };
        let output =
            self.command(arguments).args([failures, "60", "--json"]).arg(&out).output().expect("Python starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("{} {state}:\n{text}", self.corpus);
        let result = std::fs::read(&out).unwrap_or_else(|error| panic!("no result ({error}):\n{text}"));
        let result: Value = serde_json::from_slice(&result).expect("JSON");
        let areas = result["areas"].as_object().expect("a map");
        let passed: BTreeMap<&str, u64> =
            areas.iter().map(|(area, counts)| (area.as_str(), first_count(counts))).collect();
        let floors = floors(self.corpus);
        assert!(!floors.is_empty(), "no floors for {}: {passed:?}", self.corpus);
        for (area, floor) in &floors {
            let now = passed.get(area.as_str()).copied().unwrap_or(0);
            assert!(now >= *floor, "{} {state}: {area}: {now} cases pass, {floor} once did\n{text}", self.corpus);
            if now > *floor {
                eprintln!("{} {state}: {area}: {now} cases pass; raise the floor of {floor}", self.corpus);
            }
        }
    }
}

/// `[passed, total]` or `{"passed": …, "total": …}`.
fn first_count(counts: &Value) -> u64 {
    counts.get("passed").or_else(|| counts.get(0)).and_then(Value::as_u64).expect("a count")
}

/// Lines of `corpus area count`.
fn floors(corpus: &str) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(root().join("tests/conformance.floors")).expect("the floors");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == corpus).then_some(())?;
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}
