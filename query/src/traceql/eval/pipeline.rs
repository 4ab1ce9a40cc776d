//! Pipelines over the spansets of one trace.
//!
//! Owns: stages, spanset operators, grouping, aggregates. Does not own: relations between spans (`eval::tree`),
//! expressions over a span (`eval::field`), what an answer shows (`eval::search`).

use hashbrown::HashMap;
use storage::model::value::Value;

use super::super::ast::{Aggregate, SpansetOp};
use super::super::plan::{Expr, SpansetPlan, StagePlan};
use super::field::{passes, value};
use super::trace::{SpanAt, Trace};
use super::value::{Val, holds};
use crate::error::{Error, Kind, Result};

/// A spanset on its way through a pipeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Numbers of spans, ascending.
    pub spans: Vec<u32>,
    /// What stages computed.
    pub attributes: Vec<(String, Value)>,
}

/// Runs `stages` over all spans of `trace`. Spansets that are empty are gone.
pub fn run<'v>(stages: &'v [StagePlan], trace: &'v Trace<'v>) -> Result<Vec<Group>> {
    let spans = (0..trace.len()).map(|span| u32::try_from(span).unwrap_or(u32::MAX)).collect();
    run_over(stages, trace, spans)
}

fn run_over<'v>(stages: &'v [StagePlan], trace: &'v Trace<'v>, spans: Vec<u32>) -> Result<Vec<Group>> {
    let mut groups = vec![Group { spans, attributes: Vec::new() }];
    for stage in stages {
        groups = match stage {
            StagePlan::Spansets(plan) => filter_groups(plan, trace, groups)?,
            StagePlan::By(expr, name) => split(expr, name, trace, groups)?,
            StagePlan::Coalesce => coalesce(groups),
            StagePlan::Select => groups,
            StagePlan::Scalar { aggregate, of, op, threshold, name } => {
                let mut kept = Vec::with_capacity(groups.len());
                for mut group in groups {
                    let scalar = aggregate_of(*aggregate, of.as_ref(), trace, &group.spans)?;
                    if holds(*op, &scalar, threshold) {
                        group.attributes.push((name.clone(), scalar.to_value()));
                        kept.push(group);
                    }
                }
                kept
            }
        };
        groups.retain(|group| !group.spans.is_empty());
        if groups.is_empty() {
            break;
        }
    }
    Ok(groups)
}

fn filter_groups<'v>(plan: &'v SpansetPlan, trace: &'v Trace<'v>, groups: Vec<Group>) -> Result<Vec<Group>> {
    if groups.len() > 1 && has_relation(plan) {
        return Err(Error::new(
            Kind::Invalid,
            "structural operators take one spanset per trace: put coalesce() after by()",
        ));
    }
    groups
        .into_iter()
        .map(|group| Ok(Group { spans: spanset(plan, trace, &group.spans)?, attributes: group.attributes }))
        .collect()
}

fn has_relation(plan: &SpansetPlan) -> bool {
    match plan {
        SpansetPlan::All | SpansetPlan::Filter(_) | SpansetPlan::Pipeline(_) => false,
        SpansetPlan::Binary(op, left, right) => {
            matches!(op, SpansetOp::Relation(..)) || has_relation(left) || has_relation(right)
        }
    }
}

/// The spans of `input` that a spanset expression gives.
pub fn spanset<'v>(plan: &'v SpansetPlan, trace: &'v Trace<'v>, input: &[u32]) -> Result<Vec<u32>> {
    match plan {
        SpansetPlan::All => Ok(input.to_vec()),
        SpansetPlan::Filter(filter) => {
            let mut kept = Vec::new();
            for span in input {
                if passes(filter, trace, *span as usize)? {
                    kept.push(*span);
                }
            }
            Ok(kept)
        }
        SpansetPlan::Pipeline(stages) => {
            let groups = run_over(stages, trace, input.to_vec())?;
            Ok(merged(groups.into_iter().flat_map(|group| group.spans).collect()))
        }
        SpansetPlan::Binary(op, left, right) => {
            let left = spanset(left, trace, input)?;
            if *op == SpansetOp::And && left.is_empty() {
                return Ok(Vec::new());
            }
            let right = spanset(right, trace, input)?;
            Ok(match op {
                SpansetOp::And if right.is_empty() => Vec::new(),
                SpansetOp::And | SpansetOp::Or => merged([left, right].concat()),
                SpansetOp::Relation(relation, keep) => {
                    if right.is_empty() {
                        return Ok(Vec::new());
                    }
                    trace.tree().related(*relation, *keep, &left, &right)
                }
            })
        }
    }
}

fn merged(mut spans: Vec<u32>) -> Vec<u32> {
    spans.sort_unstable();
    spans.dedup();
    spans
}

fn split<'v>(expr: &'v Expr, name: &str, trace: &'v Trace<'v>, groups: Vec<Group>) -> Result<Vec<Group>> {
    let mut result: Vec<Group> = Vec::new();
    for group in groups {
        let mut known: HashMap<String, usize, ahash::RandomState> = HashMap::default();
        let mut key = String::new();
        for span in group.spans {
            let value = value(expr, &SpanAt::new(trace, span as usize))?;
            key.clear();
            value.write_key(&mut key);
            let at = match known.get(&key) {
                Some(at) => *at,
                None => {
                    let mut attributes = group.attributes.clone();
                    attributes.push((name.to_owned(), value.to_value()));
                    result.push(Group { spans: Vec::new(), attributes });
                    known.insert(key.clone(), result.len() - 1);
                    result.len() - 1
                }
            };
            result[at].spans.push(span);
        }
    }
    Ok(result)
}

/// Joins the spansets again; what `by` and aggregates computed is gone with them.
fn coalesce(groups: Vec<Group>) -> Vec<Group> {
    let spans = merged(groups.into_iter().flat_map(|group| group.spans).collect());
    vec![Group { spans, attributes: Vec::new() }]
}

/// The aggregate over spans that have the value; `Nil` if none has.
fn aggregate_of<'v>(
    aggregate: Aggregate,
    of: Option<&'v Expr>,
    trace: &'v Trace<'v>,
    spans: &[u32],
) -> Result<Val<'static>> {
    let Some(expr) = of else {
        return Ok(Val::Int(i64::try_from(spans.len()).unwrap_or(i64::MAX)));
    };
    let mut folded: Option<Val<'static>> = None;
    let mut count = 0u32;
    for span in spans {
        let value = value(expr, &SpanAt::new(trace, *span as usize))?;
        if value.as_number().is_none() {
            continue;
        }
        count += 1;
        let value = value.into_owned();
        folded = Some(match (folded, aggregate) {
            (None, _) => value,
            (Some(best), Aggregate::Min) => {
                if holds_less(&value, &best) {
                    value
                } else {
                    best
                }
            }
            (Some(best), Aggregate::Max) => {
                if holds_less(&best, &value) {
                    value
                } else {
                    best
                }
            }
            (Some(sum), _) => super::value::arithmetic(super::super::ast::BinaryOp::Add, &sum, &value)?,
        });
    }
    let Some(folded) = folded else { return Ok(Val::Nil) };
    if aggregate != Aggregate::Avg {
        return Ok(folded);
    }
    let mean = folded.as_number().unwrap_or(f64::NAN) / f64::from(count);
    Ok(match folded {
        // Nanoseconds have no fraction.
        Val::Duration(_) => Val::Duration(mean as i64),
        _ => Val::Float(mean),
    })
}

fn holds_less(left: &Val<'_>, right: &Val<'_>) -> bool {
    left.compare(right).is_some_and(std::cmp::Ordering::is_lt)
}
