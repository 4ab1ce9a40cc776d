//! What Tercet answers about itself: the page at `/`, ready, healthy, own metrics, flush and compact.
//!
//! Owns: these answers. Does not own: the page's text (`ui/index.html`), the metrics (`telemetry`).

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use storage::Signal;

use super::error::TextError;
use super::params::Params;
use super::text;
use crate::app::{Phase, SharedApp};

/// The page, compiled in.
const PAGE: &str = include_str!("../../ui/index.html");

/// `GET /`
pub async fn page(State(app): State<SharedApp>) -> Html<String> {
    let address = |listen: &crate::config::Listen| listen.to_string();
    Html(
        PAGE.replace("{{version}}", env!("CARGO_PKG_VERSION"))
            .replace("{{state}}", state(app.phase()))
            .replace("{{otlp_grpc}}", &address(&app.config.otlp_grpc))
            .replace("{{otlp_http}}", &address(&app.config.otlp_http)),
    )
}

fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Stopping => "stopping",
    }
}

/// `GET /ready`, `GET /-/ready`
pub async fn ready(State(app): State<SharedApp>) -> Response {
    match app.phase() {
        Phase::Ready => text(StatusCode::OK, "ready\n"),
        other => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", state(other))),
    }
}

/// `GET /-/healthy`
pub async fn healthy() -> Response {
    text(StatusCode::OK, "Tercet is healthy.\n")
}

/// `GET /metrics`
pub async fn metrics(State(app): State<SharedApp>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, content_type)], app.telemetry.exposition(&app)).into_response()
}

fn signal(params: &Params) -> Result<Option<Signal>, TextError> {
    match params.get("signal") {
        "" => Ok(None),
        name => Signal::ALL.into_iter().find(|signal| signal.name() == name).map(Some).ok_or_else(|| {
            TextError::bad_request(format!("signal `{name}` is unknown: use metrics, logs or traces, or leave it out"))
        }),
    }
}

/// `POST /-/flush`, `POST /flush`: answers when everything acknowledged before is in committed files.
pub async fn flush(State(app): State<SharedApp>, params: Params) -> Result<StatusCode, TextError> {
    let signal = signal(&params)?;
    app.engine()?.flush(signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /-/compact`: answers when nothing is left to compact.
pub async fn compact(State(app): State<SharedApp>, params: Params) -> Result<StatusCode, TextError> {
    let signal = signal(&params)?;
    app.engine()?.compact(signal).await?;
    Ok(StatusCode::NO_CONTENT)
}
