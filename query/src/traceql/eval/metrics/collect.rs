//! Accumulates spans into series.
//!
//! Owns: grouping, counts, sums, extremes, power-of-two buckets and their quantiles, exemplars.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use hashbrown::HashMap;
use storage::Context;
use storage::budget::Reservation;
use storage::model::time::{NS_PER_MS, NS_PER_S};
use storage::model::value::Value;

use super::super::super::ast::{MetricsFunction, MetricsQuery};
use super::super::super::plan::MetricsPlan;
use super::super::super::{MetricsExemplar, MetricsSeries};
use super::super::trace::SpanAt;
use super::super::value::Val;
use super::{Grid, NAME};
use crate::error::Result;

/// Exemplars kept while collecting, per exemplar asked for: the surplus lets them spread over series and time.
const EXEMPLAR_SURPLUS: usize = 8;
/// Roughly what an exemplar takes.
const EXEMPLAR_BYTES: usize = 256;
/// Roughly what a series takes besides its cells.
const SERIES_BYTES: usize = 512;

/// What is kept of one series.
struct Kept {
    labels: Vec<(String, Value)>,
    cells: Cells,
    exemplars: Vec<(usize, MetricsExemplar)>,
}

enum Cells {
    /// Spans per interval.
    Counts(Vec<f64>),
    /// Folded value and number of values per interval.
    Folds(Vec<(f64, f64)>),
    /// Counts per interval by exponent of two; whether values are durations.
    Buckets(BTreeMap<u32, Vec<f64>>, bool),
}

/// Collects the spans of one metrics query.
pub(super) struct Collector<'c> {
    grid: Grid,
    function: &'c MetricsFunction,
    keys: HashMap<String, usize, ahash::RandomState>,
    /// The key of the span at hand; kept to save allocations.
    key: String,
    kept: Vec<Kept>,
    held: Reservation,
    exemplars: usize,
    exemplars_kept: usize,
    series_max: usize,
    overflowed: bool,
    grouped: bool,
}

impl<'c> Collector<'c> {
    pub(super) fn new(
        grid: Grid,
        query: &'c MetricsQuery,
        parts: &MetricsPlan,
        exemplars: usize,
        series_max: usize,
        context: &Context,
    ) -> Result<Self> {
        Ok(Self {
            grid,
            function: &query.function,
            keys: HashMap::default(),
            key: String::new(),
            kept: Vec::new(),
            held: context.reserve(0)?,
            exemplars,
            exemplars_kept: 0,
            series_max,
            overflowed: false,
            grouped: !parts.by.is_empty(),
        })
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Counts one span in its interval.
    pub(super) fn add(&mut self, at: &SpanAt<'_>, interval: usize, parts: &MetricsPlan) -> Result<()> {
        let measured = match &parts.measured {
            Some(source) => match at.value(source)? {
                value @ (Val::Int(_) | Val::Float(_) | Val::Duration(_)) => value.into_owned(),
                _ => return Ok(()),
            },
            None => Val::Int(1),
        };
        let bucketed = matches!(self.function, MetricsFunction::Quantile(..) | MetricsFunction::Histogram(_));
        let exponent = if bucketed { bucket_of(&measured) } else { None };
        if bucketed && exponent.is_none() {
            return Ok(());
        }
        let Some(series) = self.series_of(at, parts, &measured)? else { return Ok(()) };
        let intervals = self.grid.intervals;
        let number = in_seconds(&measured);
        let kept = &mut self.kept[series];
        match &mut kept.cells {
            Cells::Counts(counts) => counts[interval] += 1.0,
            Cells::Folds(folds) => fold(self.function, &mut folds[interval], number),
            Cells::Buckets(buckets, _) => {
                let exponent = exponent.unwrap_or(0);
                let counts = match buckets.entry(exponent) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        self.held.grow(intervals * size_of::<f64>())?;
                        new.insert(vec![0.0; intervals])
                    }
                };
                counts[interval] += 1.0;
            }
        }
        self.exemplar(series, at, interval, number, parts)
    }

    /// The series of a span's group; `None` if it would be one too many.
    fn series_of(&mut self, at: &SpanAt<'_>, parts: &MetricsPlan, measured: &Val<'_>) -> Result<Option<usize>> {
        self.key.clear();
        for (_, source) in &parts.by {
            at.value(source)?.write_key(&mut self.key);
        }
        if let Some(known) = self.keys.get(&self.key) {
            return Ok(Some(*known));
        }
        if self.series_max > 0 && self.kept.len() >= self.series_max {
            self.overflowed = true;
            return Ok(None);
        }
        let intervals = self.grid.intervals;
        self.held.grow(SERIES_BYTES + self.key.len() * 2 + intervals * size_of::<(f64, f64)>())?;
        let cells = match self.function {
            MetricsFunction::Quantile(..) | MetricsFunction::Histogram(_) => {
                Cells::Buckets(BTreeMap::new(), matches!(measured, Val::Duration(_)))
            }
            MetricsFunction::Rate | MetricsFunction::Count => Cells::Counts(vec![0.0; intervals]),
            _ => Cells::Folds(vec![(0.0, 0.0); intervals]),
        };
        let values = group_values(at, parts)?;
        let names = parts.by.iter().map(|(name, _)| name.as_str());
        let bucketed = matches!(cells, Cells::Buckets(..));
        let labels = if self.grouped { group_labels(names, &values, bucketed) } else { self.own_labels() };
        self.kept.push(Kept { labels, cells, exemplars: Vec::new() });
        self.keys.insert(self.key.clone(), self.kept.len() - 1);
        Ok(Some(self.kept.len() - 1))
    }

    /// Labels without groups.
    fn own_labels(&self) -> Vec<(String, Value)> {
        match self.function {
            MetricsFunction::Quantile(..) | MetricsFunction::Histogram(_) => Vec::new(),
            function => vec![(NAME.to_owned(), Value::String(function.name().to_owned()))],
        }
    }

    fn exemplar(
        &mut self,
        series: usize,
        at: &SpanAt<'_>,
        interval: usize,
        value: f64,
        parts: &MetricsPlan,
    ) -> Result<()> {
        let all = self.exemplars.saturating_mul(EXEMPLAR_SURPLUS);
        let kept = &mut self.kept[series].exemplars;
        // A series without any may have one even when the surplus is used up.
        let room = self.exemplars_kept < all || (kept.is_empty() && self.exemplars_kept < all * 2);
        if !room || kept.len() >= self.exemplars || kept.iter().any(|(known, _)| *known == interval) {
            return Ok(());
        }
        self.held.grow(EXEMPLAR_BYTES)?;
        self.exemplars_kept += 1;
        let mut labels = vec![
            ("trace:id".to_owned(), Value::String(at.trace.short_id())),
            ("name".to_owned(), Value::String(at.columns.name.value(at.row).to_owned())),
        ];
        let by = group_values(at, parts)?;
        let groups = parts.by.iter().zip(&by).filter(|((name, _), value)| name != "name" && **value != Val::Nil);
        labels.extend(groups.map(|((name, _), value)| (name.clone(), value.to_value())));
        let timestamp_ms = at.columns.start_ns.value(at.row).div_euclid(NS_PER_MS);
        kept.push((interval, MetricsExemplar { labels, value, timestamp_ms }));
        Ok(())
    }

    /// The series.
    pub(super) fn series(mut self) -> Vec<MetricsSeries> {
        let counts = matches!(self.function, MetricsFunction::Rate | MetricsFunction::Count);
        if self.kept.is_empty() && !self.grouped && counts {
            let cells = Cells::Counts(vec![0.0; self.grid.intervals]);
            self.kept.push(Kept { labels: self.own_labels(), cells, exemplars: Vec::new() });
        }
        let (grid, function) = (self.grid, self.function);
        self.kept.into_iter().flat_map(|kept| finish(kept, grid, function)).collect()
    }
}

fn finish(kept: Kept, grid: Grid, function: &MetricsFunction) -> Vec<MetricsSeries> {
    let exemplars = |values: Option<&[(i64, f64)]>| {
        let own = kept.exemplars.iter().map(|(interval, exemplar)| {
            let value = values.map_or(exemplar.value, |values| values.get(*interval).map_or(0.0, |(_, value)| *value));
            MetricsExemplar { value, ..exemplar.clone() }
        });
        own.collect::<Vec<_>>()
    };
    match &kept.cells {
        Cells::Counts(counts) => {
            let per = if matches!(function, MetricsFunction::Rate) { grid.step_seconds() } else { 1.0 };
            let samples: Vec<(i64, f64)> =
                counts.iter().enumerate().map(|(i, count)| (grid.stamp_ms(i), count / per)).collect();
            let exemplars = exemplars(Some(&samples));
            vec![MetricsSeries { labels: kept.labels, samples, exemplars }]
        }
        Cells::Folds(folds) => {
            let mean = matches!(function, MetricsFunction::Avg(_));
            let present = folds.iter().enumerate().filter(|(_, (_, count))| *count > 0.0);
            let samples = present
                .map(|(i, (value, count))| (grid.stamp_ms(i), if mean { value / count } else { *value }))
                .collect();
            let exemplars = exemplars(None);
            vec![MetricsSeries { labels: kept.labels, samples, exemplars }]
        }
        Cells::Buckets(buckets, durations) => {
            let bound = |exponent: u32| {
                let bound = 2f64.powi(i32::try_from(exponent).unwrap_or(i32::MAX));
                if *durations { bound / NS_PER_S as f64 } else { bound }
            };
            let with = |label: &str, value: f64, samples, exemplars| {
                let mut labels = kept.labels.clone();
                labels.push((label.to_owned(), Value::Double(value)));
                MetricsSeries { labels, samples, exemplars }
            };
            let mut exemplars = Some(exemplars(None));
            match function {
                MetricsFunction::Quantile(_, quantiles) => quantiles
                    .iter()
                    .map(|q| {
                        let at = |i| (grid.stamp_ms(i), quantile(*q, buckets, i, &bound));
                        with("p", *q, (0..grid.intervals).map(at).collect(), exemplars.take().unwrap_or_default())
                    })
                    .collect(),
                _ => buckets
                    .iter()
                    .map(|(exponent, counts)| {
                        let samples = counts.iter().enumerate().map(|(i, count)| (grid.stamp_ms(i), *count)).collect();
                        with("__bucket", bound(*exponent), samples, exemplars.take().unwrap_or_default())
                    })
                    .collect(),
            }
        }
    }
}

fn fold(function: &MetricsFunction, cell: &mut (f64, f64), number: f64) {
    let (value, count) = cell;
    *value = match function {
        _ if *count == 0.0 => number,
        MetricsFunction::Min(_) => value.min(number),
        MetricsFunction::Max(_) => value.max(number),
        _ => *value + number,
    };
    *count += 1.0;
}

fn in_seconds(value: &Val<'_>) -> f64 {
    match value {
        Val::Duration(ns) => *ns as f64 / NS_PER_S as f64,
        value => value.as_number().unwrap_or(0.0),
    }
}

/// The exponent of the power of two next above or at a whole number; values below 2 have no bucket.
fn bucket_of(value: &Val<'_>) -> Option<u32> {
    match value {
        Val::Int(n) | Val::Duration(n) if *n >= 2 => Some(i64::BITS - (n - 1).leading_zeros()),
        _ => None,
    }
}

/// The quantile of one interval's buckets; 0 where there is nothing.
fn quantile(q: f64, buckets: &BTreeMap<u32, Vec<f64>>, interval: usize, bound: &dyn Fn(u32) -> f64) -> f64 {
    let occurring = || buckets.iter().map(|(exponent, counts)| (*exponent, counts[interval])).filter(|(_, n)| *n > 0.0);
    let total: f64 = occurring().map(|(_, count)| count).sum();
    if total == 0.0 {
        return 0.0;
    }
    let wanted = (q * total).ceil().max(1.0);
    let mut before = 0.0;
    let mut lower: Option<u32> = None;
    for (exponent, count) in occurring() {
        if before + count == wanted {
            return bound(exponent);
        }
        if before + count > wanted {
            let hi = bound(exponent).log2();
            let lo = lower.map_or(hi - 1.0, |exponent| bound(exponent).log2());
            return (lo + (hi - lo) * (wanted - before) / count).exp2();
        }
        before += count;
        lower = Some(exponent);
    }
    lower.map_or(0.0, bound)
}

fn group_values(at: &SpanAt<'_>, parts: &MetricsPlan) -> Result<Vec<Val<'static>>> {
    parts.by.iter().map(|(_, source)| Ok(at.value(source)?.into_owned())).collect()
}

/// The labels of a group: what is missing is left out, but not the last label of a series.
fn group_labels<'n>(
    names: impl Iterator<Item = &'n str>,
    values: &[Val<'static>],
    bucketed: bool,
) -> Vec<(String, Value)> {
    // Buckets and quantiles bring a label of their own.
    let all = !bucketed && values.iter().all(|value| *value == Val::Nil);
    let pairs: Vec<(&str, &Val<'static>)> = names.zip(values).collect();
    let kept = pairs.iter().enumerate().filter(|(i, (_, value))| **value != Val::Nil || (all && *i == 0));
    kept.map(|(_, (name, value))| ((*name).to_owned(), value.to_value())).collect()
}

/// The order of series in an answer: fewer labels first, then label by label.
pub(super) fn label_order(a: &[(String, Value)], b: &[(String, Value)]) -> Ordering {
    let pair = |(name, value): &(String, Value)| (name.clone(), value.to_text());
    a.len().cmp(&b.len()).then_with(|| a.iter().map(pair).cmp(b.iter().map(pair)))
}

/// Leaves `wanted` exemplars, taken from the series in turn.
pub(super) fn thin_exemplars(series: &mut [MetricsSeries], wanted: usize) {
    let mut total: usize = series.iter().map(|series| series.exemplars.len()).sum();
    let mut most = series.iter().map(|series| series.exemplars.len()).max().unwrap_or(0);
    while total > wanted && most > 0 {
        most -= 1;
        for series in series.iter_mut().rev() {
            if total > wanted && series.exemplars.len() > most {
                // Every other one from the end, so that what stays is spread over time.
                let at = (most * 7) % series.exemplars.len();
                series.exemplars.remove(at);
                total -= 1;
            }
        }
    }
    for series in series {
        series.exemplars.sort_by_key(|exemplar| exemplar.timestamp_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_the_next_power_of_two() {
        let bucket = |n| bucket_of(&Val::Int(n));
        assert_eq!(
            [bucket(0), bucket(1), bucket(2), bucket(3), bucket(4), bucket(5)],
            [None, None, Some(1), Some(2), Some(2), Some(3)]
        );
        assert_eq!(bucket(i64::MAX), Some(63));
        assert_eq!(bucket_of(&Val::Float(8.0)), None);
    }

    #[test]
    fn quantiles_interpolate_between_the_buckets_that_occur() {
        // Counts 2, 0, 6 at 4, 8, 16.
        let buckets = BTreeMap::from([(2, vec![2.0]), (3, vec![0.0]), (4, vec![6.0])]);
        let bound = |exponent: u32| f64::from(1u32 << exponent);
        let at = |q| quantile(q, &buckets, 0, &bound);
        // ⌈0.25 · 8⌉ = 2 ends the first bucket; 0 still asks for one value: 2^(1 + 1·1/2).
        assert_eq!(at(0.25), 4.0);
        assert!((at(0.0) - 2f64.powf(1.5)).abs() < 1e-12);
        // ⌈0.5 · 8⌉ = 4: two of the six between 4 and 16: 2^(2 + 2·2/6).
        assert!((at(0.5) - 2f64.powf(2.0 + 2.0 / 3.0)).abs() < 1e-12);
        assert_eq!(at(1.0), 16.0);
        assert_eq!(quantile(0.5, &BTreeMap::new(), 0, &bound), 0.0);
    }
}
