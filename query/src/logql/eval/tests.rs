//! Whole queries over batches in memory.

use futures::executor::block_on;
use storage::budget::Share;
use storage::model::batch::LogsBuilder;
use storage::model::labels::Labels;
use storage::model::tenant::Tenant;
use storage::model::time::TimestampNs;
use storage::scan::memory::MemoryScan;
use storage::{Context, Scan};

use crate::logql::{self, Answer, Direction, Limits, Params, Value};

const S: i64 = 1_000_000_000;

type Metadata<'t> = &'t [(&'t str, &'t str)];
type Entries<'t> = &'t [(i64, &'t str, Metadata<'t>)];

/// Streams of `(labels, entries of (second, line, metadata))`.
fn scan(streams: &[(Metadata<'_>, Entries<'_>)]) -> MemoryScan {
    let mut builder = LogsBuilder::new();
    for (labels, entries) in streams {
        let stream = builder.stream(Labels::from_pairs(labels.iter().copied()));
        for (second, line, metadata) in *entries {
            builder.entry(stream, TimestampNs(second * S), line, metadata.iter().copied()).unwrap();
        }
    }
    MemoryScan::new(vec![builder.finish().unwrap()])
}

fn context() -> Context {
    Context::new(Tenant::single(), Share::root("test", 64 << 20))
}

fn params(start: i64, end: i64, step: i64) -> Params {
    Params {
        start_ns: start * S,
        end_ns: end * S,
        step_ns: step * S,
        interval_ns: 0,
        limit: 100,
        direction: Direction::Backward,
    }
}

fn run(scan: &dyn Scan, query: &str, params: &Params) -> logql::Result<Answer> {
    block_on(logql::range(scan, query, params, &Limits::default(), &context()))
}

/// `{a="b",…} second line; …` for each stream.
fn streams(scan: &dyn Scan, query: &str, params: &Params) -> Vec<String> {
    let Value::Streams(streams) = run(scan, query, params).unwrap_or_else(|error| panic!("{query}: {error}")).value
    else {
        panic!("{query} gives no streams")
    };
    let mut list: Vec<String> = streams
        .iter()
        .map(|stream| {
            let entries: Vec<String> =
                stream.entries.iter().map(|entry| format!("{} {}", entry.ts_ns / S, entry.line)).collect();
            format!("{} {}", text(&stream.labels), entries.join("; "))
        })
        .collect();
    list.sort();
    list
}

fn text(labels: &[(String, String)]) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(","))
}

/// `{a="b",…} second:value …` for each series.
fn matrix(scan: &dyn Scan, query: &str, params: &Params) -> Vec<String> {
    let Value::Matrix(series) = run(scan, query, params).unwrap_or_else(|error| panic!("{query}: {error}")).value
    else {
        panic!("{query} gives no matrix")
    };
    let one = |series: &logql::Series| {
        let points: Vec<String> = series
            .points
            .iter()
            .map(|(ts_ns, value)| format!("{}:{}", ts_ns / S, logql::format_float(*value)))
            .collect();
        format!("{} {}", text(&series.labels), points.join(" "))
    };
    series.iter().map(one).collect()
}

fn small() -> MemoryScan {
    scan(&[
        (
            &[("app", "a"), ("env", "x")],
            &[
                (1, "level=info n=1", &[("pod", "p1")]),
                (3, "level=error n=2", &[("pod", "p2")]),
                (5, "level=info n=3", &[("pod", "p1")]),
            ],
        ),
        (&[("app", "a"), ("env", "y")], &[(2, "level=info n=10", &[]), (4, "level=error n=20", &[("env", "sm")])]),
        (&[("app", "b")], &[(1, "{\"a\":{\"b\":1}}", &[]), (2, "broken", &[])]),
    ])
}

#[test]
fn log_queries_order_limit_and_group() {
    let scan = small();
    let all = params(0, 10, 0);
    assert_eq!(
        streams(&scan, "{env=\"x\"}", &all),
        [
            "{app=\"a\",env=\"x\",pod=\"p1\"} 5 level=info n=3; 1 level=info n=1",
            "{app=\"a\",env=\"x\",pod=\"p2\"} 3 level=error n=2",
        ]
    );
    let newest = Params { limit: 2, ..all };
    assert_eq!(
        streams(&scan, "{app=\"a\"} |= \"n=\"", &newest),
        [
            "{app=\"a\",env=\"x\",pod=\"p1\"} 5 level=info n=3",
            "{app=\"a\",env=\"y\",env_extracted=\"sm\"} 4 level=error n=20",
        ]
    );
    let oldest = Params { limit: 2, direction: Direction::Forward, ..all };
    assert_eq!(
        streams(&scan, "{app=\"a\"} |= \"info\"", &oldest),
        ["{app=\"a\",env=\"x\",pod=\"p1\"} 1 level=info n=1", "{app=\"a\",env=\"y\"} 2 level=info n=10",]
    );
    let spaced = Params { interval_ns: 2 * S, direction: Direction::Forward, ..all };
    assert_eq!(
        streams(&scan, "{app=\"a\"} | drop env, env_extracted, pod", &spaced),
        ["{app=\"a\"} 1 level=info n=1; 3 level=error n=2; 5 level=info n=3"]
    );
    assert!(streams(&scan, "{app=\"a\"}", &params(1, 1, 0)).is_empty(), "an empty range has no entry");
}

#[test]
fn pipelines_see_all_labels() {
    let scan = small();
    let all = params(0, 10, 0);
    assert_eq!(
        streams(&scan, "{app=\"a\"} | logfmt | level=\"error\" | n > 5 | keep n, level", &all),
        ["{level=\"error\",n=\"20\"} 4 level=error n=20"]
    );
    assert_eq!(streams(&scan, "{app=\"a\"} | pod=\"p2\" | keep pod", &all), ["{pod=\"p2\"} 3 level=error n=2"]);
    assert_eq!(
        streams(&scan, "{app=\"b\"} | json | drop __error_details__", &all),
        ["{__error__=\"JSONParserErr\",app=\"b\"} 2 broken", "{a_b=\"1\",app=\"b\"} 1 {\"a\":{\"b\":1}}",]
    );
    let answer = run(&scan, "{app=\"a\"} |= \"error\"", &all).unwrap();
    assert_eq!((answer.lines_read, answer.lines_passed), (5, 2));
    let Value::Streams(list) = answer.value else { panic!("streams") };
    let entry = &list[0].entries[0];
    assert_eq!(entry.structured_metadata, [("env_extracted".to_owned(), "sm".to_owned())]);
}

#[test]
fn counts_and_rates_by_window() {
    let scan = small();
    let steps = params(2, 6, 2);
    assert_eq!(
        matrix(&scan, "sum by (env) (count_over_time({app=\"a\"}[2s]))", &steps),
        ["{env=\"x\"} 2:1 4:1 6:1", "{env=\"y\"} 2:1 4:1",]
    );
    assert_eq!(matrix(&scan, "sum(rate({app=\"a\"}[4s]))", &steps), ["{} 2:0.5 4:1 6:0.75"]);
    assert_eq!(
        matrix(&scan, "sum by (level) (count_over_time({app=\"a\"} | logfmt [10s]))", &params(6, 6, 1)),
        ["{level=\"error\"} 6:2", "{level=\"info\"} 6:3",]
    );
    assert_eq!(
        matrix(&scan, "bytes_over_time({env=\"y\"} | drop env_extracted [10s])", &params(6, 6, 1)),
        ["{app=\"a\",env=\"y\"} 6:31"]
    );
    assert_eq!(
        matrix(&scan, "absent_over_time({app=\"a\",env=\"x\"}[1s])", &params(1, 4, 1)),
        ["{app=\"a\",env=\"x\"} 2:1 4:1"]
    );
    assert_eq!(
        matrix(&scan, "count_over_time({env=\"y\"} | drop env_extracted [1s] offset 2s)", &params(1, 6, 1)),
        ["{app=\"a\",env=\"y\"} 4:1 6:1"]
    );
}

#[test]
fn unwrapped_values() {
    let scan = small();
    let at = params(6, 6, 1);
    let check = |query: &str, expected: &[&str]| assert_eq!(matrix(&scan, query, &at), expected, "{query}");
    check(
        "sum by (env) (sum_over_time({app=\"a\"} | logfmt | unwrap n [10s]))",
        &["{env=\"x\"} 6:6", "{env=\"y\"} 6:30"],
    );
    check(
        "avg_over_time({app=\"a\"} | logfmt | unwrap n [10s]) by (level)",
        &["{level=\"error\"} 6:11", "{level=\"info\"} 6:4.666666666666667"],
    );
    check("max_over_time({app=\"a\"} | logfmt | unwrap n | level=\"info\" [10s]) by ()", &["{} 6:10"]);
    check("first_over_time({env=\"x\"} | logfmt | unwrap n [10s]) by (env)", &["{env=\"x\"} 6:1"]);
    check("last_over_time({env=\"x\"} | logfmt | unwrap n [10s]) by (env)", &["{env=\"x\"} 6:3"]);
    check("quantile_over_time(0.5, {env=\"x\"} | logfmt | unwrap n [10s]) by (env)", &["{env=\"x\"} 6:2"]);
    check("sum(sum_over_time({app=\"a\"} | logfmt | unwrap level | __error__=\"\" [10s]))", &[]);
    check("sum(count_over_time({app=\"b\"} | json | __error__!=\"\" [10s]))", &["{} 6:1"]);
    check(
        "sum by (__error__) (count_over_time({app=\"b\"} | json [10s]))",
        &["{} 6:1", "{__error__=\"JSONParserErr\"} 6:1"],
    );
    let error = run(&scan, "sum_over_time({app=\"a\"} | logfmt | unwrap level [10s])", &at).unwrap_err();
    assert!(error.message.starts_with("pipeline error: 'SampleExtractionErr' for series"), "{error}");
    let error = run(&scan, "count_over_time({app=\"b\"} | json [10s])", &at).unwrap_err();
    assert!(error.message.starts_with("pipeline error: 'JSONParserErr' for series"), "{error}");
}

#[test]
fn operators_match_by_labels() {
    let scan = small();
    let at = params(6, 6, 1);
    let check = |query: &str, expected: &[&str]| assert_eq!(matrix(&scan, query, &at), expected, "{query}");
    let by_env = "sum by (env) (count_over_time({app=\"a\"}[10s]))";
    let total = "sum(count_over_time({app=\"a\"}[10s]))";
    check(&format!("{by_env} * 2"), &["{env=\"x\"} 6:6", "{env=\"y\"} 6:4"]);
    check(&format!("{by_env} > 2"), &["{env=\"x\"} 6:3"]);
    check(&format!("{by_env} > bool 2"), &["{env=\"x\"} 6:1", "{env=\"y\"} 6:0"]);
    check(&format!("{by_env} / 0"), &["{env=\"x\"} 6:NaN", "{env=\"y\"} 6:NaN"]);
    check(&format!("{by_env} / on () group_left () {total}"), &["{env=\"x\"} 6:0.6", "{env=\"y\"} 6:0.4"]);
    check(&format!("{by_env} and on () {total}"), &["{env=\"x\"} 6:3", "{env=\"y\"} 6:2"]);
    check(&format!("{by_env} unless {by_env} > 2"), &["{env=\"y\"} 6:2"]);
    check(&format!("{total} or {by_env}"), &["{} 6:5", "{env=\"x\"} 6:3", "{env=\"y\"} 6:2"]);
    check(&format!("topk(1, {by_env})"), &["{env=\"x\"} 6:3"]);
    check(&format!("bottomk(1, {by_env})"), &["{env=\"y\"} 6:2"]);
    check(
        &format!("label_replace({by_env}, \"e\", \"<$1>\", \"env\", \"(x)\")"),
        &["{e=\"<x>\",env=\"x\"} 6:3", "{env=\"y\"} 6:2"],
    );
    check("vector(1) + vector(1)", &["{} 6:2"]);
    check("1 + 1", &["{} 6:2"]);
    let error = run(&scan, &format!("{by_env} / on () {by_env}"), &at).unwrap_err();
    assert!(error.message.contains("many-to-many matching not allowed"), "{error}");
}

#[test]
fn limits_are_errors() {
    let scan = small();
    let few = Limits { series_max: 1, ..Limits::default() };
    let at = params(6, 6, 1);
    let error = block_on(logql::range(&scan, "count_over_time({app=\"a\"}[10s])", &at, &few, &context())).unwrap_err();
    assert!(error.message.starts_with("maximum number of series (1) reached"), "{error}");
    let error = run(&scan, "{app=\"a\"}", &Params { limit: 6000, ..at }).unwrap_err();
    assert!(error.message.contains("(6000 > 5000)"), "{error}");
    let tiny = Context::new(Tenant::single(), Share::root("test", 64));
    assert!(block_on(logql::range(&scan, "{app=\"a\"}", &params(0, 10, 0), &few, &tiny)).is_err());
    for bad in
        ["{}", "{a=~\".*\"}", "{a=\"b\"} |~ \"(\"", "{a=\"b\"} | pattern \"<a><b>\"", "{a=\"b\"} | json a=\"b[\""]
    {
        let error = run(&scan, bad, &at).unwrap_err();
        assert!(error.message.starts_with("parse error"), "{bad}: {error}");
    }
}
