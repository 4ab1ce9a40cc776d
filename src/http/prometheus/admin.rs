//! `admin/tsdb/*`: deleting series. Off unless `prometheus.admin_api` is set, as in the original.

use axum::extract::State;
use axum::http::StatusCode;
use query::promql;
use storage::Signal;
use storage::delete::DeleteRequest;
use storage::model::matcher::Matcher;

use super::params;
use crate::app::{App, SharedApp};
use crate::http::error::PrometheusError;
use crate::http::params::{Params, TenantId};

fn check_on(app: &App) -> Result<(), PrometheusError> {
    if app.config.prometheus.admin_api { Ok(()) } else { Err(PrometheusError::admin_off()) }
}

/// `/api/v1/admin/tsdb/delete_series`
pub async fn delete_series(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<StatusCode, PrometheusError> {
    check_on(&app)?;
    let texts: Vec<&str> = params.all("match[]").collect();
    if texts.is_empty() {
        return Err(PrometheusError::bad_data("no match[] parameter provided"));
    }
    let parse = |text: &&str| {
        promql::parse_selector(text).map_err(|error| PrometheusError::parameter("match[]", error.message))
    };
    let selectors: Vec<Vec<Matcher>> = texts.iter().map(parse).collect::<Result<_, _>>()?;
    let (range, text) = (params::range(&params)?, texts.join(" or "));
    let request = DeleteRequest { signal: Signal::Metrics, selectors, range, tests: Vec::new(), text };
    app.engine()?.delete(&tenant, request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `/api/v1/admin/tsdb/clean_tombstones`: a round of upkeep now instead of later.
pub async fn clean_tombstones(State(app): State<SharedApp>) -> Result<StatusCode, PrometheusError> {
    check_on(&app)?;
    app.engine()?.upkeep().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `/api/v1/admin/tsdb/snapshot`
pub async fn snapshot(State(app): State<SharedApp>) -> Result<StatusCode, PrometheusError> {
    check_on(&app)?;
    Err(PrometheusError::not_there_yet("a snapshot (/api/v1/admin/tsdb/snapshot)"))
}
