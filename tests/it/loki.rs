//! A Python client pushes lines in each form of Loki's push endpoint; LogQL gives back every one of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::clients::{python, run_client};
use super::journey::survive;
use super::server::{Server, Store};

#[tokio::test]
async fn every_form_of_a_push_is_found_again() {
    push_and_survive(Store::Folder).await;
}

#[tokio::test]
async fn every_form_of_a_push_is_found_again_in_a_bucket() {
    push_and_survive(Store::gcs()).await;
}

async fn push_and_survive(store: Store) {
    let Some(python) = python() else { return };
    let server = Server::start_on(store).await;
    let sent = run_client(&python, "loki_push.py", &["--endpoint", &server.url("")]);
    survive(server, |server, stop| {
        let sent = sent.clone();
        async move {
            for stream in sent["streams"].as_array().expect("a list") {
                check_stream(&server, stream, stop).await;
            }
            check_metadata(&server, &sent, stop).await;
            server
        }
    })
    .await;
}

fn bounds(entries: &[Value]) -> (String, String) {
    let ts = |entry: &Value| entry["ts_ns"].as_i64().expect("a time");
    (ts(&entries[0]).to_string(), (ts(&entries[entries.len() - 1]) + 1).to_string())
}

async fn check_stream(server: &Server, sent: &Value, stop: &str) {
    let form = sent["labels"]["form"].as_str().expect("a form");
    let entries = sent["entries"].as_array().expect("a list");
    let (start, end) = bounds(entries);
    let query = format!("{{form={form:?}}}");
    let range = [("query", query.as_str()), ("start", &start), ("end", &end), ("limit", "5000")];
    let answer = server.json("/loki/api/v1/query_range", &range).await;
    let mut found: Vec<(String, String, String)> = Vec::new();
    for stream in answer["data"]["result"].as_array().expect("a list") {
        for (name, value) in sent["labels"].as_object().expect("a map") {
            assert_eq!(&stream["stream"][name], value, "{stop}: {form}");
        }
        let pod = stream["stream"]["pod"].as_str().unwrap_or_default();
        for value in stream["values"].as_array().expect("a list") {
            let text = |i: usize| value[i].as_str().expect("a text").to_owned();
            found.push((text(0), text(1), pod.to_owned()));
        }
    }
    found.sort();
    let wanted: Vec<(String, String, String)> = entries
        .iter()
        .map(|entry| {
            let pod = entry["metadata"]["pod"].as_str().unwrap_or_default();
            (entry["ts_ns"].to_string(), entry["line"].as_str().expect("a line").to_owned(), pod.to_owned())
        })
        .collect();
    assert_eq!(found, wanted, "{stop}: {form}");

    // The newest and the oldest: limit and direction.
    for (direction, index) in [("backward", entries.len() - 1), ("forward", 0)] {
        let range =
            [("query", query.as_str()), ("start", &start), ("end", &end), ("limit", "1"), ("direction", direction)];
        let answer = server.json("/loki/api/v1/query_range", &range).await;
        assert_eq!(answer["data"]["result"][0]["values"][0][1], entries[index]["line"], "{stop}: {direction}");
    }
    check_pipelines(server, form, entries, &end, stop).await;
}

async fn check_pipelines(server: &Server, form: &str, entries: &[Value], end: &str, stop: &str) {
    let lines: Vec<&str> = entries.iter().filter_map(|entry| entry["line"].as_str()).collect();
    let with = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    let json = lines.iter().filter(|line| line.starts_with('{') && line.contains(r#""path": "/p/3""#)).count();
    let logfmt = lines.iter().filter(|line| !line.starts_with('{') && line.contains("path=/p/4 ")).count();
    for (pipeline, wanted) in [
        ("|= `level=warn`".to_owned(), with("level=warn")),
        ("!= `level=warn`".to_owned(), lines.len() - with("level=warn")),
        ("|~ `n=1[0-9] `".to_owned(), (10..20).filter(|n| with(&format!("n={n} ")) > 0).count()),
        ("| json | path=`/p/3` | drop __error__, __error_details__".to_owned(), json),
        ("!= `{` | logfmt | path=`/p/4`".to_owned(), logfmt),
        ("| json | n >= 190 | __error__=``".to_owned(), 5),
    ] {
        let query = format!("sum by (form) (count_over_time({{form={form:?}}} {pipeline} [10m]))");
        let answer = server.json("/loki/api/v1/query", &[("query", &query), ("time", end)]).await;
        let value = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0").to_owned();
        assert_eq!(value, wanted.to_string(), "{stop}: {query}: {answer}");
    }
}

async fn check_metadata(server: &Server, sent: &Value, stop: &str) {
    let streams = sent["streams"].as_array().expect("a list");
    let (start, _) = bounds(streams[0]["entries"].as_array().expect("a list"));
    let (_, end) = bounds(streams[2]["entries"].as_array().expect("a list"));
    let range = [("start", start.as_str()), ("end", end.as_str())];
    let labels = server.json("/loki/api/v1/labels", &range).await;
    assert_eq!(labels["data"], serde_json::json!(["form", "job", "quote", "service_name"]), "{stop}");
    let values = server.json("/loki/api/v1/label/form/values", &range).await;
    assert_eq!(values["data"], serde_json::json!(["json", "json+gzip", "protobuf"]), "{stop}");
    let series = server.json("/loki/api/v1/series", &[range[0], range[1], ("match[]", r#"{form=~"json.*"}"#)]).await;
    let forms: BTreeMap<&str, usize> =
        series["data"].as_array().expect("a list").iter().filter_map(|labels| labels["form"].as_str()).fold(
            BTreeMap::new(),
            |mut forms, form| {
                *forms.entry(form).or_default() += 1;
                forms
            },
        );
    assert_eq!(forms, BTreeMap::from([("json", 1), ("json+gzip", 1)]), "{stop}");
    let stats = server.json("/loki/api/v1/index/stats", &[range[0], range[1], ("query", r#"{job="pusher"}"#)]).await;
    assert_eq!((&stats["streams"], &stats["entries"]), (&3.into(), &600.into()), "{stop}: {stats}");
}
