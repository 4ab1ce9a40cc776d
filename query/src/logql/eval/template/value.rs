//! What flows through a template: Go's values as far as templates meet them.
//!
//! Owns: truth, printing, kinds.

use std::collections::BTreeMap;

use super::time;

/// From here on a float is printed with an exponent.
const EXPONENT_FROM: f64 = 1e6;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Val {
    /// No value.
    Nil,
    /// A bool.
    Bool(bool),
    /// Any integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// A time in UTC, nanoseconds since the epoch.
    Time(i128),
    /// A list.
    List(Vec<Val>),
    /// A map.
    Map(BTreeMap<String, Val>),
}

impl Val {
    /// Go's truth: not the zero value.
    pub fn truth(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Float(x) => *x != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Time(_) => true,
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
        }
    }

    /// The name of its kind in error texts.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Time(_) => "time.Time",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
        }
    }

    /// Appends the value as `%v` prints it.
    pub fn print(&self, out: &mut String) {
        match self {
            Self::Nil => out.push_str("<no value>"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Int(n) => out.push_str(&n.to_string()),
            Self::Float(x) => out.push_str(&float_text(*x)),
            Self::Text(text) => out.push_str(text),
            Self::Time(ns) => out.push_str(&time::text(*ns)),
            Self::List(list) => {
                out.push('[');
                for (i, value) in list.iter().enumerate() {
                    out.push_str(if i > 0 { " " } else { "" });
                    value.print_inside(out);
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push_str("map[");
                for (i, (key, value)) in map.iter().enumerate() {
                    out.push_str(if i > 0 { " " } else { "" });
                    out.push_str(key);
                    out.push(':');
                    value.print_inside(out);
                }
                out.push(']');
            }
        }
    }

    fn print_inside(&self, out: &mut String) {
        match self {
            Self::Nil => out.push_str("<nil>"),
            other => other.print(out),
        }
    }

    /// The text of `%v`.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => {
                let mut out = String::new();
                other.print(&mut out);
                out
            }
        }
    }

    /// From JSON; numbers are floats, as in Go.
    pub fn from_json(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(b) => Self::Bool(b),
            serde_json::Value::Number(n) => Self::Float(n.as_f64().unwrap_or(0.0)),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(list) => Self::List(list.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => {
                Self::Map(map.into_iter().map(|(key, value)| (key, Self::from_json(value))).collect())
            }
        }
    }
}

/// A float as Go's `%v` prints it: shortest, with an exponent below 1e-4 and from [`EXPONENT_FROM`] on.
pub fn float_text(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = x.abs();
    if x == 0.0 || (1e-4..EXPONENT_FROM).contains(&size) {
        return format!("{x}");
    }
    let written = format!("{x:e}");
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}
