//! Hostile and broken requests: each gets the status of the contract and a sentence, nothing good is lost, and the
//! process goes on.

use std::io::Write as _;

use super::server::Server;

struct Case {
    what: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
    /// Part of the sentence.
    says: &'static str,
}

fn case(what: &'static str, path: &'static str, kind: &'static str, body: impl Into<Vec<u8>>, status: u16) -> Case {
    Case { what, path, headers: vec![("Content-Type", kind)], body: body.into(), status, says: "" }
}

impl Case {
    fn encoded(mut self, encoding: &'static str) -> Self {
        self.headers.push(("Content-Encoding", encoding));
        self
    }

    fn says(mut self, part: &'static str) -> Self {
        self.says = part;
        self
    }
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const WRITE: &str = "/api/v1/write";
const PUSH: &str = "/loki/api/v1/push";

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).expect("compresses")
}

/// A snappy block that claims to hold 4 GiB.
fn snappy_bomb() -> Vec<u8> {
    vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0xfe, 0x01, 0x00]
}

fn deep_json(depth: usize) -> String {
    let value = format!("{}{}", "{\"arrayValue\":{\"values\":[".repeat(depth), "]}}".repeat(depth));
    format!(r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"a","value":{value}}}]}}}}]}}"#)
}

fn cases() -> Vec<Case> {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    vec![
        case("random bytes", WRITE, PROTOBUF, snappy(b"\xff\xfe\xfd garbage"), 400),
        case("no snappy at all", WRITE, PROTOBUF, "hello", 400),
        case("a snappy bomb", WRITE, PROTOBUF, snappy_bomb(), 400),
        case("gzip that is none", PUSH, JSON, "hello", 400).encoded("gzip"),
        case("an unknown encoding", PUSH, JSON, "{}", 400).encoded("br").says("br"),
        case("an unknown encoding of a write", WRITE, PROTOBUF, "", 415).encoded("br").says("br"),
        case("another media type", WRITE, "text/plain", "", 415).says("text/plain"),
        case("JSON cut off", PUSH, JSON, r#"{"streams":[{"stream":{"a":"b"},"values":[["1"#, 400),
        case("an empty push", PUSH, JSON, r#"{"streams":[]}"#, 422).says("at least one valid stream"),
        case("deep JSON to Loki", PUSH, JSON, format!(r#"{{"streams":{deep}}}"#), 400),
        case("deep JSON to OTLP", "/v1/traces", JSON, deep_json(10_000), 400),
        case("a list for OTLP", "/v1/traces", JSON, "[]", 400),
        case("broken protobuf for OTLP", "/v1/metrics", PROTOBUF, "\u{ff}\u{fe}garbage", 400),
        case("another type for OTLP", "/v1/logs", "text/plain", "x", 415),
        case(
            "a bad trace id",
            "/v1/traces",
            JSON,
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}"#,
            400,
        ),
        case(
            "a bad label name",
            PUSH,
            JSON,
            r#"{"streams":[{"stream":{"a-b":"c"},"values":[["1769904000000000000","x"]]}]}"#,
            400,
        )
        .says("couldn't parse labels"),
        case("a number for a time", PUSH, JSON, r#"{"streams":[{"stream":{"a":"b"},"values":[[1,"x"]]}]}"#, 400),
    ]
}

async fn alive(server: &Server, after: &str) {
    let (status, body) = server.get("/-/healthy", &[]).await;
    assert_eq!(status, 200, "after {after}: {body}");
}

#[tokio::test]
async fn broken_requests_get_their_status_and_a_sentence() {
    let server = Server::start().await;
    for case in cases() {
        let base = if case.path.starts_with("/v1/") { format!("http://{}", server.otlp) } else { server.url("") };
        let (status, body) = server.post(&format!("{base}{}", case.path), &case.headers, case.body).await;
        assert_eq!(status, case.status, "{}: {body}", case.what);
        assert!(!body.trim().is_empty(), "{}: no sentence", case.what);
        assert!(body.contains(case.says), "{}: {:?} is not said in {body}", case.what, case.says);
        alive(&server, case.what).await;
    }
}

#[tokio::test]
async fn truncated_gzip_is_refused_and_stores_nothing() {
    let server = Server::start().await;
    let body = br#"{"streams":[{"stream":{"a":"b"},"values":[["1769904000000000000","x"]]}]}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).expect("compresses");
    let mut packed = encoder.finish().expect("compresses");
    packed.truncate(packed.len() - 10);
    let headers = [("Content-Type", JSON), ("Content-Encoding", "gzip")];
    let (status, text) = server.post(&server.url(PUSH), &headers, packed).await;
    assert_eq!(status, 400, "{text}");
    let labels = server.json("/loki/api/v1/labels", &[("start", "1769900000"), ("end", "1769999999")]).await;
    assert_eq!(labels["data"], serde_json::json!([]));
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_without_being_held() {
    let server = Server::start().await;
    for (path, kind) in [(PUSH, JSON), (WRITE, PROTOBUF), ("/v1/traces", JSON)] {
        let (status, text) = server.post(&server.url(path), &[("Content-Type", kind)], vec![b'x'; 101 << 20]).await;
        assert_eq!(status, 413, "{path}: {text}");
    }
    // A small body that unpacks to far more.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..200 {
        encoder.write_all(&zeros).expect("compresses");
    }
    let headers = [("Content-Type", JSON), ("Content-Encoding", "gzip")];
    let (status, text) = server.post(&server.url(PUSH), &headers, encoder.finish().expect("compresses")).await;
    assert_eq!(status, 413, "{text}");
    alive(&server, "large bodies").await;
}

#[tokio::test]
async fn what_was_fine_in_a_bad_request_is_kept() {
    let server = Server::start().await;
    let long = "x".repeat(300_000);
    let body = serde_json::json!({ "streams": [
        { "stream": { "app": "mixed" }, "values": [
            ["1769904000000000000", "good"], ["1769904000000000001", long], ["1769904000000000002", "good too"]] }] });
    let headers = [("Content-Type", JSON)];
    let (status, text) = server.post(&server.url(PUSH), &headers, body.to_string()).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("max entry size '262144' bytes exceeded"), "{text}");
    let range = [("query", r#"{app="mixed"}"#), ("start", "1769903000"), ("end", "1769905000")];
    let answer = server.json("/loki/api/v1/query_range", &range).await;
    let lines: usize = answer["data"]["result"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|stream| stream["values"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(lines, 2, "{answer}");
}

#[tokio::test]
async fn hostile_queries_are_refused_and_the_server_lives() {
    let server = Server::start().await;
    let deep = format!("{}1{}", "(".repeat(50_000), ")".repeat(50_000));
    let deep_selector = format!("{}{{}}{}", "(".repeat(50_000), ")".repeat(50_000));
    for (path, name, query) in [
        ("/api/v1/query", "query", deep.as_str()),
        ("/api/v1/query", "query", "rate(x[5m]"),
        ("/api/v1/query", "query", "{a=~\"(?:a{1000}){1000}{1000}\"}"),
        ("/loki/api/v1/query_range", "query", deep.as_str()),
        ("/loki/api/v1/query_range", "query", "{a=\"b\"} |~ \"(\""),
        ("/loki/api/v1/query_range", "query", "{}"),
        ("/api/search", "q", deep_selector.as_str()),
        ("/api/search", "q", "{ span.a = }"),
    ] {
        let body = super::server::query_string(&[(name, query)]);
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        // Long queries go in a form where the API takes one.
        let (status, text) = if path == "/api/search" && query.len() > 10_000 {
            server.get(path, &[(name, &query[..5_000])]).await
        } else if path == "/api/search" {
            server.get(path, &[(name, query)]).await
        } else {
            server.post(&server.url(path), &form, body[1..].to_owned()).await
        };
        let short: String = query.chars().take(40).collect();
        assert_eq!(status, 400, "{path} {short}: {text}");
        assert!(!text.trim().is_empty(), "{path} {short}: no sentence");
        alive(&server, &short).await;
    }
}
