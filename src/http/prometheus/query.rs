//! `query`, `query_range`, `query_exemplars`, `format_query`, `parse_query`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use query::promql::{self, Grid, Options};
use storage::Engine;
use storage::model::time::TimestampMs;

use super::encode::{self, Frame, Stats};
use super::params;
use crate::app::{App, SharedApp};
use crate::http::error::PrometheusError;
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

/// The notice for a value of `stats` that is neither `true` nor `all`.
const STATS_DEPRECATED: &str = "the value of the parameter `stats` is deprecated: use true or all";

/// Parameters that `query` and `query_range` share.
struct Common {
    query: String,
    options: Options,
    timeout: Duration,
    limit: Option<usize>,
    stats: Option<bool>,
    warning: Option<&'static str>,
    bytes_max: usize,
}

impl Common {
    fn new(app: &App, params: &Params) -> Result<Self, PrometheusError> {
        let settings = &app.config.prometheus;
        let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        let lookback = params::duration(params, "lookback_delta")?.map_or(settings.lookback.0, ms);
        let asked = params::duration(params, "timeout")?.map(ms);
        let stats = params.get("stats");
        Ok(Self {
            query: params.get("query").to_owned(),
            options: Options {
                lookback,
                default_step: settings.evaluation_interval.0,
                samples_max: settings.samples_max,
                ..Options::default()
            },
            timeout: asked.map_or(settings.timeout.0, |asked| asked.min(settings.timeout.0)),
            limit: params::limit(params)?,
            stats: (!stats.is_empty()).then_some(stats == "all"),
            warning: (!matches!(stats, "" | "true" | "all")).then_some(STATS_DEPRECATED),
            bytes_max: app.queries.answer_bytes_max(),
        })
    }

    fn encode(&self, mut answer: promql::Answer, begun: Instant) -> query::Result<Json> {
        answer.warnings.extend(self.warning.map(str::to_owned));
        let stats = self.stats.map(|per_step| Stats { eval_seconds: begun.elapsed().as_secs_f64(), per_step });
        encode::answer(answer, &Frame { limit: self.limit, stats, bytes_max: self.bytes_max })
    }
}

/// `/api/v1/query`
pub async fn instant(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, PrometheusError> {
    let at = params::time(&params, "time")?.unwrap_or_else(|| TimestampMs(app.now_ms()));
    let common = Common::new(&app, &params)?;
    let timeout = common.timeout;
    let work = move |engine: Arc<Engine>, context| async move {
        let begun = Instant::now();
        let answer = promql::instant(&*engine, &common.query, at, &common.options, &context).await?;
        common.encode(answer, begun)
    };
    let json = app.queries.run(app.engine()?, tenant, timeout, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// `/api/v1/query_range`
pub async fn range(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, PrometheusError> {
    let start = params::required_time(&params, "start")?;
    let end = params::required_time(&params, "end")?;
    if end < start {
        return Err(PrometheusError::parameter("end", "end timestamp must not be before start time"));
    }
    let grid = Grid { start, end, step_ms: params::step(&params, start, end)? };
    let common = Common::new(&app, &params)?;
    let timeout = common.timeout;
    let work = move |engine: Arc<Engine>, context| async move {
        let begun = Instant::now();
        let answer = promql::range(&*engine, &common.query, grid, &common.options, &context).await?;
        common.encode(answer, begun)
    };
    let json = app.queries.run(app.engine()?, tenant, timeout, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// `/api/v1/query_exemplars`
pub async fn exemplars(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, PrometheusError> {
    let range = params::range(&params)?;
    let query = params.get("query").to_owned();
    let bytes_max = app.queries.answer_bytes_max();
    let work = move |engine: Arc<Engine>, context| async move {
        let found = promql::exemplars(&*engine, &query, range, &context).await?;
        found.map(|series| encode::exemplars(&series, bytes_max)).transpose()
    };
    let found = app.queries.run(app.engine()?, tenant, app.config.prometheus.timeout.0, work).await?;
    Ok(found.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |json| json_response(StatusCode::OK, json)))
}

/// `/api/v1/format_query`
pub async fn format(params: Params) -> Result<Response, PrometheusError> {
    let mut data = Json::new();
    data.string(&promql::format_query(params.get("query")).map_err(of_query)?);
    Ok(json_response(StatusCode::OK, encode::success(&data.finish())))
}

/// `/api/v1/parse_query`
pub async fn parse(params: Params) -> Result<Response, PrometheusError> {
    let tree = promql::parse_tree(params.get("query")).map_err(of_query)?;
    Ok(json_response(StatusCode::OK, encode::success(&tree.to_string())))
}

/// Errors of a text that is a parameter name it.
fn of_query(error: query::Error) -> PrometheusError {
    PrometheusError::parameter("query", error.message)
}
