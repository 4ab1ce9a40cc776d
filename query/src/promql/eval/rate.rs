//! rate, increase, delta, irate, idelta, resets, changes: how values move within a window.

use std::sync::Arc;

use storage::model::histogram::{Histogram, ResetHint};

use super::super::load::START_UNKNOWN;
use super::native::is_custom;
use super::native::ops::{add, divide, equal, is_reset, scale, sub};
use super::notice::Notes;
use super::value::Point;
use super::window::Window;

/// Ends of names that counters have.
const COUNTER_SUFFIXES: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

/// `rate(x[d])`
pub(in crate::promql) fn rate(window: &Window<'_>, notes: &mut Notes<'_>) -> Option<Point> {
    extrapolated(window, notes, true, true)
}

/// `increase(x[d])`
pub(in crate::promql) fn increase(window: &Window<'_>, notes: &mut Notes<'_>) -> Option<Point> {
    extrapolated(window, notes, true, false)
}

/// `delta(x[d])`
pub(in crate::promql) fn delta(window: &Window<'_>, notes: &mut Notes<'_>) -> Option<Point> {
    extrapolated(window, notes, false, false)
}

/// Warns of names that no counter has.
pub(super) fn check_counter_name(notes: &mut Notes<'_>) {
    if !COUNTER_SUFFIXES.iter().any(|suffix| notes.metric.ends_with(suffix)) {
        notes.possibly_not_a_counter();
    }
}

fn extrapolated(window: &Window<'_>, notes: &mut Notes<'_>, counter: bool, per_second: bool) -> Option<Point> {
    if !window.ts.is_empty() && !window.hist_ts.is_empty() {
        notes.mixed();
        return None;
    }
    if !window.hist_ts.is_empty() {
        let starts = Starts { ts: window.hist_ts, starts: if counter { window.hist_starts } else { &[] } };
        starts.check(notes);
        let first = starts.first_inside(window.start);
        let mut increase = match window.hists {
            [only] => first.map(|_| (**only).clone())?,
            hists => histogram_increase(hists, notes, counter, &|i| starts.is_reset(i))?,
        };
        // A reset right after the first one has put it aside: then it is all of what was counted before.
        if first.is_some() && window.hists.len() > 1 {
            increase = add(&increase, &window.hists[0]).ok()?.histogram;
        }
        increase.reset_hint = ResetHint::Gauge;
        let known = counter.then_some((increase.count, window.hists[0].count));
        let factor = extrapolation(window, window.hist_ts, known, first)?;
        let factor = if per_second { factor / window.seconds() } else { factor };
        return Some(Point::Histogram(Arc::new(scale(&increase, factor))));
    }
    let starts = Starts { ts: window.ts, starts: if counter { window.starts } else { &[] } };
    let start = starts.first_inside(window.start);
    let last = window.ts.len() - 1;
    if last == 0 && start.is_none() {
        return None;
    }
    starts.check(notes);
    if counter {
        check_counter_name(notes);
    }
    let mut result = window.values[last] - window.values[0];
    if counter {
        let mut previous = window.values[0];
        for (i, value) in window.values.iter().enumerate().skip(1) {
            if *value < previous || starts.is_reset(i) {
                result += previous;
            }
            previous = *value;
        }
        if start.is_some() {
            result += window.values[0];
        }
    }
    let factor = extrapolation(window, window.ts, counter.then_some((result, window.values[0])), start)?;
    let factor = if per_second { factor / window.seconds() } else { factor };
    Some(Point::Float(result * factor))
}

/// The difference of the last and the first histogram, resets of a counter added up.
pub(super) fn histogram_increase(
    points: &[Arc<Histogram>],
    notes: &mut Notes<'_>,
    counter: bool,
    known_reset: &dyn Fn(usize) -> bool,
) -> Option<Histogram> {
    let [first, .., last] = points else { return None };
    let gauge = |h: &Histogram| h.reset_hint == ResetHint::Gauge;
    if counter && points.iter().any(|h| gauge(h)) {
        notes.not_a_counter();
    }
    let gauges = gauge(first) && gauge(last);
    if !counter && !gauges {
        notes.not_a_gauge();
    }
    // A reset right after the first one makes it irrelevant, its layout too.
    let second = &points[1];
    let mut previous = Arc::clone(first);
    if counter && (known_reset(1) || is_reset(second, first)) {
        let bounds = second.custom_values.clone();
        let empty = Histogram { schema: second.schema, custom_values: bounds, ..Histogram::default() };
        previous = Arc::new(Histogram { zero_threshold: second.zero_threshold, ..empty });
    }
    let relevant = if counter { points } else { &points[points.len() - 1..] };
    if relevant.iter().skip(1).chain([last]).any(|h| is_custom(h) != is_custom(&previous)) {
        notes.mixed_schemas();
        return None;
    }
    let Ok(mut result) = sub(last, &previous) else {
        notes.mixed_schemas();
        return None;
    };
    if result.reconciled {
        notes.reconciled("subtraction");
    }
    if counter {
        for (i, current) in points.iter().enumerate().skip(1) {
            if known_reset(i) || is_reset(current, &previous) {
                let Ok(sum) = add(&result.histogram, &previous) else {
                    notes.mixed_schemas();
                    return None;
                };
                if sum.reconciled {
                    notes.reconciled("addition");
                }
                result = sum;
            }
            previous = Arc::clone(current);
        }
    }
    result.histogram.reset_hint = ResetHint::Gauge;
    Some(result.histogram)
}

/// Start times of the samples of a window, where they are known and used.
struct Starts<'a> {
    ts: &'a [i64],
    starts: &'a [i64],
}

impl Starts<'_> {
    /// The start time of sample `i` if it says something: a time before the sample.
    fn of(&self, i: usize) -> Option<i64> {
        self.starts.get(i).copied().filter(|start| *start != START_UNKNOWN && *start < self.ts[i])
    }

    /// The start time of the first sample, if it lies inside the window.
    fn first_inside(&self, window_start: i64) -> Option<i64> {
        self.of(0).filter(|start| *start > window_start)
    }

    /// Whether the counter began anew between samples `i − 1` and `i`.
    fn is_reset(&self, i: usize) -> bool {
        let Some(start) = self.of(i) else { return false };
        let previous = self.ts[i - 1];
        // A start at the sample before is a delta, if that one had a start of its own.
        start > previous || (start == previous && self.of(i - 1).is_some())
    }

    /// Warns of a start before the sample before.
    fn check(&self, notes: &mut Notes<'_>) {
        for i in 1..self.ts.len().min(self.starts.len()) {
            let start = self.starts[i];
            if start != START_UNKNOWN && start != 0 && start < self.ts[i - 1] && start != self.starts[i - 1] {
                notes.overlapping_start();
                return;
            }
        }
    }
}

/// By how much the movement between the first and the last sample grows when it is stretched towards the ends of the
/// window. `counter` holds the increase and the first value of a counter, which was never below zero.
fn extrapolation(window: &Window<'_>, ts: &[i64], counter: Option<(f64, f64)>, start: Option<i64>) -> Option<f64> {
    let (first, last) = (*ts.first()?, *ts.last()?);
    if let Some(start) = start {
        // The counter is known to have begun inside the window: nothing is missing on the left.
        let span = (last - start) as f64 / 1000.0;
        if ts.len() == 1 {
            return Some(1.0);
        }
        let average = span / (ts.len() - 1) as f64;
        let to_end = (window.end - last) as f64 / 1000.0;
        let to_end = if to_end >= average * 1.1 { average / 2.0 } else { to_end };
        return Some((span + to_end) / span);
    }
    let mut to_start = (first - window.start) as f64 / 1000.0;
    let mut to_end = (window.end - last) as f64 / 1000.0;
    let span = (last - first) as f64 / 1000.0;
    let average = span / (ts.len() - 1) as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if let Some((increase, value)) = counter
        && increase > 0.0
        && value >= 0.0
    {
        let to_zero = span * (value / increase);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    Some((span + to_start + to_end) / span)
}

/// `irate(x[d])`
pub(in crate::promql) fn irate(window: &Window<'_>, notes: &mut Notes<'_>) -> Option<Point> {
    last_two(window, notes, true)
}

/// `idelta(x[d])`
pub(in crate::promql) fn idelta(window: &Window<'_>, notes: &mut Notes<'_>) -> Option<Point> {
    last_two(window, notes, false)
}

fn last_two(window: &Window<'_>, notes: &mut Notes<'_>, per_second: bool) -> Option<Point> {
    if window.ts.len() + window.hist_ts.len() < 2 {
        return None;
    }
    // The newest two of both kinds together.
    let newest_float = window.ts.last().copied().unwrap_or(i64::MIN);
    let newest_histogram = window.hist_ts.last().copied().unwrap_or(i64::MIN);
    let both_floats = window.ts.len() > 1 && window.ts[window.ts.len() - 2] > newest_histogram;
    let both_histograms = window.hist_ts.len() > 1 && window.hist_ts[window.hist_ts.len() - 2] > newest_float;
    if both_histograms {
        return last_two_histograms(window, notes, per_second);
    }
    if !both_floats {
        notes.mixed();
        return None;
    }
    let [.., previous, last] = window.values else { return None };
    let [.., from, to] = window.ts else { return None };
    let seconds = (to - from) as f64 / 1000.0;
    if !per_second {
        return Some(Point::Float(last - previous));
    }
    let starts = Starts { ts: window.ts, starts: window.starts };
    let difference = if *last < *previous || starts.is_reset(window.ts.len() - 1) { *last } else { last - previous };
    Some(Point::Float(difference / seconds))
}

fn last_two_histograms(window: &Window<'_>, notes: &mut Notes<'_>, per_second: bool) -> Option<Point> {
    let [.., previous, last] = window.hists else { return None };
    let [.., from, to] = window.hist_ts else { return None };
    let gauges = [previous, last].iter().filter(|h| h.reset_hint == ResetHint::Gauge).count();
    if per_second && gauges > 0 {
        notes.not_a_counter();
    }
    if !per_second && gauges < 2 {
        notes.not_a_gauge();
    }
    let mut result = (**last).clone();
    let starts = Starts { ts: window.hist_ts, starts: window.hist_starts };
    let reset = is_reset(last, previous) || starts.is_reset(window.hist_ts.len() - 1);
    if !per_second || !reset {
        let Ok(difference) = sub(last, previous) else {
            notes.mixed_schemas();
            return None;
        };
        if difference.reconciled {
            notes.reconciled("subtraction");
        }
        result = difference.histogram;
    }
    result.reset_hint = ResetHint::Gauge;
    if per_second {
        result = divide(&result, (to - from) as f64 / 1000.0);
    }
    Some(Point::Histogram(Arc::new(result)))
}

/// Counts the neighbours of a window, floats and histograms by time, for which a test holds; a change between float
/// and histogram always counts.
fn count_pairs(
    window: &Window<'_>,
    floats: fn(f64, f64) -> bool,
    histograms: fn(&Histogram, &Histogram) -> bool,
) -> f64 {
    if window.hist_ts.is_empty() {
        return window.values.windows(2).filter(|pair| floats(pair[0], pair[1])).count() as f64;
    }
    let (mut i, mut j, mut count) = (0, 0, 0.0);
    let mut previous: Option<Point> = None;
    while i < window.ts.len() || j < window.hist_ts.len() {
        let float = window.ts.get(i).copied().unwrap_or(i64::MAX) <= window.hist_ts.get(j).copied().unwrap_or(i64::MAX);
        let current = if float && i < window.ts.len() {
            i += 1;
            Point::Float(window.values[i - 1])
        } else {
            j += 1;
            Point::Histogram(Arc::clone(&window.hists[j - 1]))
        };
        let counts = match (&previous, &current) {
            (None, _) => false,
            (Some(Point::Float(a)), Point::Float(b)) => floats(*a, *b),
            (Some(Point::Histogram(a)), Point::Histogram(b)) => histograms(a, b),
            _ => true,
        };
        if counts {
            count += 1.0;
        }
        previous = Some(current);
    }
    count
}

/// `changes(x[d])`
pub(in crate::promql) fn changes(window: &Window<'_>, _: &mut Notes<'_>) -> Option<Point> {
    let changed = |a: f64, b: f64| a != b && !(a.is_nan() && b.is_nan());
    Some(Point::Float(count_pairs(window, changed, |a, b| !equal(a, b))))
}

/// `resets(x[d])`
pub(in crate::promql) fn resets(window: &Window<'_>, _: &mut Notes<'_>) -> Option<Point> {
    let starts = Starts { ts: window.ts, starts: window.starts };
    if window.hist_ts.is_empty() && !window.starts.is_empty() {
        let values = window.values;
        let count = (1..values.len()).filter(|i| values[*i] < values[*i - 1] || starts.is_reset(*i)).count();
        return Some(Point::Float(count as f64));
    }
    Some(Point::Float(count_pairs(window, |a, b| b < a, |a, b| is_reset(b, a))))
}
