//! Aggregations over series: `sum by (a) (…)`, `topk`, `sort`.
//!
//! Owns: groups and their arithmetic. Invariant: each step is aggregated on its own.

use storage::Context;

use super::series::{Frame, Grid, LabelIndex, Points, grouped, owned};
use crate::error::Result;
use crate::logql::ast::VectorOp;
use crate::logql::plan::VectorPlan;

/// Aggregates the series of `frame`.
pub fn run(plan: &VectorPlan, frame: Frame, grid: &Grid, context: &Context) -> Result<Frame> {
    match plan.op {
        VectorOp::Sort => Ok(sorted(frame, |a, b| a.total_cmp(&b))),
        VectorOp::SortDesc => Ok(sorted(frame, |a, b| b.total_cmp(&a))),
        VectorOp::Topk | VectorOp::ApproxTopk | VectorOp::Bottomk => chosen(plan, frame, grid, context),
        _ => folded(plan, frame, grid, context),
    }
}

/// By the value of their last point; only the order of an instant answer shows it.
fn sorted(mut frame: Frame, compare: impl Fn(f64, f64) -> std::cmp::Ordering) -> Frame {
    let last = |series: &Points| series.points.last().map_or(f64::NAN, |(_, value)| *value);
    frame.sort_by(|a, b| compare(last(a), last(b)).then_with(|| a.labels.cmp(&b.labels)));
    frame
}

/// What one group gathers at one step.
#[derive(Clone, Copy, Default)]
struct Cell {
    count: f64,
    sum: f64,
    mean: f64,
    squares: f64,
    least: f64,
    most: f64,
}

impl Cell {
    fn add(&mut self, value: f64) {
        let first = self.count == 0.0;
        self.count += 1.0;
        self.sum += value;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
        if first || self.least.is_nan() || value < self.least {
            self.least = value;
        }
        if first || self.most.is_nan() || value > self.most {
            self.most = value;
        }
    }

    fn value(&self, op: VectorOp) -> f64 {
        match op {
            VectorOp::Avg => self.sum / self.count,
            VectorOp::Min => self.least,
            VectorOp::Max => self.most,
            VectorOp::Count => self.count,
            VectorOp::Stddev => (self.squares / self.count).sqrt(),
            VectorOp::Stdvar => self.squares / self.count,
            _ => self.sum,
        }
    }
}

/// The groups of a frame: the number of each series' group, and the labels of the groups.
fn groups(plan: &VectorPlan, frame: &Frame) -> (Vec<usize>, Vec<super::series::LabelPairs>) {
    let mut index = LabelIndex::default();
    let mut labels = Vec::new();
    let numbers = frame
        .iter()
        .map(|series| {
            let pairs = grouped(&series.labels, plan.grouping.as_ref());
            let (number, new) = index.number(pairs.iter().copied());
            if new {
                labels.push(owned(&pairs));
            }
            number
        })
        .collect();
    (numbers, labels)
}

fn folded(plan: &VectorPlan, frame: Frame, grid: &Grid, context: &Context) -> Result<Frame> {
    let (numbers, labels) = groups(plan, &frame);
    let steps = grid.steps as usize;
    let _memory = context.reserve(labels.len().saturating_mul(steps).saturating_mul(size_of::<Cell>()))?;
    let mut cells: Vec<Vec<Cell>> = labels.iter().map(|_| vec![Cell::default(); steps]).collect();
    for (series, number) in frame.iter().zip(numbers) {
        context.check()?;
        for (step, value) in &series.points {
            cells[number][*step as usize].add(*value);
        }
    }
    let group = |(labels, cells): (super::series::LabelPairs, Vec<Cell>)| Points {
        labels,
        points: (0..grid.steps)
            .zip(&cells)
            .filter(|(_, cell)| cell.count > 0.0)
            .map(|(step, cell)| (step, cell.value(plan.op)))
            .collect(),
    };
    Ok(labels.into_iter().zip(cells).map(group).collect())
}

/// The k largest or smallest series of each group at each step, with all their labels.
fn chosen(plan: &VectorPlan, frame: Frame, grid: &Grid, context: &Context) -> Result<Frame> {
    let (numbers, labels) = groups(plan, &frame);
    let points: usize = frame.iter().map(|series| series.points.len()).sum();
    let _memory = context.reserve(points.saturating_mul(32))?;
    // For each group and step the values with their series.
    let mut steps: Vec<Vec<Vec<(f64, usize)>>> = labels.iter().map(|_| vec![Vec::new(); grid.steps as usize]).collect();
    for (place, (series, number)) in frame.iter().zip(&numbers).enumerate() {
        for (step, value) in &series.points {
            steps[*number][*step as usize].push((*value, place));
        }
    }
    let smallest = plan.op == VectorOp::Bottomk;
    let mut kept: Vec<Vec<(u32, f64)>> = vec![Vec::new(); frame.len()];
    for group in &mut steps {
        context.check()?;
        for (step, values) in (0..grid.steps).zip(group) {
            // NaN comes last on either side.
            values.sort_by(|(a, _), (b, _)| {
                let order = if smallest { a.total_cmp(b) } else { b.total_cmp(a) };
                a.is_nan().cmp(&b.is_nan()).then(order)
            });
            for (value, place) in values.iter().take(plan.k) {
                kept[*place].push((step, *value));
            }
        }
    }
    let mut frame: Frame = frame
        .into_iter()
        .zip(kept)
        .filter(|(_, points)| !points.is_empty())
        .map(|(series, points)| Points { labels: series.labels, points })
        .collect();
    if grid.steps == 1 {
        frame = sorted(frame, |a, b| if smallest { a.total_cmp(&b) } else { b.total_cmp(&a) });
    }
    Ok(frame)
}
