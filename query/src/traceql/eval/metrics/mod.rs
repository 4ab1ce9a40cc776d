//! Metrics queries: spans → series over a grid of intervals.
//!
//! Owns: the grid, reading the spans of each query, answers. Does not own: accumulating (`collect`), `compare`
//! (`compare`), what follows a function (`combine`).
//!
//! Intervals are open on the left and closed on the right; a sample stands at its interval's right end.

mod collect;
mod combine;
mod compare;

use storage::model::time::{NS_PER_MS, NS_PER_S, TimeRange};
use storage::{Context, Scan};

use super::super::ast::{MetricsFunction, MetricsQuery, Query, Root, Static};
use super::super::plan::{Plan, plan_metrics_query, queries_of};
use super::super::print::duration_text;
use super::super::{MetricsAnswer, MetricsLimits, MetricsParams, MetricsSeries};
use super::pipeline::run;
use super::reads::Reads;
use super::stream::{Window, each_trace};
use super::trace::SpanAt;
use crate::error::{Error, Kind, Result};
use collect::Collector;

/// Intervals of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Before the first interval, not part of it.
    start_ns: i64,
    /// Length of an interval.
    step_ns: i64,
    /// How many.
    intervals: usize,
    /// Whether it is the one of an instant query.
    instant: bool,
}

impl Grid {
    /// The grid of a range query: both ends aligned to the step, with one interval before the first full one.
    pub fn range(params: &MetricsParams, limits: &MetricsLimits) -> Result<Self> {
        check_range(params, limits)?;
        let (span, step) = (params.end_ns - params.start_ns, params.step_ns);
        let intervals_max = i64::try_from(limits.intervals_max).unwrap_or(i64::MAX);
        if step <= 0 || span / step > intervals_max {
            let (step, least) = (duration_text(step.max(0)), duration_text(span / intervals_max));
            return Err(invalid(format!("step of {step} is too small, minimum step for given range is {least}")));
        }
        let first = params.start_ns.div_euclid(step);
        let last = params.end_ns.div_euclid(step) + i64::from(params.end_ns.rem_euclid(step) != 0);
        let start_ns = (first - 1).checked_mul(step);
        let intervals = usize::try_from(last - first + 1).ok();
        let out_of_range = || invalid("the range is out of bounds".into());
        Ok(Self {
            start_ns: start_ns.ok_or_else(out_of_range)?,
            step_ns: step,
            intervals: intervals.ok_or_else(out_of_range)?,
            instant: false,
        })
    }

    /// The one interval of an instant query, not aligned.
    pub fn instant(params: &MetricsParams, limits: &MetricsLimits) -> Result<Self> {
        check_range(params, limits)?;
        let step_ns = params.end_ns - params.start_ns;
        Ok(Self { start_ns: params.start_ns, step_ns, intervals: 1, instant: true })
    }

    fn end_ns(&self) -> i64 {
        self.stamp_ns(self.intervals.saturating_sub(1))
    }

    /// The right end of an interval.
    fn stamp_ns(&self, interval: usize) -> i64 {
        let number = i64::try_from(interval).unwrap_or(i64::MAX).saturating_add(1);
        self.start_ns.saturating_add(self.step_ns.saturating_mul(number))
    }

    fn stamp_ms(&self, interval: usize) -> i64 {
        self.stamp_ns(interval).div_euclid(NS_PER_MS)
    }

    /// The interval a time lies in.
    fn interval_of(&self, ns: i64) -> Option<usize> {
        let since = ns.checked_sub(self.start_ns)?;
        if since <= 0 {
            return None;
        }
        let interval = usize::try_from((since - 1) / self.step_ns).ok()?;
        (interval < self.intervals).then_some(interval)
    }

    fn step_seconds(&self) -> f64 {
        self.step_ns as f64 / NS_PER_S as f64
    }

    /// Starts of the spans that count.
    fn range_ns(&self) -> TimeRange {
        TimeRange::new(self.start_ns.saturating_add(1), self.end_ns().saturating_add(1))
    }
}

fn invalid(message: String) -> Error {
    Error::new(Kind::Invalid, message)
}

fn check_range(params: &MetricsParams, limits: &MetricsLimits) -> Result<()> {
    if params.end_ns <= params.start_ns {
        return Err(invalid("end must be greater than start".into()));
    }
    if params.start_ns < 0 {
        return Err(invalid("start must not be before 1970".into()));
    }
    if limits.range_max_ns > 0 && params.end_ns - params.start_ns > limits.range_max_ns {
        return Err(invalid(format!(
            "metrics query time range exceeds the maximum allowed duration of {}",
            duration_text(limits.range_max_ns)
        )));
    }
    Ok(())
}

/// The step of a range query that names none: 240 intervals, rounded to a step people use.
pub fn default_step_ns(start_ns: i64, end_ns: i64) -> i64 {
    const INTERVALS: i64 = 240;
    const FINE_NS: i64 = 50 * NS_PER_MS;
    const MINUTE_NS: i64 = 60 * NS_PER_S;
    const ROUND_TO_S: [i64; 6] = [3600, 300, 60, 15, 5, 1];
    let span = end_ns.saturating_sub(start_ns);
    let step = span / INTERVALS;
    if span < MINUTE_NS {
        return (step / FINE_NS * FINE_NS).max(FINE_NS);
    }
    let round = ROUND_TO_S.iter().map(|s| s * NS_PER_S).find(|round| step > *round);
    round.map_or(NS_PER_S, |round| step / round * round)
}

/// Runs a metrics query over a grid.
pub async fn metrics(
    scan: &dyn Scan,
    query: &Query,
    grid: Grid,
    params: &MetricsParams,
    context: &Context,
) -> Result<MetricsAnswer> {
    let Root::Metrics(metrics) = &query.root else { return Err(invalid("not a metrics query".into())) };
    let wanted = exemplars_hint(&query.hints).unwrap_or(params.exemplars_max).min(params.exemplars_max);
    let exemplars = if grid.instant { 0 } else { wanted };
    let run = Run { scan, grid, exemplars, series_max: params.series_max, context };
    let mut answer = MetricsAnswer::default();
    // Each query of the expression on its own, then the expression over their series.
    let mut results: Vec<Vec<MetricsSeries>> = Vec::new();
    for query in queries_of(metrics) {
        results.push(run.query(query, &mut answer).await?);
    }
    let mut results = results.into_iter();
    let mut series = combine::evaluate(metrics, &mut results)?;
    series.retain(|series| !series.samples.is_empty());
    series.sort_by(|a, b| collect::label_order(&a.labels, &b.labels));
    collect::thin_exemplars(&mut series, exemplars);
    answer.series = series;
    Ok(answer)
}

/// `with(exemplars=…)`: how many at most.
fn exemplars_hint(hints: &[(String, Static)]) -> Option<usize> {
    match hints.iter().find(|(name, _)| name == "exemplars")?.1 {
        Static::Bool(false) => Some(0),
        Static::Int(n) => usize::try_from(n).ok(),
        _ => None,
    }
}

struct Run<'r> {
    scan: &'r dyn Scan,
    grid: Grid,
    exemplars: usize,
    series_max: usize,
    context: &'r Context,
}

impl Run<'_> {
    async fn query(&self, query: &MetricsQuery, answer: &mut MetricsAnswer) -> Result<Vec<MetricsSeries>> {
        let (plan, parts) = plan_metrics_query(query)?;
        if let MetricsFunction::Compare { top, range, .. } = &query.function {
            let mut comparison = compare::Comparison::new(self.grid, *top, *range, &plan, self.context)?;
            self.each_span(&plan, Reads::All, answer, &mut |at, interval| comparison.add(at, interval, &parts)).await?;
            return Ok(comparison.series());
        }
        let mut collector = Collector::new(self.grid, query, &parts, self.exemplars, self.series_max, self.context)?;
        let reads = if self.exemplars > 0 { Reads::of(&plan).and(&["name"]) } else { Reads::of(&plan) };
        self.each_span(&plan, reads, answer, &mut |at, interval| collector.add(at, interval, &parts)).await?;
        if collector.overflowed() {
            answer.message =
                Some(format!("the query gives more than {} series, a partial answer is returned", self.series_max));
        }
        Ok(collector.series())
    }

    /// Calls `visit` for each span that the pipeline gives and that starts in the grid.
    async fn each_span(
        &self,
        plan: &Plan,
        reads: Reads,
        answer: &mut MetricsAnswer,
        visit: &mut (dyn for<'t> FnMut(&SpanAt<'t>, usize) -> Result<()> + Send),
    ) -> Result<()> {
        let spans = Window::spans(Some(self.grid.range_ns()), reads);
        let window = Window { whole: plan.needs.whole_trace, traces: plan.traces.clone(), ..spans };
        each_trace(self.scan, &window, plan, self.context, &mut |trace| {
            answer.inspected_traces += 1;
            answer.inspected_spans += trace.len() as u64;
            for group in run(&plan.stages, trace)? {
                for span in group.spans {
                    let at = SpanAt::new(trace, span as usize);
                    if let Some(interval) = self.grid.interval_of(at.columns.start_ns.value(at.row)) {
                        visit(&at, interval)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

/// The value of a constant in the unit of samples: durations in seconds.
fn in_samples(literal: &Static) -> f64 {
    match literal {
        Static::Int(n) => *n as f64,
        Static::Float(x) => *x,
        Static::Duration(ns) => *ns as f64 / NS_PER_S as f64,
        _ => f64::NAN,
    }
}

/// The label that holds a function's name.
const NAME: &str = "__name__";

#[cfg(test)]
mod tests {
    use super::*;

    const T0_S: i64 = 1_780_315_200;

    fn params(start_s: i64, end_s: i64, step_s: i64) -> MetricsParams {
        MetricsParams {
            start_ns: start_s * NS_PER_S,
            end_ns: end_s * NS_PER_S,
            step_ns: step_s * NS_PER_S,
            exemplars_max: 0,
            series_max: 0,
        }
    }

    #[test]
    fn the_grid_begins_one_step_before_the_aligned_start() {
        let limits = MetricsLimits::default();
        let grid = Grid::range(&params(T0_S + 1, T0_S + 899, 300), &limits).expect("fits");
        let stamps: Vec<i64> = (0..grid.intervals).map(|i| grid.stamp_ms(i) / 1000 - T0_S).collect();
        assert_eq!(stamps, [0, 300, 600, 900]);
        let at = |s: i64| grid.interval_of((T0_S + s) * NS_PER_S);
        // On a boundary a time closes the earlier interval.
        assert_eq!(
            [at(-300), at(-299), at(0), at(1), at(300), at(900), at(901)],
            [None, Some(0), Some(0), Some(1), Some(1), Some(3), None]
        );
    }

    #[test]
    fn an_instant_grid_is_one_interval() {
        let grid = Grid::instant(&params(T0_S, T0_S + 900, 0), &MetricsLimits::default()).expect("fits");
        let at = |s: i64| grid.interval_of((T0_S + s) * NS_PER_S);
        assert_eq!([at(0), at(1), at(900), at(901)], [None, Some(0), Some(0), None]);
    }

    #[test]
    fn ranges_and_steps_have_limits() {
        let message = |start, end, step| {
            Grid::range(&params(start, end, step), &MetricsLimits::default()).expect_err("refused").message
        };
        assert_eq!(message(T0_S, T0_S, 60), "end must be greater than start");
        assert_eq!(message(T0_S, T0_S + 86_400, 1), "step of 1s is too small, minimum step for given range is 8.64s");
        assert_eq!(message(T0_S, T0_S + 600, 0), "step of 0s is too small, minimum step for given range is 60ms");
        assert_eq!(
            message(T0_S, T0_S + 90_000, 60),
            "metrics query time range exceeds the maximum allowed duration of 24h0m0s"
        );
    }

    #[test]
    fn the_default_step_is_a_round_number() {
        let step = |span_s: i64| default_step_ns(0, span_s * NS_PER_S) as f64 / 1e9;
        assert_eq!(
            [step(10), step(30), step(60), step(3600), step(6 * 3600), step(24 * 3600)],
            [0.05, 0.1, 1.0, 15.0, 90.0 - 30.0, 300.0]
        );
    }
}
