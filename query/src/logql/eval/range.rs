//! Aggregations over time: entries become series of points.
//!
//! Owns: collecting values by series, counting into steps. Does not own: the arithmetic on a window's values
//! (`window`).
//! Invariant: counts are kept as differences between steps, so that an entry costs the same however many windows
//! hold it, and a series never holds more than about two numbers for each step.

use storage::model::time::TimeRange;
use storage::{Context, Scan};

use super::label_filter::parse_float;
use super::labels::{ERROR, LabelSet};
use super::pipeline::Row;
use super::read::{Cost, Source, Visitor};
use super::series::{Frame, Grid, LabelIndex, LabelPairs, Points};
use super::window;
use crate::error::{Error, Kind, Result};
use crate::logql::ast::{Conversion, Grouping, RangeOp};
use crate::logql::plan::{RangePlan, UnwrapPlan};
use crate::logql::units;

/// The error of a value that does not convert.
const EXTRACTION_ERROR: &str = "SampleExtractionErr";

/// Runs an aggregation over time at every step of `grid`.
pub async fn run(scan: &dyn Scan, plan: &RangePlan, grid: &Grid, context: &Context, cost: &mut Cost) -> Result<Frame> {
    let back = plan.range_ns.saturating_add(plan.offset_ns);
    let range = TimeRange::new(
        grid.start_ns.saturating_sub(back).saturating_add(1),
        grid.end_ns().saturating_sub(plan.offset_ns).saturating_add(1),
    );
    let source = Source::open(scan, &plan.log, range, context).await?;
    let mut collector = Collector {
        plan,
        grid,
        index: LabelIndex::default(),
        series: Vec::new(),
        held_bytes: 0,
        memory: context.reserve(0)?,
    };
    source.visit(range, &mut collector, cost).await?;
    collector.finish(context)
}

/// What one series gathers.
struct Gathered {
    labels: LabelPairs,
    values: Values,
}

enum Values {
    Counted(Counts),
    /// Time and value.
    Listed(Vec<(i64, f64)>),
}

/// Entries and their weight by step.
#[derive(Default)]
struct Counts {
    /// First step, last step, weight; turned into differences when they grow long.
    recent: Vec<(u32, u32, u32)>,
    /// For each step the change of (entries, weight) from the step before.
    changes: Vec<(i64, i64)>,
}

impl Counts {
    fn add(&mut self, first: u32, last: u32, weight: u32, steps: u32) {
        self.recent.push((first, last, weight));
        if self.recent.len() > steps as usize + 8 {
            self.fold(steps);
        }
    }

    fn fold(&mut self, steps: u32) {
        self.changes.resize(steps as usize + 1, (0, 0));
        for (first, last, weight) in self.recent.drain(..) {
            let begin = &mut self.changes[first as usize];
            *begin = (begin.0 + 1, begin.1 + i64::from(weight));
            let end = &mut self.changes[last as usize + 1];
            *end = (end.0 - 1, end.1 - i64::from(weight));
        }
    }

    /// Entries and weight at each step that has an entry.
    fn points(mut self, steps: u32, value: impl Fn(i64, i64) -> f64) -> Vec<(u32, f64)> {
        self.fold(steps);
        let (mut entries, mut weight) = (0, 0);
        let mut points = Vec::new();
        for (step, change) in (0..steps).zip(&self.changes) {
            entries += change.0;
            weight += change.1;
            if entries > 0 {
                points.push((step, value(entries, weight)));
            }
        }
        points
    }
}

struct Collector<'q> {
    plan: &'q RangePlan,
    grid: &'q Grid,
    index: LabelIndex,
    series: Vec<Gathered>,
    held_bytes: usize,
    memory: storage::budget::Reservation,
}

/// Whether values are counted, and not listed.
fn counts(plan: &RangePlan) -> bool {
    plan.unwrap.is_none()
}

impl Collector<'_> {
    fn number(&mut self, labels: &LabelSet<'_>) -> usize {
        let unwrapped = self.plan.unwrap.as_ref().map(|unwrap| unwrap.label.as_str());
        let pairs = series_labels(labels, self.plan.grouping.as_ref(), unwrapped);
        let (number, new) = self.index.number(pairs.iter().copied());
        if new {
            self.held_bytes += 2 * self.index.last_key_bytes() + 128;
            let values = match counts(self.plan) {
                true => Values::Counted(Counts::default()),
                false => Values::Listed(Vec::new()),
            };
            self.series.push(Gathered { labels: super::series::owned(&pairs), values });
        }
        number
    }

    fn finish(self, context: &Context) -> Result<Frame> {
        let (plan, grid) = (self.plan, self.grid);
        let seconds = plan.range_ns as f64 / 1e9;
        let mut frame = Vec::with_capacity(self.series.len());
        for gathered in self.series {
            context.check()?;
            let points = match gathered.values {
                Values::Counted(counts) => counts.points(grid.steps, |entries, weight| match plan.op {
                    RangeOp::Bytes => weight as f64,
                    RangeOp::BytesRate => weight as f64 / seconds,
                    RangeOp::Rate => entries as f64 / seconds,
                    _ => entries as f64,
                }),
                Values::Listed(samples) => window::points(plan, grid, samples),
            };
            if !points.is_empty() {
                frame.push(Points { labels: gathered.labels, points });
            }
        }
        match plan.op {
            RangeOp::Absent => Ok(absent(plan, grid, &frame)),
            _ => Ok(frame),
        }
    }
}

impl Visitor for Collector<'_> {
    fn wants(&self, ts_ns: i64) -> bool {
        self.grid.steps_of(ts_ns, self.plan.range_ns, self.plan.offset_ns).is_some()
    }

    fn entry(&mut self, row: &mut Row<'_>) -> Result<()> {
        let Some((first, last)) = self.grid.steps_of(row.ts_ns, self.plan.range_ns, self.plan.offset_ns) else {
            return Ok(());
        };
        let value = match &self.plan.unwrap {
            None => 0.0,
            Some(unwrap) => match unwrapped(unwrap, &mut row.labels) {
                Some(value) => value,
                None => return Ok(()),
            },
        };
        if !self.plan.counts_errors && row.labels.has_error() {
            return Err(pipeline_error(&row.labels));
        }
        let number = self.number(&row.labels);
        match &mut self.series[number].values {
            Values::Counted(counts) => {
                let before = counts.recent.capacity();
                counts.add(first, last, u32::try_from(row.line.len()).unwrap_or(u32::MAX), self.grid.steps);
                self.held_bytes += (counts.recent.capacity() - before) * size_of::<(u32, u32, u32)>();
            }
            Values::Listed(samples) => {
                samples.push((row.ts_ns, value));
                self.held_bytes += size_of::<(i64, f64)>();
            }
        }
        Ok(())
    }

    fn batch_done(&mut self) -> Result<()> {
        let more = self.held_bytes.saturating_sub(self.memory.bytes());
        if more > 0 { self.memory.grow(more).map_err(Error::from) } else { Ok(()) }
    }
}

/// The labels by which entries belong to series, sorted by name.
fn series_labels<'l>(
    labels: &'l LabelSet<'_>,
    grouping: Option<&'l Grouping>,
    unwrapped: Option<&str>,
) -> Vec<(&'l str, &'l str)> {
    if let Some(Grouping { without: false, labels: names }) = grouping {
        let mut pairs: Vec<(&str, &str)> =
            names.iter().filter_map(|name| labels.get(name).map(|value| (name.as_str(), value))).collect();
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.sort_unstable();
        pairs.dedup();
        return pairs;
    }
    let removed = |name: &str| {
        unwrapped == Some(name) || grouping.is_some_and(|grouping| grouping.labels.iter().any(|label| label == name))
    };
    let keeps_empty = grouping.is_none();
    let all =
        labels.sorted().into_iter().filter(|(name, value, _)| !removed(name) && (keeps_empty || !value.is_empty()));
    all.map(|(name, value, _)| (name, value)).collect()
}

/// The value of an entry; `None` if it has none or a filter drops it.
fn unwrapped(plan: &UnwrapPlan, labels: &mut LabelSet<'_>) -> Option<f64> {
    let text = labels.get(&plan.label)?;
    let converted = match plan.conversion {
        Conversion::Number => parse_float(text),
        Conversion::Duration | Conversion::DurationSeconds => units::parse_go_duration(text).map(|ns| ns as f64 / 1e9),
        Conversion::Bytes => units::parse_bytes(text).map(|bytes| bytes as f64),
    };
    if converted.is_none() {
        let details = format!("cannot read the value {text:?} of label {}", plan.label);
        labels.set_error(EXTRACTION_ERROR, details);
    }
    let value = converted.unwrap_or(0.0);
    plan.filters.iter().all(|filter| filter.keeps(labels)).then_some(value)
}

fn pipeline_error(labels: &LabelSet<'_>) -> Error {
    let kind = labels.get(ERROR).unwrap_or("");
    let pairs: Vec<String> = labels.sorted().iter().map(|(name, value, _)| format!("{name}={value:?}")).collect();
    let series = format!("{{{}}}", pairs.join(", "));
    Error::new(
        Kind::Execution,
        format!(
            "pipeline error: '{kind}' for series: '{series}'.\nUse a label filter to intentionally skip this error. \
             (e.g | __error__!=\"{kind}\").\nTo skip all potential errors you can match empty errors.(e.g \
             __error__=\"\")\nThe label filter can also be specified after unwrap. (e.g | unwrap latency | \
             __error__=\"\" )\n"
        ),
    )
}

/// 1 at every step that no series has.
fn absent(plan: &RangePlan, grid: &Grid, frame: &Frame) -> Frame {
    let mut present = vec![false; grid.steps as usize];
    for (step, _) in frame.iter().flat_map(|series| &series.points) {
        present[*step as usize] = true;
    }
    let points: Vec<(u32, f64)> =
        (0..grid.steps).filter(|step| !present[*step as usize]).map(|step| (step, 1.0)).collect();
    match points.is_empty() {
        true => Vec::new(),
        false => vec![Points { labels: plan.absent_labels.clone(), points }],
    }
}
