//! Types and limits of a parsed query.
//!
//! Owns: which texts that parse are refused, in the words of the original. Attributes have no type until run time
//! and agree with everything. Does not own: evaluation; what passes here may still compare unlike values, which is
//! then false.

use super::ast::{
    Aggregate, BinaryOp, Field, FieldKind, Intrinsic, Metrics, MetricsFunction, MetricsQuery, Pipeline, Query,
    Reference, Root, Scalar, ScalarFilter, SecondStage, Spansets, Stage, Static, UnaryOp,
};
use crate::error::{Error, Kind, Result};

/// The most attributes a metrics function may group by.
const GROUP_BY_MAX: usize = 5;

/// What is known about the value of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// Known at run time only.
    Attribute,
    Nil,
    Bool,
    Number,
    String,
    Status,
    Kind,
}

fn refuse(message: String) -> Error {
    Error::new(Kind::Parse, message)
}

/// Checks a whole query.
pub fn check(query: &Query) -> Result<()> {
    match &query.root {
        Root::Spansets(pipeline) => check_pipeline(pipeline),
        Root::Metrics(metrics) => check_metrics(metrics),
    }
}

fn check_pipeline(pipeline: &Pipeline) -> Result<()> {
    for stage in &pipeline.stages {
        match stage {
            Stage::Spansets(spansets) => check_spansets(spansets)?,
            Stage::By(field) => {
                type_of(field)?;
                if !mentions_span(field) {
                    return Err(refuse(format!("grouping field expressions must reference the span: by({field})")));
                }
            }
            Stage::Coalesce => {}
            Stage::Select(list) => list.iter().try_for_each(check_reference)?,
            Stage::Scalar(filter) => check_scalar_filter(filter)?,
        }
    }
    Ok(())
}

fn check_spansets(spansets: &Spansets) -> Result<()> {
    match spansets {
        Spansets::Filter(None) => Ok(()),
        Spansets::Filter(Some(field)) => match type_of(field)? {
            Type::Bool | Type::Attribute => Ok(()),
            _ => Err(refuse(format!("span filter field expressions must resolve to a boolean: {{ {field} }}"))),
        },
        Spansets::Binary(_, left, right) => {
            check_spansets(left)?;
            check_spansets(right)
        }
        Spansets::Pipeline(pipeline) => check_pipeline(pipeline),
    }
}

fn check_scalar_filter(filter: &ScalarFilter) -> Result<()> {
    check_scalar(&filter.left)?;
    check_scalar(&filter.right)?;
    if !matches!(filter.left, Scalar::Aggregate(..)) {
        return Err(refuse(format!("scalar filter lhs of type ({}) not yet supported", filter.left)));
    }
    if has_aggregate(&filter.right) {
        return Err(refuse(format!("scalar filter rhs of type ({}) not yet supported", filter.right)));
    }
    Ok(())
}

fn has_aggregate(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Static(_) => false,
        Scalar::Aggregate(..) | Scalar::Pipeline(..) => true,
        Scalar::Binary(_, left, right) => has_aggregate(left) || has_aggregate(right),
    }
}

fn check_scalar(scalar: &Scalar) -> Result<()> {
    match scalar {
        Scalar::Static(_) | Scalar::Aggregate(Aggregate::Count, _) | Scalar::Aggregate(_, None) => Ok(()),
        Scalar::Aggregate(aggregate, Some(field)) => {
            let name = aggregate.name();
            if !matches!(type_of(field)?, Type::Number | Type::Attribute) {
                return Err(refuse(format!(
                    "aggregate field expressions must resolve to a number type: {name}({field})"
                )));
            }
            if !mentions_span(field) {
                return Err(refuse(format!("aggregate field expressions must reference the span: {name}({field})")));
            }
            Ok(())
        }
        Scalar::Binary(_, left, right) => {
            check_scalar(left)?;
            check_scalar(right)
        }
        Scalar::Pipeline(pipeline, scalar) => {
            check_pipeline(pipeline)?;
            check_scalar(scalar)
        }
    }
}

fn mentions_span(field: &Field) -> bool {
    match &field.kind {
        FieldKind::Static(_) => false,
        FieldKind::Reference(_) => true,
        FieldKind::Unary(_, inner) => mentions_span(inner),
        FieldKind::Binary(_, left, right) => mentions_span(left) || mentions_span(right),
    }
}

fn check_reference(reference: &Reference) -> Result<()> {
    match reference {
        Reference::Attribute(attribute) if attribute.parent => Err(refuse("parent not yet supported".into())),
        Reference::Intrinsic(Intrinsic::Parent) => Err(refuse("intrinsic (parent) not yet supported".into())),
        _ => Ok(()),
    }
}

fn type_of_reference(reference: &Reference) -> Result<Type> {
    check_reference(reference)?;
    Ok(match reference {
        Reference::Attribute(_) => Type::Attribute,
        Reference::Intrinsic(intrinsic) => match intrinsic {
            Intrinsic::Status => Type::Status,
            Intrinsic::Kind => Type::Kind,
            Intrinsic::Duration
            | Intrinsic::TraceDuration
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::ChildCount
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent => Type::Number,
            _ => Type::String,
        },
    })
}

fn type_of(field: &Field) -> Result<Type> {
    match &field.kind {
        FieldKind::Static(literal) => Ok(match literal {
            Static::Nil => Type::Nil,
            Static::Bool(_) => Type::Bool,
            Static::Int(_) | Static::Float(_) | Static::Duration(_) => Type::Number,
            Static::String(_) => Type::String,
            Static::Status(_) => Type::Status,
            Static::Kind(_) => Type::Kind,
        }),
        FieldKind::Reference(reference) => type_of_reference(reference),
        FieldKind::Unary(op, inner) => {
            let (wanted, sign) = match op {
                UnaryOp::Not => (Type::Bool, '!'),
                UnaryOp::Neg => (Type::Number, '-'),
            };
            match type_of(inner)? {
                Type::Attribute => Ok(wanted),
                found if found == wanted => Ok(wanted),
                _ => Err(refuse(format!("illegal operation for the given type: {sign}{inner}")).at(field.span)),
            }
        }
        FieldKind::Binary(op, left, right) => type_of_binary(field, *op, left, right),
    }
}

fn type_of_binary(field: &Field, op: BinaryOp, left: &Field, right: &Field) -> Result<Type> {
    let (left_type, right_type) = (type_of(left)?, type_of(right)?);
    let nil = |t| t == Type::Nil;
    if nil(left_type) || nil(right_type) {
        return check_nil(field, op, left, right);
    }
    let known = |t| t != Type::Attribute;
    if known(left_type) && known(right_type) && left_type != right_type {
        return Err(refuse(format!("binary operations must operate on the same type: {field}")).at(field.span));
    }
    let illegal = || refuse(format!("illegal operation for the given types: {field}")).at(field.span);
    if [left_type, right_type].into_iter().any(|t| known(t) && !allows(t, op)) {
        return Err(illegal());
    }
    if matches!(op, BinaryOp::Regex | BinaryOp::NotRegex) {
        let FieldKind::Static(Static::String(pattern)) = &right.kind else { return Err(illegal()) };
        super::plan::compile_regex(pattern)?;
    }
    if matches!(op, BinaryOp::Div | BinaryOp::Mod)
        && matches!(right.kind, FieldKind::Static(Static::Int(0)))
        && matches!(left.kind, FieldKind::Static(Static::Int(_)))
    {
        return Err(refuse(format!("division by zero: {field}")).at(field.span));
    }
    Ok(if op.is_arithmetic() { Type::Number } else { Type::Bool })
}

/// Whether values of a type may stand beside an operator.
fn allows(t: Type, op: BinaryOp) -> bool {
    match op {
        BinaryOp::Equal | BinaryOp::NotEqual => true,
        BinaryOp::And | BinaryOp::Or => t == Type::Bool,
        BinaryOp::Regex | BinaryOp::NotRegex => t == Type::String,
        op if op.is_arithmetic() => t == Type::Number,
        _ => matches!(t, Type::Number | Type::String),
    }
}

fn check_nil(field: &Field, op: BinaryOp, left: &Field, right: &Field) -> Result<Type> {
    if !matches!(op, BinaryOp::Equal | BinaryOp::NotEqual) {
        return Err(refuse(format!("illegal operation for the given types: {field}")).at(field.span));
    }
    for side in [left, right] {
        if op == BinaryOp::Equal
            && let FieldKind::Reference(reference) = &side.kind
        {
            let name = reference.to_string();
            if matches!(reference, Reference::Intrinsic(_)) {
                return Err(refuse(format!("{name}=nil is not valid because intrinsics cannot be nil")).at(field.span));
            }
            if name == "resource.service.name" {
                return Err(refuse(format!("{name}=nil is not valid because {name} cannot be nil")).at(field.span));
            }
        }
    }
    Ok(Type::Bool)
}

fn check_metrics(metrics: &Metrics) -> Result<()> {
    match metrics {
        Metrics::Query(query) => check_metrics_query(query),
        Metrics::Number(_) => Ok(()),
        Metrics::Binary(op, left, right) => {
            for side in [left, right] {
                check_metrics(side)?;
                if has_compare(side) {
                    return Err(refuse(format!("`compare()` cannot be used with `{}`", op.sign())));
                }
            }
            Ok(())
        }
        Metrics::Then(inner, stage) => {
            check_metrics(inner)?;
            if has_compare(inner) {
                return Err(refuse("`compare()` cannot be used with second stage functions".into()));
            }
            match stage {
                SecondStage::TopK(n) | SecondStage::BottomK(n) if *n <= 0 => {
                    Err(refuse("limit must be greater than 0".into()))
                }
                _ => Ok(()),
            }
        }
    }
}

fn has_compare(metrics: &Metrics) -> bool {
    match metrics {
        Metrics::Query(query) => matches!(query.function, MetricsFunction::Compare { .. }),
        Metrics::Number(_) => false,
        Metrics::Binary(_, left, right) => has_compare(left) || has_compare(right),
        Metrics::Then(inner, _) => has_compare(inner),
    }
}

fn check_metrics_query(query: &MetricsQuery) -> Result<()> {
    check_pipeline(&query.pipeline)?;
    query.by.iter().chain(query.function.measured()).try_for_each(check_reference)?;
    // Buckets and quantiles bring a label of their own.
    let own_labels =
        usize::from(matches!(query.function, MetricsFunction::Quantile(..) | MetricsFunction::Histogram(_)));
    if query.by.len() + own_labels > GROUP_BY_MAX {
        return Err(refuse(format!("metrics group by {} values not yet supported", query.by.len() + own_labels)));
    }
    match &query.function {
        MetricsFunction::Quantile(_, quantiles) => match quantiles.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            Some(q) => Err(refuse(format!("quantile must be between 0 and 1: {q}"))),
            None => Ok(()),
        },
        MetricsFunction::Compare { selection, top, range } => {
            check_spansets(selection)?;
            if *top <= 0 {
                return Err(refuse("compare() top number of values must be integer greater than 0".into()));
            }
            match range {
                Some((start, end)) if start >= end => {
                    Err(refuse("compare() end timestamp must be greater than start timestamp".into()))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
