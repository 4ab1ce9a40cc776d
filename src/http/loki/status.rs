//! `status/buildinfo`, `drilldown-limits`, and the empty shapes of what this version has not.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use proto::level::LEVEL_FIELDS;
use query::logql;

use crate::app::SharedApp;
use crate::http::error::{LokiError, TextError};
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::Params;

/// The release whose API this is; Grafana switches features on by it.
const LOKI_VERSION: &str = "3.8.0";

fn ok(text: &str) -> Response {
    let mut json = Json::new();
    json.raw(text);
    json_response(StatusCode::OK, json)
}

/// `/loki/api/v1/status/buildinfo`
pub async fn buildinfo() -> Response {
    let mut json = Json::new();
    json.map([
        ("version", LOKI_VERSION),
        ("revision", concat!("tercet-", env!("CARGO_PKG_VERSION"))),
        ("branch", ""),
        ("buildUser", ""),
        ("buildDate", ""),
        ("goVersion", ""),
    ]);
    json_response(StatusCode::OK, json)
}

/// `/loki/api/v1/drilldown-limits`: patterns are not mined, and say so.
pub async fn drilldown_limits(State(app): State<SharedApp>) -> Response {
    let settings = &app.config.loki;
    let limits = app.config.push_limits();
    let mut json = Json::new();
    json.raw(r#"{"limits":{"discover_log_levels":true,"discover_service_name":"#);
    json.strings(&limits.service_name_labels).raw(r#","log_level_fields":"#).strings(LEVEL_FIELDS);
    json.format(format_args!(
        ",\"max_entries_limit_per_query\":{},\"max_line_size_truncate\":{}",
        settings.max_entries_limit_per_query, limits.line_truncate
    ));
    json.raw(
        r#","max_query_bytes_read":"0B","max_query_length":"0s","max_query_lookback":"0s","max_query_range":"0s""#,
    );
    json.format(format_args!(",\"max_query_series\":{}", settings.max_query_series));
    json.raw(r#","metric_aggregation_enabled":false,"otlp_config":{},"pattern_persistence_enabled":false"#);
    json.raw(r#","query_timeout":"#).string(&settings.timeout.to_string());
    json.raw(r#","retention_period":"#).string(&format!("{}s", app.config.retention.logs.0.as_secs()));
    json.raw(r#","volume_enabled":true,"volume_max_series":1000},"pattern_ingester_enabled":false,"version":"#);
    json.string(LOKI_VERSION).raw("}");
    json_response(StatusCode::OK, json)
}

/// `/loki/api/v1/patterns`: an empty list, as there is no pattern mining; a query that is none is told so.
pub async fn patterns(params: Params) -> Result<Response, LokiError> {
    logql::is_log_query(params.get("query"))?;
    Ok(ok(r#"{"status":"success","data":[]}"#))
}

/// `/loki/api/v1/rules`
pub async fn rules() -> TextError {
    TextError { status: StatusCode::NOT_FOUND, message: "no rule groups found".into() }
}

/// `/prometheus/api/v1/rules`
pub async fn prometheus_rules() -> Response {
    ok(r#"{"status":"success","data":{"groups":[]},"errorType":"","error":""}"#)
}

/// `/prometheus/api/v1/alerts`
pub async fn prometheus_alerts() -> Response {
    ok(r#"{"status":"success","data":{"alerts":[]},"errorType":"","error":""}"#)
}
