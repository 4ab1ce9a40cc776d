//! `/api/echo`, `/api/status/buildinfo`, `/status/version`.

use axum::http::StatusCode;
use axum::response::Response;

use crate::http::json::Json;
use crate::http::{json_response, text};

/// The release whose API this is; Grafana reads it as a semantic version to switch features on.
const TEMPO_VERSION: &str = "2.9.0-tercet.1";

/// `/api/echo`
pub async fn echo() -> Response {
    text(StatusCode::OK, "echo\n")
}

/// `/api/status/buildinfo`
pub async fn buildinfo() -> Response {
    let mut json = Json::new();
    json.map([
        ("version", TEMPO_VERSION),
        ("revision", env!("CARGO_PKG_VERSION")),
        ("branch", ""),
        ("buildUser", ""),
        ("buildDate", ""),
        ("goVersion", ""),
    ]);
    json_response(StatusCode::OK, json)
}

/// `/status/version`
pub async fn version() -> Response {
    text(StatusCode::OK, concat!("tercet ", env!("CARGO_PKG_VERSION"), "\n"))
}
