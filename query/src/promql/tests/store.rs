//! A store for tests: series with all their samples, answered without copies between queries.

use futures::StreamExt;
use futures::future::BoxFuture;
use indexmap::IndexMap;
use storage::budget::Share;
use storage::model::batch::MetricsBuilder;
use storage::model::histogram::Histogram;
use storage::model::identity::{Identity, IdentityId};
use storage::model::labels::Labels;
use storage::model::matcher::Matcher;
use storage::model::tenant::Tenant;
use storage::model::time::{TimeRange, TimestampMs};
use storage::scan::{BatchStream, Distinct, DistinctRequest};
use storage::{Context, Result, Scan, ScanRequest, Signal, Table};

/// One value with its start time.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Float(f64),
    Histogram(Histogram),
}

/// One series: by time, its value and its start time.
pub(super) type Samples = std::collections::BTreeMap<i64, (Value, Option<i64>)>;

/// Series in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub series: IndexMap<IdentityId, (Labels, Samples)>,
}

impl Store {
    pub(super) fn add(&mut self, labels: &Labels, ts: i64, value: Value, start: Option<i64>) {
        let (_, samples) = self.series.entry(labels.id()).or_insert_with(|| (labels.clone(), Samples::new()));
        samples.insert(ts, (value, start));
    }
}

/// A context of a tenant with plenty of memory.
pub(super) fn context() -> Context {
    Context::new(Tenant::single(), Share::root("test", 4 << 30))
}

fn inside(range: TimeRange, ts: i64) -> bool {
    range.contains(TimestampMs(ts).to_ns().0)
}

impl Scan for Store {
    fn scan<'a>(&'a self, request: ScanRequest, _: &'a Context) -> BoxFuture<'a, Result<BatchStream>> {
        Box::pin(async move {
            let ids = request.identities.as_ref().map(|ids| ids.to_vec()).unwrap_or_default();
            let mut builder = MetricsBuilder::new();
            for id in ids {
                let Some((labels, samples)) = self.series.get(&id) else { continue };
                let series = builder.series(labels.clone());
                for (ts, (value, start)) in samples.iter().filter(|(ts, _)| inside(request.range, **ts)) {
                    let start = start.map(TimestampMs);
                    match (value, request.table) {
                        (Value::Float(value), Table::Samples) => {
                            builder.sample(series, TimestampMs(*ts), *value, start);
                        }
                        (Value::Histogram(h), Table::Histograms) => {
                            builder.histogram(series, TimestampMs(*ts), h.clone(), start);
                        }
                        _ => {}
                    }
                }
            }
            let batch = builder.finish()?;
            let rows: Vec<_> = batch.table(request.table).cloned().into_iter().map(Ok).collect();
            Ok(futures::stream::iter(rows).boxed())
        })
    }

    fn identities<'a>(
        &'a self,
        _: Signal,
        selectors: &'a [Vec<Matcher>],
        range: TimeRange,
        _: &'a Context,
    ) -> BoxFuture<'a, Result<Vec<Identity>>> {
        Box::pin(async move {
            let passes =
                |labels: &Labels| selectors.iter().any(|all| all.iter().all(|matcher| matcher.matches_labels(labels)));
            let found = self
                .series
                .values()
                .filter(|(labels, samples)| passes(labels) && samples.keys().any(|ts| inside(range, *ts)));
            let mut found: Vec<Identity> = found.map(|(labels, _)| Identity::from(labels.clone())).collect();
            found.sort_by(|a, b| a.labels.cmp(&b.labels));
            Ok(found)
        })
    }

    fn distinct<'a>(&'a self, _: DistinctRequest, _: &'a Context) -> BoxFuture<'a, Result<Distinct>> {
        Box::pin(std::future::ready(Ok(Distinct::none())))
    }
}
