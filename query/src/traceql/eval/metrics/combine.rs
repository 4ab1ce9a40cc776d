//! What follows metrics functions: `topk`, `bottomk`, comparisons, arithmetic between queries.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use hashbrown::HashMap;
use storage::model::value::Value;

use super::super::super::MetricsSeries;
use super::super::super::ast::{BinaryOp, Metrics, SecondStage};
use super::collect::label_order;
use super::{NAME, in_samples};
use crate::error::Result;

/// A value of a metrics expression.
enum Side {
    Number(f64),
    Series(Vec<MetricsSeries>),
}

/// Evaluates the expression over the series of its queries, left to right.
pub(super) fn evaluate(
    metrics: &Metrics,
    results: &mut impl Iterator<Item = Vec<MetricsSeries>>,
) -> Result<Vec<MetricsSeries>> {
    match side(metrics, results)? {
        Side::Series(series) => Ok(series),
        Side::Number(_) => Ok(Vec::new()),
    }
}

fn side(metrics: &Metrics, results: &mut impl Iterator<Item = Vec<MetricsSeries>>) -> Result<Side> {
    Ok(match metrics {
        Metrics::Number(x) => Side::Number(*x),
        Metrics::Query(_) => Side::Series(results.next().unwrap_or_default()),
        Metrics::Then(inner, stage) => {
            let Side::Series(series) = side(inner, results)? else { return Ok(Side::Series(Vec::new())) };
            Side::Series(match stage {
                SecondStage::TopK(n) => ranked(series, *n, true),
                SecondStage::BottomK(n) => ranked(series, *n, false),
                SecondStage::Filter(op, threshold) => filtered(series, *op, in_samples(threshold)),
            })
        }
        Metrics::Binary(op, left, right) => match (side(left, results)?, side(right, results)?) {
            (Side::Number(a), Side::Number(b)) => Side::Number(apply(*op, a, b).unwrap_or(f64::NAN)),
            (Side::Series(series), Side::Number(b)) => Side::Series(each_sample(series, |a| apply(*op, a, b))),
            (Side::Number(a), Side::Series(series)) => Side::Series(each_sample(series, |b| apply(*op, a, b))),
            (Side::Series(left), Side::Series(right)) => Side::Series(paired(*op, left, right)),
        },
    })
}

/// `None` where there is no number: division by zero.
fn apply(op: BinaryOp, a: f64, b: f64) -> Option<f64> {
    let value = match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div if b == 0.0 => return None,
        BinaryOp::Div => a / b,
        _ => return None,
    };
    (!value.is_nan()).then_some(value)
}

fn each_sample(series: Vec<MetricsSeries>, apply: impl Fn(f64) -> Option<f64>) -> Vec<MetricsSeries> {
    let mut series = series;
    for one in &mut series {
        one.samples = one.samples.iter().filter_map(|(t, value)| Some((*t, apply(*value)?))).collect();
    }
    series.retain(|one| !one.samples.is_empty());
    series
}

fn filtered(series: Vec<MetricsSeries>, op: BinaryOp, threshold: f64) -> Vec<MetricsSeries> {
    let keeps = |value: f64| match op {
        BinaryOp::Equal => value == threshold,
        BinaryOp::NotEqual => value != threshold,
        BinaryOp::Less => value < threshold,
        BinaryOp::LessEqual => value <= threshold,
        BinaryOp::Greater => value > threshold,
        _ => value >= threshold,
    };
    each_sample(series, |value| keeps(value).then_some(value))
}

/// Per interval the `n` greatest (smallest) samples. Of equal ones the first series by label stays (the last).
fn ranked(mut series: Vec<MetricsSeries>, n: i64, greatest: bool) -> Vec<MetricsSeries> {
    let n = usize::try_from(n).unwrap_or(0);
    if series.len() <= n {
        return series;
    }
    series.sort_by(|a, b| label_order(&a.labels, &b.labels));
    let mut by_time: BTreeMap<i64, Vec<(f64, usize)>> = BTreeMap::new();
    for (at, one) in series.iter().enumerate() {
        for (t, value) in &one.samples {
            by_time.entry(*t).or_default().push((*value, at));
        }
    }
    for one in &mut series {
        one.samples.clear();
    }
    for (t, mut list) in by_time {
        list.sort_by(|a, b| {
            let order = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1));
            if greatest { order } else { order.reverse() }
        });
        for (value, at) in list.into_iter().take(n) {
            series[at].samples.push((t, value));
        }
    }
    series.retain(|one| !one.samples.is_empty());
    series
}

fn name_of(series: &MetricsSeries) -> Option<&str> {
    series.labels.iter().find_map(|(name, value)| match value {
        Value::String(text) if name == NAME => Some(text.as_str()),
        _ => None,
    })
}

/// The labels that pair series: all but the name.
fn pairing(series: &MetricsSeries) -> Vec<(String, Value)> {
    series.labels.iter().filter(|(name, _)| name != NAME).cloned().collect()
}

fn paired(op: BinaryOp, left: Vec<MetricsSeries>, right: Vec<MetricsSeries>) -> Vec<MetricsSeries> {
    let lone = |side: &[MetricsSeries]| matches!(side, [one] if pairing(one).is_empty());
    if lone(&left) && !lone(&right) {
        return right.iter().filter_map(|right| join(op, &left[0], right, right)).collect();
    }
    if lone(&right) && !lone(&left) {
        return left.iter().filter_map(|left| join(op, left, &right[0], left)).collect();
    }
    let key = |series: &MetricsSeries| {
        let mut pairs: Vec<String> = pairing(series).iter().map(|(n, v)| format!("{n}\u{0}{}", v.to_text())).collect();
        pairs.sort();
        pairs
    };
    let by_labels: HashMap<Vec<String>, &MetricsSeries, ahash::RandomState> =
        right.iter().map(|series| (key(series), series)).collect();
    left.iter().filter_map(|left| join(op, left, by_labels.get(&key(left))?, left)).collect()
}

/// Joins two series sample by sample under the labels of one of them.
fn join(op: BinaryOp, left: &MetricsSeries, right: &MetricsSeries, labelled: &MetricsSeries) -> Option<MetricsSeries> {
    let mut labels = pairing(labelled);
    if let (Some(left), Some(right)) = (name_of(left), name_of(right)) {
        labels.insert(0, (NAME.to_owned(), Value::String(format!("({left} {} {right})", op.sign()))));
    }
    let other: HashMap<i64, f64, ahash::RandomState> = right.samples.iter().copied().collect();
    let samples: Vec<(i64, f64)> =
        left.samples.iter().filter_map(|(t, value)| Some((*t, apply(op, *value, *other.get(t)?)?))).collect();
    (!samples.is_empty()).then(|| MetricsSeries { labels, samples, exemplars: labelled.exemplars.clone() })
}
