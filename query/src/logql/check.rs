//! What a parsed query must also fulfil: which aggregation goes with which operand, and folding of literals.
//!
//! Owns: the rules between nodes. Does not own: what is inside a stage (regexes, templates, patterns, addresses);
//! `plan` compiles these and reports what does not compile.

use super::ast::{Expr, MetricExpr, RangeAggregation, RangeOp};
use super::eval::binary;
use super::lexer::semantic_error;
use crate::error::Result;

/// Checks a query and folds literal arithmetic.
pub fn check(expr: Expr) -> Result<Expr> {
    match expr {
        Expr::Log(log) => Ok(Expr::Log(log)),
        Expr::Metric(mut metric) => {
            check_metric(&mut metric)?;
            Ok(Expr::Metric(metric))
        }
    }
}

fn check_metric(metric: &mut MetricExpr) -> Result<()> {
    let folded = match metric {
        MetricExpr::Range(node) => return check_range(node),
        MetricExpr::Vector(node) => return check_metric(&mut node.operand),
        MetricExpr::LabelReplace(node) => return check_metric(&mut node.operand),
        MetricExpr::Literal(..) | MetricExpr::Constant(..) => return Ok(()),
        MetricExpr::Binary(node) => {
            check_metric(&mut node.left)?;
            check_metric(&mut node.right)?;
            match (&node.left, &node.right) {
                (MetricExpr::Literal(left, _), MetricExpr::Literal(right, _)) => {
                    MetricExpr::Literal(binary::of_literals(node.op, *left, *right), node.span)
                }
                _ => return Ok(()),
            }
        }
    };
    *metric = folded;
    Ok(())
}

/// Whether an aggregation reads unwrapped values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unwraps {
    Must,
    May,
    Never,
}

/// One row for each aggregation: whether it unwraps, whether it may be grouped.
fn rules(op: RangeOp) -> (Unwraps, bool) {
    match op {
        RangeOp::Count | RangeOp::Bytes | RangeOp::BytesRate => (Unwraps::Never, false),
        RangeOp::Rate | RangeOp::Absent => (Unwraps::May, false),
        RangeOp::RateCounter | RangeOp::Sum => (Unwraps::Must, false),
        RangeOp::Avg
        | RangeOp::Min
        | RangeOp::Max
        | RangeOp::Stddev
        | RangeOp::Stdvar
        | RangeOp::Quantile
        | RangeOp::First
        | RangeOp::Last => (Unwraps::Must, true),
    }
}

fn check_range(node: &RangeAggregation) -> Result<()> {
    let name = node.op.name();
    let (unwraps, grouped) = rules(node.op);
    if node.grouping.is_some() && !grouped {
        return Err(semantic_error(node.span, format!("grouping not allowed for {name} aggregation")));
    }
    let wrong = match (&node.unwrap, unwraps) {
        (Some(_), Unwraps::Never) => Some("with"),
        (None, Unwraps::Must) => Some("without"),
        _ => None,
    };
    if let Some(word) = wrong {
        return Err(semantic_error(node.span, format!("invalid aggregation {name} {word} unwrap")));
    }
    match (node.op, node.parameter) {
        (RangeOp::Quantile, None) => Err(semantic_error(node.span, format!("parameter required for operation {name}"))),
        (RangeOp::Quantile, Some(_)) | (_, None) => Ok(()),
        (_, Some(parameter)) => {
            Err(semantic_error(node.span, format!("parameter {parameter} not supported for operation {name}")))
        }
    }
}
