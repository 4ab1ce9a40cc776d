//! Whole queries over batches in memory.

use futures::executor::block_on;
use storage::Context;
use storage::budget::Share;
use storage::model::batch::LogsBuilder;
use storage::model::labels::Labels;
use storage::model::tenant::Tenant;
use storage::model::time::TimestampNs;
use storage::scan::memory::MemoryScan;

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

/// Runs a query, and again over a scan that leaves out what the query says it will drop.
fn run(scan: &MemoryScan, query: &str, params: &Params) -> logql::Result<Answer> {
    let over = |scan: &MemoryScan| block_on(logql::range(scan, query, params, &Limits::default(), &context()));
    let answer = over(scan)?;
    let narrowed = over(&scan.narrowing())?;
    // As texts: NaN is what it is.
    assert_eq!(format!("{:?}", narrowed.value), format!("{:?}", answer.value), "{query}");
    Ok(answer)
}

/// `{a="b",…} second line; …` for each stream.
fn streams(scan: &MemoryScan, query: &str, params: &Params) -> Vec<String> {
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
fn matrix(scan: &MemoryScan, query: &str, params: &Params) -> Vec<String> {
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

/// Numbers that look random and are the same for one seed.
struct Noise(u64);

impl Noise {
    fn pick<'t, T: ?Sized>(&mut self, list: &[&'t T]) -> &'t T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        list[usize::try_from((self.0 >> 33) % list.len() as u64).expect("small")]
    }
}

/// Entries whose labels come from the stream, from metadata, from the line, or from several of them.
fn mixed(noise: &mut Noise) -> MemoryScan {
    const LINES: [&str; 8] = [
        r#"{"level":"error","status":500,"pod":"p-1"}"#,
        r#"{"level":"\u0065rror","status":"500","pod_extracted":"p-1"}"#,
        r#"{"a":{"level":"error"},"status":[500]}"#,
        "level=error status=500 pod=\"p-1\"",
        "level=\"\\u0065rror\" status=5e2",
        "timeout after 1234ms p-1",
        "level=info error",
        "",
    ];
    const VALUES: [&str; 5] = ["error", "500", "p-1", "", "0af7651916cd43dd8448eb211c80319c"];
    const NAMES: [&str; 6] = ["level", "detected_level", "status", "pod", "trace_id", "pod_extracted"];
    let mut builder = LogsBuilder::new();
    for labels in [&[("app", "a")][..], &[("app", "a"), ("pod", "p-1")], &[("app", "a"), ("level", "info")]] {
        let stream = builder.stream(Labels::from_pairs(labels.iter().copied()));
        for second in 0..40 {
            let mut metadata = std::collections::BTreeMap::new();
            for _ in 0..2 {
                metadata.insert(noise.pick(&NAMES), noise.pick(&VALUES));
            }
            builder.entry(stream, TimestampNs(second * S), noise.pick(&LINES), metadata.into_iter()).unwrap();
        }
    }
    MemoryScan::new(vec![builder.finish().unwrap()])
}

#[test]
fn what_is_told_to_the_scan_changes_no_answer() {
    const SOURCES: [&str; 3] = [r#"{app="a"}"#, r#"{app="a",pod="p-1"}"#, r#"{app="a",pod="",level=""}"#];
    const STAGES: [&str; 18] = [
        r#"|= "error""#,
        r#"|= "p-1" or "500""#,
        r#"|~ "timeout after [0-9]{4,}ms""#,
        r#"|~ "(?i)ERROR|status""#,
        r#"| level="error""#,
        r#"| level=~"error|info""#,
        r#"| detected_level="error""#,
        r#"| pod="p-1" or status="500""#,
        r#"| pod_extracted="p-1""#,
        r#"| trace_id="0af7651916cd43dd8448eb211c80319c""#,
        r#"| trace_id="500""#,
        r#"| status="""#,
        "| status>=500",
        "| json",
        "| logfmt",
        "| drop level",
        r#"| label_format pod=status"#,
        r#"| line_format "{{.pod}} error""#,
    ];
    const FORMS: [&str; 3] =
        ["Q", "sum by (level) (count_over_time(Q [10s]))", "sum by (pod, trace_id) (rate(Q [20s]))"];
    for seed in 0..300 {
        let noise = &mut Noise(seed);
        noise.pick(&STAGES);
        let scan = mixed(noise);
        let pipeline: Vec<&str> = (0..3).map(|_| noise.pick(&STAGES)).collect();
        let query = noise.pick(&FORMS).replace('Q', &format!("{} {}", noise.pick(&SOURCES), pipeline.join(" ")));
        // Both runs must agree, be it on an error.
        let answer = run(&scan, &query, &params(0, 40, 10));
        assert!(answer.is_ok() || query.contains("over_time") || query.contains("rate"), "seed {seed}: {query}");
    }
}
