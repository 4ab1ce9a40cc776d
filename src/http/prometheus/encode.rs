//! Answers of Prometheus' API as JSON.
//!
//! Owns: keys and their order. `resultType` stands before `result`, so that clients
//! can stream.

use query::promql::{self, Answer, Exemplar, MatrixSeries, PointValue, Value, VectorSample};
use query::{Error, Kind, Result};
use storage::model::histogram::Histogram;
use storage::model::labels::Labels;
use storage::model::time::TimestampMs;

use crate::http::json::{Json, plain_value, prometheus_value};

/// Notices of each kind that are listed; the rest is counted.
const NOTICES_MAX: usize = 10;
/// The notice of an answer that `limit` cut.
pub const TRUNCATED: &str = "results truncated due to limit";

/// What surrounds a value.
#[derive(Debug, Default)]
pub struct Frame {
    /// Most elements of the answer.
    pub limit: Option<usize>,
    /// The object `stats`, if it was asked for.
    pub stats: Option<Stats>,
    /// The largest answer.
    pub bytes_max: usize,
}

/// Costs of a query.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// Seconds until the value was there.
    pub eval_seconds: f64,
    /// Whether lists per step were asked for.
    pub per_step: bool,
}

/// The answer of a query.
pub fn answer(mut answer: Answer, frame: &Frame) -> Result<Json> {
    if truncate(&mut answer.value, frame.limit) {
        answer.warnings.push(TRUNCATED.to_owned());
    }
    let mut json = Json::new();
    json.raw(r#"{"status":"success","data":{"resultType":"#);
    match &answer.value {
        // A scalar alone is never written with an exponent.
        Value::Scalar(ts, value) => {
            json.raw(r#""scalar","result":["#).seconds(ts.0).raw(",\"").raw(&plain_value(*value)).raw("\"]");
        }
        Value::String(ts, text) => {
            json.raw(r#""string","result":["#).seconds(ts.0).raw(",").string(text).raw("]");
        }
        Value::Vector(samples) => {
            json.raw(r#""vector","result":"#);
            bounded_array(&mut json, samples, frame.bytes_max, vector_sample)?;
        }
        Value::Matrix(series) => {
            json.raw(r#""matrix","result":"#);
            bounded_array(&mut json, series, frame.bytes_max, matrix_series)?;
        }
    }
    if let Some(stats) = &frame.stats {
        write_stats(&mut json, stats, &answer);
    }
    json.raw("}");
    notices(&mut json, "warnings", "warning", &answer.warnings);
    notices(&mut json, "infos", "info", &answer.infos);
    json.raw("}");
    Ok(json)
}

fn truncate(value: &mut Value, limit: Option<usize>) -> bool {
    let Some(limit) = limit else { return false };
    match value {
        Value::Vector(list) if list.len() > limit => list.truncate(limit),
        Value::Matrix(list) if list.len() > limit => list.truncate(limit),
        _ => return false,
    }
    true
}

/// An array that may not make the answer larger than `bytes_max`.
pub fn bounded_array<T>(json: &mut Json, items: &[T], bytes_max: usize, write: fn(&mut Json, &T)) -> Result<()> {
    json.raw("[");
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            json.raw(",");
        }
        write(json, item);
        if json.len() > bytes_max {
            let message =
                format!("the answer is larger than `query.answer_bytes_max` ({bytes_max} bytes): ask for less");
            return Err(Error::new(Kind::Limit, message));
        }
    }
    json.raw("]");
    Ok(())
}

fn float_point(json: &mut Json, ts: TimestampMs, value: f64) {
    // Such a text needs no escaping.
    json.raw("[").seconds(ts.0).raw(",\"").raw(&prometheus_value(value)).raw("\"]");
}

fn histogram_point(json: &mut Json, ts: TimestampMs, value: &Histogram) {
    json.raw("[").seconds(ts.0).raw(",");
    histogram(json, value);
    json.raw("]");
}

fn vector_sample(json: &mut Json, sample: &VectorSample) {
    json.raw(r#"{"metric":"#).map(&sample.labels);
    match &sample.value {
        PointValue::Float(value) => {
            json.raw(r#","value":"#);
            float_point(json, sample.ts, *value);
        }
        PointValue::Histogram(value) => {
            json.raw(r#","histogram":"#);
            histogram_point(json, sample.ts, value);
        }
    }
    json.raw("}");
}

fn matrix_series(json: &mut Json, series: &MatrixSeries) {
    json.raw(r#"{"metric":"#).map(&series.labels);
    if !series.floats.is_empty() {
        json.raw(r#","values":"#).array(&series.floats, |json, (ts, value)| float_point(json, *ts, *value));
    }
    if !series.histograms.is_empty() {
        json.raw(r#","histograms":"#).array(&series.histograms, |json, (ts, value)| histogram_point(json, *ts, value));
    }
    json.raw("}");
}

fn histogram(json: &mut Json, value: &Histogram) {
    json.raw(r#"{"count":""#).raw(&prometheus_value(value.count));
    json.raw(r#"","sum":""#).raw(&prometheus_value(value.sum)).raw("\"");
    let buckets = promql::histogram_buckets(value);
    if !buckets.is_empty() {
        json.raw(r#","buckets":"#).array(buckets, |json, (rule, lower, upper, count)| {
            json.format(format_args!("[{rule},\"{}\"", prometheus_value(lower)));
            json.raw(",\"").raw(&prometheus_value(upper));
            json.raw("\",\"").raw(&prometheus_value(count)).raw("\"]");
        });
    }
    json.raw("}");
}

fn write_stats(json: &mut Json, stats: &Stats, answer: &Answer) {
    let seconds = stats.eval_seconds;
    json.raw(r#","stats":{"timings":{"evalTotalTime":"#).number(seconds);
    json.raw(r#","resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":"#).number(seconds);
    json.raw(r#","execQueueTime":0,"execTotalTime":"#).number(seconds);
    json.raw(r#"},"samples":{"totalQueryableSamples":"#).integer(answer.samples_read);
    json.raw(r#","samplesRead":"#).integer(answer.samples_read);
    json.raw(r#","peakSamples":"#).integer(answer.peak_samples);
    if stats.per_step {
        json.raw(r#","totalQueryableSamplesPerStep":[],"samplesReadPerStep":[]"#);
    }
    json.raw("}}");
}

fn notices(json: &mut Json, key: &str, noun: &str, list: &[String]) {
    if list.is_empty() {
        return;
    }
    let more = list.len().saturating_sub(NOTICES_MAX);
    let last = (more > 0).then(|| format!("{more} more {noun} annotations omitted"));
    json.format(format_args!(",\"{key}\":"));
    json.strings(list.iter().take(NOTICES_MAX).chain(last.as_ref()));
}

/// A list of texts or of label sets, cut at `limit`.
pub fn list<T>(items: &[T], limit: Option<usize>, bytes_max: usize, write: fn(&mut Json, &T)) -> Result<Json> {
    let shown = items.len().min(limit.unwrap_or(usize::MAX));
    let mut json = Json::new();
    json.raw(r#"{"status":"success","data":"#);
    bounded_array(&mut json, &items[..shown], bytes_max, write)?;
    if shown < items.len() {
        json.raw(r#","warnings":"#).strings([TRUNCATED]);
    }
    json.raw("}");
    Ok(json)
}

/// The answer of `query_exemplars`.
pub fn exemplars(series: &[(Labels, Vec<Exemplar>)], bytes_max: usize) -> Result<Json> {
    list(series, None, bytes_max, |json, (labels, exemplars)| {
        json.raw(r#"{"seriesLabels":"#).map(labels).raw(r#","exemplars":"#);
        json.array(exemplars, |json, exemplar| {
            json.raw(r#"{"labels":"#).map(exemplar.labels.iter().map(|(n, v)| (n, v)));
            json.raw(r#","value":""#).raw(&prometheus_value(exemplar.value));
            json.raw(r#"","timestamp":"#).seconds(exemplar.ts.0).raw("}");
        });
        json.raw("}");
    })
}

/// `{"status":"success","data":…}` around what is JSON already.
pub fn success(data: &str) -> Json {
    let mut json = Json::new();
    json.raw(r#"{"status":"success","data":"#).raw(data).raw("}");
    json
}

#[cfg(test)]
mod tests {
    use storage::model::histogram::BucketSpan;

    use super::*;

    fn plain(value: Value) -> Answer {
        Answer { value, warnings: vec![], infos: vec![], samples_read: 0, peak_samples: 0 }
    }

    fn frame() -> Frame {
        Frame { bytes_max: 1 << 20, ..Frame::default() }
    }

    fn sample(name: &str, value: PointValue) -> VectorSample {
        VectorSample { labels: Labels::from_pairs([("__name__", name)]), ts: TimestampMs(1_500), value }
    }

    #[test]
    fn every_kind_of_value_has_its_form() {
        let check = |value, expected: &str| {
            let text = answer(plain(value), &frame()).expect("fits").finish();
            assert_eq!(text, format!(r#"{{"status":"success","data":{{{expected}}}}}"#));
        };
        check(Value::Scalar(TimestampMs(4000), 2.0), r#""resultType":"scalar","result":[4,"2"]"#);
        check(Value::String(TimestampMs(0), "a\"".into()), r#""resultType":"string","result":[0,"a\""]"#);
        let large = format!(r#""resultType":"scalar","result":[0,"1{}"]"#, "0".repeat(22));
        check(Value::Scalar(TimestampMs(0), 1e22), &large);
        check(Value::Vector(vec![]), r#""resultType":"vector","result":[]"#);
        check(
            Value::Vector(vec![sample("up", PointValue::Float(f64::NAN))]),
            r#""resultType":"vector","result":[{"metric":{"__name__":"up"},"value":[1.5,"NaN"]}]"#,
        );
        let series = MatrixSeries {
            labels: Labels::empty(),
            floats: vec![(TimestampMs(1000), 1.0), (TimestampMs(2000), 1e21)],
            histograms: vec![],
        };
        check(
            Value::Matrix(vec![series]),
            r#""resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"1e+21"]]}]"#,
        );
    }

    #[test]
    fn buckets_run_from_low_to_high_with_their_ends() {
        let histogram = Histogram {
            schema: 0,
            count: 12.0,
            sum: 3.5,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }, BucketSpan { offset: 1, length: 1 }],
            positive_buckets: vec![1.0, 0.0, 3.0],
            negative_spans: vec![BucketSpan { offset: 1, length: 2 }],
            negative_buckets: vec![4.0, 2.0],
            ..Histogram::default()
        };
        let mut json = Json::new();
        super::histogram(&mut json, &histogram);
        assert_eq!(
            json.finish(),
            concat!(
                r#"{"count":"12","sum":"3.5","buckets":[[1,"-4","-2","2"],[1,"-2","-1","4"],"#,
                r#"[3,"-0.001","0.001","2"],[0,"0.5","1","1"],[0,"4","8","3"]]}"#
            )
        );
    }

    #[test]
    fn notices_are_bounded_and_a_limit_is_told() {
        let mut many =
            plain(Value::Vector(vec![sample("a", PointValue::Float(1.0)), sample("b", PointValue::Float(2.0))]));
        many.warnings = (0..12).map(|i| format!("w{i}")).collect();
        let text = answer(many, &Frame { limit: Some(1), ..frame() }).expect("fits").finish();
        assert!(text.contains(r#""w9","3 more warning annotations omitted"]"#), "{text}");
        assert!(!text.contains("\"b\""), "{text}");
        let cut = list(&["a", "b"], Some(1), 1 << 20, |json, text| {
            json.string(text);
        });
        let expected = r#"{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}"#;
        assert_eq!(cut.expect("fits").finish(), expected);
    }

    #[test]
    fn an_answer_that_is_too_large_is_an_error() {
        let value = Value::Vector(vec![sample("a", PointValue::Float(1.0))]);
        let error = answer(plain(value), &Frame { bytes_max: 10, ..frame() }).expect_err("refused");
        assert_eq!(error.kind, Kind::Limit);
    }
}
