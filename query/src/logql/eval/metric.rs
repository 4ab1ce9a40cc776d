//! Metric queries: walks the plan from its leaves.
//!
//! Owns: the walk, `label_replace`, the limit of series. Does not own: any operator.

use futures::future::BoxFuture;
use storage::{Context, Scan};

use super::binary::{self, Operand};
use super::read::Cost;
use super::series::{Frame, Grid, LabelPairs, Points, value_of};
use super::{aggregate, range};
use crate::error::{Error, Kind, Result};
use crate::logql::Limits;
use crate::logql::plan::{LabelReplacePlan, MetricPlan};

/// What every part of a metric query needs.
pub struct Evaluator<'q> {
    /// The door to entries.
    pub scan: &'q dyn Scan,
    /// The steps.
    pub grid: Grid,
    /// Deadline and memory.
    pub context: &'q Context,
}

impl<'q> Evaluator<'q> {
    /// The value of `plan` at every step.
    pub fn eval<'a>(&'a self, plan: &'a MetricPlan, cost: &'a mut Cost) -> BoxFuture<'a, Result<Operand>> {
        Box::pin(async move {
            Ok(match plan {
                MetricPlan::Literal(value) => Operand::Scalar(*value),
                MetricPlan::Constant(value) => Operand::Frame(constant(*value, &self.grid)),
                MetricPlan::Range(plan) => {
                    Operand::Frame(range::run(self.scan, plan, &self.grid, self.context, cost).await?)
                }
                MetricPlan::Vector(plan) => {
                    let operand = self.frame(&plan.operand, cost).await?;
                    Operand::Frame(aggregate::run(plan, operand, &self.grid, self.context)?)
                }
                MetricPlan::LabelReplace(plan) => {
                    let operand = self.frame(&plan.operand, cost).await?;
                    Operand::Frame(label_replace(plan, operand)?)
                }
                MetricPlan::Binary(plan) => {
                    let left = self.eval(&plan.left, cost).await?;
                    let right = self.eval(&plan.right, cost).await?;
                    binary::run(plan, left, right, &self.grid, self.context)?
                }
            })
        })
    }

    /// The same as series: a number becomes one without labels.
    async fn frame(&self, plan: &MetricPlan, cost: &mut Cost) -> Result<Frame> {
        Ok(match self.eval(plan, cost).await? {
            Operand::Scalar(value) => constant(value, &self.grid),
            Operand::Frame(frame) => frame,
        })
    }
}

/// One series without labels that is `value` at every step.
pub fn constant(value: f64, grid: &Grid) -> Frame {
    vec![Points { labels: Vec::new(), points: (0..grid.steps).map(|step| (step, value)).collect() }]
}

/// Refuses an answer with too many series.
pub fn check_series(series: usize, limits: &Limits) -> Result<()> {
    if series <= limits.series_max {
        return Ok(());
    }
    Err(Error::new(
        Kind::Limit,
        format!(
            "maximum number of series ({}) reached for a single query; consider reducing query cardinality by adding \
             more specific stream selectors, reducing the time range, or aggregating results with functions like \
             sum(), count() or topk()",
            limits.series_max
        ),
    ))
}

fn label_replace(plan: &LabelReplacePlan, frame: Frame) -> Result<Frame> {
    let mut replaced = Vec::with_capacity(frame.len());
    let mut seen: hashbrown::HashSet<LabelPairs, ahash::RandomState> = hashbrown::HashSet::default();
    for mut series in frame {
        if let Some(captures) = plan.regex.captures(value_of(&series.labels, &plan.source)) {
            let mut value = String::new();
            captures.expand(&plan.replacement, &mut value);
            series.labels.retain(|(name, _)| *name != plan.destination);
            if !value.is_empty() {
                series.labels.push((plan.destination.clone(), value));
                series.labels.sort();
            }
        }
        if !seen.insert(series.labels.clone()) {
            return Err(Error::new(Kind::Execution, "label_replace gives two series the same labels"));
        }
        replaced.push(series);
    }
    Ok(replaced)
}
