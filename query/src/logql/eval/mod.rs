//! Evaluation of compiled plans: lazy and columnar where the data is large, plain where it is small.
//!
//! ```text
//! read (scan → line filters on columns → stages by entry) → streams (log queries)
//!                                                         → range → aggregate, binary, metric (metric queries)
//! ```

mod aggregate;
pub mod binary;
pub mod fields;
mod filter;
pub mod hints;
mod ip;
pub mod label_filter;
pub mod labels;
mod metric;
mod parsers;
mod pattern;
pub mod pipeline;
mod range;
mod read;
mod series;
mod streams;
mod template;
mod window;

use storage::{Context, Scan};

use self::binary::Operand;
use self::metric::Evaluator;
use self::read::Cost;
use self::series::{Frame, Grid};
use super::plan::{LogPlan, MetricPlan};
use super::{Answer, Limits, Params, Series, Value};
use crate::error::Result;

/// Evaluates a log query.
pub async fn log(scan: &dyn Scan, plan: &LogPlan, params: &Params, context: &Context) -> Result<Answer> {
    let mut cost = Cost::default();
    let streams = streams::run(scan, plan, params, context, &mut cost).await?;
    Ok(answer(Value::Streams(streams), cost))
}

/// Evaluates a metric query over a range.
pub async fn metric_range(
    scan: &dyn Scan,
    plan: &MetricPlan,
    params: &Params,
    limits: &Limits,
    context: &Context,
) -> Result<Answer> {
    let mut cost = Cost::default();
    let grid = Grid::new(params.start_ns, params.end_ns, params.step_ns)?;
    let evaluator = Evaluator { scan, grid, context };
    let mut frame = match evaluator.eval(plan, &mut cost).await? {
        Operand::Scalar(value) => metric::constant(value, &grid),
        Operand::Frame(frame) => frame,
    };
    metric::check_series(frame.len(), limits)?;
    frame.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(answer(Value::Matrix(series(frame, &grid)), cost))
}

/// Evaluates a metric query at one time.
pub async fn metric_instant(
    scan: &dyn Scan,
    plan: &MetricPlan,
    params: &Params,
    limits: &Limits,
    context: &Context,
) -> Result<Answer> {
    let mut cost = Cost::default();
    let grid = Grid::new(params.start_ns, params.start_ns, 0)?;
    let evaluator = Evaluator { scan, grid, context };
    let value = match evaluator.eval(plan, &mut cost).await? {
        Operand::Scalar(value) => Value::Scalar(params.start_ns, value),
        Operand::Frame(mut frame) => {
            metric::check_series(frame.len(), limits)?;
            if !orders(plan) {
                frame.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            Value::Vector(series(frame, &grid))
        }
    };
    Ok(answer(value, cost))
}

/// Whether the order of the series means something.
fn orders(plan: &MetricPlan) -> bool {
    use super::ast::VectorOp;
    let MetricPlan::Vector(plan) = plan else { return false };
    matches!(plan.op, VectorOp::Sort | VectorOp::SortDesc | VectorOp::Topk | VectorOp::Bottomk | VectorOp::ApproxTopk)
}

fn series(frame: Frame, grid: &Grid) -> Vec<Series> {
    let one = |series: series::Points| Series {
        labels: series.labels,
        points: series.points.into_iter().map(|(step, value)| (grid.time(step), value)).collect(),
    };
    frame.into_iter().map(one).collect()
}

fn answer(value: Value, cost: Cost) -> Answer {
    Answer {
        value,
        warnings: Vec::new(),
        lines_read: cost.lines_read,
        bytes_read: cost.bytes_read,
        metadata_bytes_read: cost.metadata_bytes_read,
        lines_passed: cost.lines_passed,
    }
}

#[cfg(test)]
mod tests;
