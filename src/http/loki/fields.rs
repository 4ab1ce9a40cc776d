//! `detected_fields`, `detected_field/{name}/values`: what the newest entries of a query carry.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use query::logql::{self, Direction, Field, Limits, Params as QueryParams};
use storage::Engine;
use storage::model::tenant::Tenant;

use super::params;
use crate::app::{App, SharedApp};
use crate::http::error::LokiError;
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

/// Fields, or values of one field, when nothing else is asked for.
const LIMIT_DEFAULT: usize = 1000;

/// The fields that the request asks about, encoded by `encode`, which is also given `limit`.
async fn fields(
    app: &App,
    tenant: Tenant,
    params: &Params,
    encode: impl FnOnce(Vec<Field>, usize) -> Json + Send + 'static,
) -> Result<Response, LokiError> {
    let (start_ns, end_ns) = params::bounds(params, app.now_ns())?;
    let settings = &app.config.loki;
    let lines = params::count(params, "line_limit", params::LIMIT_DEFAULT)?;
    let asked = QueryParams {
        start_ns,
        end_ns,
        step_ns: 0,
        interval_ns: 0,
        limit: lines.min(settings.max_entries_limit_per_query),
        direction: Direction::Backward,
    };
    let limit = params::count(params, "limit", LIMIT_DEFAULT)?;
    let limits = Limits { entries_max: settings.max_entries_limit_per_query, ..Limits::default() };
    let text = params.get("query").to_owned();
    let work = move |engine: Arc<Engine>, context| async move {
        let found = logql::detected_fields(&*engine, &text, &asked, LIMIT_DEFAULT, &limits, &context).await?;
        Ok(encode(found, limit))
    };
    let json = app.queries.run(app.engine()?, tenant, settings.timeout.0, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// `/loki/api/v1/detected_fields`
pub async fn detected(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, LokiError> {
    let encode = |found: Vec<Field>, limit: usize| {
        let mut json = Json::new();
        json.raw(r#"{"fields":"#).array(found.iter().take(limit), field);
        json.raw(r#","limit":"#).integer(limit as u64).raw("}");
        json
    };
    fields(&app, tenant, &params, encode).await
}

fn field(json: &mut Json, field: &Field) {
    json.raw(r#"{"label":"#).string(&field.name).raw(r#","type":"#).string(field.kind.name());
    json.raw(r#","cardinality":"#).integer(field.values.len() as u64).raw(r#","parsers":"#);
    match field.parsers.is_empty() {
        true => json.raw("null"),
        false => json.strings(&field.parsers),
    };
    if !field.json_path.is_empty() {
        json.raw(r#","jsonPath":"#).strings(&field.json_path);
    }
    json.raw("}");
}

/// `/loki/api/v1/detected_field/{name}/values`
pub async fn values(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, LokiError> {
    let encode = move |found: Vec<Field>, limit: usize| {
        let values = found.into_iter().find(|field| field.name == name).map(|field| field.values).unwrap_or_default();
        let mut json = Json::new();
        json.raw(r#"{"values":"#).strings(values.iter().take(limit));
        json.raw(r#","limit":"#).integer(limit as u64).raw("}");
        json
    };
    fields(&app, tenant, &params, encode).await
}
