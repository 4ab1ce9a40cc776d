//! Selectors: the newest sample within the lookback at every step, or all samples of all windows.

use storage::model::histogram::is_stale;

use super::super::ast::{Extent, NodeId};
use super::super::load::{RawSeries, Samples};
use super::super::plan::{Steps, Window};
use super::value::{Point, Range, RangeSeries, Series, Vector};
use super::{Column, Evaluator, missing};
use crate::error::Result;

/// The sample that an instant selector found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// By index among the floats.
    Float(usize),
    /// By index among the histograms.
    Histogram(usize),
}

impl Evaluator<'_> {
    pub(super) fn window(&self, id: NodeId) -> Result<Window> {
        self.plan.windows[id.0].ok_or_else(missing)
    }

    pub(super) fn raw_series(&self, id: NodeId) -> Result<&[RawSeries]> {
        let need = self.plan.need_of[id.0].ok_or_else(missing)?;
        self.data.selections.get(need).map(Vec::as_slice).ok_or_else(missing)
    }

    pub(super) fn select(&mut self, id: NodeId, steps: Steps) -> Result<Vector> {
        self.select_with(id, steps, |samples, found| {
            Some(match found {
                Found::Float(i) => Point::Float(samples.values[i]),
                Found::Histogram(i) => Point::Histogram(std::sync::Arc::clone(&samples.hists[i])),
            })
        })
    }

    /// An instant selector; `pick` says what of the sample is wanted.
    pub(super) fn select_with(
        &self,
        id: NodeId,
        steps: Steps,
        pick: impl Fn(&Samples, Found) -> Option<Point>,
    ) -> Result<Vector> {
        let window = self.window(id)?;
        let raw = self.raw_series(id)?;
        let held = Some(self.room(raw.len(), steps.count)?);
        let mut series = Vec::with_capacity(raw.len());
        for one in raw {
            self.context.check()?;
            let mut column = Column::new(steps.count);
            let mut cursor = Cursor::default();
            for i in 0..steps.count {
                if let Some(found) = cursor.newest(&one.all, window.end(steps.at(i)), window.range)
                    && let Some(point) = pick(&one.all, found)
                {
                    column.set(i, point);
                }
            }
            if column.present() > 0 {
                series.push(Series { labels: one.labels.clone(), drop_name: false, column });
            }
        }
        Ok(Vector { series, held })
    }

    pub(super) fn select_range(&self, id: NodeId, extent: Extent) -> Result<Range> {
        let raw = self.raw_series(id)?;
        let series = raw.iter().map(|one| RangeSeries {
            labels: one.labels.clone(),
            drop_name: false,
            samples: std::sync::Arc::clone(&one.fresh),
        });
        Ok(Range { series: series.collect(), window: self.window(id)?, extent, _held: None })
    }
}

/// Walks over a series while the times asked for ascend.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// Floats at or before the last time asked for.
    floats: usize,
    /// Histograms at or before it.
    histograms: usize,
}

impl Cursor {
    /// The newest sample in `(end − range, end]`, unless it is a staleness marker.
    pub fn newest(&mut self, samples: &Samples, end: i64, range: i64) -> Option<Found> {
        advance(&samples.ts, &mut self.floats, end);
        advance(&samples.hist_ts, &mut self.histograms, end);
        let float = self.floats.checked_sub(1).map(|i| (samples.ts[i], i));
        let histogram = self.histograms.checked_sub(1).map(|i| (samples.hist_ts[i], i));
        let (ts, found) = match (float, histogram) {
            (Some((ft, _)), Some((ht, i))) if ht >= ft => (ht, Found::Histogram(i)),
            (Some((ts, i)), _) => (ts, Found::Float(i)),
            (None, Some((ts, i))) => (ts, Found::Histogram(i)),
            (None, None) => return None,
        };
        let stale = match found {
            Found::Float(i) => is_stale(samples.values[i]),
            Found::Histogram(i) => is_stale(samples.hists[i].sum),
        };
        (ts > end - range && !stale).then_some(found)
    }
}

/// Moves `count` so that it counts the times at or before `end`.
fn advance(ts: &[i64], count: &mut usize, end: i64) {
    // Steps are near each other: walk a little, then search.
    const WALK: usize = 8;
    for _ in 0..WALK {
        match ts.get(*count) {
            Some(t) if *t <= end => *count += 1,
            _ => return,
        }
    }
    *count += ts[*count..].partition_point(|t| *t <= end);
}
