//! Syntax tree → text that parses back to an equal tree, unless its parentheses nest deeper than a text may.
//!
//! Owns: the canonical form, which is also what names groups and aggregates in answers (`by(resource.x)`,
//! `avg(duration)`). Nested operators stand in parentheses; constants and references do not.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{
    Attribute, Field, FieldKind, KINDS, Keep, Metrics, MetricsFunction, MetricsQuery, Pipeline, Query, Reference,
    Relation, Root, STATUSES, Scalar, ScalarFilter, SecondStage, SpansetOp, Spansets, Stage, Static, UnaryOp, word_of,
};

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.root {
            Root::Spansets(pipeline) => pipeline.fmt(f)?,
            Root::Metrics(metrics) => metrics.fmt(f)?,
        }
        if self.hints.is_empty() {
            return Ok(());
        }
        f.write_str(" with(")?;
        for (i, (name, value)) in self.hints.iter().enumerate() {
            write!(f, "{}{name}={value}", if i > 0 { ", " } else { "" })?;
        }
        f.write_char(')')
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, stage) in self.stages.iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            stage.fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spansets(spansets) => spansets.fmt(f),
            Self::By(field) => write!(f, "by({field})"),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Select(list) => write!(f, "select({})", List(list)),
            Self::Scalar(ScalarFilter { op, left, right }) => write!(f, "{left} {} {right}", op.sign()),
        }
    }
}

struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Spansets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(None) => f.write_str("{ }"),
            Self::Filter(Some(field)) => write!(f, "{{ {field} }}"),
            Self::Pipeline(pipeline) => write!(f, "({pipeline})"),
            Self::Binary(op, left, right) => {
                for (i, side) in [left, right].into_iter().enumerate() {
                    if i > 0 {
                        write!(f, " {op} ")?;
                    }
                    match side.as_ref() {
                        Self::Binary(..) => write!(f, "({side})")?,
                        _ => side.fmt(f)?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Display for SpansetOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (relation, keep) = match self {
            Self::And => return f.write_str("&&"),
            Self::Or => return f.write_str("||"),
            Self::Relation(relation, keep) => (relation, keep),
        };
        f.write_str(match keep {
            Keep::Right => "",
            Keep::Not => "!",
            Keep::Both => "&",
        })?;
        f.write_str(match relation {
            Relation::Child => ">",
            Relation::Descendant => ">>",
            Relation::Parent => "<",
            Relation::Ancestor => "<<",
            Relation::Sibling => "~",
        })
    }
}

impl Display for Scalar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(literal) => literal.fmt(f),
            Self::Aggregate(aggregate, None) => write!(f, "{}()", aggregate.name()),
            Self::Aggregate(aggregate, Some(field)) => write!(f, "{}({field})", aggregate.name()),
            Self::Binary(op, left, right) => {
                for (i, side) in [left, right].into_iter().enumerate() {
                    if i > 0 {
                        write!(f, " {} ", op.sign())?;
                    }
                    match side.as_ref() {
                        Self::Binary(..) => write!(f, "({side})")?,
                        _ => side.fmt(f)?,
                    }
                }
                Ok(())
            }
            Self::Pipeline(pipeline, aggregate) => write!(f, "({pipeline} | {aggregate})"),
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FieldKind::Static(literal) => literal.fmt(f),
            FieldKind::Reference(reference) => reference.fmt(f),
            FieldKind::Unary(op, inner) => {
                f.write_char(match op {
                    UnaryOp::Not => '!',
                    UnaryOp::Neg => '-',
                })?;
                operand(inner, f)
            }
            FieldKind::Binary(op, left, right) => {
                operand(left, f)?;
                write!(f, " {} ", op.sign())?;
                operand(right, f)
            }
        }
    }
}

fn operand(field: &Field, f: &mut Formatter<'_>) -> fmt::Result {
    match field.kind {
        FieldKind::Static(_) | FieldKind::Reference(_) => field.fmt(f),
        FieldKind::Unary(..) | FieldKind::Binary(..) => write!(f, "({field})"),
    }
}

impl Display for Reference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(attribute) => attribute.fmt(f),
            Self::Intrinsic(intrinsic) => f.write_str(intrinsic.name()),
        }
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.parent, self.scope.word()) {
            (true, "") => f.write_str("parent.")?,
            (true, word) => write!(f, "parent.{word}.")?,
            (false, word) => write!(f, "{word}.")?,
        }
        let plain = |c: char| !c.is_whitespace() && !"{}()=~!<>&|^,\"`\\".contains(c);
        // After a bare dot, a digit would begin a number and, after `parent.`, a scope's word would be a scope.
        let ambiguous = self.scope.word().is_empty()
            && (self.name.starts_with(|c: char| c.is_ascii_digit()) || (self.parent && self.name.contains('.')));
        if self.name.chars().all(plain) && !ambiguous {
            return f.write_str(&self.name);
        }
        f.write_char('"')?;
        for c in self.name.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

impl Display for Static {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(i64::MIN) => f.write_str("minInt"),
            Self::Int(n) => n.fmt(f),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Duration(ns) => f.write_str(&duration_text(*ns)),
            Self::String(text) if !text.contains(['`', '\r']) => write!(f, "`{text}`"),
            Self::String(text) => write!(f, "\"{}\"", escaped(text)),
            Self::Status(number) => f.write_str(word_of(&STATUSES, *number)),
            Self::Kind(number) => f.write_str(word_of(&KINDS, *number)),
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out
}

/// A duration as Go writes it: `1h0m0s`, `1.5s`, `900ms`, `20µs`.
pub fn duration_text(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let n = ns.unsigned_abs();
    if n == 0 {
        return "0s".into();
    }
    let decimals = |value: u64, unit: u64| {
        let (whole, part) = (value / unit, value % unit);
        let digits = unit.ilog10() as usize;
        let text = format!("{whole}.{part:0digits$}");
        if digits == 0 { whole.to_string() } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
    };
    if n < 1_000 {
        return format!("{sign}{n}ns");
    }
    if n < 1_000_000 {
        return format!("{sign}{}µs", decimals(n, 1_000));
    }
    if n < 1_000_000_000 {
        return format!("{sign}{}ms", decimals(n, 1_000_000));
    }
    let (minutes, rest) = (n / 60_000_000_000, n % 60_000_000_000);
    let seconds = decimals(rest, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

impl Display for Metrics {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(query) => query.fmt(f),
            Self::Number(x) => write!(f, "{x:?}"),
            Self::Then(inner, stage) => {
                match inner.as_ref() {
                    Self::Binary(..) => write!(f, "({inner})")?,
                    _ => inner.fmt(f)?,
                }
                match stage {
                    SecondStage::TopK(n) => write!(f, " | topk({n})"),
                    SecondStage::BottomK(n) => write!(f, " | bottomk({n})"),
                    SecondStage::Filter(op, threshold) => write!(f, " {} {threshold}", op.sign()),
                }
            }
            Self::Binary(op, left, right) => {
                for (i, side) in [left, right].into_iter().enumerate() {
                    if i > 0 {
                        write!(f, " {} ", op.sign())?;
                    }
                    match side.as_ref() {
                        Self::Number(_) => side.fmt(f)?,
                        _ => write!(f, "({side})")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Display for MetricsQuery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}(", self.pipeline, self.function.name())?;
        match &self.function {
            MetricsFunction::Quantile(measured, quantiles) => {
                write!(f, "{measured}")?;
                for quantile in quantiles {
                    write!(f, ", {quantile:?}")?;
                }
            }
            MetricsFunction::Compare { selection, top, range } => {
                write!(f, "{selection}, {top}")?;
                if let Some((start, end)) = range {
                    write!(f, ", {start}, {end}")?;
                }
            }
            function => {
                if let Some(measured) = function.measured() {
                    write!(f, "{measured}")?;
                }
            }
        }
        f.write_char(')')?;
        if !self.by.is_empty() {
            write!(f, " by({})", List(&self.by))?;
        }
        Ok(())
    }
}
