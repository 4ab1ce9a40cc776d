//! `query`, `query_range`, `format_query`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use query::logql::{self, Limits, Params as QueryParams};
use storage::Engine;

use super::encode::{self, Frame};
use super::params;
use crate::app::{App, SharedApp};
use crate::http::error::{LokiError, TextError};
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

/// The header by which Grafana asks for categories.
const FLAGS_HEADER: &str = "x-loki-response-encoding-flags";

/// What the request asks of the encoding.
pub(super) fn flags(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(FLAGS_HEADER).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(|flag| flag.trim().to_owned()).collect()
}

/// What both kinds of queries share.
struct Common {
    query: String,
    limits: Limits,
    timeout: Duration,
    flags: Vec<String>,
    bytes_max: usize,
}

impl Common {
    fn new(app: &App, params: &Params, headers: &HeaderMap) -> Self {
        let settings = &app.config.loki;
        Self {
            query: params.get("query").to_owned(),
            limits: Limits {
                series_max: settings.max_query_series,
                entries_max: settings.max_entries_limit_per_query,
                ..Limits::default()
            },
            timeout: settings.timeout.0,
            flags: flags(headers),
            bytes_max: app.queries.answer_bytes_max(),
        }
    }

    fn encode(&self, answer: &logql::Answer, begun: Instant) -> query::Result<Json> {
        let seconds = begun.elapsed().as_secs_f64();
        encode::answer(answer, &Frame { flags: self.flags.clone(), seconds, bytes_max: self.bytes_max })
    }
}

/// `/loki/api/v1/query`
pub async fn instant(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, LokiError> {
    let at = params::time(&params, "time", app.now_ns())?;
    let asked = QueryParams {
        start_ns: at,
        end_ns: at,
        step_ns: 0,
        interval_ns: 0,
        limit: params::limit(&params)?,
        direction: params::direction(&params)?,
    };
    let common = Common::new(&app, &params, &headers);
    let timeout = common.timeout;
    let work = move |engine: Arc<Engine>, context| async move {
        let begun = Instant::now();
        let answer = logql::instant(&*engine, &common.query, &asked, &common.limits, &context).await?;
        common.encode(&answer, begun)
    };
    let json = app.queries.run(app.engine()?, tenant, timeout, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// `/loki/api/v1/query_range`
pub async fn range(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, LokiError> {
    let (start_ns, end_ns) = params::bounds(&params, app.now_ns())?;
    let asked = QueryParams {
        start_ns,
        end_ns,
        step_ns: params::step(&params, end_ns.saturating_sub(start_ns))?,
        interval_ns: params::interval(&params)?,
        limit: params::limit(&params)?,
        direction: params::direction(&params)?,
    };
    let common = Common::new(&app, &params, &headers);
    let timeout = common.timeout;
    let entries_max = common.limits.entries_max;
    if asked.limit > entries_max && logql::is_log_query(&common.query)? {
        let text = format!(
            "max entries limit per query exceeded, limit > max_entries_limit_per_query ({} > {entries_max})",
            asked.limit
        );
        return Err(TextError::bad_request(text).into());
    }
    let work = move |engine: Arc<Engine>, context| async move {
        let begun = Instant::now();
        let answer = logql::range(&*engine, &common.query, &asked, &common.limits, &context).await?;
        common.encode(&answer, begun)
    };
    let json = app.queries.run(app.engine()?, tenant, timeout, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// `/loki/api/v1/format_query`: the one endpoint whose errors are JSON.
pub async fn format(params: Params) -> Response {
    let mut json = Json::new();
    match logql::format_query(params.get("query")) {
        Ok(text) => {
            json.raw(r#"{"status":"success","data":"#).string(&text).raw("}");
            json_response(StatusCode::OK, json)
        }
        Err(error) => {
            json.raw(r#"{"status":"invalid-query","error":"#).string(&error.message).raw("}");
            json_response(StatusCode::BAD_REQUEST, json)
        }
    }
}
