//! Series lines of scripts: labels, then one item per slot.

use storage::model::histogram::{BucketSpan, Histogram, ResetHint, stale_nan};
use storage::model::labels::Labels;

use super::super::store::Value;
use crate::promql::eval::{add_histograms, sub_histograms};
use crate::promql::parse_selector;

/// One slot of a series: a value or nothing.
pub(super) type Slot = Option<Value>;

/// Splits a line into its labels and its items.
pub(super) fn series(line: &str) -> (Labels, Vec<String>) {
    let open = line.find('{').filter(|open| !line[..*open].contains(char::is_whitespace));
    let end = match open {
        None => line.find(char::is_whitespace).unwrap_or(line.len()),
        Some(open) => {
            let mut quote = None;
            let inner = line[open..].char_indices().find(|(_, c)| {
                match quote {
                    Some(q) if *c == q => quote = None,
                    None if matches!(c, '"' | '\'' | '`') => quote = Some(*c),
                    _ => {}
                }
                quote.is_none() && *c == '}'
            });
            open + inner.expect("a closing brace").0 + 1
        }
    };
    (labels(&line[..end]), items(&line[end..]))
}

fn labels(text: &str) -> Labels {
    // A selector must demand something: a label of our own is added and left out again.
    let selector = match text.strip_suffix('}') {
        None => format!("{text}{{own=\"1\"}}"),
        Some(start) if start.trim_end().ends_with(['{', ',']) => format!("{start}own=\"1\"}}"),
        Some(start) => format!("{start},own=\"1\"}}"),
    };
    let matchers = parse_selector(&selector).unwrap_or_else(|e| panic!("{text}: {e}"));
    Labels::from_pairs(matchers.iter().filter(|m| m.name != "own").map(|m| (&m.name, &m.value)))
}

fn items(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut item = String::new();
    let mut depth = 0;
    for c in text.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c.is_whitespace() && depth == 0 {
            if !item.is_empty() {
                out.push(std::mem::take(&mut item));
            }
        } else {
            item.push(c);
        }
    }
    if !item.is_empty() {
        out.push(item);
    }
    out
}

/// All slots that the items describe.
pub(super) fn slots(items: &[String]) -> Vec<Slot> {
    items.iter().flat_map(|item| slot(item)).collect()
}

fn repeat(item: &str) -> (&str, Option<usize>) {
    match item.rsplit_once('x') {
        Some((body, n)) if !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) => (body, n.parse().ok()),
        _ => (item, None),
    }
}

/// `A`, and `B` with its sign.
fn step(body: &str) -> (&str, Option<(f64, &str)>) {
    let from = if body.starts_with("{{") { body.find("}}").map_or(0, |i| i + 2) } else { 1 };
    let bytes = body.as_bytes();
    let exponent = |i: usize| !body.starts_with("{{") && bytes[i - 1].eq_ignore_ascii_case(&b'e');
    let at = (from..bytes.len()).find(|i| matches!(bytes[*i], b'+' | b'-') && !exponent(*i));
    match at {
        Some(at) => (&body[..at], Some((if bytes[at] == b'-' { -1.0 } else { 1.0 }, &body[at + 1..]))),
        None => (body, None),
    }
}

fn slot(item: &str) -> Vec<Slot> {
    let (body, n) = repeat(item);
    if body == "_" {
        return vec![None; n.unwrap_or(1)];
    }
    if body == "stale" {
        return vec![Some(Value::Float(stale_nan())); n.unwrap_or(0) + 1];
    }
    let (first, by) = step(body);
    let count = n.unwrap_or(0) + 1;
    if first.starts_with("{{") {
        let first = histogram(first);
        let by = by.map(|(sign, text)| (sign, histogram(text)));
        let mut current = first.clone();
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(Some(Value::Histogram(Histogram { reset_hint: first.reset_hint, ..current.clone() })));
            if let Some((sign, by)) = &by {
                let next = if *sign < 0.0 { sub_histograms(&current, by) } else { add_histograms(&current, by) };
                current = next.expect("fits").histogram;
            }
        }
        return out;
    }
    let first = number(first);
    let by = by.map_or(0.0, |(sign, text)| sign * number(text));
    let mut value = first;
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(Some(Value::Float(value)));
        if by != 0.0 {
            value += by;
        }
    }
    out
}

pub(super) fn number(text: &str) -> f64 {
    let text = text.replace('_', "");
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).expect(&text) as f64,
        None => text.parse().unwrap_or_else(|_| panic!("the number {text}")),
    }
}

fn histogram(text: &str) -> Histogram {
    let inner = text.trim_start_matches("{{").trim_end_matches("}}");
    let mut h = Histogram { float: true, ..Histogram::default() };
    let (mut offset, mut n_offset) = (0, 0);
    let mut rest = inner.trim();
    while let Some((key, tail)) = rest.split_once(':') {
        let tail = tail.trim_start();
        let (value, after) = match tail.strip_prefix('[') {
            Some(list) => list.split_once(']').expect("a closing bracket"),
            None => tail.split_once(char::is_whitespace).unwrap_or((tail, "")),
        };
        let list = || value.split_whitespace().map(number).collect::<Vec<f64>>();
        match key.trim() {
            "schema" => h.schema = value.parse().expect("a schema"),
            "sum" => h.sum = number(value),
            "count" => h.count = number(value),
            "z_bucket" => h.zero_count = number(value),
            "z_bucket_w" => h.zero_threshold = number(value),
            "buckets" => h.positive_buckets = list(),
            "n_buckets" => h.negative_buckets = list(),
            "offset" => offset = value.parse().expect("an offset"),
            "n_offset" => n_offset = value.parse().expect("an offset"),
            "custom_values" => h.custom_values = list(),
            "counter_reset_hint" => {
                h.reset_hint = match value {
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                }
            }
            other => panic!("the key {other}"),
        }
        rest = after.trim();
    }
    let span = |offset, buckets: &[f64]| {
        let length = u32::try_from(buckets.len()).expect("few");
        if length == 0 { Vec::new() } else { vec![BucketSpan { offset, length }] }
    };
    h.positive_spans = span(offset, &h.positive_buckets);
    h.negative_spans = span(n_offset, &h.negative_buckets);
    h
}

/// Start times relative to their slots, in milliseconds.
pub(super) fn starts(items: &[String]) -> Vec<Option<i64>> {
    let ms = |text: &str| {
        let (sign, text) = match text.strip_prefix('-') {
            Some(text) => (-1, text),
            None => (1, text.trim_start_matches('+')),
        };
        sign * time(text)
    };
    let mut out = Vec::new();
    for item in items {
        let (body, n) = repeat(item);
        if body == "_" {
            out.extend(vec![None; n.unwrap_or(1)]);
            continue;
        }
        let (first, by) = step(body);
        let by = by.map_or(0, |(sign, text)| if sign < 0.0 { -ms(text) } else { ms(text) });
        let first = ms(first);
        for i in 0..=i64::try_from(n.unwrap_or(0)).expect("few") {
            out.push(Some(first + by * i));
        }
    }
    out
}

/// A duration, or plain seconds.
pub(super) fn time(text: &str) -> i64 {
    match text.parse::<f64>() {
        Ok(seconds) => (seconds * 1000.0).round() as i64,
        Err(_) => crate::promql::duration_ms(text).unwrap_or_else(|e| panic!("{e}")),
    }
}
