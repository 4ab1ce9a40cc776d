//! The binary as a person meets it: the first lines it prints, its errors, its settings, its end.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::server::{Server, forget_variables, free_ports};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
    forget_variables(&mut command);
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().expect("the binary starts")
}

fn fails_with(arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]) {
    let output = run(arguments, variables);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} should fail: {text}");
    for part in parts {
        assert!(text.contains(part), "{arguments:?} {variables:?}: {part:?} is not said in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_newcomer_is_told_where_to_send_and_what_to_add() {
    let data = TempDir::new().expect("a folder");
    let [http, grpc, otlp] = free_ports();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
    forget_variables(&mut command);
    let mut child = command
        .args(["--data".as_ref(), data.path().as_os_str()])
        .args(["--http", &http.to_string(), "--otlp-grpc", &grpc.to_string(), "--otlp-http", &otlp.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut buffer = [0; 4096];
    while said.lines().count() < 4 || !said.ends_with('\n') {
        let n = stdout.read(&mut buffer).expect("readable");
        assert!(n > 0, "the server ended after saying: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let _ = child.kill();
    let _ = child.wait();
    for part in [&http.to_string(), &grpc.to_string(), &otlp.to_string(), "Prometheus", "Loki", "Tempo"] {
        assert!(said.contains(part), "{part} is not said in:\n{said}");
    }
    assert_eq!(said.lines().count(), 4, "{said}");
}

#[test]
fn unknown_settings_are_refused_with_the_nearest_known_one() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("tercet.yaml");
    std::fs::write(&file, "retentoin: 3d\n").expect("written");
    let path = file.display().to_string();
    fails_with(&["check-config", "--config", &path], &[], &["retentoin", "retention"]);
    fails_with(&["check-config"], &[("TERCET_RETENTOIN", "3d")], &["TERCET_RETENTOIN", "TERCET_RETENTION"]);
    fails_with(&["--retentoin", "3d"], &[], &["--retention"]);
    std::fs::write(&file, "retention: soon\n").expect("written");
    fails_with(&["check-config", "--config", &path], &[], &["retention", "soon"]);
    std::fs::write(&file, "retention: 3d\n").expect("written");
    assert!(run(&["check-config", "--config", &path], &[]).status.success());
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let server = Server::start().await;
    let data = server.data().display().to_string();
    let [http, grpc, otlp] = free_ports().map(|address| address.to_string());
    fails_with(&["--data", &data, "--http", &http, "--otlp-grpc", &grpc, "--otlp-http", &otlp], &[], &[&data]);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let server = Server::start().await;
    let taken = server.http.to_string();
    let data = TempDir::new().expect("a folder");
    let path = data.path().display().to_string();
    let [grpc, otlp, _] = free_ports().map(|address| address.to_string());
    fails_with(&["--data", &path, "--http", &taken, "--otlp-grpc", &grpc, "--otlp-http", &otlp], &[], &[&taken]);
}

#[tokio::test]
async fn sigterm_flushes_and_ends_in_success() {
    let mut server = Server::start().await;
    let (status, body) =
        server.post(&server.url("/loki/api/v1/push"), &[("Content-Type", "application/json")], push()).await;
    assert_eq!(status, 204, "{body}");
    assert!(server.stop().success());
    let logs = server.data().join("store/default/logs");
    let found = files_below(&logs).iter().any(|name| name.ends_with(".parquet"));
    assert!(found, "SIGTERM left no Parquet file below {}", logs.display());
}

fn push() -> &'static str {
    r#"{"streams":[{"stream":{"app":"a"},"values":[["1769904000000000000","x"]]}]}"#
}

fn files_below(folder: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| match entry.path().is_dir() {
            true => files_below(&entry.path()),
            false => vec![entry.path().display().to_string()],
        })
        .collect()
}

#[tokio::test]
async fn an_idle_server_is_small_and_says_so_in_its_metrics() {
    let server = Server::start().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).map(|text| text.trim().to_owned());
    if let Some(resident) = resident {
        let kib: u64 = resident.trim_end_matches(" kB").trim().parse().expect("a number");
        // The release binary must stay under 80 MB; the test binary is unoptimised and maps more.
        assert!(kib < 160 * 1024, "an idle server holds {resident}");
    }
    let (code, metrics) = server.get("/metrics", &[]).await;
    assert_eq!(code, 200);
    assert!(metrics.contains("# TYPE tercet_"), "{metrics}");
}

#[tokio::test]
async fn a_live_store_can_be_looked_at_and_checked_and_damage_ends_in_1() {
    let server = Server::start().await;
    let url = server.url("/loki/api/v1/push");
    let json = [("Content-Type", "application/json")];
    assert_eq!(server.post(&url, &json, push()).await.0, 204);
    server.flush().await;
    let later = push().replace("\"x\"", "\"y\"");
    assert_eq!(server.post(&url, &json, later).await.0, 204);
    let data = server.data().display().to_string();
    let said = |arguments: &[&str]| {
        let output = run(&[arguments, &["--data", &data]].concat(), &[]);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    };
    let wal: serde_json::Value = serde_json::from_str(&said(&["inspect", "wal", "logs", "--json"])).expect("JSON");
    let entries =
        wal[0]["rows"].as_array().expect("a list").iter().find(|row| row["table"] == "logs").expect("entries");
    assert_eq!((&entries["rows"], &entries["tenant"]), (&1.into(), &"default".into()));
    assert!(said(&["inspect", "wal"]).contains("traces ("));
    assert!(said(&["inspect", "table"]).contains("default/logs"));
    let table: serde_json::Value = serde_json::from_str(&said(&["inspect", "table", "logs", "--json"])).expect("JSON");
    assert_eq!(table["summary"]["rows"], 1);
    let block = table["blocks"][0]["object"].as_str().expect("a path").to_owned();
    assert!(said(&["inspect", "table", "default/logs"]).contains(&block));
    let file = said(&["inspect", "file", &block]);
    assert!(file.contains("line ") && file.contains("ZSTD") && file.contains("1 rows"), "{file}");
    let local = server.data().join("store").join(&block).display().to_string();
    assert_eq!(said(&["inspect", "file", &local]).lines().count(), file.lines().count());
    assert!(said(&["inspect", "index", &block]).contains("1 identities in 1 runs, 1 rows"));
    let sound = said(&["verify"]);
    assert!(sound.contains("checked 2 tables: 2 blocks, 2 rows") && sound.contains("0 damages"), "{sound}");

    let mut bytes = std::fs::read(&local).expect("readable");
    bytes[10] ^= 1;
    std::fs::write(&local, bytes).expect("writable");
    let output = run(&["verify", "--data", &data, "--json"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["damages"], &report["findings"][0]["object"]), (&1.into(), &block.into()));
}

#[test]
fn places_that_are_not_there_are_told_in_a_sentence_and_not_made() {
    let folder = TempDir::new().expect("a folder");
    let missing = folder.path().join("x").display().to_string();
    for arguments in [
        ["verify", "--data"].as_slice(),
        &["inspect", "table", "--data"],
        &["inspect", "wal", "--data"],
        &["inspect", "index", "default/logs", "--store"],
    ] {
        let arguments = [arguments, &[missing.as_str()]].concat();
        fails_with(&arguments, &[], &[&missing, "--data"]);
        assert_eq!(run(&arguments, &[]).status.code(), Some(2), "{arguments:?}");
    }
    assert!(!folder.path().join("x").exists());
    fails_with(&["inspect", "table", "sample"], &[], &["`sample` is no table", "samples"]);
    fails_with(&["inspect", "wal", "log"], &[], &["`log` is no signal", "logs"]);
    let help = String::from_utf8(run(&["help", "inspect"], &[]).stdout).expect("text");
    assert!(["wal", "table", "file", "index"].iter().all(|word| help.contains(word)), "{help}");
}
