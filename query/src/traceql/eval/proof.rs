//! What a query proves about the spans it needs: told to the scan, so that it may read less.
//!
//! Owns: the proofs. Does not own: the tests themselves, which run on spans again (`eval::field`), nor what is read
//! twice because of them (`eval::stream`).
//!
//! A proof is a list of tests that each span must pass for an expression to be true of it; an empty list proves nothing.

use std::sync::Arc;

use storage::model::batch::SERVICE_NAME;
use storage::model::value::Value;
use storage::scan::Conjunct;

use super::super::ast::{BinaryOp, Intrinsic, SpansetOp};
use super::super::plan::{Expr, Plan, Source, SpansetPlan, StagePlan};
use super::trace::Resources;
use super::value::{Val, holds};

/// A condition that more resources pass is tested on spans only.
const RESOURCES_MAX: usize = 16;
/// From here on several integers are one double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// What expressions are proved with.
pub struct Prover<'p> {
    plan: &'p Plan,
    resources: &'p Resources,
}

impl<'p> Prover<'p> {
    /// For the spans of `resources`.
    pub fn new(plan: &'p Plan, resources: &'p Resources) -> Self {
        Self { plan, resources }
    }

    /// What every span passes that all stages keep; only of plans that look at spans one by one.
    pub fn of_each_span(&self) -> Vec<Conjunct> {
        let spansets = self.plan.stages.iter().filter_map(|stage| match stage {
            StagePlan::Spansets(spansets) => Some(spansets),
            _ => None,
        });
        spansets.flat_map(|spansets| self.of_each(spansets)).collect()
    }

    /// What at least one span passes of each trace of which a stage keeps any.
    pub fn of_some_span(&self) -> Vec<Conjunct> {
        self.of_stages(&self.plan.stages)
    }

    fn of_stages(&self, stages: &[StagePlan]) -> Vec<Conjunct> {
        let proofs = stages.iter().map(|stage| match stage {
            StagePlan::Spansets(spansets) => self.of_some(spansets),
            _ => Vec::new(),
        });
        proofs.into_iter().find(|proof| !proof.is_empty()).unwrap_or_default()
    }

    fn of_each(&self, spansets: &SpansetPlan) -> Vec<Conjunct> {
        match spansets {
            SpansetPlan::Filter(filter) => self.of_expr(&filter.expr),
            SpansetPlan::Binary(SpansetOp::Or, left, right) => either(self.of_each(left), self.of_each(right)),
            SpansetPlan::All | SpansetPlan::Binary(..) | SpansetPlan::Pipeline(_) => Vec::new(),
        }
    }

    fn of_some(&self, spansets: &SpansetPlan) -> Vec<Conjunct> {
        match spansets {
            SpansetPlan::All => Vec::new(),
            SpansetPlan::Filter(filter) => self.of_expr(&filter.expr),
            SpansetPlan::Pipeline(stages) => self.of_stages(stages),
            SpansetPlan::Binary(SpansetOp::Or, left, right) => either(self.of_some(left), self.of_some(right)),
            // Nothing comes of it when the right side is empty, whichever operator it is.
            SpansetPlan::Binary(op, left, right) => match self.of_some(right) {
                proof if proof.is_empty() && *op == SpansetOp::And => self.of_some(left),
                proof => proof,
            },
        }
    }

    fn of_expr(&self, expr: &Expr) -> Vec<Conjunct> {
        match expr {
            Expr::And(left, right) => [self.of_expr(left), self.of_expr(right)].concat(),
            Expr::Or(left, right) => either(self.of_expr(left), self.of_expr(right)),
            Expr::Compare(op, left, right) => match (left.as_ref(), right.as_ref()) {
                (Expr::Source(source), Expr::Const(constant)) => self.of_comparison(*op, source, constant),
                (Expr::Const(constant), Expr::Source(source)) => self.of_comparison(op.mirrored(), source, constant),
                _ => Vec::new(),
            },
            // A missing value matches neither `=~` nor `!~`, and is what `!= nil` is about.
            Expr::Regex(tested, ..) | Expr::Nil(tested, true) => match tested.as_ref() {
                Expr::Source(Source::Span(key)) => vec![has_key("attributes", key)],
                Expr::Source(Source::Instrumentation(key)) => vec![has_key("scope_attributes", key)],
                _ => Vec::new(),
            },
            Expr::Const(_)
            | Expr::Source(_)
            | Expr::Not(_)
            | Expr::Neg(_)
            | Expr::Nil(_, false)
            | Expr::Arithmetic(..) => Vec::new(),
        }
    }

    fn of_comparison(&self, op: BinaryOp, source: &Source, constant: &Val<'_>) -> Vec<Conjunct> {
        match source {
            Source::Span(key) => of_attribute("attributes", key, op, constant),
            Source::Instrumentation(key) => of_attribute("scope_attributes", key, op, constant),
            Source::Resource(slot) => self.of_resources(*slot, op, constant).into_iter().collect(),
            Source::Any(key, slot) => {
                let on_span = of_attribute("attributes", key, op, constant);
                either(on_span, self.of_resources(*slot, op, constant).into_iter().collect())
            }
            Source::Intrinsic(intrinsic) => of_intrinsic(*intrinsic, op, constant).into_iter().collect(),
            Source::Event(_) | Source::Link(_) => Vec::new(),
        }
    }

    /// The resources that pass, if they are few.
    fn of_resources(&self, slot: usize, op: BinaryOp, constant: &Val<'_>) -> Option<Conjunct> {
        let passed = self.resources.passing(slot, &|value| holds(op, value, constant));
        let one = |id: i64| Conjunct::LongBetween { column: "resource_id", first: id, last: id };
        if passed.len() <= RESOURCES_MAX {
            return Some(match passed.as_slice() {
                [id] => one(*id),
                ids => Conjunct::AnyOf(ids.iter().map(|id| vec![one(*id)]).collect()),
            });
        }
        let key = self.plan.resource_keys.get(slot)?;
        match constant {
            Val::Str(text) if op == BinaryOp::Equal && key == SERVICE_NAME => Some(text_in("service_name", text)),
            _ => None,
        }
    }
}

/// What holds when one of two proofs does.
fn either(left: Vec<Conjunct>, right: Vec<Conjunct>) -> Vec<Conjunct> {
    match left.is_empty() || right.is_empty() {
        true => Vec::new(),
        false => vec![Conjunct::AnyOf(vec![left, right])],
    }
}

fn text_in(column: &'static str, text: &str) -> Conjunct {
    Conjunct::TextIn { column, texts: [Arc::from(text)].into() }
}

fn has_key(column: &'static str, key: &str) -> Conjunct {
    Conjunct::HasKey { column, key: key.into() }
}

/// A comparison with an attribute: a missing one fails every operator, a list passes if one of its elements does.
fn of_attribute(column: &'static str, key: &str, op: BinaryOp, constant: &Val<'_>) -> Vec<Conjunct> {
    let texts = if op == BinaryOp::Equal { equal_texts(constant) } else { None };
    vec![match texts {
        Some(values) => Conjunct::EntryInOrList { column, key: key.into(), values },
        None => has_key(column, key),
    }]
}

/// The typed texts of all single values that equal `constant`.
fn equal_texts(constant: &Val<'_>) -> Option<Arc<[Arc<str>]>> {
    let texts = |values: &[Value]| values.iter().map(|value| value.to_text().into()).collect();
    let double = |x: f64| if x == 0.0 { vec![Value::Double(0.0), Value::Double(-0.0)] } else { vec![Value::Double(x)] };
    Some(match constant {
        Val::Str(text) => texts(&[Value::String(text.clone().into_owned())]),
        Val::Bool(value) => texts(&[Value::Bool(*value)]),
        Val::Int(n) | Val::Duration(n) => {
            let mut values = double(*n as f64);
            values.push(Value::Int(*n));
            texts(&values)
        }
        Val::Float(x) if x.abs() < EXACT_MAX => {
            let mut values = double(*x);
            if x.fract() == 0.0 {
                values.push(Value::Int(*x as i64));
            }
            texts(&values)
        }
        _ => return None,
    })
}

fn of_intrinsic(intrinsic: Intrinsic, op: BinaryOp, constant: &Val<'_>) -> Option<Conjunct> {
    let number = |column: &'static str, n: i64| {
        let (first, last) = match op {
            BinaryOp::Equal => (n, n),
            BinaryOp::Less => (i64::MIN, n.checked_sub(1)?),
            BinaryOp::LessEqual => (i64::MIN, n),
            BinaryOp::Greater => (n.checked_add(1)?, i64::MAX),
            BinaryOp::GreaterEqual => (n, i64::MAX),
            _ => return None,
        };
        Some(Conjunct::LongBetween { column, first, last })
    };
    match (intrinsic, constant) {
        (Intrinsic::Duration, Val::Duration(n) | Val::Int(n)) => number("duration_ns", *n),
        (Intrinsic::Status, Val::Status(n)) => number("status_code", i64::from(*n)),
        (Intrinsic::Kind, Val::Kind(n)) => number("kind", i64::from(*n)),
        (Intrinsic::Name, Val::Str(text)) if op == BinaryOp::Equal => Some(text_in("name", text)),
        // Stored as null when empty.
        (Intrinsic::StatusMessage, Val::Str(text)) if op == BinaryOp::Equal && !text.is_empty() => {
            Some(text_in("status_message", text))
        }
        _ => None,
    }
}
