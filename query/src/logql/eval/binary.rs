//! Binary operators: between numbers, between a number and series, and between series that match.
//!
//! Owns: arithmetic, matching, labels of the result. Invariant: each step is matched on its own, so that series may
//! share a match group as long as they do not share a step.

use hashbrown::HashMap;
use storage::Context;

use super::series::{Frame, Grid, LabelIndex, LabelPairs, Points, value_of};
use crate::error::{Error, Kind, Result};
use crate::logql::ast::{BinaryOp, Cardinality, Matching};
use crate::logql::plan::BinaryPlan;

/// An evaluated operand.
pub enum Operand {
    /// A number.
    Scalar(f64),
    /// Series.
    Frame(Frame),
}

/// The value of an operator; division by zero is NaN, as in the original. Set operators give NaN.
pub fn arithmetic(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div | BinaryOp::Mod if right == 0.0 => f64::NAN,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        _ => f64::NAN,
    }
}

/// The value of an operator between two literals: comparisons give 0 or 1.
pub fn of_literals(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op.comparison() {
        Some(comparison) => f64::from(u8::from(comparison.holds(left, right))),
        None => arithmetic(op, left, right),
    }
}

/// Evaluates an operator.
pub fn run(plan: &BinaryPlan, left: Operand, right: Operand, grid: &Grid, context: &Context) -> Result<Operand> {
    Ok(match (left, right) {
        (Operand::Scalar(left), Operand::Scalar(right)) => Operand::Scalar(of_literals(plan.op, left, right)),
        (Operand::Frame(frame), Operand::Scalar(right)) => {
            Operand::Frame(with_number(frame, |value| outcome(plan, value, right, value)))
        }
        (Operand::Scalar(left), Operand::Frame(frame)) => {
            Operand::Frame(with_number(frame, |value| outcome(plan, left, value, value)))
        }
        (Operand::Frame(left), Operand::Frame(right)) if plan.op.is_set() => {
            Operand::Frame(set(plan, left, right, grid, context)?)
        }
        (Operand::Frame(left), Operand::Frame(right)) => Operand::Frame(matched(plan, &left, &right, grid, context)?),
    })
}

/// The value of one pair; `None` when a comparison filters it. `kept` is what a comparison that holds gives.
fn outcome(plan: &BinaryPlan, left: f64, right: f64, kept: f64) -> Option<f64> {
    match plan.op.comparison() {
        None => Some(arithmetic(plan.op, left, right)),
        Some(comparison) if plan.returns_bool => Some(f64::from(u8::from(comparison.holds(left, right)))),
        Some(comparison) => comparison.holds(left, right).then_some(kept),
    }
}

fn with_number(mut frame: Frame, value: impl Fn(f64) -> Option<f64>) -> Frame {
    for series in &mut frame {
        series.points = series.points.iter().filter_map(|(step, old)| Some((*step, value(*old)?))).collect();
    }
    frame.retain(|series| !series.points.is_empty());
    frame
}

/// The labels by which series match.
fn signature<'p>(labels: &'p LabelPairs, matching: Option<&Matching>) -> impl Iterator<Item = (&'p str, &'p str)> {
    let chosen: Vec<(&str, &str)> = labels
        .iter()
        .filter(|(name, value)| {
            let listed = |matching: &Matching| matching.labels.iter().any(|label| label == name);
            !value.is_empty() && matching.is_none_or(|matching| listed(matching) == matching.on)
        })
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    chosen.into_iter()
}

/// Numbers the match group of each series of both sides.
fn match_groups(left: &Frame, right: &Frame, matching: Option<&Matching>) -> (Vec<usize>, Vec<usize>, usize) {
    let mut index = LabelIndex::default();
    let mut groups = 0;
    let mut number = |series: &Points| {
        let (number, new) = index.number(signature(&series.labels, matching));
        groups += usize::from(new);
        number
    };
    let left = left.iter().map(&mut number).collect();
    let right = right.iter().map(&mut number).collect();
    (left, right, groups)
}

/// Which steps of a group have a series.
fn presence(frame: &Frame, numbers: &[usize], groups: usize, grid: &Grid) -> Vec<Vec<bool>> {
    let mut present: Vec<Vec<bool>> = vec![Vec::new(); groups];
    for (series, number) in frame.iter().zip(numbers) {
        let steps = &mut present[*number];
        steps.resize(grid.steps as usize, false);
        for (step, _) in &series.points {
            steps[*step as usize] = true;
        }
    }
    present
}

fn set(plan: &BinaryPlan, left: Frame, right: Frame, grid: &Grid, context: &Context) -> Result<Frame> {
    let (left_numbers, right_numbers, groups) = match_groups(&left, &right, plan.matching.as_ref());
    let _memory = context.reserve(groups.saturating_mul(grid.steps as usize))?;
    let filtered = |frame: Frame, numbers: &[usize], other: &[Vec<bool>], wanted: bool| -> Frame {
        let mut kept = Vec::with_capacity(frame.len());
        for (mut series, number) in frame.into_iter().zip(numbers) {
            let there = |step: u32| other[*number].get(step as usize).copied().unwrap_or(false);
            series.points.retain(|(step, _)| there(*step) == wanted);
            if !series.points.is_empty() {
                kept.push(series);
            }
        }
        kept
    };
    Ok(match plan.op {
        BinaryOp::And => {
            let present = presence(&right, &right_numbers, groups, grid);
            filtered(left, &left_numbers, &present, true)
        }
        BinaryOp::Unless => {
            let present = presence(&right, &right_numbers, groups, grid);
            filtered(left, &left_numbers, &present, false)
        }
        _ => {
            let present = presence(&left, &left_numbers, groups, grid);
            merged(left, filtered(right, &right_numbers, &present, false))
        }
    })
}

/// Both frames; series with equal labels, which never share a step, become one.
fn merged(left: Frame, right: Frame) -> Frame {
    let mut result = Collected::default();
    for series in left.into_iter().chain(right) {
        for (step, value) in series.points {
            result.add(&series.labels, step, value);
        }
    }
    result.finish()
}

/// Collects points by labels.
#[derive(Default)]
struct Collected {
    places: HashMap<LabelPairs, usize, ahash::RandomState>,
    frame: Frame,
}

impl Collected {
    fn add(&mut self, labels: &LabelPairs, step: u32, value: f64) {
        let place = match self.places.get(labels) {
            Some(place) => *place,
            None => {
                self.places.insert(labels.clone(), self.frame.len());
                self.frame.push(Points { labels: labels.clone(), points: Vec::new() });
                self.frame.len() - 1
            }
        };
        self.frame[place].points.push((step, value));
    }

    /// Sorted; a step that appears twice keeps its first value.
    fn finish(mut self) -> Frame {
        for series in &mut self.frame {
            series.points.sort_by_key(|(step, _)| *step);
            series.points.dedup_by_key(|(step, _)| *step);
        }
        self.frame
    }

    /// The same, but a step that appears twice is an error.
    fn finish_unique(mut self) -> Result<Frame> {
        for series in &mut self.frame {
            series.points.sort_by_key(|(step, _)| *step);
            if series.points.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return Err(Error::new(
                    Kind::Execution,
                    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                ));
            }
        }
        Ok(self.frame)
    }
}

/// Arithmetic and comparisons between series.
fn matched(plan: &BinaryPlan, left: &Frame, right: &Frame, grid: &Grid, context: &Context) -> Result<Frame> {
    let cardinality = plan.matching.as_ref().map_or(Cardinality::OneToOne, |matching| matching.cardinality);
    // The side that may have many is walked, the other looked up.
    let swapped = cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let (many_numbers, one_numbers, groups) = match_groups(many, one, plan.matching.as_ref());
    let _memory = context.reserve(groups.saturating_mul(grid.steps as usize).saturating_mul(24))?;
    let mut table: Vec<Vec<Option<(usize, f64)>>> = vec![Vec::new(); groups];
    for (place, (series, number)) in one.iter().zip(&one_numbers).enumerate() {
        let steps = &mut table[*number];
        steps.resize(grid.steps as usize, None);
        for (step, value) in &series.points {
            let slot = &mut steps[*step as usize];
            if slot.is_some() {
                return Err(duplicate(&series.labels, if swapped { "left" } else { "right" }));
            }
            *slot = Some((place, *value));
        }
    }
    let mut result = Collected::default();
    for (series, number) in many.iter().zip(&many_numbers) {
        context.check()?;
        for (step, value) in &series.points {
            let Some((place, other)) = table[*number].get(*step as usize).copied().flatten() else { continue };
            let (a, b) = if swapped { (other, *value) } else { (*value, other) };
            if let Some(value) = outcome(plan, a, b, a) {
                result.add(&result_labels(plan.matching.as_ref(), &series.labels, &one[place].labels), *step, value);
            }
        }
    }
    result.finish_unique()
}

fn duplicate(labels: &LabelPairs, side: &str) -> Error {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    Error::new(
        Kind::Execution,
        format!(
            "found duplicate series on the {side} side of the operation: {{{}}}; many-to-many matching not allowed: \
             matching labels must be unique on one side",
            pairs.join(", ")
        ),
    )
}

fn result_labels(matching: Option<&Matching>, many: &LabelPairs, one: &LabelPairs) -> LabelPairs {
    let Some(matching) = matching else { return many.clone() };
    let listed = |name: &String| matching.labels.contains(name);
    let mut labels = many.clone();
    if matching.cardinality == Cardinality::OneToOne {
        labels.retain(|(name, _)| listed(name) == matching.on);
    }
    for name in &matching.include {
        labels.retain(|(held, _)| held != name);
        let value = value_of(one, name);
        if !value.is_empty() {
            labels.push((name.clone(), value.to_owned()));
        }
    }
    labels.sort();
    labels
}
