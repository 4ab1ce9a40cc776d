//! Expressions over one span.
//!
//! Owns: running compiled expressions, and the rule that conditions on events (links) must hold for one and the same
//! event (link). Recursion is bounded by the depth of the syntax tree.

use storage::model::span::{Event, Link};

use super::super::plan::{Expr, Filter, Source};
use super::trace::{SpanAt, Trace};
use super::value::{Val, arithmetic, holds};
use crate::error::Result;

/// Whether a span passes a filter.
pub fn passes<'v>(filter: &'v Filter, trace: &'v Trace<'v>, span: usize) -> Result<bool> {
    let at = SpanAt::new(trace, span);
    if !filter.events && !filter.links {
        return truth(&filter.expr, &at);
    }
    let events: Vec<Event> = if filter.events { at.columns.events(at.row)? } else { Vec::new() };
    let links: Vec<Link> = if filter.links { at.columns.links(at.row)? } else { Vec::new() };
    // Without any event, the test runs once with none under test.
    for event in 0..events.len().max(1) {
        for link in 0..links.len().max(1) {
            let bound = SpanAt { events: Some((&events, event)), links: Some((&links, link)), ..at };
            if truth_bound(&filter.expr, &bound)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Lets the borrow of events end before that of the filter.
fn truth_bound<'s>(expr: &'s Expr, at: &SpanAt<'s>) -> Result<bool> {
    truth(expr, at)
}

/// Whether an expression is true.
pub fn truth<'v>(expr: &'v Expr, at: &SpanAt<'v>) -> Result<bool> {
    Ok(match expr {
        Expr::And(left, right) => truth(left, at)? && truth(right, at)?,
        Expr::Or(left, right) => truth(left, at)? || truth(right, at)?,
        Expr::Compare(op, left, right) => holds(*op, &value(left, at)?, &value(right, at)?),
        Expr::Regex(inner, regex, negated) => {
            let matches = |value: &Val<'_>| match value {
                Val::Str(text) => Some(regex.is_match(text)),
                _ => None,
            };
            match value(inner, at)? {
                Val::Array(list) => {
                    let mut hits = list.iter().filter_map(matches).peekable();
                    hits.peek().is_some() && hits.any(|hit| hit) != *negated
                }
                value => matches(&value).is_some_and(|hit| hit != *negated),
            }
        }
        Expr::Nil(inner, negated) => is_nil(inner, *negated, at)?,
        // Of something missing the opposite is missing too.
        Expr::Not(inner) => match value(inner, at)? {
            Val::Bool(value) => !value,
            Val::Array(list) => list.contains(&Val::Bool(false)),
            _ => false,
        },
        other => match value(other, at)? {
            Val::Bool(value) => value,
            Val::Array(list) => list.contains(&Val::Bool(true)),
            _ => false,
        },
    })
}

/// `x = nil` asks all events (links), `x != nil` the one under test.
fn is_nil<'v>(inner: &'v Expr, negated: bool, at: &SpanAt<'v>) -> Result<bool> {
    if !negated && let Expr::Source(source) = inner {
        return Ok(if source.of_event() || source.of_link() {
            none_has(source, at)?
        } else {
            at.value(source)? == Val::Nil
        });
    }
    Ok((value(inner, at)? == Val::Nil) != negated)
}

fn none_has<'v>(source: &'v Source, at: &SpanAt<'v>) -> Result<bool> {
    let unbound = SpanAt { events: None, links: None, ..*at };
    Ok(unbound.value(source)? == Val::Nil)
}

/// The value of an expression.
pub fn value<'v>(expr: &'v Expr, at: &SpanAt<'v>) -> Result<Val<'v>> {
    Ok(match expr {
        Expr::Const(constant) => constant.borrow(),
        Expr::Source(source) => at.value(source)?,
        Expr::Arithmetic(op, left, right) => arithmetic(*op, &value(left, at)?, &value(right, at)?)?,
        Expr::Neg(inner) => match value(inner, at)? {
            Val::Int(n) => Val::Int(n.wrapping_neg()),
            Val::Float(x) => Val::Float(-x),
            Val::Duration(ns) => Val::Duration(ns.wrapping_neg()),
            _ => Val::Nil,
        },
        _ => Val::Bool(truth(expr, at)?),
    })
}
