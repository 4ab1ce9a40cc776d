//! Evaluates the recorded queries over the recorded data set and compares the answers.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::Value as Json;
use storage::model::histogram::{BucketSpan, Histogram, ResetHint, stale_nan};
use storage::model::labels::Labels;
use storage::model::time::TimestampMs;

use super::corpus::{conformance, exchanges, param};
use super::store::{Store, Value, context};
use crate::promql::{Answer, Grid, Options, PointValue, Value as Answered, duration_ms, instant, range};
use crate::{Kind, Result};

fn number(json: &Json) -> f64 {
    match json {
        Json::String(text) if text == "stale" => stale_nan(),
        Json::String(text) => text.parse().expect("a number"),
        other => other.as_f64().expect("a number"),
    }
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().map(|list| list.iter().map(number).collect()).unwrap_or_default()
}

fn spans(json: &Json) -> Vec<BucketSpan> {
    let span = |pair: &Json| BucketSpan {
        offset: pair[0].as_i64().expect("an offset").try_into().expect("fits"),
        length: pair[1].as_u64().expect("a length").try_into().expect("fits"),
    };
    json.as_array().map(|list| list.iter().map(span).collect()).unwrap_or_default()
}

fn histogram(json: &Json) -> Histogram {
    Histogram {
        schema: json["schema"].as_i64().expect("a schema").try_into().expect("fits"),
        count: number(&json["count"]),
        sum: number(&json["sum"]),
        zero_threshold: json.get("zero_threshold").map_or(0.0, number),
        zero_count: json.get("zero_count").map_or(0.0, number),
        positive_spans: spans(&json["positive_spans"]),
        positive_buckets: numbers(&json["positive_counts"]),
        negative_spans: spans(&json["negative_spans"]),
        negative_buckets: numbers(&json["negative_counts"]),
        custom_values: numbers(&json["custom_values"]),
        reset_hint: match json["reset_hint"].as_str() {
            Some("gauge") => ResetHint::Gauge,
            Some("yes" | "reset") => ResetHint::Reset,
            Some("no" | "not_reset") => ResetHint::NotReset,
            _ => ResetHint::Unknown,
        },
        float: json["float"] == true,
    }
}

fn data_set() -> Option<Store> {
    let file = std::fs::File::open(conformance()?.join("metrics/dataset.jsonl.gz")).expect("the data set");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("unpacks");
    let mut store = Store::default();
    for line in text.lines() {
        let json: Json = serde_json::from_str(line).expect("JSON");
        let pairs = json["labels"].as_object().expect("labels").iter();
        let labels = Labels::from_pairs(pairs.map(|(name, value)| (name, value.as_str().unwrap_or(""))));
        for sample in json["samples"].as_array().into_iter().flatten() {
            store.add(&labels, sample[0].as_i64().expect("ms"), Value::Float(number(&sample[1])), None);
        }
        for one in json["histograms"].as_array().into_iter().flatten() {
            let mut h = histogram(one);
            if one["sum"] == "stale" {
                h.sum = stale_nan();
            }
            store.add(&labels, one["t"].as_i64().expect("ms"), Value::Histogram(h), None);
        }
    }
    Some(store)
}

fn time(text: &str) -> Option<i64> {
    let seconds: f64 = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis() as f64 / 1000.0,
    };
    Some((seconds * 1000.0).round() as i64)
}

fn duration(text: &str) -> Option<i64> {
    text.parse::<f64>().ok().map(|s| (s * 1000.0).round() as i64).or_else(|| duration_ms(text).ok())
}

/// The answer to one recorded request, or nothing if it is about parameters.
async fn answer(store: &Store, exchange: &Json) -> Option<Result<Answer>> {
    let path = exchange["request"]["path"].as_str()?;
    let query = param(exchange, "query")?;
    if param(exchange, "limit").is_some() || param(exchange, "timeout").is_some() {
        return None;
    }
    let mut options = Options::default();
    if let Some(lookback) = param(exchange, "lookback_delta") {
        options.lookback = std::time::Duration::from_millis(duration(lookback)?.try_into().ok()?);
    }
    if path.ends_with("/query") {
        let at = TimestampMs(time(param(exchange, "time")?)?);
        return Some(instant(store, query, at, &options, &context()).await);
    }
    if path.ends_with("/query_range") {
        let (start, end) = (time(param(exchange, "start")?)?, time(param(exchange, "end")?)?);
        let step_ms = duration(param(exchange, "step")?)?;
        if end < start || step_ms <= 0 || (end - start) / step_ms > 11_000 {
            return None;
        }
        let grid = Grid { start: TimestampMs(start), end: TimestampMs(end), step_ms };
        return Some(range(store, query, grid, &options, &context()).await);
    }
    None
}

fn close(a: f64, b: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    if a.is_infinite() || b.is_infinite() {
        return false;
    }
    let scale = a.abs().max(b.abs());
    (a - b).abs() <= if scale < 1e-3 { 1e-9 } else { 1e-6 * scale }
}

type Points = BTreeMap<i64, String>;

/// What an answer holds: by labels, by time; floats as numbers, histograms as count and sum and buckets.
fn flat(value: &Answered) -> (&'static str, BTreeMap<String, Points>) {
    let mut out = BTreeMap::new();
    let labels = |labels: &Labels| serde_json::to_string(&labels.iter().collect::<BTreeMap<_, _>>()).expect("JSON");
    let kind = match value {
        Answered::Scalar(ts, value) => {
            out.insert(String::new(), Points::from([(ts.0, value.to_string())]));
            "scalar"
        }
        Answered::String(ts, text) => {
            out.insert(String::new(), Points::from([(ts.0, text.clone())]));
            "string"
        }
        Answered::Vector(list) => {
            for one in list {
                let value = match &one.value {
                    PointValue::Float(value) => value.to_string(),
                    PointValue::Histogram(h) => flat_histogram(h),
                };
                assert!(out.insert(labels(&one.labels), Points::from([(one.ts.0, value)])).is_none(), "twice");
            }
            "vector"
        }
        Answered::Matrix(list) => {
            for one in list {
                let mut points: Points = one.floats.iter().map(|(ts, value)| (ts.0, value.to_string())).collect();
                points.extend(one.histograms.iter().map(|(ts, h)| (ts.0, flat_histogram(h))));
                assert!(out.insert(labels(&one.labels), points).is_none(), "twice");
            }
            "matrix"
        }
    };
    (kind, out)
}

fn flat_histogram(h: &Histogram) -> String {
    let mut out = vec![h.count, h.sum];
    for (rule, low, high, count) in crate::promql::histogram_buckets(h) {
        out.extend([f64::from(rule), low, high, count]);
    }
    let out: Vec<String> = out.iter().map(f64::to_string).collect();
    format!("h {}", out.join(" "))
}

fn flat_json_histogram(json: &Json) -> String {
    let mut out = vec![number(&json["count"]), number(&json["sum"])];
    for bucket in json["buckets"].as_array().into_iter().flatten() {
        out.extend(bucket.as_array().expect("a bucket").iter().map(number));
    }
    let out: Vec<String> = out.iter().map(f64::to_string).collect();
    format!("h {}", out.join(" "))
}

fn flat_json(data: &Json) -> (&str, BTreeMap<String, Points>) {
    let kind = data["resultType"].as_str().expect("a type");
    let ms = |json: &Json| (json.as_f64().expect("seconds") * 1000.0).round() as i64;
    let mut out = BTreeMap::new();
    let float = |json: &Json| number(json).to_string();
    match kind {
        "scalar" => {
            out.insert(String::new(), Points::from([(ms(&data["result"][0]), float(&data["result"][1]))]));
        }
        "string" => {
            let text = data["result"][1].as_str().expect("text").to_owned();
            out.insert(String::new(), Points::from([(ms(&data["result"][0]), text)]));
        }
        _ => {
            for one in data["result"].as_array().expect("a list") {
                let list = |name: &str| one[name].as_array().cloned().unwrap_or_default();
                let single = |name: &str| one.get(name).cloned();
                let floats = list("values").into_iter().chain(single("value"));
                let mut points: Points = floats.map(|pair| (ms(&pair[0]), float(&pair[1]))).collect();
                let histograms = list("histograms").into_iter().chain(single("histogram"));
                points.extend(histograms.map(|pair| (ms(&pair[0]), flat_json_histogram(&pair[1]))));
                let labels: BTreeMap<String, Json> = serde_json::from_value(one["metric"].clone()).expect("a metric");
                out.insert(serde_json::to_string(&labels).expect("JSON"), points);
            }
        }
    }
    (kind, out)
}

fn same_value(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (a, b): (Vec<&str>, Vec<&str>) = (a.split(' ').collect(), b.split(' ').collect());
    a.len() == b.len()
        && a.iter().zip(&b).all(|(a, b)| match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => close(a, b),
            _ => a == b,
        })
}

/// The first difference, in words.
fn difference(found: &Answered, expected: &Json) -> Option<String> {
    let (kind, found) = flat(found);
    let (wanted, expected) = flat_json(expected);
    if kind != wanted {
        return Some(format!("a {kind}, not a {wanted}"));
    }
    for (labels, points) in &expected {
        let Some(mine) = found.get(labels) else { return Some(format!("{labels} is missing")) };
        for (ts, value) in points {
            match mine.get(ts) {
                None => return Some(format!("{labels} at {ts} is missing, expected {value}")),
                Some(mine) if !same_value(mine, value) => {
                    return Some(format!("{labels} at {ts} is\n    {mine}, expected\n    {value}"));
                }
                Some(_) => {}
            }
        }
        if let Some((ts, value)) = mine.iter().find(|(ts, _)| !points.contains_key(ts)) {
            return Some(format!("{labels} at {ts} is {value}, expected nothing"));
        }
    }
    found.keys().find(|labels| !expected.contains_key(*labels)).map(|labels| format!("{labels} is too much"))
}

fn notices(json: &Json, name: &str) -> Vec<String> {
    let list = json[name].as_array().cloned().unwrap_or_default();
    let mut list: Vec<String> = list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
    list.sort();
    list
}

fn judge(exchange: &Json, answer: Result<Answer>) -> std::result::Result<(), String> {
    let expected = &exchange["expect"]["body"];
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let status = match error.kind {
                Kind::Parse | Kind::Invalid => 400,
                Kind::Execution | Kind::Limit => 422,
                _ => 500,
            };
            let same = exchange["expect"]["status"] == status;
            return if same { Ok(()) } else { Err(format!("error {error}, expected {}", expected["error"])) };
        }
    };
    if expected["status"] != "success" {
        return Err(format!("an answer, expected the error {}", expected["error"]));
    }
    if exchange["check"]["count_only"] != true
        && let Some(difference) = difference(&answer.value, &expected["data"])
    {
        return Err(difference);
    }
    // Compared in text everywhere, although only some answers demand it.
    for (name, mut found) in [("warnings", answer.warnings.clone()), ("infos", answer.infos.clone())] {
        found.sort();
        let wanted = notices(expected, name);
        if found.iter().chain(&wanted).any(|text| text.contains("omitted")) {
            continue;
        }
        if found != wanted {
            return Err(format!("{name} are {found:?}, expected {wanted:?}"));
        }
    }
    Ok(())
}

/// Areas whose answers all come out equal; the list only grows.
const COMPLETE: &[&str] = &[
    "aggregations",
    "annotations",
    "classic_histograms",
    "dashboards",
    "duration_expr",
    "errors",
    "experimental",
    "extended_range",
    "fill",
    "grafana",
    "histogram_trim",
    "info_function",
    "label_functions",
    "literals",
    "lookback",
    "math",
    "modifiers",
    "operators",
    "over_time",
    "query_api",
    "rates",
    "selectors",
    "sorting",
    "special_values",
    "staleness",
    "subqueries",
    "time_functions",
    "utf8",
];

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_come_out_equal() {
    let Some(store) = data_set() else { return };
    let mut areas: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut open = Vec::new();
    for exchange in exchanges() {
        let Some(answer) = answer(&store, &exchange).await else { continue };
        let area = exchange["area"].as_str().unwrap_or("").to_owned();
        let (passed, all) = areas.entry(area.clone()).or_default();
        *all += 1;
        match judge(&exchange, answer) {
            Ok(()) => *passed += 1,
            Err(why) => {
                let list = if COMPLETE.contains(&area.as_str()) { &mut failures } else { &mut open };
                list.push(format!(
                    "{} {} {}\n  {why}",
                    exchange["id"].as_str().unwrap_or(""),
                    param(&exchange, "query").unwrap_or(""),
                    exchange["request"]["path"].as_str().unwrap_or("").rsplit('/').next().unwrap_or(""),
                ));
            }
        }
    }
    for (area, (passed, all)) in &areas {
        eprintln!("{area}: {passed} of {all}");
    }
    eprintln!("{} not equal yet:\n{}", open.len(), open.join("\n"));
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
}
