//! Reads what a plan needs: every selector's series with all their samples, before evaluation begins.
//!
//! Owns: the columns that evaluation works on. Does not own: what is read (`plan`).
//!
//! Invariants
//! 1. Times of a series ascend strictly, floats and histograms each.
//! 2. Staleness markers are kept: instant selectors must see them.

use std::sync::Arc;

use futures::TryStreamExt;
use hashbrown::HashMap;
use storage::budget::Reservation;
use storage::model::columns::{ExemplarColumns, HistogramColumns, SampleColumns};
use storage::model::histogram::{Histogram, is_stale};
use storage::model::identity::IdentityId;
use storage::model::labels::Labels;
use storage::model::matcher::Matcher;
use storage::model::time::{TimeRange, TimestampMs};
use storage::{Context, Scan, ScanRequest, Signal, Table};

use super::Exemplar;
use super::plan::{Need, Plan};
use crate::error::{Error, Kind, Result};

/// A start time that is not known.
pub(super) const START_UNKNOWN: i64 = i64::MIN;

/// Floats and histograms of one series, in columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    /// Times of floats.
    pub ts: Vec<i64>,
    /// Floats.
    pub values: Vec<f64>,
    /// Start times of floats; empty if none is known.
    pub starts: Vec<i64>,
    /// Times of histograms.
    pub hist_ts: Vec<i64>,
    /// Histograms.
    pub hists: Vec<Arc<Histogram>>,
    /// Start times of histograms; empty if none is known.
    pub hist_starts: Vec<i64>,
}

impl Samples {
    /// How many.
    pub fn len(&self) -> usize {
        self.ts.len() + self.hist_ts.len()
    }

    /// Whether a staleness marker is among them.
    fn has_stale(&self) -> bool {
        self.values.iter().any(|value| is_stale(*value)) || self.hists.iter().any(|h| is_stale(h.sum))
    }

    /// These samples without staleness markers.
    fn without_stale(&self) -> Self {
        let mut out = Self::default();
        for (i, value) in self.values.iter().enumerate().filter(|(_, value)| !is_stale(**value)) {
            out.ts.push(self.ts[i]);
            out.values.push(*value);
            out.starts.extend(self.starts.get(i));
        }
        for (i, histogram) in self.hists.iter().enumerate().filter(|(_, h)| !is_stale(h.sum)) {
            out.hist_ts.push(self.hist_ts[i]);
            out.hists.push(Arc::clone(histogram));
            out.hist_starts.extend(self.hist_starts.get(i));
        }
        out
    }
}

/// One series as read.
#[derive(Clone, Debug)]
pub(super) struct RawSeries {
    /// All labels.
    pub labels: Labels,
    /// All samples, staleness markers among them.
    pub all: Arc<Samples>,
    /// All samples but staleness markers.
    pub fresh: Arc<Samples>,
}

/// Everything that a plan needs.
#[derive(Debug)]
pub(super) struct Data {
    /// By need: its series, sorted by labels.
    pub selections: Vec<Vec<RawSeries>>,
    /// Samples read.
    pub samples: usize,
    /// The memory they take.
    pub held: Reservation,
}

/// Reads all needs of `plan`.
pub(super) async fn load(plan: &Plan, scan: &dyn Scan, samples_max: usize, context: &Context) -> Result<Data> {
    let mut data = Data { selections: Vec::new(), samples: 0, held: context.reserve(0)? };
    for need in &plan.needs {
        let selection = load_need(need, scan, samples_max, context, &mut data).await?;
        data.selections.push(selection);
    }
    Ok(data)
}

async fn load_need(
    need: &Need,
    scan: &dyn Scan,
    samples_max: usize,
    context: &Context,
    data: &mut Data,
) -> Result<Vec<RawSeries>> {
    let range = TimeRange::closed_ms(TimestampMs(need.from), TimestampMs(need.to));
    let selectors = [need.matchers.clone()];
    let identities = scan.identities(Signal::Metrics, &selectors, range, context).await?;
    let ids: Arc<Vec<IdentityId>> = Arc::new(identities.iter().map(|identity| identity.id).collect());
    let index: Index = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut series: Vec<Samples> = vec![Samples::default(); ids.len()];
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    for table in [Table::Samples, Table::Histograms] {
        let request = ScanRequest { identities: Some(Arc::clone(&ids)), ..ScanRequest::all(table, range) };
        let mut batches = scan.scan(request, context).await?;
        while let Some(batch) = batches.try_next().await? {
            context.check()?;
            data.samples += batch.num_rows();
            if data.samples > samples_max {
                return Err(too_many_samples());
            }
            let bytes = match table {
                Table::Samples => batch.num_rows() * 2 * size_of::<i64>(),
                _ => batch.get_array_memory_size(),
            };
            data.held.grow(bytes)?;
            if table == Table::Samples {
                append_samples(&SampleColumns::new(&batch)?, batch.num_rows(), &index, &mut series);
            } else {
                append_histograms(&HistogramColumns::new(&batch)?, batch.num_rows(), &index, &mut series);
            }
        }
    }
    let mut out = Vec::with_capacity(series.len());
    for (identity, samples) in identities.into_iter().zip(series) {
        // An identity may lie outside the range by less than a day.
        if samples.len() > 0 {
            let all = Arc::new(super::eval::hinted(samples, need.resets));
            let fresh = if all.has_stale() { Arc::new(all.without_stale()) } else { Arc::clone(&all) };
            out.push(RawSeries { labels: identity.labels, all, fresh });
        }
    }
    Ok(out)
}

/// The original's words for a query that holds too much.
pub(super) fn too_many_samples() -> Error {
    Error::new(Kind::Limit, "query processing would load too many samples into memory in query execution")
}

/// The exemplars of all series that pass a selector, series by labels, exemplars by time.
pub(super) async fn exemplars(
    selectors: &[Vec<Matcher>],
    scan: &dyn Scan,
    range: TimeRange,
    context: &Context,
) -> Result<Vec<(Labels, Vec<Exemplar>)>> {
    let identities = scan.identities(Signal::Metrics, selectors, range, context).await?;
    let ids: Arc<Vec<IdentityId>> = Arc::new(identities.iter().map(|identity| identity.id).collect());
    let index: Index = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
    let mut found: Vec<Vec<Exemplar>> = vec![Vec::new(); ids.len()];
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let request = ScanRequest { identities: Some(ids), ..ScanRequest::all(Table::Exemplars, range) };
    let mut batches = scan.scan(request, context).await?;
    let mut held = context.reserve(0)?;
    while let Some(batch) = batches.try_next().await? {
        context.check()?;
        held.grow(batch.get_array_memory_size())?;
        let columns = ExemplarColumns::new(&batch)?;
        let mut current = None;
        for row in 0..batch.num_rows() {
            let Some(at) = series_of(columns.series_id.value(row), &index, &mut current) else { continue };
            let ts = TimestampMs(columns.ts_ms.value(row));
            found[at].push(Exemplar { labels: columns.labels(row), value: columns.value.value(row), ts });
        }
    }
    let all = identities.into_iter().map(|identity| identity.labels).zip(found);
    Ok(all.filter(|(_, exemplars)| !exemplars.is_empty()).collect())
}

type Index = HashMap<IdentityId, usize, ahash::RandomState>;

fn append_samples(columns: &SampleColumns<'_>, rows: usize, index: &Index, series: &mut [Samples]) {
    let mut current: Option<(i64, usize)> = None;
    for row in 0..rows {
        let Some(at) = series_of(columns.series_id.value(row), index, &mut current) else { continue };
        let samples = &mut series[at];
        samples.ts.push(columns.ts_ms.value(row));
        samples.values.push(columns.value.value(row));
        if !arrow::array::Array::is_null(columns.start_ts_ms, row) {
            samples.starts.resize(samples.ts.len() - 1, START_UNKNOWN);
            samples.starts.push(columns.start_ts_ms.value(row));
        } else if !samples.starts.is_empty() {
            samples.starts.push(START_UNKNOWN);
        }
    }
}

fn append_histograms(columns: &HistogramColumns<'_>, rows: usize, index: &Index, series: &mut [Samples]) {
    let mut current: Option<(i64, usize)> = None;
    for row in 0..rows {
        let Some(at) = series_of(columns.series_id.value(row), index, &mut current) else { continue };
        let samples = &mut series[at];
        samples.hist_ts.push(columns.ts_ms.value(row));
        samples.hists.push(Arc::new(columns.histogram(row)));
        if !arrow::array::Array::is_null(columns.start_ts_ms, row) {
            samples.hist_starts.resize(samples.hist_ts.len() - 1, START_UNKNOWN);
            samples.hist_starts.push(columns.start_ts_ms.value(row));
        } else if !samples.hist_starts.is_empty() {
            samples.hist_starts.push(START_UNKNOWN);
        }
    }
}

/// Rows of one series are neighbours: the map is asked once per run.
fn series_of(column: i64, index: &Index, current: &mut Option<(i64, usize)>) -> Option<usize> {
    if let Some((id, at)) = current
        && *id == column
    {
        return Some(*at);
    }
    let at = *index.get(&IdentityId::from_column(column))?;
    *current = Some((column, at));
    Some(at)
}
