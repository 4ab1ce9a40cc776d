//! The functions of templates: one row each.
//!
//! Owns: the table and the arguments of a call. Go's own functions (`eq`, `index`, `printf`, …) are in `builtins`.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use regex::Regex;
use storage::clock::{Clock, SystemClock};
use storage::model::matcher::compile_unanchored;

use super::builtins;
use super::numbers::{DecimalOp, decimal, round, to_float, to_int};
use super::value::Val;
use super::{OUTPUT_BYTES_MAX, time};
use crate::logql::units;

/// A function.
#[derive(Debug)]
pub struct Function {
    /// Name.
    pub name: &'static str,
    /// Fewest and most arguments.
    pub arguments: (usize, usize),
    /// For `and` and `or`: the truth at which they stop.
    pub short_circuit: Option<bool>,
    /// What it does.
    pub eval: fn(Arguments<'_>) -> Result<Val, String>,
}

/// Regexes that a template met, compiled once.
#[derive(Debug, Default)]
pub struct RegexCache(Mutex<HashMap<String, Arc<Regex>>>);

/// How many regexes a template keeps; one that builds them from labels compiles again.
const REGEXES_MAX: usize = 32;

impl RegexCache {
    fn get(&self, pattern: &str) -> Result<Arc<Regex>, String> {
        if let Some(regex) = self.0.lock().get(pattern) {
            return Ok(Arc::clone(regex));
        }
        let regex = Arc::new(compile_unanchored(pattern).map_err(|error| error.message().to_owned())?);
        let mut held = self.0.lock();
        if held.len() < REGEXES_MAX {
            held.insert(pattern.to_owned(), Arc::clone(&regex));
        }
        Ok(regex)
    }
}

/// The arguments of a call, and what functions without arguments read.
pub struct Arguments<'e> {
    /// As many as the table allows.
    pub values: Vec<Val>,
    /// `__line__`
    pub line: &'e str,
    /// `__timestamp__`
    pub ts_ns: i64,
    /// For functions with regexes.
    pub regexes: &'e RegexCache,
}

impl Arguments<'_> {
    /// The value of an argument.
    pub fn value(&self, at: usize) -> &Val {
        self.values.get(at).unwrap_or(&Val::Nil)
    }

    /// An argument that must be a string.
    pub fn text(&self, at: usize) -> Result<&str, String> {
        match self.value(at) {
            Val::Text(text) => Ok(text),
            other => Err(format!("wrong type for value; expected string; got {}", other.kind())),
        }
    }

    /// An argument that must be an integer.
    pub fn int(&self, at: usize) -> Result<i64, String> {
        match self.value(at) {
            Val::Int(n) => Ok(*n),
            other => Err(format!("wrong type for value; expected int; got {}", other.kind())),
        }
    }

    fn time(&self, at: usize) -> Result<i128, String> {
        match self.value(at) {
            Val::Time(ns) => Ok(*ns),
            Val::Int(seconds) => Ok(i128::from(*seconds) * 1_000_000_000),
            other => Err(format!("wrong type for value; expected time.Time; got {}", other.kind())),
        }
    }

    fn floats(&self) -> impl Iterator<Item = f64> {
        self.values.iter().map(to_float)
    }

    fn ints(&self) -> impl Iterator<Item = i64> {
        self.values.iter().map(to_int)
    }
}

type Eval = fn(Arguments<'_>) -> Result<Val, String>;

const fn row(name: &'static str, least: usize, most: usize, eval: Eval) -> Function {
    Function { name, arguments: (least, most), short_circuit: None, eval }
}

/// As many as one likes.
const ANY: usize = usize::MAX;

/// The function called `name`.
pub fn of_name(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().chain(builtins::FUNCTIONS).find(|function| function.name == name)
}

fn text(value: impl Into<String>) -> Result<Val, String> {
    Ok(Val::Text(value.into()))
}

fn folded(arguments: &Arguments<'_>, op: DecimalOp) -> Result<Val, String> {
    let mut values = arguments.floats();
    let first = values.next().unwrap_or(0.0);
    values.try_fold(first, |held, value| decimal(op, held, value)).map(Val::Float)
}

static FUNCTIONS: &[Function] = &[
    row("__line__", 0, 0, |a| text(a.line)),
    row("__timestamp__", 0, 0, |a| Ok(Val::Time(i128::from(a.ts_ns)))),
    row("now", 0, 0, |_| Ok(Val::Time(i128::from(SystemClock.now().0)))),
    // Go's argument order: the string first.
    row("ToLower", 1, 1, |a| text(lower(a.text(0)?))),
    row("ToUpper", 1, 1, |a| text(upper(a.text(0)?))),
    row("Replace", 4, 4, |a| {
        let (s, old, new) = (a.text(0)?, a.text(1)?, a.text(2)?);
        let replaced = match usize::try_from(a.int(3)?) {
            Ok(n) => s.replacen(old, new, n),
            Err(_) => s.replace(old, new),
        };
        text(replaced)
    }),
    row("Trim", 2, 2, |a| text(trim_set(a.text(0)?, a.text(1)?, true, true))),
    row("TrimLeft", 2, 2, |a| text(trim_set(a.text(0)?, a.text(1)?, true, false))),
    row("TrimRight", 2, 2, |a| text(trim_set(a.text(0)?, a.text(1)?, false, true))),
    row("TrimPrefix", 2, 2, |a| text(a.text(0)?.strip_prefix(a.text(1)?).map_or(a.text(0)?, |rest| rest))),
    row("TrimSuffix", 2, 2, |a| text(a.text(0)?.strip_suffix(a.text(1)?).map_or(a.text(0)?, |rest| rest))),
    row("TrimSpace", 1, 1, |a| text(a.text(0)?.trim())),
    // The string last, so that it can be piped in.
    row("lower", 1, 1, |a| text(lower(a.text(0)?))),
    row("upper", 1, 1, |a| text(upper(a.text(0)?))),
    row("title", 1, 1, |a| text(title(a.text(0)?))),
    row("trunc", 2, 2, |a| text(trunc(a.int(0)?, a.text(1)?))),
    row("substr", 3, 3, |a| substr(a.int(0)?, a.int(1)?, a.text(2)?)),
    row("contains", 2, 2, |a| Ok(Val::Bool(a.text(1)?.contains(a.text(0)?)))),
    row("hasPrefix", 2, 2, |a| Ok(Val::Bool(a.text(1)?.starts_with(a.text(0)?)))),
    row("hasSuffix", 2, 2, |a| Ok(Val::Bool(a.text(1)?.ends_with(a.text(0)?)))),
    row("indent", 2, 2, |a| text(indent(a.int(0)?, a.text(1)?)?)),
    row("nindent", 2, 2, |a| text(format!("\n{}", indent(a.int(0)?, a.text(1)?)?))),
    row("replace", 3, 3, |a| text(a.text(2)?.replace(a.text(0)?, a.text(1)?))),
    row("repeat", 2, 2, |a| text(repeat(a.text(1)?, a.int(0)?)?)),
    row("trim", 1, 1, |a| text(a.text(0)?.trim())),
    row("trimAll", 2, 2, |a| text(trim_set(a.text(1)?, a.text(0)?, true, true))),
    row("trimSuffix", 2, 2, |a| text(a.text(1)?.strip_suffix(a.text(0)?).map_or(a.text(1)?, |rest| rest))),
    row("trimPrefix", 2, 2, |a| text(a.text(1)?.strip_prefix(a.text(0)?).map_or(a.text(1)?, |rest| rest))),
    row("default", 1, 2, |a| {
        Ok(if a.values.len() == 2 && a.value(1).truth() { a.value(1) } else { a.value(0) }.clone())
    }),
    row("regexReplaceAll", 3, 3, |a| text(a.regexes.get(a.text(0)?)?.replace_all(a.text(1)?, a.text(2)?))),
    row("regexReplaceAllLiteral", 3, 3, |a| {
        text(a.regexes.get(a.text(0)?)?.replace_all(a.text(1)?, regex::NoExpand(a.text(2)?)))
    }),
    row("count", 2, 2, |a| {
        Ok(Val::Int(i64::try_from(a.regexes.get(a.text(0)?)?.find_iter(a.text(1)?).count()).unwrap_or(i64::MAX)))
    }),
    row("urlencode", 1, 1, |a| text(builtins::query_escape(a.text(0)?))),
    row("urldecode", 1, 1, |a| text(query_unescape(a.text(0)?)?)),
    row("b64enc", 1, 1, |a| text(STANDARD.encode(a.text(0)?))),
    row("b64dec", 1, 1, |a| text(base64_text(a.text(0)?))),
    row("int", 1, 1, |a| Ok(Val::Int(to_int(a.value(0))))),
    row("float64", 1, 1, |a| Ok(Val::Float(to_float(a.value(0))))),
    row("add", 0, ANY, |a| Ok(Val::Int(a.ints().fold(0, i64::wrapping_add)))),
    row("sub", 2, 2, |a| Ok(Val::Int(to_int(a.value(0)).wrapping_sub(to_int(a.value(1)))))),
    row("mul", 1, ANY, |a| Ok(Val::Int(a.ints().fold(1, i64::wrapping_mul)))),
    row("div", 2, 2, |a| {
        let (top, bottom) = (to_int(a.value(0)), to_int(a.value(1)));
        if bottom == 0 { Err("integer divide by zero".to_owned()) } else { Ok(Val::Int(top.wrapping_div(bottom))) }
    }),
    row("mod", 2, 2, |a| {
        let (top, bottom) = (to_int(a.value(0)), to_int(a.value(1)));
        if bottom == 0 { Err("integer divide by zero".to_owned()) } else { Ok(Val::Int(top.wrapping_rem(bottom))) }
    }),
    row("addf", 0, ANY, |a| folded(&a, DecimalOp::Add)),
    row("subf", 1, ANY, |a| folded(&a, DecimalOp::Sub)),
    row("mulf", 1, ANY, |a| folded(&a, DecimalOp::Mul)),
    row("divf", 1, ANY, |a| folded(&a, DecimalOp::Div)),
    row("max", 1, ANY, |a| Ok(Val::Int(a.ints().max().unwrap_or(0)))),
    row("min", 1, ANY, |a| Ok(Val::Int(a.ints().min().unwrap_or(0)))),
    row("maxf", 1, ANY, |a| Ok(Val::Float(a.floats().fold(f64::NEG_INFINITY, f64::max)))),
    row("minf", 1, ANY, |a| Ok(Val::Float(a.floats().fold(f64::INFINITY, f64::min)))),
    row("ceil", 1, 1, |a| Ok(Val::Float(to_float(a.value(0)).ceil()))),
    row("floor", 1, 1, |a| Ok(Val::Float(to_float(a.value(0)).floor()))),
    row("round", 2, 3, |a| {
        let round_on = if a.values.len() > 2 { to_float(a.value(2)) } else { 0.5 };
        Ok(Val::Float(round(to_float(a.value(0)), a.int(1)?, round_on)))
    }),
    row("bytes", 1, 1, |a| match units::parse_bytes(a.text(0)?) {
        Some(bytes) => Ok(Val::Float(bytes as f64)),
        None => Err(format!("{:?} is no size", a.text(0)?)),
    }),
    row("duration", 1, 1, |a| seconds(a.text(0)?)),
    row("duration_seconds", 1, 1, |a| seconds(a.text(0)?)),
    row("alignLeft", 2, 2, |a| text(align(a.int(0)?, a.text(1)?, true)?)),
    row("alignRight", 2, 2, |a| text(align(a.int(0)?, a.text(1)?, false)?)),
    row("date", 2, 2, |a| text(time::format(a.time(1)?, a.text(0)?))),
    row("toDate", 2, 2, |a| Ok(Val::Time(time::parse(a.text(1)?, a.text(0)?).unwrap_or(time::ZERO)))),
    row("toDateInZone", 3, 3, |a| Ok(Val::Time(time::parse(a.text(2)?, a.text(0)?).unwrap_or(time::ZERO)))),
    row("unixEpoch", 1, 1, |a| text(a.time(0)?.div_euclid(1_000_000_000).to_string())),
    row("unixEpochMillis", 1, 1, |a| text(a.time(0)?.div_euclid(1_000_000).to_string())),
    row("unixEpochNanos", 1, 1, |a| text(a.time(0)?.to_string())),
    row("unixToTime", 1, 1, |a| unix_to_time(a.text(0)?)),
    row("fromJson", 1, 1, |a| Ok(serde_json::from_str(a.text(0)?).map_or(Val::Nil, Val::from_json))),
];

/// Letter by letter, as Go maps them: what would become several letters stays.
fn mapped<I: Iterator<Item = char>>(text: &str, map: impl Fn(char) -> I) -> String {
    text.chars()
        .map(|c| {
            let mut mapped = map(c);
            match (mapped.next(), mapped.next()) {
                (Some(one), None) => one,
                _ => c,
            }
        })
        .collect()
}

fn lower(text: &str) -> String {
    mapped(text, char::to_lowercase)
}

fn upper(text: &str) -> String {
    mapped(text, char::to_uppercase)
}

/// Each word's first letter upper.
fn title(text: &str) -> String {
    let mut last = ' ';
    text.chars()
        .map(|c| {
            let inside = last.is_alphanumeric() || last == '_' || (!last.is_ascii() && !last.is_whitespace());
            last = c;
            if inside { c } else { upper(c.encode_utf8(&mut [0; 4])).chars().next().unwrap_or(c) }
        })
        .collect()
}

fn trim_set<'t>(text: &'t str, set: &str, left: bool, right: bool) -> &'t str {
    let inside = |c: char| set.contains(c);
    let text = if left { text.trim_start_matches(inside) } else { text };
    if right { text.trim_end_matches(inside) } else { text }
}

/// Bytes `from..to`; what is cut in the middle of a letter becomes U+FFFD.
fn cut(text: &str, from: usize, to: usize) -> String {
    String::from_utf8_lossy(text.as_bytes().get(from..to).unwrap_or(&[])).into_owned()
}

/// The first `n` bytes, or the last if `n` is negative.
fn trunc(n: i64, text: &str) -> String {
    let size = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
    if size >= text.len() {
        return text.to_owned();
    }
    if n < 0 { cut(text, text.len() - size, text.len()) } else { cut(text, 0, size) }
}

fn substr(start: i64, end: i64, text: &str) -> Result<Val, String> {
    let length = text.len();
    let end = usize::try_from(end).ok().filter(|end| *end <= length);
    let start = usize::try_from(start).ok();
    match (start, end) {
        (None, end) => Ok(Val::Text(cut(text, 0, end.unwrap_or(length)))),
        (Some(start), end) if start <= end.unwrap_or(length) => Ok(Val::Text(cut(text, start, end.unwrap_or(length)))),
        (Some(start), _) => Err(format!("slice bounds out of range [{start}:{length}]")),
    }
}

fn repeat(text: &str, count: i64) -> Result<String, String> {
    let count = usize::try_from(count).map_err(|_| "negative repeat count".to_owned())?;
    match text.len().checked_mul(count) {
        Some(bytes) if bytes <= OUTPUT_BYTES_MAX => Ok(text.repeat(count)),
        _ => Err(format!("the result is longer than {OUTPUT_BYTES_MAX} bytes")),
    }
}

fn indent(spaces: i64, text: &str) -> Result<String, String> {
    let pad = repeat(" ", spaces)?;
    let lines = text.matches('\n').count() + 1;
    if pad.len().saturating_mul(lines) > OUTPUT_BYTES_MAX {
        return Err(format!("the result is longer than {OUTPUT_BYTES_MAX} bytes"));
    }
    Ok(format!("{pad}{}", text.replace('\n', &format!("\n{pad}"))))
}

/// Cut or padded to `width` letters.
fn align(width: i64, text: &str, left: bool) -> Result<String, String> {
    let length = text.chars().count();
    let Ok(width) = usize::try_from(width) else { return Ok(text.to_owned()) };
    if width >= length {
        let pad = repeat(" ", i64::try_from(width - length).unwrap_or(i64::MAX))?;
        return Ok(if left { format!("{text}{pad}") } else { format!("{pad}{text}") });
    }
    Ok(if left { text.chars().take(width).collect() } else { text.chars().skip(length - width).collect() })
}

fn seconds(text: &str) -> Result<Val, String> {
    match units::parse_go_duration(text) {
        Some(ns) => Ok(Val::Float(ns as f64 / 1e9)),
        None => Err(format!("time: invalid duration {text:?}")),
    }
}

/// What a bad text yields is the words of the fault, not a fault.
fn base64_text(text: &str) -> String {
    match STANDARD.decode(text) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => {
            let inside = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
            let at = text.bytes().position(|b| !inside(&b)).unwrap_or(text.len() / 4 * 4);
            format!("illegal base64 data at input byte {at}")
        }
    }
}

fn query_unescape(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        out.push(match first {
            b'+' => b' ',
            b'%' => {
                let wrong =
                    || format!("invalid URL escape {:?}", String::from_utf8_lossy(tail.get(..2).unwrap_or(tail)));
                let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
                rest = &tail[2..];
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            other => *other,
        });
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The unit follows from the number of digits.
fn unix_to_time(text: &str) -> Result<Val, String> {
    let number: i128 = text.parse().map_err(|_| format!("unable to parse time {text:?}"))?;
    let unit: i128 = match text.len() {
        5 => 86_400 * 1_000_000_000,
        10 => 1_000_000_000,
        13 => 1_000_000,
        16 => 1_000,
        19 => 1,
        _ => return Err(format!("unable to parse time {text:?}: unknown number of digits")),
    };
    Ok(Val::Time(number * unit))
}
