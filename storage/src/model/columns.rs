//! Typed views of scan results: columns by name once, values by row without copies.
//!
//! Owns: the accessors evaluators use. Invariant: a view of a batch in a table's schema never fails to build.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};

use crate::error::{Error, Result};
use crate::model::batch::DETECTED_LEVEL;
use crate::model::histogram::{BucketSpan, Histogram, ResetHint};
use crate::model::span::{Attributes, Event, Link, Scope, Span};
use crate::model::value::Value;

fn column<'a, A: 'static>(rows: &'a RecordBatch, name: &str) -> Result<&'a A> {
    rows.column_by_name(name)
        .and_then(|array| array.as_any().downcast_ref::<A>())
        .ok_or_else(|| Error::bug(format!("a batch lacks the column `{name}` or has it in another type")))
}

fn field<'a, A: 'static>(rows: &'a StructArray, name: &str) -> Result<&'a A> {
    rows.column_by_name(name)
        .and_then(|array| array.as_any().downcast_ref::<A>())
        .ok_or_else(|| Error::bug(format!("a struct lacks the field `{name}` or has it in another type")))
}

/// A column of text maps.
#[derive(Clone, Copy, Debug)]
pub struct TextMaps<'a> {
    offsets: &'a [i32],
    keys: &'a StringArray,
    values: &'a StringArray,
}

impl<'a> TextMaps<'a> {
    /// Looks into `map`.
    pub fn new(map: &'a MapArray) -> Self {
        Self { offsets: map.value_offsets(), keys: map.keys().as_string(), values: map.values().as_string() }
    }

    /// The pairs of one row.
    pub fn pairs(&self, row: usize) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (keys, values) = (self.keys, self.values);
        let from = usize::try_from(self.offsets[row]).unwrap_or(0);
        let to = usize::try_from(self.offsets[row + 1]).unwrap_or(0);
        (from..to).map(move |i| (keys.value(i), if values.is_null(i) { "" } else { values.value(i) }))
    }

    /// The value of `key` in one row.
    pub fn get(&self, row: usize, key: &str) -> Option<&'a str> {
        self.pairs(row).find_map(|(k, v)| (k == key).then_some(v))
    }
}

/// Rows of `samples`.
#[derive(Clone, Copy, Debug)]
pub struct SampleColumns<'a> {
    /// Identity of each row (see `IdentityId::from_column`).
    pub series_id: &'a Int64Array,
    /// Milliseconds since the epoch.
    pub ts_ms: &'a Int64Array,
    /// Start time, null when unknown.
    pub start_ts_ms: &'a Int64Array,
    /// Values, bits kept.
    pub value: &'a Float64Array,
}

impl<'a> SampleColumns<'a> {
    /// A view of `rows`.
    pub fn new(rows: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            series_id: column(rows, "series_id")?,
            ts_ms: column(rows, "ts_ms")?,
            start_ts_ms: column(rows, "start_ts_ms")?,
            value: column(rows, "value")?,
        })
    }
}

/// Rows of `histograms`.
#[derive(Clone, Copy, Debug)]
pub struct HistogramColumns<'a> {
    /// Identity of each row.
    pub series_id: &'a Int64Array,
    /// Milliseconds since the epoch.
    pub ts_ms: &'a Int64Array,
    /// Start time, null when unknown.
    pub start_ts_ms: &'a Int64Array,
    schema: &'a Int32Array,
    count: &'a Float64Array,
    sum: &'a Float64Array,
    zero_threshold: &'a Float64Array,
    zero_count: &'a Float64Array,
    positive_spans: &'a ListArray,
    positive_buckets: &'a ListArray,
    negative_spans: &'a ListArray,
    negative_buckets: &'a ListArray,
    custom_values: &'a ListArray,
    reset_hint: &'a Int32Array,
    float: &'a BooleanArray,
}

impl<'a> HistogramColumns<'a> {
    /// A view of `rows`.
    pub fn new(rows: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            series_id: column(rows, "series_id")?,
            ts_ms: column(rows, "ts_ms")?,
            start_ts_ms: column(rows, "start_ts_ms")?,
            schema: column(rows, "schema")?,
            count: column(rows, "count")?,
            sum: column(rows, "sum")?,
            zero_threshold: column(rows, "zero_threshold")?,
            zero_count: column(rows, "zero_count")?,
            positive_spans: column(rows, "positive_spans")?,
            positive_buckets: column(rows, "positive_buckets")?,
            negative_spans: column(rows, "negative_spans")?,
            negative_buckets: column(rows, "negative_buckets")?,
            custom_values: column(rows, "custom_values")?,
            reset_hint: column(rows, "reset_hint")?,
            float: column(rows, "float")?,
        })
    }

    /// The histogram of one row.
    pub fn histogram(&self, row: usize) -> Histogram {
        Histogram {
            schema: self.schema.value(row),
            count: self.count.value(row),
            sum: self.sum.value(row),
            zero_threshold: self.zero_threshold.value(row),
            zero_count: self.zero_count.value(row),
            positive_spans: spans(self.positive_spans, row),
            positive_buckets: doubles(self.positive_buckets, row),
            negative_spans: spans(self.negative_spans, row),
            negative_buckets: doubles(self.negative_buckets, row),
            custom_values: doubles(self.custom_values, row),
            reset_hint: ResetHint::from_number(self.reset_hint.value(row)),
            float: self.float.value(row),
        }
    }
}

fn doubles(list: &ListArray, row: usize) -> Vec<f64> {
    list.value(row).as_primitive::<Float64Type>().values().to_vec()
}

fn spans(list: &ListArray, row: usize) -> Vec<BucketSpan> {
    let flat = list.value(row);
    let flat = flat.as_primitive::<Int32Type>().values();
    flat.chunks_exact(2)
        .map(|pair| BucketSpan { offset: pair[0], length: u32::try_from(pair[1]).unwrap_or(0) })
        .collect()
}

/// Rows of `exemplars`.
#[derive(Clone, Copy, Debug)]
pub struct ExemplarColumns<'a> {
    /// Identity of each row.
    pub series_id: &'a Int64Array,
    /// Milliseconds since the epoch.
    pub ts_ms: &'a Int64Array,
    /// Values.
    pub value: &'a Float64Array,
    linked: LinkedColumns<'a>,
}

impl<'a> ExemplarColumns<'a> {
    /// A view of `rows`.
    pub fn new(rows: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            series_id: column(rows, "series_id")?,
            ts_ms: column(rows, "ts_ms")?,
            value: column(rows, "value")?,
            linked: LinkedColumns::new(rows, "labels")?,
        })
    }

    /// The exemplar's own labels, sorted.
    pub fn labels(&self, row: usize) -> Vec<(String, String)> {
        let mut pairs = self.linked.pairs(row);
        pairs.sort();
        pairs
    }
}

/// Rows of `metric_metadata`.
#[derive(Clone, Copy, Debug)]
pub struct MetadataColumns<'a> {
    /// Family.
    pub metric: &'a StringArray,
    /// Prometheus' word: `counter`, `gauge`, …, `unknown`.
    pub kind: &'a StringArray,
    /// Unit, or "".
    pub unit: &'a StringArray,
    /// Help text, or "".
    pub help: &'a StringArray,
}

impl<'a> MetadataColumns<'a> {
    /// A view of `rows`.
    pub fn new(rows: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            metric: column(rows, "metric")?,
            kind: column(rows, "type")?,
            unit: column(rows, "unit")?,
            help: column(rows, "help")?,
        })
    }

    /// Metric, type, unit and help of one row.
    pub fn row(&self, row: usize) -> [&'a str; 4] {
        [self.metric, self.kind, self.unit, self.help].map(|column| column.value(row))
    }
}

#[derive(Clone, Copy, Debug)]
struct LinkedColumns<'a> {
    trace_id: &'a BinaryArray,
    span_id: &'a BinaryArray,
    rest: TextMaps<'a>,
}

impl<'a> LinkedColumns<'a> {
    fn new(rows: &'a RecordBatch, map: &str) -> Result<Self> {
        Ok(Self {
            trace_id: column(rows, "trace_id")?,
            span_id: column(rows, "span_id")?,
            rest: TextMaps::new(column(rows, map)?),
        })
    }

    fn pairs(&self, row: usize) -> Vec<(String, String)> {
        let mut pairs: Vec<(String, String)> =
            self.rest.pairs(row).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        for (name, ids) in [("trace_id", self.trace_id), ("span_id", self.span_id)] {
            if ids.is_valid(row) {
                pairs.push((name.to_owned(), hex::encode(ids.value(row))));
            }
        }
        pairs
    }
}

/// Rows of `logs`.
#[derive(Clone, Copy, Debug)]
pub struct EntryColumns<'a> {
    /// Identity of each row.
    pub stream_id: &'a Int64Array,
    /// Nanoseconds since the epoch.
    pub ts_ns: &'a Int64Array,
    /// The line.
    pub line: &'a StringArray,
    /// `detected_level`, null when absent.
    pub severity: &'a StringArray,
    /// `trace_id` when it was 32 lower-case hex digits.
    pub trace_id: &'a BinaryArray,
    /// `span_id` when it was 16 lower-case hex digits.
    pub span_id: &'a BinaryArray,
    /// All other structured metadata.
    pub metadata: TextMaps<'a>,
}

impl<'a> EntryColumns<'a> {
    /// A view of `rows`.
    pub fn new(rows: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            stream_id: column(rows, "stream_id")?,
            ts_ns: column(rows, "ts_ns")?,
            line: column(rows, "line")?,
            severity: column(rows, "severity")?,
            trace_id: column(rows, "trace_id")?,
            span_id: column(rows, "span_id")?,
            metadata: TextMaps::new(column(rows, "metadata")?),
        })
    }

    /// Bytes of names and values of one row's structured metadata.
    pub fn metadata_bytes(&self, row: usize) -> usize {
        let hex = |name: &str, column: &BinaryArray| {
            if column.is_valid(row) { name.len() + 2 * column.value(row).len() } else { 0 }
        };
        let level = if self.severity.is_valid(row) { DETECTED_LEVEL.len() + self.severity.value(row).len() } else { 0 };
        let rest: usize = self.metadata.pairs(row).map(|(name, value)| name.len() + value.len()).sum();
        rest + level + hex("trace_id", self.trace_id) + hex("span_id", self.span_id)
    }

    /// All structured metadata of one row, `detected_level`, `trace_id` and `span_id` included, sorted by name.
    pub fn structured_metadata(&self, row: usize) -> Vec<(String, String)> {
        let linked = LinkedColumns { trace_id: self.trace_id, span_id: self.span_id, rest: self.metadata };
        let mut pairs = linked.pairs(row);
        if self.severity.is_valid(row) {
            pairs.push((DETECTED_LEVEL.to_owned(), self.severity.value(row).to_owned()));
        }
        pairs.sort();
        pairs
    }
}

/// Rows of `spans`.
#[derive(Clone, Copy, Debug)]
pub struct SpanColumns<'a> {
    /// 16 bytes.
    pub trace_id: &'a BinaryArray,
    /// 8 bytes.
    pub span_id: &'a BinaryArray,
    /// 8 bytes, null for a root.
    pub parent_span_id: &'a BinaryArray,
    /// Identity of the resource.
    pub resource_id: &'a Int64Array,
    /// Value of `service.name`, or "".
    pub service_name: &'a StringArray,
    /// Span name.
    pub name: &'a StringArray,
    /// OTLP's number.
    pub kind: &'a Int32Array,
    /// Nanoseconds since the epoch.
    pub start_ns: &'a Int64Array,
    /// Nanoseconds.
    pub duration_ns: &'a Int64Array,
    /// OTLP's number.
    pub status_code: &'a Int32Array,
    /// Null when empty.
    pub status_message: &'a StringArray,
    /// Typed texts (see `model::value`).
    pub attributes: TextMaps<'a>,
    /// Typed texts.
    pub scope_attributes: TextMaps<'a>,
    /// Null when empty.
    pub scope_name: &'a StringArray,
    /// Null when empty.
    pub scope_version: &'a StringArray,
    events: &'a ListArray,
    links: &'a ListArray,
    rows: &'a RecordBatch,
}

impl<'a> SpanColumns<'a> {
    /// A view of `rows`.
    pub fn new(rows: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            trace_id: column(rows, "trace_id")?,
            span_id: column(rows, "span_id")?,
            parent_span_id: column(rows, "parent_span_id")?,
            resource_id: column(rows, "resource_id")?,
            service_name: column(rows, "service_name")?,
            name: column(rows, "name")?,
            kind: column(rows, "kind")?,
            start_ns: column(rows, "start_ns")?,
            duration_ns: column(rows, "duration_ns")?,
            status_code: column(rows, "status_code")?,
            status_message: column(rows, "status_message")?,
            attributes: TextMaps::new(column(rows, "attributes")?),
            scope_attributes: TextMaps::new(column(rows, "scope_attributes")?),
            scope_name: column(rows, "scope_name")?,
            scope_version: column(rows, "scope_version")?,
            events: column(rows, "events")?,
            links: column(rows, "links")?,
            rows,
        })
    }

    /// The events of one row.
    pub fn events(&self, row: usize) -> Result<Vec<Event>> {
        if self.events.is_null(row) {
            return Ok(Vec::new());
        }
        let list = self.events.value(row);
        let list = list.as_struct();
        let ts_ns: &Int64Array = field(list, "ts_ns")?;
        let name: &StringArray = field(list, "name")?;
        let attributes = TextMaps::new(field(list, "attributes")?);
        let dropped: &Int32Array = field(list, "dropped_attributes_count")?;
        let event = |i| Event {
            ts_ns: ts_ns.value(i),
            name: name.value(i).to_owned(),
            attributes: read_attributes(attributes, i),
            dropped_attributes_count: counted(dropped, i),
        };
        Ok((0..list.len()).map(event).collect())
    }

    /// The links of one row.
    pub fn links(&self, row: usize) -> Result<Vec<Link>> {
        if self.links.is_null(row) {
            return Ok(Vec::new());
        }
        let list = self.links.value(row);
        let list = list.as_struct();
        let trace_id: &BinaryArray = field(list, "trace_id")?;
        let span_id: &BinaryArray = field(list, "span_id")?;
        let trace_state: &StringArray = field(list, "trace_state")?;
        let attributes = TextMaps::new(field(list, "attributes")?);
        let dropped: &Int32Array = field(list, "dropped_attributes_count")?;
        let flags: &Int64Array = field(list, "flags")?;
        let link = |i| Link {
            trace_id: trace_id.value(i).to_vec(),
            span_id: span_id.value(i).to_vec(),
            trace_state: text(trace_state, i),
            attributes: read_attributes(attributes, i),
            dropped_attributes_count: counted(dropped, i),
            flags: if flags.is_null(i) { 0 } else { u32::try_from(flags.value(i)).unwrap_or(0) },
        };
        Ok((0..list.len()).map(link).collect())
    }

    /// The whole span of one row.
    pub fn span(&self, row: usize) -> Result<Span> {
        let texts = |name| -> Result<String> { Ok(text(column(self.rows, name)?, row)) };
        let counts = |name| -> Result<u32> { Ok(counted(column(self.rows, name)?, row)) };
        let flags: &Int64Array = column(self.rows, "flags")?;
        Ok(Span {
            trace_id: exact(self.trace_id.value(row), "trace_id")?,
            span_id: exact(self.span_id.value(row), "span_id")?,
            parent_span_id: match self.parent_span_id.is_valid(row) {
                true => Some(exact(self.parent_span_id.value(row), "parent_span_id")?),
                false => None,
            },
            trace_state: texts("trace_state")?,
            flags: if flags.is_null(row) { 0 } else { u32::try_from(flags.value(row)).unwrap_or(0) },
            name: self.name.value(row).to_owned(),
            kind: self.kind.value(row),
            start_ns: self.start_ns.value(row),
            duration_ns: self.duration_ns.value(row),
            status_code: self.status_code.value(row),
            status_message: text(self.status_message, row),
            attributes: read_attributes(self.attributes, row),
            dropped_attributes_count: counts("dropped_attributes_count")?,
            events: self.events(row)?,
            dropped_events_count: counts("dropped_events_count")?,
            links: self.links(row)?,
            dropped_links_count: counts("dropped_links_count")?,
            scope: Scope {
                name: text(self.scope_name, row),
                version: text(self.scope_version, row),
                attributes: read_attributes(self.scope_attributes, row),
                dropped_attributes_count: counts("scope_dropped_attributes_count")?,
                schema_url: texts("scope_schema_url")?,
            },
            resource_schema_url: texts("resource_schema_url")?,
            resource_dropped_attributes_count: counts("resource_dropped_attributes_count")?,
        })
    }
}

fn exact<const N: usize>(bytes: &[u8], name: &str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::corrupt(format!("`{name}` holds {} bytes instead of {N}", bytes.len())))
}

fn text(array: &StringArray, row: usize) -> String {
    if array.is_null(row) { String::new() } else { array.value(row).to_owned() }
}

fn counted(array: &Int32Array, row: usize) -> u32 {
    if array.is_null(row) { 0 } else { u32::try_from(array.value(row)).unwrap_or(0) }
}

/// Attributes of one row as typed values; a text that is no value (a foreign writer's) reads as a string.
pub fn read_attributes(maps: TextMaps<'_>, row: usize) -> Attributes {
    let typed = |text: &str| Value::parse(text).unwrap_or_else(|| Value::String(text.to_owned()));
    maps.pairs(row).map(|(key, text)| (key.to_owned(), typed(text))).collect()
}

/// The time column of `rows` and the identities, for code that treats all tables alike.
pub fn longs<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::PrimitiveArray<Int64Type>> {
    column(rows, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::{LogsBuilder, MetricsBuilder, TracesBuilder};
    use crate::model::labels::Labels;
    use crate::model::time::{TimestampMs, TimestampNs};
    use crate::signal::Table;

    #[test]
    fn structured_metadata_comes_back_as_sent() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let rows = [
            vec![("detected_level", "info"), ("span_id", "b7ad6b7169203331"), ("trace_id", id), ("x", "1")],
            vec![("span_id", "B7AD6B7169203331"), ("trace_id", "short")],
            vec![],
        ];
        let mut builder = LogsBuilder::new();
        let stream = builder.stream(Labels::from_pairs([("app", "a")]));
        for (i, metadata) in rows.iter().enumerate() {
            builder.entry(stream, TimestampNs(i as i64), "line", metadata.iter().copied()).expect("fits");
        }
        let batch = builder.finish().expect("builds");
        let columns = EntryColumns::new(batch.table(Table::Logs).expect("has rows")).expect("views");
        for (i, metadata) in rows.iter().enumerate() {
            let back = columns.structured_metadata(i);
            let back: Vec<_> = back.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(&back, metadata);
            assert_eq!(columns.metadata_bytes(i), metadata.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>());
        }
        assert!(columns.trace_id.is_valid(0) && columns.trace_id.is_null(1));
    }

    #[test]
    fn a_histogram_comes_back_as_sent() {
        let histogram = Histogram {
            schema: 3,
            count: 7.0,
            sum: f64::NAN,
            zero_threshold: 1e-128,
            zero_count: 1.0,
            positive_spans: vec![BucketSpan { offset: -2, length: 2 }, BucketSpan { offset: 1, length: 1 }],
            positive_buckets: vec![1.0, 2.0, 3.0],
            custom_values: vec![],
            reset_hint: ResetHint::Gauge,
            ..Histogram::default()
        };
        let mut builder = MetricsBuilder::new();
        let series = builder.series(Labels::from_pairs([("__name__", "h")]));
        builder.histogram(series, TimestampMs(5), histogram.clone(), Some(TimestampMs(1)));
        let batch = builder.finish().expect("builds");
        let columns = HistogramColumns::new(batch.table(Table::Histograms).expect("has rows")).expect("views");
        let back = columns.histogram(0);
        assert!(back.sum.is_nan());
        assert_eq!(Histogram { sum: 0.0, ..back }, Histogram { sum: 0.0, ..histogram });
        assert_eq!(columns.start_ts_ms.value(0), 1);
    }

    #[test]
    fn a_span_comes_back_as_sent() {
        let attributes = vec![("http.status".to_owned(), Value::Int(200)), ("ok".to_owned(), Value::Bool(true))];
        let span = Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_span_id: Some([3; 8]),
            trace_state: "a=b".into(),
            flags: 257,
            name: "GET /".into(),
            kind: 2,
            start_ns: 10,
            duration_ns: -1,
            status_code: 2,
            status_message: "no".into(),
            attributes: attributes.clone(),
            dropped_attributes_count: 1,
            events: vec![
                Event { ts_ns: 11, name: "e".into(), attributes: attributes.clone(), dropped_attributes_count: 0 },
                Event::default(),
            ],
            dropped_events_count: 2,
            links: vec![Link { trace_id: vec![9; 16], span_id: vec![8; 8], flags: 1, ..Link::default() }],
            dropped_links_count: 3,
            scope: Scope { name: "lib".into(), version: "1".into(), attributes, ..Scope::default() },
            resource_schema_url: "u".into(),
            resource_dropped_attributes_count: 4,
        };
        let bare = Span { trace_id: [1; 16], span_id: [4; 8], ..Span::default() };
        let mut builder = TracesBuilder::new();
        let resource = builder.resource(&[("service.name".to_owned(), Value::String("api".into()))]);
        assert_eq!(resource.service_name, "api");
        builder.span(&resource, &span).expect("fits");
        builder.span(&resource, &bare).expect("fits");
        let batch = builder.finish().expect("builds");
        let columns = SpanColumns::new(batch.table(Table::Spans).expect("has rows")).expect("views");
        assert_eq!(columns.span(0).expect("reads"), span);
        assert_eq!(columns.span(1).expect("reads"), bare);
        assert_eq!(columns.service_name.value(1), "api");
    }
}
