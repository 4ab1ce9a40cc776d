//! `status/*`, and the empty shapes of what this version has not: rules, alerts, targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use storage::model::labels::METRIC_NAME;
use storage::model::time::TimeRange;
use storage::{Engine, Scan as _, Signal};

use super::{encode, params};
use crate::app::SharedApp;
use crate::http::error::PrometheusError;
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

/// The release whose API this is; Grafana switches features on by it.
const PROMETHEUS_VERSION: &str = "3.14.0";
/// Entries of each list of `status/tsdb`.
const TOP_DEFAULT: usize = 10;

fn ok(data: &str) -> Response {
    json_response(StatusCode::OK, encode::success(data))
}

/// `/api/v1/status/buildinfo`: without the key `features`, which would make Grafana believe it talks to Mimir.
pub async fn buildinfo() -> Response {
    let mut json = Json::new();
    json.map([
        ("version", PROMETHEUS_VERSION),
        ("revision", concat!("tercet-", env!("CARGO_PKG_VERSION"))),
        ("branch", ""),
        ("buildUser", ""),
        ("buildDate", ""),
        ("goVersion", ""),
    ]);
    ok(&json.finish())
}

/// `/api/v1/status/runtimeinfo`
pub async fn runtimeinfo(State(app): State<SharedApp>) -> Response {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut json = Json::new();
    json.raw(r#"{"startTime":"1970-01-01T00:00:00Z","CWD":"","reloadConfigSuccess":true,"#);
    json.raw(r#""lastConfigTime":"1970-01-01T00:00:00Z","corruptionCount":0,"goroutineCount":0,"#);
    json.format(format_args!("\"GOMAXPROCS\":{threads},\"GOMEMLIMIT\":0,\"GOGC\":\"\",\"GODEBUG\":\"\","));
    json.raw(r#""storageRetention":"#).string(&app.config.retention.metrics.to_string()).raw("}");
    ok(&json.finish())
}

/// `/api/v1/status/flags`
pub async fn flags(State(app): State<SharedApp>) -> Response {
    let config = &app.config;
    let mut json = Json::new();
    json.map([
        ("web.listen-address", config.http.clone()),
        ("storage.tsdb.path", config.data.display().to_string()),
        ("storage.tsdb.retention.time", config.retention.metrics.to_string()),
        ("query.lookback-delta", config.prometheus.lookback.to_string()),
        ("query.timeout", config.prometheus.timeout.to_string()),
        ("query.max-samples", config.prometheus.samples_max.to_string()),
        ("query.max-concurrency", config.query.concurrency.to_string()),
    ]);
    ok(&json.finish())
}

/// `/api/v1/status/config`
pub async fn config(State(app): State<SharedApp>) -> Response {
    let mut json = Json::new();
    json.map([("yaml", app.config.to_yaml())]);
    ok(&json.finish())
}

/// `/api/v1/status/walreplay`
pub async fn walreplay() -> Response {
    ok(r#"{"min":0,"max":0,"current":0}"#)
}

/// `/api/v1/status/tsdb`: counts over all series, of whatever age.
pub async fn tsdb(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, PrometheusError> {
    let limit = params::limit(&params)?.unwrap_or(TOP_DEFAULT);
    let work = move |engine: Arc<Engine>, context| async move {
        let series = engine.identities(Signal::Metrics, &[], TimeRange::ALL, &context).await?;
        let mut counts = Counts::default();
        series.iter().for_each(|series| counts.add(&series.labels));
        Ok(counts.encode(series.len(), limit))
    };
    let json = app.queries.run(app.engine()?, tenant, app.config.prometheus.timeout.0, work).await?;
    Ok(ok(&json.finish()))
}

/// What `status/tsdb` counts.
#[derive(Default)]
struct Counts {
    by_metric: BTreeMap<String, usize>,
    by_pair: BTreeMap<(String, String), usize>,
}

impl Counts {
    fn add(&mut self, labels: &storage::model::labels::Labels) {
        for (name, value) in labels {
            if name == METRIC_NAME {
                *self.by_metric.entry(value.to_owned()).or_default() += 1;
            }
            *self.by_pair.entry((name.to_owned(), value.to_owned())).or_default() += 1;
        }
    }

    fn encode(&self, series: usize, limit: usize) -> Json {
        let mut values: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (name, value) in self.by_pair.keys() {
            let (count, bytes) = values.entry(name).or_default();
            *count += 1;
            *bytes += value.len();
        }
        let mut json = Json::new();
        json.format(format_args!("{{\"headStats\":{{\"numSeries\":{series},\"numLabelPairs\":{},", self.by_pair.len()));
        json.raw(r#""chunkCount":0,"minTime":0,"maxTime":0},"seriesCountByMetricName":"#);
        top(&mut json, self.by_metric.iter().map(|(name, n)| (name.clone(), *n)).collect(), limit);
        json.raw(r#","labelValueCountByLabelName":"#);
        top(&mut json, values.iter().map(|(name, (n, _))| ((*name).to_owned(), *n)).collect(), limit);
        json.raw(r#","memoryInBytesByLabelName":"#);
        top(&mut json, values.iter().map(|(name, (_, n))| ((*name).to_owned(), *n)).collect(), limit);
        json.raw(r#","seriesCountByLabelValuePair":"#);
        top(&mut json, self.by_pair.iter().map(|((name, value), n)| (format!("{name}={value}"), *n)).collect(), limit);
        json.raw("}");
        json
    }
}

fn top(json: &mut Json, mut list: Vec<(String, usize)>, limit: usize) {
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    json.array(list.iter().take(limit), |json, (name, count)| {
        json.raw(r#"{"name":"#).string(name).format(format_args!(",\"value\":{count}}}"));
    });
}

/// `/api/v1/rules`
pub async fn rules(params: Params) -> Result<Response, PrometheusError> {
    match params.get("type") {
        "" | "alert" | "record" => Ok(ok(r#"{"groups":[]}"#)),
        other => Err(PrometheusError::parameter("type", format!("not supported value {other:?}"))),
    }
}

/// `/api/v1/alerts`
pub async fn alerts() -> Response {
    ok(r#"{"alerts":[]}"#)
}

/// `/api/v1/targets`
pub async fn targets() -> Response {
    ok(r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#)
}

/// `/api/v1/targets/metadata`
pub async fn targets_metadata() -> Response {
    ok("[]")
}

/// `/api/v1/scrape_pools`
pub async fn scrape_pools() -> Response {
    ok(r#"{"scrapePools":[]}"#)
}

/// `/api/v1/alertmanagers`
pub async fn alertmanagers() -> Response {
    ok(r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#)
}

#[cfg(test)]
mod tests {
    use storage::model::labels::Labels;

    use super::*;

    #[test]
    fn the_most_frequent_come_first() {
        let mut counts = Counts::default();
        for job in ["a", "b"] {
            counts.add(&Labels::from_pairs([("__name__", "up"), ("job", job)]));
        }
        let text = counts.encode(2, 1).finish();
        assert!(text.contains(r#""numSeries":2,"numLabelPairs":3"#), "{text}");
        assert!(text.contains(r#""seriesCountByMetricName":[{"name":"up","value":2}]"#), "{text}");
        assert!(text.contains(r#""labelValueCountByLabelName":[{"name":"job","value":2}]"#), "{text}");
    }
}
