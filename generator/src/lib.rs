//! Metrics made from spans: calls, latency and size by service and span name, and the graph of who calls whom.
//!
//! Owns: [`Generator`], which observes batches of spans and now and then gives a batch of samples. Names and labels are
//! those of Tempo's metrics generator. Does not own: clocks, tasks, where batches come from and go to.
//!
//! Invariants
//! 1. Memory is bounded by [`Settings::series_max`] and [`Settings::edges_max`]; what finds no place is counted.
//! 2. Counters only grow while the generator lives. A new one begins at 0, which readers take for a restart.
//! 3. A collection gives a sample of every live series, at one time.

mod graph;
mod histogram;
mod spans;

use std::time::Duration;

use storage::error::Result;
use storage::model::batch::{Batch, MetricsBuilder};
use storage::model::columns::SpanColumns;
use storage::model::histogram::stale_nan;
use storage::model::labels::Labels;
use storage::model::time::{NS_PER_MS, TimestampMs, TimestampNs};
use storage::signal::Table;

use graph::Graph;
use spans::Spans;

/// Bytes of a text that becomes a label; spans with longer names or services are left out, longer attributes are cut.
const TEXT_BYTES_MAX: usize = 1024;

/// Which kind of histograms are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histograms {
    /// `_bucket`, `_sum`, `_count`: what Grafana's service graph reads by default.
    Classic,
    /// One native histogram under the bare name.
    Native,
    /// Both.
    Both,
}

impl Histograms {
    fn classic(self) -> bool {
        self != Self::Native
    }

    fn native(self) -> bool {
        self != Self::Classic
    }
}

/// What bounds and shapes the generated series.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Attributes that become further labels of span metrics: of the resource, or else of the span.
    pub dimensions: Vec<String>,
    /// Spans that ended longer ago than this are left out.
    pub slack: Duration,
    /// How long one side of a call waits for the other.
    pub wait: Duration,
    /// Sides of calls that wait at once.
    pub edges_max: usize,
    /// Combinations of labels, of span metrics and of the graph each.
    pub series_max: usize,
    /// A combination without spans for so long is given up.
    pub idle_max: Duration,
    /// The label of exemplars that holds the trace id.
    pub exemplar_label: String,
    /// Which histograms are made.
    pub histograms: Histograms,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dimensions: Vec::new(),
            slack: Duration::from_secs(30),
            wait: Duration::from_secs(10),
            edges_max: 10_000,
            series_max: 10_000,
            idle_max: Duration::from_secs(900),
            exemplar_label: "traceID".to_owned(),
            histograms: Histograms::Classic,
        }
    }
}

/// What became of the spans so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans observed.
    pub spans: u64,
    /// Spans left out because they ended too long ago.
    pub too_old: u64,
    /// Spans and calls left out because [`Settings::series_max`] was reached or their names are too long.
    pub over_limit: u64,
    /// Sides of calls dropped because [`Settings::edges_max`] was reached.
    pub edges_dropped: u64,
    /// Sides of calls whose other side never came and that name no other.
    pub edges_expired: u64,
}

/// The metrics of one tenant's spans.
#[derive(Debug)]
pub struct Generator {
    settings: Settings,
    spans: Spans,
    graph: Graph,
    counts: Counts,
    collected: TimestampMs,
}

impl Generator {
    /// One that has seen nothing; its counters began at `now`.
    pub fn new(settings: Settings, now: TimestampNs) -> Self {
        Self {
            spans: Spans::default(),
            graph: Graph::default(),
            counts: Counts::default(),
            collected: now.to_ms(),
            settings,
        }
    }

    /// What became of the spans so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the spans of `batch` in.
    pub fn observe(&mut self, batch: &Batch, now: TimestampNs) -> Result<()> {
        let Some(rows) = batch.table(Table::Spans) else { return Ok(()) };
        let columns = SpanColumns::new(rows)?;
        let oldest = now.0.saturating_sub(nanoseconds(self.settings.slack));
        for row in 0..rows.num_rows() {
            let end = columns.start_ns.value(row).saturating_add(columns.duration_ns.value(row).max(0));
            if end < oldest {
                self.counts.too_old += 1;
                continue;
            }
            if columns.service_name.value(row).len().max(columns.name.value(row).len()) > TEXT_BYTES_MAX {
                self.counts.over_limit += 1;
                continue;
            }
            self.counts.spans += 1;
            let span = Observed { columns: &columns, identities: &batch.identities, row, now };
            self.spans.observe(&span, &self.settings, &mut self.counts);
            self.graph.observe(&span, &self.settings, &mut self.counts);
        }
        Ok(())
    }

    /// The samples of now; `None` when there are none. Call it with times that rise.
    pub fn collect(&mut self, now: TimestampNs) -> Result<Option<Batch>> {
        self.graph.expire(now, &self.settings, &mut self.counts);
        let times = Times { before: self.collected, now: now.to_ms() };
        if times.now <= times.before {
            return Ok(None);
        }
        let idle_before = now.0.saturating_sub(nanoseconds(self.settings.idle_max));
        let mut out = Output { builder: MetricsBuilder::new(), times, histograms: self.settings.histograms };
        self.spans.collect(&mut out, &self.settings, idle_before)?;
        self.graph.collect(&mut out, &self.settings, idle_before)?;
        self.collected = times.now;
        let batch = out.builder.finish()?;
        Ok((!batch.is_empty()).then_some(batch))
    }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// One span and what is known around it.
struct Observed<'a> {
    columns: &'a SpanColumns<'a>,
    identities: &'a [storage::model::identity::Identity],
    row: usize,
    now: TimestampNs,
}

impl<'a> Observed<'a> {
    /// The typed text of a span attribute.
    fn attribute(&self, key: &str) -> Option<&'a str> {
        self.columns.attributes.get(self.row, key)
    }

    /// The typed text of an attribute of the resource.
    fn resource_attribute(&self, key: &str) -> Option<&'a str> {
        let id = self.columns.resource_id.value(self.row);
        let resource = self.identities.iter().find(|identity| identity.id.to_column() == id)?;
        resource.labels.get(key)
    }

    fn service(&self) -> &'a str {
        self.columns.service_name.value(self.row)
    }

    fn failed(&self) -> bool {
        self.columns.status_code.value(self.row) == 2
    }

    fn seconds(&self) -> f64 {
        self.columns.duration_ns.value(self.row).max(0) as f64 / 1e9
    }
}

/// The plain text of a typed one: strings without their quotes, at most [`TEXT_BYTES_MAX`].
fn plain(text: &str) -> String {
    use storage::model::value::Value;
    let mut text = match Value::parse(text) {
        Some(Value::String(text)) => text,
        _ => text.to_owned(),
    };
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// When samples are: the collection before and this one.
#[derive(Clone, Copy, Debug)]
struct Times {
    before: TimestampMs,
    now: TimestampMs,
}

/// Where samples go.
struct Output {
    builder: MetricsBuilder,
    times: Times,
    histograms: Histograms,
}

impl Output {
    /// One counter; a new one is preceded by a 0, so that its first rise is seen.
    fn counter(&mut self, labels: &[(&str, &str)], name: &str, value: f64, life: Life) {
        let id = self.builder.series(labels_of(name, labels, None));
        match life {
            Life::New => {
                self.builder.sample(id, self.times.before, 0.0, None);
                self.builder.sample(id, self.times.now, value, None);
            }
            Life::Going => self.builder.sample(id, self.times.now, value, None),
            Life::Gone => self.builder.sample(id, self.times.now, stale_nan(), None),
        }
    }

    /// What is known of a family.
    fn describe(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        self.builder.metadata(name, kind, unit, help);
    }
}

/// Where a series is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    New,
    Going,
    /// Idle for too long: a staleness marker ends it.
    Gone,
}

fn labels_of(name: &str, labels: &[(&str, &str)], le: Option<&str>) -> Labels {
    let all = labels.iter().copied().chain([("__name__", name)]).chain(le.map(|le| ("le", le)));
    Labels::from_pairs(all.filter(|(_, value)| !value.is_empty()))
}

/// Milliseconds of a time of the data.
fn to_ms(ns: i64) -> TimestampMs {
    TimestampMs(ns.div_euclid(NS_PER_MS))
}

#[cfg(test)]
mod tests;
