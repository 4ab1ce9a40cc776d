//! `series`, `labels`, `label/<name>/values`, `metadata`: answered from identities, never from samples.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use query::promql;
use storage::model::identity::Identity;
use storage::model::labels::Labels;
use storage::model::matcher::Matcher;
use storage::model::tenant::Tenant;
use storage::model::time::TimeRange;
use storage::{Engine, Scan as _, Signal};

use super::{encode, metadata as families, params};
use crate::app::{App, SharedApp};
use crate::http::error::PrometheusError;
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

/// What all of them ask.
struct Asked {
    selectors: Vec<Vec<Matcher>>,
    range: TimeRange,
    limit: Option<usize>,
}

impl Asked {
    fn new(params: &Params) -> Result<Self, PrometheusError> {
        let selectors = params
            .all("match[]")
            .map(|text| promql::parse_selector(text).map_err(|e| PrometheusError::parameter("match[]", e.message)))
            .collect::<Result<_, _>>()?;
        Ok(Self { selectors, range: params::range(params)?, limit: params::limit(params)? })
    }
}

/// Finds the series and answers the list that `pick` makes of them.
async fn answer<T: 'static>(
    app: &App,
    tenant: Tenant,
    asked: Asked,
    pick: impl FnOnce(Vec<Identity>) -> Vec<T> + Send + 'static,
    write: fn(&mut Json, &T),
) -> Result<Response, PrometheusError> {
    let bytes_max = app.queries.answer_bytes_max();
    let work = move |engine: Arc<Engine>, context| async move {
        let found = engine.identities(Signal::Metrics, &asked.selectors, asked.range, &context).await?;
        encode::list(&pick(found), asked.limit, bytes_max, write)
    };
    let json = app.queries.run(app.engine()?, tenant, app.config.prometheus.timeout.0, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

#[expect(clippy::ptr_arg, reason = "the list's items are `String`s, and a writer takes a reference to an item")]
fn write_text(json: &mut Json, text: &String) {
    json.string(text);
}

/// `/api/v1/series`
pub async fn series(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, PrometheusError> {
    let asked = Asked::new(&params)?;
    if asked.selectors.is_empty() {
        return Err(PrometheusError::bad_data("no match[] parameter provided"));
    }
    let pick = |found: Vec<Identity>| found.into_iter().map(|series| series.labels).collect();
    answer(&app, tenant, asked, pick, |json: &mut Json, labels: &Labels| {
        json.map(labels);
    })
    .await
}

/// `/api/v1/labels`
pub async fn names(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, PrometheusError> {
    let pick = |found: Vec<Identity>| {
        let names: BTreeSet<&str> =
            found.iter().flat_map(|series| series.labels.iter().map(|(name, _)| name)).collect();
        names.into_iter().map(str::to_owned).collect()
    };
    answer(&app, tenant, Asked::new(&params)?, pick, write_text).await
}

/// `/api/v1/label/<name>/values`
pub async fn values(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    name: Result<Path<String>, PathRejection>,
    params: Params,
) -> Result<Response, PrometheusError> {
    let name = name.ok().and_then(|Path(name)| params::label_name(&name));
    let name = name.ok_or_else(|| PrometheusError::bad_data("invalid label name: it is empty or no UTF-8"))?;
    let asked = Asked::new(&params)?;
    let pick = move |found: Vec<Identity>| {
        let values: BTreeSet<&str> = found.iter().filter_map(|series| series.labels.get(&name)).collect();
        values.into_iter().map(str::to_owned).collect()
    };
    answer(&app, tenant, asked, pick, write_text).await
}

/// `/api/v1/metadata`
pub async fn metadata(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, PrometheusError> {
    let limits = families::Limits {
        metrics: params::count(&params, "limit")?,
        per_metric: params::limit_of(&params, "limit_per_metric")?,
    };
    let metric = params.first("metric").filter(|metric| !metric.is_empty()).map(str::to_owned);
    let work = move |engine: Arc<Engine>, context| async move {
        let found = families::read(&*engine, metric.as_deref(), &context).await?;
        Ok(families::encode(&found, &limits))
    };
    let json = app.queries.run(app.engine()?, tenant, app.config.prometheus.timeout.0, work).await?;
    Ok(json_response(StatusCode::OK, json))
}
