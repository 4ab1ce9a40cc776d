//! The binary as a person meets it: the first lines it prints, its errors, its settings, its end.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::server::{Server, free_ports};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tercet"));
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
    let mut child = Command::new(env!("CARGO_BIN_EXE_tercet"))
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
