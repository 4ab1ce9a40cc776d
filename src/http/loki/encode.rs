//! Answers of Loki's API as JSON.
//!
//! Owns: keys and their order (`resultType` and `encodingFlags` before `result`, which Grafana's reader needs).

use query::logql::{Answer, Entry, Series, Stream, Value};
use query::{Error, Kind, Result};

use crate::http::json::{Json, plain_value};

/// What surrounds a value.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The flags of the request, known or not.
    pub flags: Vec<String>,
    /// Seconds until the value was there.
    pub seconds: f64,
    /// The largest answer.
    pub bytes_max: usize,
}

/// The flag by which entries tell their labels by category.
const CATEGORIZE: &str = "categorize-labels";

/// The most dropped entries that a frame of a tail lists.
const DROPPED_MAX: u64 = 1000;

/// The answer of a query.
pub fn answer(answer: &Answer, frame: &Frame) -> Result<Json> {
    let mut json = Json::new();
    json.raw(r#"{"status":"success","data":{"resultType":"#);
    match &answer.value {
        Value::Streams(_) => json.raw(r#""streams""#),
        Value::Matrix(_) => json.raw(r#""matrix""#),
        Value::Vector(_) => json.raw(r#""vector""#),
        Value::Scalar(..) => json.raw(r#""scalar""#),
    };
    if !frame.flags.is_empty() && matches!(answer.value, Value::Streams(_)) {
        json.raw(r#","encodingFlags":"#).strings(&frame.flags);
    }
    let categorize = frame.flags.iter().any(|flag| flag == CATEGORIZE);
    json.raw(r#","result":"#);
    match &answer.value {
        Value::Streams(list) => bounded(&mut json, list, frame, |json, s| stream(json, s, categorize))?,
        Value::Matrix(list) => bounded(&mut json, list, frame, matrix_series)?,
        Value::Vector(list) => bounded(&mut json, list, frame, vector_series)?,
        Value::Scalar(ns, value) => point(&mut json, *ns, *value),
    }
    json.raw(r#","stats":"#);
    stats(&mut json, answer, frame.seconds);
    json.raw("}");
    if !answer.warnings.is_empty() {
        json.raw(r#","warnings":"#).strings(&answer.warnings);
    }
    json.raw("}");
    Ok(json)
}

/// One frame of a tail. Of entries that were dropped only the number is known; each stands for the time `now_ns`.
pub fn tail(streams: &[Stream], dropped: u64, now_ns: i64, frame: &Frame) -> Result<Json> {
    let mut json = Json::new();
    json.raw(r#"{"streams":"#);
    let categorize = frame.flags.iter().any(|flag| flag == CATEGORIZE);
    bounded(&mut json, streams, frame, |json, s| stream(json, s, categorize))?;
    if dropped > 0 {
        json.raw(r#","dropped_entries":"#).array(0..dropped.min(DROPPED_MAX), |json, _| {
            json.format(format_args!("{{\"labels\":{{}},\"timestamp\":\"{now_ns}\"}}"));
        });
    }
    if !frame.flags.is_empty() {
        json.raw(r#","encodingFlags":"#).strings(&frame.flags);
    }
    json.raw("}");
    Ok(json)
}

fn bounded<T>(json: &mut Json, items: &[T], frame: &Frame, write: impl Fn(&mut Json, &T)) -> Result<()> {
    json.raw("[");
    for (i, item) in items.iter().enumerate() {
        json.raw(if i > 0 { "," } else { "" });
        write(json, item);
        if json.len() > frame.bytes_max {
            let bytes_max = frame.bytes_max;
            let message =
                format!("the answer is larger than `query.answer_bytes_max` ({bytes_max} bytes): ask for less");
            return Err(Error::new(Kind::Limit, message));
        }
    }
    json.raw("]");
    Ok(())
}

fn pairs(json: &mut Json, pairs: &[(String, String)]) {
    json.map(pairs.iter().map(|(name, value)| (name, value)));
}

fn stream(json: &mut Json, stream: &Stream, categorize: bool) {
    json.raw(r#"{"stream":"#);
    pairs(json, &stream.labels);
    json.raw(r#","values":"#).array(&stream.entries, |json, e| entry(json, e, categorize)).raw("}");
}

fn entry(json: &mut Json, entry: &Entry, categorize: bool) {
    json.format(format_args!("[\"{}\",", entry.ts_ns)).string(&entry.line);
    if categorize {
        json.raw(",{");
        let categories = [("structuredMetadata", &entry.structured_metadata), ("parsed", &entry.parsed)];
        for (i, (name, labels)) in categories.into_iter().filter(|(_, labels)| !labels.is_empty()).enumerate() {
            json.raw(if i > 0 { "," } else { "" }).string(name).raw(":");
            pairs(json, labels);
        }
        json.raw("}");
    }
    json.raw("]");
}

fn point(json: &mut Json, ns: i64, value: f64) {
    json.raw("[").seconds(ns.div_euclid(1_000_000)).raw(",\"").raw(&plain_value(value)).raw("\"]");
}

fn matrix_series(json: &mut Json, series: &Series) {
    json.raw(r#"{"metric":"#);
    pairs(json, &series.labels);
    json.raw(r#","values":"#).array(&series.points, |json, (ns, value)| point(json, *ns, *value)).raw("}");
}

fn vector_series(json: &mut Json, series: &Series) {
    json.raw(r#"{"metric":"#);
    pairs(json, &series.labels);
    json.raw(r#","value":"#);
    if let Some((ns, value)) = series.points.first() {
        point(json, *ns, *value);
    } else {
        json.raw("[]");
    }
    json.raw("}");
}

/// Grafana shows every number of `summary`.
fn stats(json: &mut Json, answer: &Answer, seconds: f64) {
    let per_second = |n: u64| if seconds > 0.0 { (n as f64 / seconds) as u64 } else { 0 };
    let returned = match &answer.value {
        Value::Streams(streams) => streams.iter().map(|stream| stream.entries.len()).sum(),
        _ => 0_usize,
    };
    let numbers = [
        ("bytesProcessedPerSecond", per_second(answer.bytes_read)),
        ("linesProcessedPerSecond", per_second(answer.lines_read)),
        ("totalBytesProcessed", answer.bytes_read),
        ("totalLinesProcessed", answer.lines_read),
        ("totalEntriesReturned", returned as u64),
        ("totalPostFilterLines", answer.lines_passed),
        ("totalStructuredMetadataBytesProcessed", answer.metadata_bytes_read),
        ("queueTime", 0),
        ("subqueries", 0),
        ("splits", 0),
        ("shards", 0),
    ];
    json.raw(r#"{"summary":{"execTime":"#).number(seconds);
    for (name, number) in numbers {
        json.format(format_args!(",\"{name}\":{number}"));
    }
    json.raw(r#"},"querier":{},"ingester":{},"cache":{}}"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value, flag: Option<&str>) -> String {
        let full =
            Answer { value, warnings: vec![], lines_read: 0, bytes_read: 0, metadata_bytes_read: 0, lines_passed: 0 };
        let text = answer(
            &full,
            &Frame { flags: flag.map(str::to_owned).into_iter().collect(), seconds: 0.5, bytes_max: 1 << 20 },
        )
        .expect("fits")
        .finish();
        text.split_once(r#","stats":{"summary":{"execTime":0.5,"#).expect("has statistics").0.to_owned()
    }

    fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn streams_carry_categories_when_asked() {
        let entry = Entry {
            ts_ns: 1_767_571_200_000_000_001,
            line: "a\"".into(),
            structured_metadata: labels(&[("trace_id", "1")]),
            parsed: vec![],
        };
        let streams = vec![Stream {
            labels: labels(&[("app", "x")]),
            entries: vec![entry.clone(), Entry { structured_metadata: vec![], ..entry }],
        }];
        let head = r#"{"status":"success","data":{"resultType":"streams""#;
        assert_eq!(
            of(Value::Streams(streams.clone()), None),
            format!(
                r#"{head},"result":[{{"stream":{{"app":"x"}},"values":[["1767571200000000001","a\""],["1767571200000000001","a\""]]}}]"#
            )
        );
        assert_eq!(
            of(Value::Streams(streams), Some(CATEGORIZE)),
            format!(
                concat!(
                    r#"{head},"encodingFlags":["categorize-labels"],"result":[{{"stream":{{"app":"x"}},"values":["#,
                    r#"["1767571200000000001","a\"",{{"structuredMetadata":{{"trace_id":"1"}}}}],"#,
                    r#"["1767571200000000001","a\"",{{}}]]}}]"#
                ),
                head = head
            )
        );
    }

    #[test]
    fn unknown_flags_come_back() {
        assert!(of(Value::Streams(vec![]), Some("FOO")).ends_with(r#","encodingFlags":["FOO"],"result":[]"#));
    }

    #[test]
    fn samples_have_seconds_and_values_without_exponent() {
        let series = vec![Series { labels: vec![], points: vec![(1_767_571_800_250_000_000, 1e21)] }];
        assert_eq!(
            of(Value::Vector(series.clone()), Some(CATEGORIZE)),
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1767571800.25,"1000000000000000000000"]}]"#
        );
        assert!(of(Value::Matrix(series), None).contains(r#""values":[[1767571800.25,"#));
        assert!(of(Value::Scalar(0, 2.0), None).ends_with(r#""resultType":"scalar","result":[0,"2"]"#));
    }
}
