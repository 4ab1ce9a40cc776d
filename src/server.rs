//! The life of the process: listeners, engine, handlers, and the order of shutdown.
//!
//! Owns: when what starts and stops. Does not own: what handlers do.
//!
//! Invariants
//! 1. Ports are bound before the engine opens, so that a taken port fails at once and probes are answered meanwhile.
//! 2. On a stop: no new requests, running ones end, then the engine flushes; all within the grace, which a second
//!    signal ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use storage::clock::SystemClock;
use storage::store::{Patience, StoreOptions};
use storage::{Engine, EngineConfig};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::{App, SharedApp};
use crate::cli::{Failure, say};
use crate::config::Config;
use crate::connections::Bounded;
use crate::{generated, grpc, http, telemetry};

/// The part of the grace that running requests get; the rest is for the flush.
const DRAIN_SHARE: u32 = 3;

/// The pause between two tries to open a store that does not answer.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The stack of each thread: expressions may be nested as deep as the parsers allow, and each level takes kilobytes when
/// it is parsed, checked, run and dropped. Only what is touched takes memory.
const STACK_BYTES: usize = 16 << 20;

/// Runs until a signal asks to stop.
pub fn run(config: Config) -> Result<(), Failure> {
    telemetry::start_logging(&config.log).map_err(Failure::usage)?;
    let waiting = runtime("tercet-io")?;
    let compute = runtime("tercet-query")?;
    let result = waiting.block_on(serve(config, compute.handle().clone()));
    // Queries that still run belong to callers that are gone.
    compute.shutdown_background();
    waiting.shutdown_background();
    result
}

fn runtime(name: &str) -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .thread_stack_size(STACK_BYTES)
        .build()
        .map_err(|e| Failure::run(format!("the threads cannot be started: {e}")))
}

async fn serve(config: Config, compute: tokio::runtime::Handle) -> Result<(), Failure> {
    let grace = config.shutdown_grace.0;
    let app = App::new(config, Arc::new(SystemClock), compute);
    let stop = CancellationToken::new();
    let mut servers = start_listeners(&app, &stop).await?;
    let mut signals = Signals::listen()?;
    let engine = tokio::select! {
        engine = open_engine(&app) => engine?,
        () = signals.next() => return Ok(()),
    };
    app.set_ready(Arc::clone(&engine));
    tokio::spawn(generated::run(Arc::downgrade(&app)));
    greet(&app.config)?;
    let failed = tokio::select! {
        () = signals.next() => None,
        ended = servers.join_next() => ended.map(|ended| format!("a listener ended: {ended:?}")),
    };
    tracing::info!("stopping: no new requests are taken");
    app.set_stopping();
    stop.cancel();
    let stopped = tokio::time::timeout(grace, async {
        drain(&mut servers, grace / DRAIN_SHARE).await;
        engine.close().await
    });
    let stopped = tokio::select! {
        stopped = stopped => Some(stopped),
        () = signals.next() => None,
    };
    match stopped {
        None => {
            return Err(Failure::run(
                "stopped at once by a second signal; data not yet in the tables stays in the write-ahead log",
            ));
        }
        Some(stopped) => report(stopped),
    }
    failed.map_or(Ok(()), |message| Err(Failure::run(message)))
}

fn report(stopped: Result<storage::Result<()>, tokio::time::error::Elapsed>) {
    match stopped {
        Ok(Ok(())) => tracing::info!("stopped, everything is in the tables"),
        // Nothing is lost: what is acknowledged is in the write-ahead log.
        Ok(Err(error)) => tracing::error!(%error, "the last flush failed; its data stays in the write-ahead log"),
        Err(_) => tracing::warn!("the grace is over; data not yet in the tables stays in the write-ahead log"),
    }
}

async fn drain(servers: &mut JoinSet<()>, patience: Duration) {
    let all = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!("some connections stayed open; they are closed now");
        servers.abort_all();
    }
}

/// A setting that is empty when it is not set.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

async fn open_engine(app: &SharedApp) -> Result<Arc<Engine>, Failure> {
    let config = &app.config;
    let storage = &config.storage;
    let engine_config = EngineConfig {
        read_only: config.read_only,
        flush_age_max: storage.flush_age_max.0,
        head_bytes_max: storage.head_bytes_max.bytes(),
        unflushed_bytes_max: storage.unflushed_bytes_max.bytes(),
        wal_bytes_max: storage.wal_bytes_max.0,
        refresh_age_max: storage.refresh_age_max.0,
        budget: app.budget.clone(),
        store_options: StoreOptions {
            gcs_endpoint: some(&storage.gcs_endpoint),
            gcs_credentials: some(&storage.gcs_credentials).map(PathBuf::from),
            patience: Patience { request: storage.request_timeout.0, total: storage.request_deadline.0 },
            ..StoreOptions::default()
        },
        disk_cache_bytes_max: storage.disk_cache_bytes_max.0,
        writer_id: some(&storage.writer_id),
        retention: config.retention_policy(),
        upkeep_interval: storage.upkeep_interval.0,
        vacuum_interval: storage.vacuum_interval.0,
        vacuum_grace: storage.vacuum_grace.0,
        orphan_grace: storage.orphan_grace.0,
        ..EngineConfig::new(&config.data, config.store_url())
    };
    loop {
        match Engine::open(engine_config.clone(), Arc::clone(&app.clock)).await {
            Ok(engine) => return Ok(engine),
            // What it holds may lack what the log has: it waits, and everything is answered 503 meanwhile.
            Err(error) if error.blames_store() => {
                tracing::warn!(%error, "the store does not answer; it is asked again in a moment");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(e) => {
                let text = format!("the data in {} cannot be opened: {e}", config.data.display());
                return Err(Failure::run(text));
            }
        }
    }
}

/// One listener: its name, its address, the flag that changes it, and what it serves.
struct Port {
    what: &'static str,
    flag: &'static str,
    address: String,
    router: Router,
}

/// What the main port serves.
fn everything(app: &SharedApp) -> Router {
    http::everything(app).merge(grpc::otlp::nested(app)).merge(grpc::tempo::router(app))
}

async fn start_listeners(app: &SharedApp, stop: &CancellationToken) -> Result<JoinSet<()>, Failure> {
    let config = &app.config;
    let mut ports = vec![Port { what: "HTTP", flag: "--http", address: config.http.clone(), router: everything(app) }];
    if let Some(address) = &config.otlp_grpc.0 {
        let router = grpc::otlp::router(app);
        ports.push(Port { what: "OTLP over gRPC", flag: "--otlp-grpc", address: address.clone(), router });
    }
    if let Some(address) = &config.otlp_http.0 {
        let router = http::otlp_only(app);
        ports.push(Port { what: "OTLP over HTTP", flag: "--otlp-http", address: address.clone(), router });
    }
    let mut servers = JoinSet::new();
    for port in ports {
        let listener = TcpListener::bind(&port.address).await.map_err(|e| {
            let off = if port.flag == "--http" { "" } else { ", or switch it off with `off`" };
            Failure::run(format!(
                "{} cannot listen on {}: {e}; choose another address with {}{off}",
                port.what, port.address, port.flag
            ))
        })?;
        let stop = stop.clone();
        let listener = Bounded::new(listener, config.http_connections_max, config.http_silence_max.0);
        servers.spawn(async move {
            let done = axum::serve(listener, port.router).with_graceful_shutdown(stop.cancelled_owned()).await;
            if let Err(error) = done {
                tracing::error!(%error, port = port.what, "a listener failed");
            }
        });
    }
    Ok(servers)
}

/// The requests to stop that the process gets.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::run(format!("signals cannot be received: {e}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Completes when the process is asked to stop.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The four lines for a newcomer.
fn greet(config: &Config) -> Result<(), Failure> {
    let url = format!("http://{}", config.http);
    say(&format!("Tercet {} is ready on {url}; tables are in {}.", env!("CARGO_PKG_VERSION"), config.store_url()))?;
    if config.read_only {
        say("It only reads these tables (`read_only`): send data to the Tercet that writes them.")?;
    } else {
        let grpc = config.otlp_grpc.0.as_ref().map(|address| format!("{address} (gRPC) or ")).unwrap_or_default();
        let http = config.otlp_http.0.as_ref().map(|address| format!(", also on {address}")).unwrap_or_default();
        say(&format!("Send OTLP to {grpc}{url}/v1/… (HTTP{http})."))?;
        say(&format!("Send Prometheus remote write to {url}/api/v1/write, Loki push to {url}/loki/api/v1/push."))?;
    }
    say(&format!("Add to Grafana: data sources Prometheus, Loki and Tempo, each with the URL {url}."))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use storage::clock::ManualClock;
    use storage::model::time::TimestampNs;
    use tower::ServiceExt as _;

    use super::*;

    const NOW_NS: i64 = 1_767_571_200_000_000_000;

    /// A process with an engine in `folder`.
    async fn running(folder: &std::path::Path) -> (SharedApp, Arc<Engine>) {
        let config = Config { data: folder.to_owned(), ..Config::default() };
        let clock = Arc::new(ManualClock::at(TimestampNs(NOW_NS)));
        let app = App::new(config, clock, tokio::runtime::Handle::current());
        let engine = open_engine(&app).await.expect("opens");
        app.set_ready(Arc::clone(&engine));
        (app, engine)
    }

    async fn call(app: &SharedApp, request: Request<Body>) -> (StatusCode, String) {
        let response = everything(app).oneshot(request).await.expect("answers");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(app: &SharedApp, path: &str) -> (u16, String) {
        let (status, body) = call(app, Request::get(path).body(Body::empty()).expect("a request")).await;
        (status.as_u16(), body)
    }

    async fn post(app: &SharedApp, path: &str, media_type: &str, body: impl Into<Body>) -> (u16, String) {
        let request = Request::post(path).header("content-type", media_type).body(body.into()).expect("a request");
        let (status, body) = call(app, request).await;
        (status.as_u16(), body)
    }

    #[tokio::test]
    async fn before_the_engine_is_open_everything_says_so() {
        let app = App::new(Config::default(), Arc::new(ManualClock::default()), tokio::runtime::Handle::current());
        assert_eq!(get(&app, "/ready").await, (503, "starting\n".into()));
        assert_eq!(get(&app, "/-/healthy").await.0, 200);
        assert_eq!(get(&app, "/api/v1/query?query=1").await.0, 503);
        assert_eq!(get(&app, "/api/search").await.0, 503);
        assert_eq!(get(&app, "/loki/api/v1/labels").await.0, 503);
        assert_eq!(post(&app, "/api/v1/write", "application/x-protobuf", "").await.0, 503);
        assert_eq!(post(&app, "/v1/traces", "application/json", "{}").await.0, 503);
    }

    #[tokio::test]
    async fn the_three_dialects_answer_in_their_own_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let (app, engine) = running(folder.path()).await;
        assert_eq!(get(&app, "/ready").await, (200, "ready\n".into()));
        assert_eq!(get(&app, "/api/echo").await, (200, "echo\n".into()));
        assert_eq!(get(&app, "/nope").await, (404, "404 page not found\n".into()));
        let (status, body) = get(&app, "/api/v1/query?query=1%2B1&time=4").await;
        let expected = r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#;
        assert_eq!((status, body.as_str()), (200, expected));
        let (status, body) = get(&app, "/api/v1/query_range?query=up&start=1&end=2&step=0").await;
        assert!(
            status == 400
                && body.starts_with(r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"step\""#)
        );
        assert_eq!(get(&app, "/loki/api/v1/query_range?query=%7B").await.0, 400);
        assert_eq!(get(&app, "/api/traces/xyz").await.0, 400);
        assert_eq!(get(&app, "/api/traces/beef").await, (404, String::new()));
        assert_eq!(get(&app, "/api/v2/traces/beef").await, (200, r#"{"trace":{},"metrics":{}}"#.into()));
        assert_eq!(get(&app, "/api/v1/sql").await.0, 501);
        let (status, page) = get(&app, "/").await;
        assert!(status == 200 && page.contains("ready") && !page.contains("{{"), "{page}");
        engine.close().await.expect("closes");
    }

    #[tokio::test]
    async fn what_is_pushed_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let (app, engine) = running(folder.path()).await;
        let push = r#"{"streams":[{"stream":{"app":"x"},"values":[["1767571200000000000","hello"]]}]}"#;
        assert_eq!(post(&app, "/loki/api/v1/push", "application/json", push).await, (204, String::new()));
        let (status, body) = get(&app, "/loki/api/v1/label/app/values").await;
        assert_eq!((status, body.as_str()), (200, r#"{"status":"success","data":["x"]}"#));
        let (status, body) = get(&app, "/loki/api/v1/index/stats?query=%7Bapp%3D%22x%22%7D").await;
        assert!(
            status == 200 && body.starts_with(r#"{"streams":1,"chunks":1,"#) && body.ends_with(r#""entries":1}"#),
            "{body}"
        );
        engine.close().await.expect("closes");
    }

    #[tokio::test]
    async fn broken_bodies_get_the_status_of_their_protocol() {
        let folder = tempfile::tempdir().expect("a folder");
        let (app, engine) = running(folder.path()).await;
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let cases: [(&str, &str, &str, u16); 12] = [
            ("/api/v1/write", "application/x-protobuf", "broken", 400),
            ("/api/v1/write", "application/json", "", 415),
            ("/loki/api/v1/push", "application/json", "", 400),
            ("/loki/api/v1/push", "application/json", "{}", 422),
            ("/loki/api/v1/push", "application/json", &deep, 400),
            ("/loki/api/v1/push", "application/x-protobuf", "broken", 400),
            ("/v1/traces", "application/json", &deep, 400),
            ("/v1/traces", "application/json", "[]", 400),
            ("/v1/traces", "application/x-protobuf", "broken", 400),
            ("/v1/logs", "text/plain", "", 415),
            ("/v1/metrics", "application/x-protobuf", "", 200),
            ("/otlp/v1/logs", "text/plain", "", 400),
        ];
        for (path, media_type, body, expected) in cases {
            let (status, text) = post(&app, path, media_type, body.to_owned()).await;
            let shown: String = body.chars().take(10).collect();
            assert_eq!(status, expected, "{path} {shown}: {text}");
        }
        engine.close().await.expect("closes");
    }

    /// An overflow of the stack would end the process, tests and all.
    #[test]
    fn no_depth_of_a_query_ends_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let (waiting, compute) = (runtime("waiting").expect("starts"), runtime("compute").expect("starts"));
        let config = Config { data: folder.path().to_owned(), ..Config::default() };
        let app = App::new(config, Arc::new(ManualClock::at(TimestampNs(NOW_NS))), compute.handle().clone());
        let engine = waiting.block_on(open_engine(&app)).expect("opens");
        app.set_ready(Arc::clone(&engine));
        let nested = |open: &str, inner: &str, close: &str, depth| {
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        let mut asked = Vec::new();
        for depth in [60, 190, 5_000] {
            for (open, close) in [("sum(", ")"), ("(", ")"), ("-", ""), ("abs(", ")"), ("1+(", ")")] {
                asked.push(("/api/v1/query", nested(open, "g", close, depth)));
                asked.push(("/api/v1/format_query", nested(open, "g", close, depth)));
            }
            asked.push(("/loki/api/v1/query", nested("sum(", r#"rate({a="b"}[1s])"#, ")", depth)));
            asked.push(("/loki/api/v1/query", nested("1+(", r#"rate({a="b"}[1s])"#, ")", depth)));
        }
        for (path, query) in asked {
            let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
            let app = Arc::clone(&app);
            let answer =
                waiting.spawn(async move { post(&app, path, "application/x-www-form-urlencoded", form).await });
            let (status, body) = waiting.block_on(answer).expect("no panic");
            assert!(matches!(status, 200 | 400), "{path} {}: {status} {body}", query.len());
        }
        waiting.block_on(engine.close()).expect("closes");
        compute.shutdown_background();
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_as_too_large() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config { data: folder.path().to_owned(), ..Config::default() };
        config.ingest.otlp_bytes_max = crate::config::units::Size(10);
        let app = App::new(config, Arc::new(ManualClock::default()), tokio::runtime::Handle::current());
        app.set_ready(open_engine(&app).await.expect("opens"));
        let (status, body) = post(&app, "/v1/traces", "application/json", "x".repeat(11)).await;
        assert_eq!(
            (status, body.as_str()),
            (413, r#"{"code":8,"message":"request body too large: more than 10 bytes"}"#)
        );
    }
}
