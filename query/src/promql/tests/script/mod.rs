//! Scripts: series are loaded, queries evaluated, answers compared; files are named by what they are about.

mod series;

use std::collections::BTreeMap;

use storage::model::histogram::{Histogram, ResetHint, SCHEMA_CUSTOM};
use storage::model::labels::Labels;
use storage::model::time::TimestampMs;

use super::corpus::conformance;
use super::store::{Samples, Store, Value, context};
use crate::Result;
use crate::promql::ast::{At, Expr};
use crate::promql::{Answer, Grid, Options, PointValue, Value as Answered, instant, parse, print, range};
use series::{Slot, series, slots, starts, time};

/// Files of which every evaluation passes; the list only grows.
const COMPLETE: &[&str] = &[
    "aggregators.test",
    "at_modifier.test",
    "collision.test",
    "duration_expression.test",
    "extended_vectors.test",
    "fill-modifier.test",
    "functions.test",
    "histograms.test",
    "info.test",
    "limit.test",
    "literals.test",
    "name_label_dropping.test",
    "native_histograms.test",
    "operators.test",
    "range_queries.test",
    "selectors.test",
    "staleness.test",
    "start_timestamps.test",
    "subquery.test",
    "trig_functions.test",
    "type_and_unit.test",
];

/// One `eval` with what is expected of it.
struct Eval {
    line: usize,
    query: String,
    start: i64,
    end: i64,
    /// Zero for an instant query.
    step: i64,
    expects: Vec<String>,
    results: Vec<String>,
}

#[derive(Default)]
struct Script {
    store: Store,
    passed: usize,
    failures: Vec<String>,
}

fn options() -> Options {
    Options { delayed_name_removal: true, start_timestamps: true, ..Options::default() }
}

impl Script {
    async fn run(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().map(|l| if l.trim().starts_with('#') { "" } else { l.trim() }).collect();
        let mut at = 0;
        while at < lines.len() {
            let line = lines[at];
            let block: Vec<&str> = lines[at + 1..].iter().take_while(|line| !line.is_empty()).copied().collect();
            let word = line.split_whitespace().next().unwrap_or("").to_lowercase();
            if word == "clear" {
                self.store = Store::default();
                at += 1;
                continue;
            }
            if word.starts_with("load") {
                self.load(line, &block);
            } else if word.starts_with("eval") {
                let eval = read_eval(at + 1, line, &block);
                match self.eval(&eval).await {
                    Ok(()) => self.passed += 1,
                    Err(why) => self.failures.push(format!("line {}: {}\n    {why}", eval.line, eval.query)),
                }
            } else {
                assert!(line.is_empty(), "line {}: {line}", at + 1);
            }
            at += 1 + if line.is_empty() { 0 } else { block.len() };
        }
    }

    fn load(&mut self, line: &str, block: &[&str]) {
        let step = time(line.split_whitespace().nth(1).expect("a step"));
        let nhcb = line.starts_with("load_with_nhcb");
        let mut loaded = Vec::new();
        let mut start_items: Option<Vec<Option<i64>>> = None;
        for line in block {
            if let Some((labels, items)) = line.split_once("@st") {
                let _ = labels;
                let items: Vec<String> = items.split_whitespace().map(str::to_owned).collect();
                start_items = Some(starts(&items));
                continue;
            }
            let (labels, items) = series(line);
            let starts = start_items.take().unwrap_or_default();
            let mut samples = Samples::new();
            for (i, slot) in slots(&items).into_iter().enumerate() {
                let Some(value) = slot else { continue };
                let ts = step * i64::try_from(i).expect("few");
                let start = starts.get(i).copied().flatten().map(|offset| ts + offset);
                self.store.add(&labels, ts, value.clone(), start);
                samples.insert(ts, (value, start));
            }
            loaded.push((labels, samples));
        }
        if nhcb {
            for (labels, ts, histogram) in converted(&loaded) {
                self.store.add(&labels, ts, Value::Histogram(histogram), None);
            }
        }
    }

    async fn answer(&self, query: &str, start: i64, end: i64, step: i64) -> Result<Answer> {
        if step == 0 {
            return instant(&self.store, query, TimestampMs(start), &options(), &context()).await;
        }
        let grid = Grid { start: TimestampMs(start), end: TimestampMs(end), step_ms: step };
        range(&self.store, query, grid, &options(), &context()).await
    }

    async fn eval(&self, eval: &Eval) -> std::result::Result<(), String> {
        let expected_failure = eval.expects.iter().find(|line| line.starts_with("fail"));
        let answer = match (self.answer(&eval.query, eval.start, eval.end, eval.step).await, expected_failure) {
            (Ok(_), Some(_)) => return Err("succeeded, expected to fail".to_owned()),
            (Err(error), None) => return Err(format!("failed: {error}")),
            (Err(error), Some(line)) => return failure(&error.message, line),
            (Ok(answer), None) => answer,
        };
        notices(&eval.expects, "warn", &answer.warnings)?;
        notices(&eval.expects, "info", &answer.infos)?;
        compare(&answer.value, eval)?;
        if eval.step == 0 {
            self.variants(eval).await?;
        }
        Ok(())
    }

    /// The same query with fixed times, evaluated elsewhere, and as the middle of a range.
    async fn variants(&self, eval: &Eval) -> std::result::Result<(), String> {
        const OF_TIME: [&str; 16] = [
            "time",
            "minute",
            "hour",
            "day_of_week",
            "day_of_month",
            "day_of_year",
            "days_in_month",
            "month",
            "year",
            "timestamp",
            "predict_linear",
            "start",
            "end",
            "step",
            "range",
            "info",
        ];
        let calls = |names: &[&str]| names.iter().any(|name| eval.query.contains(&format!("{name}(")));
        if !calls(&OF_TIME)
            && let Some(fixed) = fixed(&eval.query, eval.start)
        {
            let t = eval.start;
            let times = if t == 0 { [-1000, 0, 1000, 0, 0] } else { [-10 * t, 0, t / 5, t, 10 * t] };
            for at in times {
                let answer = self.answer(&fixed, at, at, 0).await.map_err(|e| format!("{fixed} at {at}: {e}"))?;
                compare(&answer.value, eval).map_err(|why| format!("{fixed} at {at}: {why}"))?;
            }
        }
        let special = |line: &String| ["ordered", "string", "range vector"].iter().any(|word| line.starts_with(word));
        if eval.expects.iter().any(special) || calls(&["start", "end", "range", "step"]) {
            return Ok(());
        }
        let (from, to) = (eval.start - 60_000, eval.start + 60_000);
        let answer = self.answer(&eval.query, from, to, 60_000).await.map_err(|e| format!("as a range: {e}"))?;
        let Answered::Matrix(list) = answer.value else { return Err("as a range: no matrix".to_owned()) };
        let mut found = BTreeMap::new();
        for one in list {
            let floats = one.floats.iter().map(|(ts, value)| (ts.0, Value::Float(*value)));
            let histograms = one.histograms.iter().map(|(ts, h)| (ts.0, Value::Histogram(h.clone())));
            if let Some((_, value)) = floats.chain(histograms).find(|(ts, _)| *ts == eval.start) {
                found.insert(one.labels, BTreeMap::from([(eval.start, value)]));
            }
        }
        same(&found, &expected(eval)?).map_err(|why| format!("as a range: {why}"))
    }
}

/// The query with every selector and subquery fixed at `t`.
fn fixed(query: &str, t: i64) -> Option<String> {
    let mut ast = parse(query).ok()?;
    let mut inner = std::collections::HashSet::new();
    for i in (0..ast.nodes.len()).rev() {
        let id = crate::promql::ast::NodeId(i);
        if let Expr::Subquery { expr, .. } = ast.expr(id) {
            inner.extend(ast.subtree(*expr));
        }
    }
    for i in 0..ast.nodes.len() {
        let keep = inner.contains(&crate::promql::ast::NodeId(i));
        match &mut ast.nodes[i].expr {
            Expr::Vector(s) | Expr::Matrix { selector: s, .. } if !keep => {
                s.shift.at = s.shift.at.or(Some(At::Time(t)))
            }
            Expr::Subquery { shift, .. } if !keep => shift.at = shift.at.or(Some(At::Time(t))),
            _ => {}
        }
    }
    Some(print(&ast))
}

fn read_eval(line: usize, text: &str, block: &[&str]) -> Eval {
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |n: usize| {
        let mut rest = text;
        for _ in 0..n {
            rest = rest.trim_start();
            rest = &rest[rest.find(char::is_whitespace).unwrap_or(rest.len())..];
        }
        rest.trim().to_owned()
    };
    let (start, end, step, query) = if words[1] == "instant" {
        (time(words[3]), time(words[3]), 0, after(4))
    } else {
        (time(words[3]), time(words[5]), time(words[7]), after(8))
    };
    let mut eval = Eval { line, query, start, end, step, expects: Vec::new(), results: Vec::new() };
    if let Some((_, kind)) = words[0].split_once('_') {
        eval.expects.push(kind.to_owned());
    }
    for line in block {
        match line.strip_prefix("expect ") {
            Some(rest) => eval.expects.push(rest.trim().to_owned()),
            None => eval.results.push((*line).to_owned()),
        }
    }
    eval
}

fn matches(text: &str, demand: &str) -> bool {
    if let Some(exact) = demand.trim().strip_prefix("msg:") {
        return text == exact.trim();
    }
    if let Some(pattern) = demand.trim().strip_prefix("regex:") {
        return regex::Regex::new(pattern.trim()).expect("a pattern").is_match(text);
    }
    true
}

fn failure(message: &str, line: &str) -> std::result::Result<(), String> {
    let demand = line.strip_prefix("fail").unwrap_or("");
    if matches(message, demand) { Ok(()) } else { Err(format!("failed with {message}, expected{demand}")) }
}

fn notices(expects: &[String], class: &str, found: &[String]) -> std::result::Result<(), String> {
    if expects.contains(&format!("no_{class}")) && !found.is_empty() {
        return Err(format!("gave {found:?}"));
    }
    let demands: Vec<&str> = expects.iter().filter_map(|line| line.strip_prefix(class)).collect();
    if let Some(missed) = demands.iter().find(|demand| !found.iter().any(|text| matches(text, demand))) {
        return Err(format!("expected {class}{missed}, found {found:?}"));
    }
    if !demands.is_empty()
        && let Some(extra) = found.iter().find(|text| !demands.iter().any(|demand| matches(text, demand)))
    {
        return Err(format!("gave {extra}"));
    }
    Ok(())
}

type Rows = BTreeMap<Labels, BTreeMap<i64, Value>>;

fn expected(eval: &Eval) -> std::result::Result<Rows, String> {
    let mut rows = Rows::new();
    let (mut start, mut step) = (eval.start, eval.step);
    if let Some(line) = eval.expects.iter().find_map(|line| line.strip_prefix("range vector ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        (start, step) = (time(words[1]), time(words[5]));
    }
    for line in &eval.results {
        // A scalar, as a range query shows it.
        if let Ok(value) = line.parse::<f64>() {
            rows.insert(Labels::empty(), BTreeMap::from([(start, Value::Float(value))]));
            continue;
        }
        let (labels, items) = series(line);
        let slots: Vec<Slot> = slots(&items);
        let points = slots
            .into_iter()
            .enumerate()
            .filter_map(|(i, slot)| Some((start + step * i64::try_from(i).expect("few"), slot?)));
        rows.insert(labels, points.collect());
    }
    rows.retain(|_, points| !points.is_empty());
    Ok(rows)
}

fn compare(value: &Answered, eval: &Eval) -> std::result::Result<(), String> {
    let mut found = Rows::new();
    match value {
        Answered::Scalar(_, value) => {
            let [line] = eval.results.as_slice() else { return Err(format!("is the scalar {value}")) };
            let Ok(wanted) = line.parse::<f64>() else { return Err(format!("is the scalar {value}")) };
            return if close(*value, wanted) { Ok(()) } else { Err(format!("is {value}, expected {wanted}")) };
        }
        Answered::String(_, text) => {
            let wanted = eval.expects.iter().find_map(|line| line.strip_prefix("string "));
            let wanted = wanted.map(|text| text.trim().trim_matches(['"', '`']));
            return if wanted == Some(text) { Ok(()) } else { Err(format!("is the string {text:?}")) };
        }
        Answered::Vector(list) => {
            if eval.expects.iter().any(|line| line == "ordered") {
                let order: Vec<Labels> = eval.results.iter().map(|line| series(line).0).collect();
                let mine: Vec<Labels> = list.iter().map(|one| one.labels.clone()).collect();
                if order != mine {
                    return Err(format!("comes in the order {mine:?}"));
                }
            }
            for one in list {
                let value = match &one.value {
                    PointValue::Float(value) => Value::Float(*value),
                    PointValue::Histogram(h) => Value::Histogram((**h).clone()),
                };
                found.insert(one.labels.clone(), BTreeMap::from([(eval.start, value)]));
            }
        }
        Answered::Matrix(list) => {
            for one in list {
                let floats = one.floats.iter().map(|(ts, value)| (ts.0, Value::Float(*value)));
                let histograms = one.histograms.iter().map(|(ts, h)| (ts.0, Value::Histogram(h.clone())));
                found.insert(one.labels.clone(), floats.chain(histograms).collect());
            }
        }
    }
    // A range query shows a scalar as a series without labels.
    if let ([line], Some(points)) = (eval.results.as_slice(), found.get(&Labels::empty()))
        && let Ok(wanted) = line.parse::<f64>()
        && eval.step == 0
        && points.len() == 1
    {
        return match points.values().next() {
            Some(Value::Float(value)) if close(*value, wanted) => Ok(()),
            other => Err(format!("is {other:?}, expected {wanted}")),
        };
    }
    same(&found, &expected(eval)?)
}

fn same(found: &Rows, expected: &Rows) -> std::result::Result<(), String> {
    for (labels, points) in expected {
        let Some(mine) = found.get(labels) else {
            return Err(format!("{labels} is missing; there are {:?}", found.keys()));
        };
        for (ts, value) in points {
            match mine.get(ts) {
                Some(mine) if same_value(mine, value) => {}
                mine => return Err(format!("{labels} at {ts} is {mine:?}, expected {value:?}")),
            }
        }
        if let Some(extra) = mine.keys().find(|ts| !points.contains_key(ts)) {
            return Err(format!("{labels} has a point at {extra}"));
        }
    }
    match found.keys().find(|labels| !expected.contains_key(*labels)) {
        Some(extra) => Err(format!("{extra} is too much")),
        None => Ok(()),
    }
}

fn close(a: f64, b: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < 1e-6 * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < 1e-6
}

fn same_value(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Float(a), Value::Float(b)) => close(*a, *b),
        (Value::Histogram(a), Value::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

fn populated(spans: &[storage::model::histogram::BucketSpan], counts: &[f64]) -> Vec<(i32, f64)> {
    let mut index = 0;
    let mut counts = counts.iter();
    let mut out = Vec::new();
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            out.push((index, *counts.next().expect("a count")));
            index += 1;
        }
    }
    out.retain(|(_, count)| *count != 0.0);
    out
}

fn same_histogram(a: &Histogram, b: &Histogram) -> bool {
    let buckets = |h: &Histogram| {
        [populated(&h.positive_spans, &h.positive_buckets), populated(&h.negative_spans, &h.negative_buckets)]
    };
    let lists = buckets(a)
        .into_iter()
        .zip(buckets(b))
        .all(|(a, b)| a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && close(a.1, b.1)));
    let hint = b.reset_hint == ResetHint::Unknown || a.reset_hint == b.reset_hint;
    let same = [(a.count, b.count), (a.sum, b.sum), (a.zero_count, b.zero_count)].iter().all(|(a, b)| close(*a, *b));
    lists
        && same
        && hint
        && a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.custom_values == b.custom_values
}

/// Classic histograms of a block as native ones with custom buckets.
fn converted(loaded: &[(Labels, Samples)]) -> Vec<(Labels, i64, Histogram)> {
    // By histogram and time: buckets, sum, count.
    type Parts = (Vec<(f64, f64)>, Option<f64>, Option<f64>);
    let mut found: BTreeMap<(Labels, i64), Parts> = BTreeMap::new();
    for (labels, samples) in loaded {
        let name = labels.metric();
        let base = |suffix: &str| name.strip_suffix(suffix).map(|name| labels.with("__name__", name).with("le", ""));
        let le: Option<f64> = labels.get("le").and_then(|le| le.parse().ok());
        for (ts, (value, _)) in samples {
            let Value::Float(value) = value else { continue };
            if let (Some(base), Some(le)) = (base("_bucket"), le) {
                found.entry((base, *ts)).or_default().0.push((le, *value));
            } else if let Some(base) = base("_sum") {
                found.entry((base, *ts)).or_default().1 = Some(*value);
            } else if let Some(base) = base("_count") {
                found.entry((base, *ts)).or_default().2 = Some(*value);
            }
        }
    }
    let whole = found.into_iter().filter(|(_, (buckets, _, _))| !buckets.is_empty());
    whole
        .map(|((labels, ts), (mut buckets, sum, count))| {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut h = Histogram { schema: SCHEMA_CUSTOM, float: true, ..Histogram::default() };
            let mut before = 0.0;
            for (le, count) in &buckets {
                if le.is_finite() {
                    h.custom_values.push(*le);
                }
                h.positive_buckets.push(count - before);
                before = *count;
            }
            h.count = count.unwrap_or(before);
            if h.positive_buckets.len() == h.custom_values.len() {
                h.positive_buckets.push(h.count - before);
            }
            h.sum = sum.unwrap_or(0.0);
            let length = u32::try_from(h.positive_buckets.len()).expect("few");
            h.positive_spans = vec![storage::model::histogram::BucketSpan { offset: 0, length }];
            (labels, ts, h)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_pass() {
    let Some(folder) = conformance() else { return };
    let mut names: Vec<_> = std::fs::read_dir(folder.join("promqltest")).expect("scripts").flatten().collect();
    names.sort_by_key(std::fs::DirEntry::path);
    let mut broken = Vec::new();
    for entry in names.iter().filter(|entry| entry.path().extension().is_some_and(|e| e == "test")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut script = Script::default();
        script.run(&std::fs::read_to_string(entry.path()).expect("reads")).await;
        let all = script.passed + script.failures.len();
        eprintln!("{name}: {} of {all}\n{}", script.passed, script.failures.join("\n"));
        if COMPLETE.contains(&name.as_str()) && !script.failures.is_empty() {
            broken.push(format!("{name}:\n{}", script.failures.join("\n")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
