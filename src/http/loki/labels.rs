//! `labels`, `label/{name}/values`, `series`, `detected_labels`: answered from streams, never from entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use query::logql;
use storage::model::identity::Identity;
use storage::model::matcher::Matcher;
use storage::model::tenant::Tenant;
use storage::model::time::TimeRange;
use storage::{Engine, Scan as _, Signal};

use super::params;
use crate::app::{App, SharedApp};
use crate::http::error::LokiError;
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

/// More numbers than this as values of one label look generated.
const NUMBERS_MAX: usize = 50;
/// Labels that are shown although their values look generated.
const ALWAYS_SHOWN: [&str; 4] = ["cluster", "namespace", "instance", "pod"];

/// The streams that pass one of `selectors` and have entries in `range`, encoded by `encode`.
async fn streams(
    app: &App,
    tenant: Tenant,
    selectors: Vec<Vec<Matcher>>,
    range: TimeRange,
    encode: impl FnOnce(Vec<Identity>) -> Json + Send + 'static,
) -> Result<Response, LokiError> {
    let work = move |engine: Arc<Engine>, context| async move {
        Ok(encode(engine.identities(Signal::Logs, &selectors, range, &context).await?))
    };
    let json = app.queries.run(app.engine()?, tenant, app.config.loki.timeout.0, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// The selector `query`; none at all selects every stream.
fn selector(params: &Params) -> Result<Vec<Vec<Matcher>>, LokiError> {
    let matchers = logql::parse_selector(params.get("query"))?;
    Ok(if matchers.is_empty() { Vec::new() } else { vec![matchers] })
}

fn success(write: impl FnOnce(&mut Json)) -> Json {
    let mut json = Json::new();
    json.raw(r#"{"status":"success","data":"#);
    write(&mut json);
    json.raw("}");
    json
}

/// `/loki/api/v1/labels`
pub async fn names(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, LokiError> {
    let range = params::range(&params, app.now_ns())?;
    let encode = |found: Vec<Identity>| {
        let names: BTreeSet<&str> =
            found.iter().flat_map(|stream| stream.labels.iter().map(|(name, _)| name)).collect();
        success(|json| {
            json.strings(names);
        })
    };
    streams(&app, tenant, selector(&params)?, range, encode).await
}

/// `/loki/api/v1/label/{name}/values`
pub async fn values(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, LokiError> {
    let range = params::range(&params, app.now_ns())?;
    let encode = move |found: Vec<Identity>| {
        let values: BTreeSet<&str> = found.iter().filter_map(|stream| stream.labels.get(&name)).collect();
        success(|json| {
            json.strings(values);
        })
    };
    streams(&app, tenant, selector(&params)?, range, encode).await
}

/// `/loki/api/v1/series`
pub async fn series(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, LokiError> {
    let range = params::range(&params, app.now_ns())?;
    let mut selectors = Vec::new();
    for text in params.all("match[]").chain(params.all("match")) {
        let matchers = logql::parse_selector(text)?;
        if matchers.is_empty() {
            // `{}` selects every stream, whatever the others say.
            selectors.clear();
            break;
        }
        selectors.push(matchers);
    }
    let encode = |found: Vec<Identity>| {
        success(|json| {
            json.array(&found, |json, stream| {
                json.map(&stream.labels);
            });
        })
    };
    streams(&app, tenant, selectors, range, encode).await
}

/// `/loki/api/v1/detected_labels`
pub async fn detected(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, LokiError> {
    let range = params::range(&params, app.now_ns())?;
    let encode = |found: Vec<Identity>| {
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, value) in found.iter().flat_map(|stream| stream.labels.iter()) {
            values.entry(name).or_default().insert(value);
        }
        values.retain(|name, values| ALWAYS_SHOWN.contains(name) || !look_generated(values));
        let mut json = Json::new();
        json.raw(r#"{"detectedLabels":"#).array(&values, |json, (name, values)| {
            json.raw(r#"{"label":"#).string(name).format(format_args!(",\"cardinality\":{}}}", values.len()));
        });
        json.raw("}");
        json
    };
    streams(&app, tenant, selector(&params)?, range, encode).await
}

/// Whether all values are UUIDs, or numbers and many.
fn look_generated(values: &BTreeSet<&str>) -> bool {
    let number = |value: &&str| value.parse::<f64>().is_ok();
    values.iter().all(|value| is_uuid(value) || number(value))
        && (values.len() > NUMBERS_MAX || !values.iter().any(number))
}

fn is_uuid(value: &str) -> bool {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let groups: Vec<&str> = value.split('-').collect();
    let hex = |(group, digits): (&&str, usize)| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit());
    groups.len() == GROUPS.len() && groups.iter().zip(GROUPS).all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_and_many_numbers_look_generated() {
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        let numbers: Vec<String> = (0..=NUMBERS_MAX).map(|n| n.to_string()).collect();
        assert!(look_generated(&BTreeSet::from([uuid])));
        assert!(look_generated(&numbers.iter().map(String::as_str).collect()));
        assert!(!look_generated(&BTreeSet::from(["0", "1"])));
        assert!(!look_generated(&BTreeSet::from([uuid, "api"])));
    }
}
