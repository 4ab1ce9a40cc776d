//! Values at run time: what attributes, intrinsics and constants become when they are compared.
//!
//! Owns: [`Val`], its reading from typed texts, comparison and arithmetic. Does not own: where values come from
//! (`eval::trace`).
//!
//! Invariants
//! 1. A comparison of unlike families is false, also `!=`; a missing value makes every comparison false.
//! 2. An array compares by its elements: any for most operators, none for `!=` and `!~`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use storage::model::value::Value;

use super::super::ast::{BinaryOp, KINDS, STATUSES, Static, word_of};
use super::super::print::duration_text;
use crate::error::{Error, Kind, Result};

/// A value at run time.
#[derive(Clone, Debug, PartialEq)]
pub enum Val<'a> {
    /// Missing, or of a type that cannot be searched: maps, bytes, empty, nested and mixed arrays.
    Nil,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Text.
    Str(Cow<'a, str>),
    /// OTLP's number of a status.
    Status(i32),
    /// OTLP's number of a span kind.
    Kind(i32),
    /// Scalars of one type, at least one.
    Array(Vec<Val<'a>>),
}

impl<'a> Val<'a> {
    /// Borrowed text.
    pub fn text(text: &'a str) -> Self {
        Self::Str(Cow::Borrowed(text))
    }

    /// Reads a typed text (see `storage::model::value`).
    pub fn of_typed_text(text: &'a str) -> Self {
        match text.as_bytes() {
            [b'"', inner @ .., b'"'] if memchr::memchr(b'\\', inner).is_none() => Self::text(&text[1..text.len() - 1]),
            b"true" => Self::Bool(true),
            b"false" => Self::Bool(false),
            [b'0'..=b'9' | b'-', ..] => match text.parse() {
                Ok(n) => Self::Int(n),
                Err(_) => text.parse().map_or(Self::Nil, Self::Float),
            },
            _ => Value::parse(text).map_or(Self::Nil, Self::of_value),
        }
    }

    /// From a stored value.
    pub fn of_value(value: Value) -> Self {
        match value {
            Value::String(text) => Self::Str(Cow::Owned(text)),
            Value::Bool(value) => Self::Bool(value),
            Value::Int(n) => Self::Int(n),
            Value::Double(x) => Self::Float(x),
            Value::Array(values) => {
                let list: Vec<Self> = values.into_iter().map(Self::of_value).collect();
                let scalar = |v: &Self| matches!(v, Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_));
                let same = |v: &Self| std::mem::discriminant(v) == std::mem::discriminant(&list[0]);
                if !list.is_empty() && list.iter().all(|v| scalar(v) && same(v)) {
                    Self::Array(list)
                } else {
                    Self::Nil
                }
            }
            Value::Empty | Value::Bytes(_) | Value::Map(_) => Self::Nil,
        }
    }

    /// From a constant.
    pub fn of_static(literal: &Static) -> Val<'static> {
        match literal {
            Static::Nil => Val::Nil,
            Static::Bool(value) => Val::Bool(*value),
            Static::Int(n) => Val::Int(*n),
            Static::Float(x) => Val::Float(*x),
            Static::Duration(ns) => Val::Duration(*ns),
            Static::String(text) => Val::Str(Cow::Owned(text.clone())),
            Static::Status(number) => Val::Status(*number),
            Static::Kind(number) => Val::Kind(*number),
        }
    }

    /// The same value, borrowed as far as it can be.
    pub fn borrow(&self) -> Val<'_> {
        match self {
            Self::Nil => Val::Nil,
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(n) => Val::Int(*n),
            Self::Float(x) => Val::Float(*x),
            Self::Duration(ns) => Val::Duration(*ns),
            Self::Str(text) => Val::Str(Cow::Borrowed(text)),
            Self::Status(number) => Val::Status(*number),
            Self::Kind(number) => Val::Kind(*number),
            Self::Array(list) => Val::Array(list.iter().map(Val::borrow).collect()),
        }
    }

    /// The same value without borrows.
    pub fn into_owned(self) -> Val<'static> {
        match self {
            Self::Nil => Val::Nil,
            Self::Bool(value) => Val::Bool(value),
            Self::Int(n) => Val::Int(n),
            Self::Float(x) => Val::Float(x),
            Self::Duration(ns) => Val::Duration(ns),
            Self::Str(text) => Val::Str(Cow::Owned(text.into_owned())),
            Self::Status(number) => Val::Status(number),
            Self::Kind(number) => Val::Kind(number),
            Self::Array(list) => Val::Array(list.into_iter().map(Val::into_owned).collect()),
        }
    }

    /// As it stands in an answer: words for status and kind, Go's text for durations, `nil` for a missing value.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Nil => Value::String("nil".into()),
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(n) => Value::Int(*n),
            Self::Float(x) => Value::Double(*x),
            Self::Duration(ns) => Value::String(duration_text(*ns)),
            Self::Str(text) => Value::String(text.clone().into_owned()),
            Self::Status(number) => Value::String(word_of(&STATUSES, *number).into()),
            Self::Kind(number) => Value::String(word_of(&KINDS, *number).into()),
            Self::Array(list) => Value::Array(list.iter().map(Val::to_value).collect()),
        }
    }

    /// Appends text that two values share only if they are the same: for grouping.
    pub fn write_key(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Nil => out.write_char('-'),
            Self::Bool(value) => write!(out, "b{value}"),
            Self::Int(n) => write!(out, "i{n}"),
            Self::Float(x) => write!(out, "f{x:?}"),
            Self::Duration(ns) => write!(out, "d{ns}"),
            Self::Str(text) => write!(out, "s{}:{text}", text.len()),
            Self::Status(number) => write!(out, "c{number}"),
            Self::Kind(number) => write!(out, "k{number}"),
            Self::Array(list) => {
                list.iter().for_each(|value| value.write_key(out));
                out.write_char(']')
            }
        };
        out.push(',');
    }

    /// As a number, durations in nanoseconds.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(n) | Self::Duration(n) => Some(*n as f64),
            Self::Float(x) => Some(*x),
            _ => None,
        }
    }

    fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Int(n) | Self::Duration(n) => Some(*n),
            _ => None,
        }
    }

    /// Order within a family; `None` between families, for NaN and for missing values.
    pub fn compare(&self, other: &Val<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Str(a), Val::Str(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Self::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Self::Status(a), Val::Status(b)) | (Self::Kind(a), Val::Kind(b)) => Some(a.cmp(b)),
            _ => match (self.as_integer(), other.as_integer()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => self.as_number()?.partial_cmp(&other.as_number()?),
            },
        }
    }
}

/// Whether `left op right` holds for a comparison operator (invariants 1 and 2).
pub fn holds(op: BinaryOp, left: &Val<'_>, right: &Val<'_>) -> bool {
    match (left, right) {
        (Val::Array(list), other) => {
            let mut hits = list.iter().map(|v| holds(op, v, other));
            if op == BinaryOp::NotEqual { hits.all(|hit| hit) } else { hits.any(|hit| hit) }
        }
        (other, Val::Array(list)) => {
            let mut hits = list.iter().map(|v| holds(op, other, v));
            if op == BinaryOp::NotEqual { hits.all(|hit| hit) } else { hits.any(|hit| hit) }
        }
        _ => match left.compare(right) {
            None => false,
            Some(order) => match op {
                BinaryOp::Equal => order.is_eq(),
                BinaryOp::NotEqual => order.is_ne(),
                BinaryOp::Less => order.is_lt(),
                BinaryOp::LessEqual => order.is_le(),
                BinaryOp::Greater => order.is_gt(),
                BinaryOp::GreaterEqual => order.is_ge(),
                _ => false,
            },
        },
    }
}

/// `left op right` for an arithmetic operator: integers among themselves stay integers, anything else is float; what
/// is no number gives a missing value.
pub fn arithmetic<'a>(op: BinaryOp, left: &Val<'_>, right: &Val<'_>) -> Result<Val<'a>> {
    if let (Some(a), Some(b)) = (left.as_integer(), right.as_integer()) {
        if matches!(op, BinaryOp::Div | BinaryOp::Mod) && b == 0 {
            return Err(Error::new(Kind::Execution, "division by zero"));
        }
        let value = match op {
            BinaryOp::Add => a.wrapping_add(b),
            BinaryOp::Sub => a.wrapping_sub(b),
            BinaryOp::Mul => a.wrapping_mul(b),
            BinaryOp::Div => a.wrapping_div(b),
            BinaryOp::Mod => a.wrapping_rem(b),
            // Tempo raises the right side to the power of the left one where both are integers, and queries are
            // written against it. What an integer cannot hold saturates.
            _ => (b as f64).powf(a as f64) as i64,
        };
        let duration = matches!(left, Val::Duration(_)) || matches!(right, Val::Duration(_));
        return Ok(if duration { Val::Duration(value) } else { Val::Int(value) });
    }
    let (Some(a), Some(b)) = (left.as_number(), right.as_number()) else { return Ok(Val::Nil) };
    Ok(Val::Float(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        _ => a.powf(b),
    }))
}
