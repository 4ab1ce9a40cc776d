//! Windows: the samples of a range vector at each step, and the loop over them.
//!
//! Owns: where windows begin and end. Does not own: what is computed of one (`rate`, `over_time`).

use std::sync::Arc;

use storage::model::histogram::Histogram;

use super::super::ast::Extent;
use super::super::load::Samples;
use super::notice::Notes;
use super::value::{Evaluated, Point, Range, Series, Vector};
use super::{Call, Column, Evaluator, merged, missing, same_labelset};
use crate::error::Result;

/// What is computed of one window.
pub(in crate::promql) type WindowFn = fn(&Window<'_>, &mut Notes<'_>) -> Option<Point>;

/// The samples of one window, at least one.
#[derive(Clone, Copy, Debug)]
pub(in crate::promql) struct Window<'a> {
    /// Times of floats.
    pub ts: &'a [i64],
    /// Floats.
    pub values: &'a [f64],
    /// Start times of floats, or nothing.
    pub starts: &'a [i64],
    /// Times of histograms.
    pub hist_ts: &'a [i64],
    /// Histograms.
    pub hists: &'a [Arc<Histogram>],
    /// Start times of histograms, or nothing.
    pub hist_starts: &'a [i64],
    /// The window is `start < t ≤ end`.
    pub start: i64,
    /// Its last time.
    pub end: i64,
    /// The time of the step.
    pub step: i64,
    /// The scalar arguments at this step.
    pub params: [f64; 2],
}

impl Window<'_> {
    /// Its length in seconds.
    pub fn seconds(&self) -> f64 {
        (self.end - self.start) as f64 / 1000.0
    }
}

impl Evaluator<'_> {
    pub(super) fn windows(
        &mut self,
        call: &Call<'_>,
        args: Vec<Evaluated>,
        f: WindowFn,
        keep_name: bool,
    ) -> Result<Evaluated> {
        let mut range = None;
        let mut params: Vec<Vec<f64>> = Vec::new();
        for arg in args {
            match arg {
                Evaluated::Range(found) => range = Some(found),
                Evaluated::Scalar(values) => params.push(values),
                _ => return Err(missing()),
            }
        }
        let range = range.ok_or_else(missing)?;
        if range.extent != Extent::Plain {
            return self.extended(call, &range);
        }
        let at = call.args.first().map_or(0, |arg| self.at(*arg));
        let start_times = self.options.start_timestamps;
        let held = Some(self.room(range.series.len(), call.steps.count)?);
        let mut series = Vec::with_capacity(range.series.len());
        for one in &range.series {
            self.context.check()?;
            let mut column = Column::new(call.steps.count);
            let mut notes = Notes { notices: &mut self.notices, at, metric: one.labels.metric() };
            each_window(&range, &one.samples, call, &params, |i, window| {
                let (starts, hist_starts) = match start_times {
                    true => (window.starts, window.hist_starts),
                    false => (&[][..], &[][..]),
                };
                let window = &Window { starts, hist_starts, ..*window };
                if let Some(point) = f(window, &mut notes) {
                    column.set(i, point);
                }
            });
            if column.present() == 0 {
                continue;
            }
            let mut labels = one.labels.clone();
            let mut drop_name = one.drop_name;
            if !keep_name {
                self.drop_name(&mut labels, &mut drop_name);
            }
            series.push(Series { labels, drop_name, column });
        }
        Ok(Evaluated::Vector(Vector { series: self.distinct(series)?, held }))
    }

    /// Two series of one label set are an error here even if they have no step in common.
    pub(super) fn distinct(&self, series: Vec<Series>) -> Result<Vec<Series>> {
        if self.options.delayed_name_removal {
            return Ok(series);
        }
        let count = series.len();
        let merged = merged(series)?;
        if merged.len() == count { Ok(merged) } else { Err(same_labelset()) }
    }
}

/// Calls `f` for every step whose window has a sample.
pub(super) fn each_window(
    range: &Range,
    samples: &Samples,
    call: &Call<'_>,
    params: &[Vec<f64>],
    mut f: impl FnMut(usize, &Window<'_>),
) {
    let (mut floats, mut histograms) = (Bounds::default(), Bounds::default());
    for i in 0..call.steps.count {
        let step = call.steps.at(i);
        let end = range.window.end(step);
        let start = end - range.window.range;
        let (f_lo, f_hi) = floats.move_to(&samples.ts, start, end);
        let (h_lo, h_hi) = histograms.move_to(&samples.hist_ts, start, end);
        if f_lo == f_hi && h_lo == h_hi {
            continue;
        }
        let param = |n: usize| params.get(n).and_then(|values| values.get(i)).copied().unwrap_or(0.0);
        let window = Window {
            ts: &samples.ts[f_lo..f_hi],
            values: &samples.values[f_lo..f_hi],
            starts: samples.starts.get(f_lo..f_hi).unwrap_or(&[]),
            hist_ts: &samples.hist_ts[h_lo..h_hi],
            hists: &samples.hists[h_lo..h_hi],
            hist_starts: samples.hist_starts.get(h_lo..h_hi).unwrap_or(&[]),
            start,
            end,
            step,
            params: [param(0), param(1)],
        };
        f(i, &window);
    }
}

/// Both ends of a window that only moves forward.
#[derive(Debug, Default)]
struct Bounds {
    lo: usize,
    hi: usize,
}

impl Bounds {
    fn move_to(&mut self, ts: &[i64], start: i64, end: i64) -> (usize, usize) {
        self.lo += ts[self.lo..].iter().take_while(|t| **t <= start).count();
        self.hi = self.hi.max(self.lo);
        self.hi += ts[self.hi..].iter().take_while(|t| **t <= end).count();
        (self.lo, self.hi)
    }
}
