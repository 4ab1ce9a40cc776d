//! Extended ranges: `anchored` windows begin with the newest sample before them, `smoothed` ones are interpolated at
//! both ends; smoothed instant selectors are interpolated at the step.

use std::sync::Arc;

use storage::model::histogram::{Histogram, ResetHint};

use super::super::ast::{Extent, NodeId};
use super::super::load::Samples;
use super::super::plan::Steps;
use super::native::is_custom;
use super::native::ops::{Incompatible, add, is_reset, scale, sub};
use super::notice::Notes;
use super::rate::{changes, check_counter_name, histogram_increase, resets};
use super::value::{Evaluated, Point, Range, Series, Vector};
use super::window::Window;
use super::{Call, Column, Evaluator};
use crate::error::{Error, Kind, Result};

/// The functions that take anchored windows, and those that take smoothed ones.
const ANCHORED: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED: [&str; 3] = ["delta", "increase", "rate"];

/// How the function looks at values.
#[derive(Clone, Copy)]
struct Kinds {
    counter: bool,
    per_second: bool,
}

impl Evaluator<'_> {
    /// A window function over an extended range.
    pub(super) fn extended(&mut self, call: &Call<'_>, range: &Range) -> Result<Evaluated> {
        let name = call.function.name;
        let (word, known): (&str, &[&str]) = match range.extent {
            Extent::Smoothed => ("smoothed", &SMOOTHED),
            _ => ("anchored", &ANCHORED),
        };
        if !known.contains(&name) {
            let known = known.join(", ");
            let message = format!("{word} modifier can only be used with: {known} - not with {name}");
            return Err(Error::new(Kind::Execution, message));
        }
        let kinds = Kinds { counter: name != "delta", per_second: name == "rate" };
        let lookback = i64::try_from(self.options.lookback.as_millis()).unwrap_or(i64::MAX / 8);
        let at = call.args.first().map_or(0, |arg| self.at(*arg));
        let held = Some(self.room(range.series.len(), call.steps.count)?);
        let mut series = Vec::new();
        for one in &range.series {
            self.context.check()?;
            let mut column = Column::new(call.steps.count);
            let mut notes = Notes { notices: &mut self.notices, at, metric: one.labels.metric() };
            for i in 0..call.steps.count {
                let end = range.window.end(call.steps.at(i));
                let ends = Ends { start: end - range.window.range, end, lookback };
                let point = match range.extent {
                    Extent::Smoothed => ends.smoothed(&one.samples, kinds, &mut notes),
                    _ => ends.anchored(&one.samples, name, kinds, &mut notes),
                };
                if let Some(point) = point {
                    column.set(i, point);
                }
            }
            if column.present() > 0 {
                let (mut labels, mut drop_name) = (one.labels.clone(), one.drop_name);
                self.drop_name(&mut labels, &mut drop_name);
                series.push(Series { labels, drop_name, column });
            }
        }
        Ok(Evaluated::Vector(Vector { series: self.distinct(series)?, held }))
    }

    /// A smoothed instant selector.
    pub(super) fn select_smoothed(&mut self, id: NodeId, steps: Steps) -> Result<Vector> {
        let window = self.window(id)?;
        let at = self.at(id);
        let mut series = Vec::new();
        let data = self.data;
        let need = self.plan.need_of[id.0].ok_or_else(super::missing)?;
        let raw = data.selections.get(need).ok_or_else(super::missing)?;
        let held = Some(self.room(raw.len(), steps.count)?);
        for one in raw {
            self.context.check()?;
            let mut column = Column::new(steps.count);
            let mut notes = Notes { notices: &mut self.notices, at, metric: one.labels.metric() };
            for i in 0..steps.count {
                let end = window.end(steps.at(i));
                if let Some(point) = smoothed_at(&one.fresh, end, window.range, &mut notes) {
                    column.set(i, point);
                }
            }
            if column.present() > 0 {
                series.push(Series { labels: one.labels.clone(), drop_name: false, column });
            }
        }
        Ok(Vector { series, held })
    }
}

/// The value of a series at `t`, between its neighbours.
fn smoothed_at(samples: &Samples, t: i64, lookback: i64, notes: &mut Notes<'_>) -> Option<Point> {
    let floats = Neighbours::of(&samples.ts, t, lookback);
    let histograms = Neighbours::of(&samples.hist_ts, t, lookback);
    // The nearer one of both kinds on each side.
    let before = floats.before.map(|i| samples.ts[i]).max(histograms.before.map(|i| samples.hist_ts[i]))?;
    let is_float_before = floats.before.is_some_and(|i| samples.ts[i] == before);
    let next = |i: Option<usize>, ts: &[i64]| i.map_or(i64::MAX, |i| ts[i]);
    let after = next(floats.after, &samples.ts).min(next(histograms.after, &samples.hist_ts));
    let is_float_after = next(floats.after, &samples.ts) == after && after != i64::MAX;
    if before == t || after == i64::MAX {
        return if is_float_before {
            floats.before.map(|i| Point::Float(samples.values[i]))
        } else {
            histograms.before.map(|i| Point::Histogram(Arc::clone(&samples.hists[i])))
        };
    }
    let fraction = (t - before) as f64 / (after - before) as f64;
    match (is_float_before, is_float_after) {
        (true, true) => {
            let (a, b) = (samples.values[floats.before?], samples.values[floats.after?]);
            Some(Point::Float(a + (b - a) * fraction))
        }
        (false, false) => {
            let (a, b) = (&samples.hists[histograms.before?], &samples.hists[histograms.after?]);
            match between(a, b, fraction, false) {
                Ok(h) => Some(Point::Histogram(Arc::new(h))),
                Err(Incompatible) => {
                    notes.mixed_schemas();
                    None
                }
            }
        }
        _ => {
            notes.mixed();
            None
        }
    }
}

/// The samples next to a time: at or before it, and after it, each within the lookback.
struct Neighbours {
    before: Option<usize>,
    after: Option<usize>,
}

impl Neighbours {
    fn of(ts: &[i64], t: i64, lookback: i64) -> Self {
        let next = ts.partition_point(|one| *one <= t);
        let before = next.checked_sub(1).filter(|i| ts[*i] > t - lookback);
        let after = Some(next).filter(|i| ts.get(*i).is_some_and(|one| *one <= t + lookback));
        Self { before, after }
    }
}

/// The histogram between `a` and `b`; a counter that was reset begins at zero.
fn between(a: &Histogram, b: &Histogram, fraction: f64, counter: bool) -> Result<Histogram, Incompatible> {
    if is_custom(a) != is_custom(b) {
        return Err(Incompatible);
    }
    if counter && is_reset(b, a) {
        return Ok(scale(b, fraction));
    }
    let mut moved = scale(&sub(b, a)?.histogram, fraction);
    moved.reset_hint = a.reset_hint;
    Ok(add(a, &moved)?.histogram)
}

struct Ends {
    start: i64,
    end: i64,
    lookback: i64,
}

impl Ends {
    fn seconds(&self) -> f64 {
        (self.end - self.start) as f64 / 1000.0
    }

    /// The samples of the window, with the newest one before it.
    fn anchored_bounds(&self, ts: &[i64]) -> Option<(usize, usize)> {
        let lo = ts.partition_point(|t| *t <= self.start);
        let hi = ts.partition_point(|t| *t <= self.end);
        if lo == hi {
            return None;
        }
        let anchor = lo.checked_sub(1).filter(|i| ts[*i] > self.start - self.lookback);
        Some((anchor.unwrap_or(lo), hi))
    }

    fn anchored(&self, samples: &Samples, name: &str, kinds: Kinds, notes: &mut Notes<'_>) -> Option<Point> {
        let floats = self.anchored_bounds(&samples.ts);
        let histograms = self.anchored_bounds(&samples.hist_ts);
        if name == "changes" || name == "resets" {
            let (f_lo, f_hi) = floats.unwrap_or((0, 0));
            let (h_lo, h_hi) = histograms.unwrap_or((0, 0));
            if f_lo == f_hi && h_lo == h_hi {
                return None;
            }
            let window = Window {
                ts: &samples.ts[f_lo..f_hi],
                values: &samples.values[f_lo..f_hi],
                starts: &[],
                hist_ts: &samples.hist_ts[h_lo..h_hi],
                hists: &samples.hists[h_lo..h_hi],
                hist_starts: &[],
                start: self.start,
                end: self.end,
                step: self.end,
                params: [0.0; 2],
            };
            return if name == "changes" { changes(&window, notes) } else { resets(&window, notes) };
        }
        match (floats, histograms) {
            (Some(_), Some(_)) => {
                notes.mixed();
                None
            }
            (Some((lo, hi)), None) => {
                if kinds.counter {
                    check_counter_name(notes);
                }
                let values = &samples.values[lo..hi];
                let increase = values[values.len() - 1] - values[0] + if kinds.counter { drops(values) } else { 0.0 };
                Some(Point::Float(self.per_second(increase, kinds)))
            }
            (None, Some((lo, hi))) => {
                let points = &samples.hists[lo..hi];
                let increase = match points {
                    [one] => sub(one, one).ok()?.histogram,
                    points => histogram_increase(points, notes, kinds.counter, &|_| false)?,
                };
                Some(self.histogram(increase, kinds))
            }
            (None, None) => None,
        }
    }

    fn per_second(&self, increase: f64, kinds: Kinds) -> f64 {
        if kinds.per_second { increase / self.seconds() } else { increase }
    }

    fn histogram(&self, mut increase: Histogram, kinds: Kinds) -> Point {
        increase.reset_hint = ResetHint::Gauge;
        let factor = if kinds.per_second { 1.0 / self.seconds() } else { 1.0 };
        Point::Histogram(Arc::new(scale(&increase, factor)))
    }

    fn smoothed(&self, samples: &Samples, kinds: Kinds, notes: &mut Notes<'_>) -> Option<Point> {
        let floats = self.smoothed_bounds(&samples.ts);
        let histograms = self.smoothed_bounds(&samples.hist_ts);
        match (floats, histograms) {
            (Some(_), Some(_)) => {
                notes.mixed();
                None
            }
            (Some(bounds), None) => {
                if kinds.counter {
                    check_counter_name(notes);
                }
                Some(Point::Float(self.per_second(self.smoothed_floats(samples, bounds, kinds.counter), kinds)))
            }
            (None, Some(bounds)) => {
                let increase = self.smoothed_histograms(samples, bounds, kinds.counter, notes);
                match increase {
                    Ok(increase) => Some(self.histogram(increase, kinds)),
                    Err(Incompatible) => {
                        notes.mixed_schemas();
                        None
                    }
                }
            }
            (None, None) => None,
        }
    }

    /// Indices of the samples that shape the window: one before it if near enough, those inside, one after it.
    fn smoothed_bounds(&self, ts: &[i64]) -> Option<(usize, usize)> {
        let lo = ts.partition_point(|t| *t <= self.start);
        let hi = ts.partition_point(|t| *t <= self.end);
        let before = lo.checked_sub(1).filter(|i| ts[*i] > self.start - self.lookback);
        let ends_exactly = hi > lo && ts[hi - 1] == self.end;
        let after = Some(hi).filter(|i| !ends_exactly && ts.get(*i).is_some_and(|t| *t <= self.end + self.lookback));
        // All data lies before the window, or all after it.
        if lo == hi && (before.is_none() || after.is_none()) {
            return None;
        }
        Some((before.unwrap_or(lo), after.map_or(hi, |i| i + 1)))
    }

    fn smoothed_floats(&self, samples: &Samples, (lo, hi): (usize, usize), counter: bool) -> f64 {
        let (ts, values) = (&samples.ts[lo..hi], &samples.values[lo..hi]);
        let value = |i: usize, t: i64| {
            let fraction = (t - ts[i]) as f64 / (ts[i + 1] - ts[i]) as f64;
            let (a, b) = (values[i], values[i + 1]);
            if counter && b < a { b * fraction } else { a + (b - a) * fraction }
        };
        let last = ts.len() - 1;
        let mut shaped = Vec::with_capacity(values.len());
        for i in 0..=last {
            if ts[i] <= self.start && i < last {
                shaped.push(value(i, self.start));
            } else if ts[i] > self.end && i > 0 {
                shaped.push(value(i - 1, self.end));
            } else {
                shaped.push(values[i]);
            }
        }
        let corrections = if counter { drops(&shaped) } else { 0.0 };
        shaped[last] - shaped[0] + corrections
    }

    fn smoothed_histograms(
        &self,
        samples: &Samples,
        (lo, hi): (usize, usize),
        counter: bool,
        notes: &mut Notes<'_>,
    ) -> Result<Histogram, Incompatible> {
        let (ts, hists) = (&samples.hist_ts[lo..hi], &samples.hists[lo..hi]);
        let gauge = |h: &Arc<Histogram>| h.reset_hint == ResetHint::Gauge;
        if counter && hists.iter().any(gauge) {
            notes.not_a_counter();
        }
        if !counter && !hists.iter().all(gauge) {
            notes.not_a_gauge();
        }
        let last = hists.len() - 1;
        let at = |i: usize, t: i64| {
            let fraction = (t - ts[i]) as f64 / (ts[i + 1] - ts[i]) as f64;
            between(&hists[i], &hists[i + 1], fraction, counter)
        };
        let cut_left = ts[0] < self.start && last > 0;
        let cut_right = ts[last] > self.end && last > 0;
        let left = if cut_left { at(0, self.start)? } else { (*hists[0]).clone() };
        let right = if cut_right { at(last - 1, self.end)? } else { (*hists[last]).clone() };
        let mut increase = sub(&right, &left)?.histogram;
        if counter {
            // A reset within the first interval is in its interpolated end already.
            for i in usize::from(cut_left) + 1..=last {
                if is_reset(&hists[i], &hists[i - 1]) {
                    increase = add(&increase, &hists[i - 1])?.histogram;
                }
            }
        }
        Ok(increase)
    }
}

/// What a counter had before each drop.
fn drops(values: &[f64]) -> f64 {
    values.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]).sum()
}
