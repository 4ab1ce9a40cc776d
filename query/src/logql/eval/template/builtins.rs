//! The functions that Go's templates bring themselves.
//!
//! Owns: comparison, logic, `index`, `slice`, `len`, `print` and its like, escaping.

use std::cmp::Ordering;

use super::functions::{Arguments, Function};
use super::printf;
use super::value::Val;

type Eval = fn(Arguments<'_>) -> Result<Val, String>;

const fn row(name: &'static str, least: usize, most: usize, eval: Eval) -> Function {
    Function { name, arguments: (least, most), short_circuit: None, eval }
}

const fn logic(name: &'static str, stops_at: bool) -> Function {
    // The walk over operands decides; the row only names the rule.
    Function { name, arguments: (1, usize::MAX), short_circuit: Some(stops_at), eval: |a| Ok(a.value(0).clone()) }
}

/// The table.
pub static FUNCTIONS: &[Function] = &[
    logic("and", false),
    logic("or", true),
    row("not", 1, 1, |a| Ok(Val::Bool(!a.value(0).truth()))),
    row("eq", 2, usize::MAX, |a| {
        for other in &a.values[1..] {
            if equal(a.value(0), other)? {
                return Ok(Val::Bool(true));
            }
        }
        Ok(Val::Bool(false))
    }),
    row("ne", 2, 2, |a| Ok(Val::Bool(!equal(a.value(0), a.value(1))?))),
    row("lt", 2, 2, |a| Ok(Val::Bool(order(a.value(0), a.value(1))? == Some(Ordering::Less)))),
    row("le", 2, 2, |a| Ok(Val::Bool(order(a.value(0), a.value(1))?.is_some_and(Ordering::is_le)))),
    row("gt", 2, 2, |a| Ok(Val::Bool(order(a.value(0), a.value(1))? == Some(Ordering::Greater)))),
    row("ge", 2, 2, |a| Ok(Val::Bool(order(a.value(0), a.value(1))?.is_some_and(Ordering::is_ge)))),
    row("len", 1, 1, |a| length(a.value(0))),
    row("index", 1, usize::MAX, |a| a.values[1..].iter().try_fold(a.value(0).clone(), |held, key| index(&held, key))),
    row("slice", 1, 4, |a| slice(&a)),
    row("print", 0, usize::MAX, |a| Ok(Val::Text(printf::print(&a.values)))),
    row("println", 0, usize::MAX, |a| Ok(Val::Text(printf::println(&a.values)))),
    row("printf", 1, usize::MAX, |a| Ok(Val::Text(printf::printf(a.text(0)?, &a.values[1..])))),
    row("html", 0, usize::MAX, |a| Ok(Val::Text(escaped(&printf::print(&a.values), html)))),
    row("js", 0, usize::MAX, |a| Ok(Val::Text(escaped(&printf::print(&a.values), js)))),
    row("urlquery", 0, usize::MAX, |a| Ok(Val::Text(query_escape(&printf::print(&a.values))))),
    row("call", 1, usize::MAX, |a| Err(format!("non-function of type {}", a.value(0).kind()))),
];

fn equal(a: &Val, b: &Val) -> Result<bool, String> {
    match (a, b) {
        (Val::Nil, _) | (_, Val::Nil) => Ok(a == b),
        (Val::Bool(a), Val::Bool(b)) => Ok(a == b),
        (Val::Int(a), Val::Int(b)) => Ok(a == b),
        (Val::Float(a), Val::Float(b)) => Ok(a == b),
        (Val::Text(a), Val::Text(b)) => Ok(a == b),
        (Val::Time(a), Val::Time(b)) => Ok(a == b),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn order(a: &Val, b: &Val) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Ok(Some(a.cmp(b))),
        (Val::Float(a), Val::Float(b)) => Ok(a.partial_cmp(b)),
        (Val::Text(a), Val::Text(b)) => Ok(Some(a.cmp(b))),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn length(value: &Val) -> Result<Val, String> {
    let length = match value {
        Val::Text(text) => text.len(),
        Val::List(list) => list.len(),
        Val::Map(map) => map.len(),
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(Val::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(value: &Val, key: &Val) -> Result<Val, String> {
    let out_of_range = || format!("index out of range: {}", key.text());
    match (value, key) {
        (Val::Map(map), Val::Text(key)) => Ok(map.get(key).cloned().unwrap_or(Val::Nil)),
        (Val::List(list), Val::Int(at)) => {
            usize::try_from(*at).ok().and_then(|at| list.get(at)).cloned().ok_or_else(out_of_range)
        }
        (Val::Text(text), Val::Int(at)) => {
            let byte = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
            byte.map(|byte| Val::Int(i64::from(*byte))).ok_or_else(out_of_range)
        }
        (Val::Nil, _) => Err("index of untyped nil".to_owned()),
        (other, _) => Err(format!("can't index item of type {}", other.kind())),
    }
}

fn slice(a: &Arguments<'_>) -> Result<Val, String> {
    let bound = |at: usize, default: usize| -> Result<usize, String> {
        match a.values.get(at) {
            None => Ok(default),
            Some(_) => usize::try_from(a.int(at)?).map_err(|_| "index out of range".to_owned()),
        }
    };
    let out_of_range = || "index out of range".to_owned();
    match a.value(0) {
        Val::Text(text) => {
            let bytes = text.as_bytes().get(bound(1, 0)?..bound(2, text.len())?).ok_or_else(out_of_range)?;
            Ok(Val::Text(String::from_utf8_lossy(bytes).into_owned()))
        }
        Val::List(list) => {
            Ok(Val::List(list.get(bound(1, 0)?..bound(2, list.len())?).ok_or_else(out_of_range)?.to_vec()))
        }
        other => Err(format!("can't slice item of type {}", other.kind())),
    }
}

fn escaped(text: &str, escape: fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match escape(c) {
            Some(escape) => out.push_str(escape),
            None => out.push(c),
        }
    }
    out
}

fn html(c: char) -> Option<&'static str> {
    Some(match c {
        '\0' => "\u{fffd}",
        '"' => "&#34;",
        '\'' => "&#39;",
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        _ => return None,
    })
}

fn js(c: char) -> Option<&'static str> {
    Some(match c {
        '\\' => "\\\\",
        '\'' => "\\'",
        '"' => "\\\"",
        '<' => "\\u003C",
        '>' => "\\u003E",
        '&' => "\\u0026",
        '=' => "\\u003D",
        '\n' => "\\u000A",
        '\r' => "\\u000D",
        '\t' => "\\u0009",
        _ => return None,
    })
}

/// Go's `url.QueryEscape`.
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
