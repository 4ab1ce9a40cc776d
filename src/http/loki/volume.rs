//! `index/stats`, `index/volume` and `index/volume_range`: how much the streams of a selector hold.
//!
//! Owns: counting streams, entries and bytes (exact, over the rows), grouping and order of volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures::TryStreamExt as _;
use query::logql;
use storage::model::columns::EntryColumns;
use storage::model::identity::{Identity, IdentityId};
use storage::model::labels::Labels;
use storage::model::matcher::Matcher;
use storage::model::time::{NS_PER_MS, TimeRange};
use storage::{Context, Engine, Scan, ScanRequest, Signal, Table};

use super::params;
use crate::app::{App, SharedApp};
use crate::http::error::{LokiError, TextError};
use crate::http::json::Json;
use crate::http::json_response;
use crate::http::params::{Params, TenantId};

/// Volumes of an answer when nothing is asked for.
const LIMIT_DEFAULT: usize = 100;
/// Most volumes of an answer.
const LIMIT_MAX: usize = 1000;

/// What one stream holds in a range.
#[derive(Clone, Debug, Default)]
struct Volume {
    entries: u64,
    /// By the step that the entries belong to.
    bytes: BTreeMap<i64, u64>,
}

impl Volume {
    fn bytes(&self) -> u64 {
        self.bytes.values().sum()
    }
}

/// Where entries are counted.
#[derive(Clone, Copy, Debug)]
struct Span {
    range: TimeRange,
    /// Steps from the range's start; `None` counts everything in step 0.
    step_ns: Option<i64>,
}

impl Span {
    fn step_of(&self, ns: i64) -> i64 {
        self.step_ns.map_or(0, |step| ns.saturating_sub(self.range.start) / step)
    }
}

/// The streams of a selector with what they hold; those that hold nothing are left out.
async fn measure(
    scan: &dyn Scan,
    matchers: Vec<Matcher>,
    span: Span,
    context: &Context,
) -> query::Result<Vec<(Labels, Volume)>> {
    let selectors = if matchers.is_empty() { Vec::new() } else { vec![matchers] };
    let streams: Vec<Identity> = scan.identities(Signal::Logs, &selectors, span.range, context).await?;
    if streams.is_empty() {
        return Ok(Vec::new());
    }
    let ids = streams.iter().map(|stream| stream.id).collect();
    let request = ScanRequest { identities: Some(Arc::new(ids)), ..ScanRequest::all(Table::Logs, span.range) };
    let mut rows = scan.scan(request, context).await?;
    let mut volumes: BTreeMap<IdentityId, Volume> = BTreeMap::new();
    while let Some(batch) = rows.try_next().await? {
        context.check()?;
        let columns = EntryColumns::new(&batch)?;
        for row in 0..batch.num_rows() {
            let volume = volumes.entry(IdentityId::from_column(columns.stream_id.value(row))).or_default();
            let bytes = columns.line.value(row).len() + columns.metadata_bytes(row);
            volume.entries += 1;
            *volume.bytes.entry(span.step_of(columns.ts_ns.value(row))).or_default() += bytes as u64;
        }
    }
    Ok(streams.into_iter().filter_map(|stream| Some((stream.labels, volumes.remove(&stream.id)?))).collect())
}

/// `/loki/api/v1/index/stats`
pub async fn stats(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    params: Params,
) -> Result<Response, LokiError> {
    let range = params::range(&params, app.now_ns())?;
    let matchers = logql::parse_selector(params.get("query"))?;
    let work = move |engine: Arc<Engine>, context| async move {
        let found = measure(&*engine, matchers, Span { range, step_ns: None }, &context).await?;
        let total = |pick: fn(&Volume) -> u64| found.iter().map(|(_, volume)| pick(volume)).sum::<u64>();
        let (entries, bytes, streams) = (total(|v| v.entries), total(Volume::bytes), found.len());
        let mut json = Json::new();
        json.format(format_args!(
            "{{\"streams\":{streams},\"chunks\":{streams},\"bytes\":{bytes},\"entries\":{entries}}}"
        ));
        Ok(json)
    };
    let json = app.queries.run(app.engine()?, tenant, app.config.loki.timeout.0, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

/// How volumes are added up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Grouping {
    /// By combinations of the values of these labels.
    Series(Vec<String>),
    /// By names of labels; empty means all.
    Labels(Vec<String>),
}

impl Grouping {
    fn new(params: &Params, matchers: &[Matcher]) -> Result<Self, TextError> {
        let targets: Vec<String> =
            params.get("targetLabels").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        match params.get("aggregateBy") {
            "" | "series" if targets.is_empty() => {
                Ok(Self::Series(matchers.iter().map(|matcher| matcher.name.clone()).collect()))
            }
            "" | "series" => Ok(Self::Series(targets)),
            "labels" => Ok(Self::Labels(targets)),
            _ => Err(TextError::bad_request("invalid aggregation option")),
        }
    }

    /// Bytes by group and step, biggest first, then by name.
    fn apply(&self, found: &[(Labels, Volume)], limit: usize) -> Vec<(Labels, BTreeMap<i64, u64>)> {
        let mut groups: BTreeMap<Labels, BTreeMap<i64, u64>> = BTreeMap::new();
        for (labels, volume) in found {
            for group in self.groups(labels) {
                let steps = groups.entry(group).or_default();
                for (step, bytes) in &volume.bytes {
                    *steps.entry(*step).or_default() += bytes;
                }
            }
        }
        let mut list: Vec<(Labels, BTreeMap<i64, u64>)> = groups.into_iter().collect();
        // The sort is stable: equal volumes stay in the order of their labels.
        list.sort_by_key(|(_, steps)| std::cmp::Reverse(steps.values().sum::<u64>()));
        list.truncate(limit);
        list
    }

    fn groups(&self, labels: &Labels) -> Vec<Labels> {
        match self {
            Self::Series(names) => {
                let pairs: Option<Vec<(&str, &str)>> =
                    names.iter().map(|name| Some((name.as_str(), labels.get(name)?))).collect();
                pairs.into_iter().map(Labels::from_pairs).collect()
            }
            Self::Labels(names) => labels
                .iter()
                .filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name))
                .map(|(name, _)| Labels::from_pairs([(name, NAME_ONLY)]))
                .collect(),
        }
    }

    fn encode(&self, groups: &[(Labels, BTreeMap<i64, u64>)], span: Span) -> Json {
        let (kind, key) = if span.step_ns.is_some() { ("matrix", "values") } else { ("vector", "value") };
        let point = |json: &mut Json, ns: i64, bytes: u64| {
            json.raw("[").seconds(ns.div_euclid(NS_PER_MS)).format(format_args!(",\"{bytes}\"]"));
        };
        let mut json = Json::new();
        json.format(format_args!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"{kind}\",\"result\":"));
        json.array(groups, |json, (labels, steps)| {
            json.raw(r#"{"metric":"#);
            match self {
                Self::Series(_) => json.map(labels),
                Self::Labels(_) => json.map(labels.iter().map(|(name, _)| (name, ""))),
            };
            json.format(format_args!(",\"{key}\":"));
            match span.step_ns {
                None => point(json, span.range.end.saturating_sub(1), steps.values().sum()),
                Some(step_ns) => {
                    json.array(steps, |json, (step, bytes)| {
                        point(json, span.range.start.saturating_add(step.saturating_mul(step_ns)), *bytes);
                    });
                }
            }
            json.raw("}");
        });
        json.raw(r#","stats":{}}}"#);
        json
    }
}

/// Stands for "any value" in a label set, which cannot hold an empty one.
const NAME_ONLY: &str = "*";

/// `/loki/api/v1/index/volume`
pub async fn volume(State(app): State<SharedApp>, tenant: TenantId, params: Params) -> Result<Response, LokiError> {
    let range = params::range(&params, app.now_ns())?;
    answer(&app, tenant, &params, Span { range, step_ns: None }).await
}

/// `/loki/api/v1/index/volume_range`
pub async fn volume_range(
    State(app): State<SharedApp>,
    tenant: TenantId,
    params: Params,
) -> Result<Response, LokiError> {
    let range = params::range(&params, app.now_ns())?;
    let step_ns = Some(params::step(&params, range.end.saturating_sub(range.start))?);
    answer(&app, tenant, &params, Span { range, step_ns }).await
}

async fn answer(app: &App, TenantId(tenant): TenantId, params: &Params, span: Span) -> Result<Response, LokiError> {
    let matchers = logql::parse_selector(params.get("query"))?;
    let grouping = Grouping::new(params, &matchers)?;
    let limit = match params.get("limit") {
        "" | "0" => LIMIT_DEFAULT,
        _ => params::limit(params)?.min(LIMIT_MAX),
    };
    let work = move |engine: Arc<Engine>, context| async move {
        let found = measure(&*engine, matchers, span, &context).await?;
        Ok(grouping.encode(&grouping.apply(&found, limit), span))
    };
    let json = app.queries.run(app.engine()?, tenant, app.config.loki.timeout.0, work).await?;
    Ok(json_response(StatusCode::OK, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<(Labels, Volume)> {
        let of = |app: &str, env: &str, bytes: u64| {
            let steps = BTreeMap::from([(0, 1), (2, bytes - 1)]);
            (Labels::from_pairs([("app", app), ("env", env)]), Volume { entries: 2, bytes: steps })
        };
        vec![of("a", "dev", 5), of("a", "prod", 7), of("b", "dev", 30), of("c", "", 12)]
    }

    #[test]
    fn the_biggest_come_first_then_by_name() {
        let sums = |grouping: &Grouping| -> Vec<(Labels, u64)> {
            let groups = grouping.apply(&found(), 10);
            groups.into_iter().map(|(labels, steps)| (labels, steps.values().sum())).collect()
        };
        let by_app = Grouping::Series(vec!["app".into()]);
        let expected = [("b", 30), ("a", 12), ("c", 12)].map(|(app, n)| (Labels::from_pairs([("app", app)]), n));
        assert_eq!(sums(&by_app), expected);
        let by_both = Grouping::Series(vec!["app".into(), "env".into()]);
        assert_eq!(sums(&by_both).len(), 3, "a stream without a target label does not count");
    }

    #[test]
    fn volumes_are_a_vector_or_a_matrix() {
        let names = Grouping::Labels(vec![]);
        let range = TimeRange::new(500_000_000, 1_500_000_001);
        let text = |step_ns| names.encode(&names.apply(&found(), 1), Span { range, step_ns }).finish();
        let whole = text(None);
        assert!(whole.contains(r#""vector","result":[{"metric":{"app":""},"value":[1.5,"54"]}]"#), "{whole}");
        let steps = text(Some(500_000_000));
        assert!(
            steps.contains(r#""matrix","result":[{"metric":{"app":""},"values":[[0.5,"4"],[1.5,"50"]]}]"#),
            "{steps}"
        );
    }

    #[test]
    fn targets_replace_the_names_of_matchers() {
        let matchers = logql::parse_selector(r#"{app="a"}"#).expect("parses");
        let of = |text: &str| Grouping::new(&Params::parse(text), &matchers).map_err(|e| e.message);
        assert_eq!(of(""), Ok(Grouping::Series(vec!["app".into()])));
        assert_eq!(of("targetLabels=x,y"), Ok(Grouping::Series(vec!["x".into(), "y".into()])));
        assert_eq!(of("aggregateBy=labels"), Ok(Grouping::Labels(vec![])));
        assert_eq!(of("aggregateBy=x"), Err("invalid aggregation option".into()));
    }
}
