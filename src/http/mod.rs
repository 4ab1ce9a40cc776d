//! HTTP: the route table, all of it, and what every answer goes through.
//!
//! Owns: paths, methods, compression of answers, request metrics. Does not own: handlers, which stand in one file per
//! group of endpoints.
//!
//! Invariant: a handler reads parameters, makes one call, encodes; it holds no loop over samples, entries or spans.

mod error;
mod jaeger;
mod json;
mod loki;
pub mod otlp;
mod params;
mod prometheus;
pub mod tempo;
mod ui;

use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tower_http::compression::CompressionLayer;

pub use error::{OtlpError, RpcCode, TempoError};
use json::Json;
pub use params::{Params, tenant};

use crate::app::SharedApp;

/// Media type of protobuf in OTLP.
const PROTOBUF_OTLP: &str = "application/x-protobuf";
/// Media type of protobuf in Tempo.
const PROTOBUF: &str = "application/protobuf";
/// What the originals answer to unknown paths.
const NOT_FOUND: &str = "404 page not found\n";

/// Everything, for the main port.
pub fn everything(app: &SharedApp) -> Router {
    let routes = Router::new()
        .merge(prometheus_routes())
        .merge(loki_routes())
        .merge(tempo_routes())
        .merge(otlp_routes())
        .merge(own_routes());
    finish(routes, app)
}

/// OTLP alone, for its own port.
pub fn otlp_only(app: &SharedApp) -> Router {
    finish(otlp_routes(), app)
}

fn finish(routes: Router<SharedApp>, app: &SharedApp) -> Router {
    routes
        .fallback(|| async { text(StatusCode::NOT_FOUND, NOT_FOUND) })
        // Each handler limits its body itself, and says so in its dialect.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(CompressionLayer::new())
        .with_state(app.clone())
}

fn prometheus_routes() -> Router<SharedApp> {
    use prometheus::{admin, labels, query, status, write};
    let read = Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/query_exemplars", get(query::exemplars).post(query::exemplars))
        .route("/api/v1/format_query", get(query::format).post(query::format))
        .route("/api/v1/parse_query", get(query::parse).post(query::parse))
        .route("/api/v1/series", get(labels::series).post(labels::series))
        .route("/api/v1/labels", get(labels::names).post(labels::names))
        .route("/api/v1/label/{name}/values", get(labels::values))
        .route("/api/v1/metadata", get(labels::metadata))
        .route("/api/v1/rules", get(status::rules))
        .route("/api/v1/alerts", get(status::alerts))
        .route("/api/v1/targets", get(status::targets))
        .route("/api/v1/targets/metadata", get(status::targets_metadata))
        .route("/api/v1/scrape_pools", get(status::scrape_pools))
        .route("/api/v1/alertmanagers", get(status::alertmanagers))
        .route("/api/v1/status/buildinfo", get(status::buildinfo))
        .route("/api/v1/status/runtimeinfo", get(status::runtimeinfo))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/config", get(status::config))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/api/v1/status/walreplay", get(status::walreplay))
        .route("/api/v1/read", post(|| not_there_yet("remote read (/api/v1/read)")))
        .route("/api/v1/sql", any(|| not_there_yet("SQL (/api/v1/sql)")))
        .route("/api/v1/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route("/api/v1/admin/tsdb/clean_tombstones", post(admin::clean_tombstones).put(admin::clean_tombstones))
        .route("/api/v1/admin/tsdb/snapshot", post(admin::snapshot).put(admin::snapshot))
        .layer(middleware::from_fn(any_origin));
    read.route("/api/v1/write", post(write::write)).route("/federate", get(|| not_there_yet_text("/federate")))
}

fn loki_routes() -> Router<SharedApp> {
    use loki::{delete, fields, labels, push, query, status, tail, volume};
    Router::new()
        .route("/loki/api/v1/push", post(push::push))
        .route("/loki/api/v1/query", get(query::instant).post(query::instant))
        .route("/loki/api/v1/query_range", get(query::range).post(query::range))
        .route("/loki/api/v1/labels", get(labels::names).post(labels::names))
        .route("/loki/api/v1/label", get(labels::names).post(labels::names))
        .route("/loki/api/v1/label/{name}/values", get(labels::values).post(labels::values))
        .route("/loki/api/v1/series", get(labels::series).post(labels::series))
        .route("/loki/api/v1/detected_labels", get(labels::detected).post(labels::detected))
        .route("/loki/api/v1/index/stats", get(volume::stats).post(volume::stats))
        .route("/loki/api/v1/index/volume", get(volume::volume).post(volume::volume))
        .route("/loki/api/v1/index/volume_range", get(volume::volume_range).post(volume::volume_range))
        .route("/loki/api/v1/detected_fields", get(fields::detected).post(fields::detected))
        .route("/loki/api/v1/detected_field/{name}/values", get(fields::values).post(fields::values))
        .route("/loki/api/v1/tail", get(tail::tail))
        .route("/loki/api/v1/delete", get(delete::list).post(delete::create).put(delete::create).delete(delete::cancel))
        .route("/loki/api/v1/patterns", get(status::patterns).post(status::patterns))
        .route("/loki/api/v1/drilldown-limits", get(status::drilldown_limits))
        .route("/loki/api/v1/format_query", get(query::format).post(query::format))
        .route("/loki/api/v1/status/buildinfo", get(status::buildinfo))
        .route("/loki/api/v1/rules", get(status::rules))
        .route("/prometheus/api/v1/rules", get(status::prometheus_rules))
        .route("/prometheus/api/v1/alerts", get(status::prometheus_alerts))
}

fn tempo_routes() -> Router<SharedApp> {
    use tempo::{metrics, search, status, tags, trace};
    Router::new()
        .route("/api/echo", get(status::echo))
        .route("/api/status/buildinfo", get(status::buildinfo))
        .route("/status/version", get(status::version))
        .route("/api/traces/{id}", get(trace::v1))
        .route("/api/v2/traces/{id}", get(trace::v2))
        .route("/api/search", get(search::search))
        .route("/api/search/tags", get(tags::names_v1))
        .route("/api/v2/search/tags", get(tags::names_v2))
        .route("/api/search/tag/{name}/values", get(tags::values_v1))
        .route("/api/v2/search/tag/{name}/values", get(tags::values_v2))
        .route("/api/metrics/query_range", get(metrics::range))
        .route("/api/metrics/query", get(metrics::instant))
        .route("/jaeger/api/services", get(jaeger::services))
        .route("/jaeger/api/services/{service}/operations", get(jaeger::operations_of))
        .route("/jaeger/api/operations", get(jaeger::operations))
        .route("/jaeger/api/traces", get(jaeger::search))
        .route("/jaeger/api/traces/{id}", get(jaeger::trace))
        .route("/jaeger/api/dependencies", get(jaeger::dependencies))
}

fn otlp_routes() -> Router<SharedApp> {
    Router::new()
        .route("/v1/metrics", post(otlp::metrics))
        .route("/v1/logs", post(otlp::logs))
        .route("/v1/traces", post(otlp::traces))
        .route("/otlp/v1/metrics", post(otlp::metrics))
        .route("/otlp/v1/logs", post(otlp::logs_as_loki))
        .route("/otlp/v1/traces", post(otlp::traces))
        .route("/api/v1/otlp/v1/metrics", post(otlp::metrics))
}

fn own_routes() -> Router<SharedApp> {
    Router::new()
        .route("/", get(ui::page))
        .route("/-/ready", get(ui::ready))
        .route("/ready", get(ui::ready))
        .route("/-/healthy", get(ui::healthy))
        .route("/metrics", get(ui::metrics))
        .route("/-/flush", post(ui::flush).put(ui::flush))
        .route("/flush", post(ui::flush))
        .route("/-/compact", post(ui::compact).put(ui::compact))
}

async fn not_there_yet(endpoint: &'static str) -> error::PrometheusError {
    error::PrometheusError::not_there_yet(endpoint)
}

async fn not_there_yet_text(endpoint: &'static str) -> error::TextError {
    error::TextError::not_there_yet(endpoint)
}

/// Browsers ask before they send to another origin, and look at the answer's headers before a page may read it; the API
/// has no cookies, so any may.
async fn any_origin(request: Request, next: Next) -> Response {
    let asked = request.method() == Method::OPTIONS;
    let from_page = asked || request.headers().contains_key(header::ORIGIN);
    let mut response = if asked { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if from_page {
        let headers = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ];
        response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    }
    response
}

/// Counts and times every request by its route.
async fn observe(State(app): State<SharedApp>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let response = next.run(request).await;
    app.telemetry.answered(route.as_deref().unwrap_or("unknown"), response.status().as_u16(), begun.elapsed());
    response
}

/// A plain-text answer.
fn text(status: StatusCode, body: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", body.into().into_bytes())
}

/// A JSON answer.
fn json_response(status: StatusCode, body: Json) -> Response {
    with_type(status, "application/json", body.finish().into_bytes())
}

/// A protobuf answer of the given media type.
fn protobuf_response(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    with_type(status, media_type, body)
}

fn with_type(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    let headers: [(HeaderName, HeaderValue); 1] = [(header::CONTENT_TYPE, HeaderValue::from_static(media_type))];
    (status, headers, body).into_response()
}
