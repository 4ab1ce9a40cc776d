//! Builds a batch of metrics.
//!
//! Owns: the columns while they grow.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Array, Float64Builder, Int32Array, Int32Builder, Int64Array, Int64Builder,
    ListBuilder, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field};
use hashbrown::HashTable;

use super::{Batch, IdentitySet, LinkedMap};
use crate::error::Result;
use crate::model::histogram::{BucketSpan, Histogram};
use crate::model::identity::IdentityId;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;
use crate::signal::{Signal, Table};

/// Collects series and what belongs to them.
#[derive(Default)]
pub struct MetricsBuilder {
    series: IdentitySet,
    sample_series: Vec<i64>,
    sample_ts: Vec<i64>,
    sample_start: Int64Builder,
    sample_value: Vec<f64>,
    histograms: Vec<(IdentityId, TimestampMs, Option<TimestampMs>, Histogram)>,
    exemplar_series: Vec<i64>,
    exemplar_ts: Vec<i64>,
    exemplar_value: Vec<f64>,
    exemplar_labels: Option<LinkedMap>,
    metadata: Vec<[String; 4]>,
    /// Places in `metadata` by the hash of the row.
    known_metadata: HashTable<usize>,
    hasher: ahash::RandomState,
}

impl MetricsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names a series; the same labels give the same id.
    pub fn series(&mut self, labels: Labels) -> IdentityId {
        self.series.add(labels)
    }

    /// As [`MetricsBuilder::series`], for labels in the order of their names, each once and not empty: the road
    /// of decoders that borrow from the request.
    pub fn series_from_sorted(&mut self, labels: &[(&str, &str)]) -> IdentityId {
        self.series.add(Labels::from_sorted(labels))
    }

    /// Adds a float sample; its bits are kept. `start` is the start (created) time if it is known.
    pub fn sample(&mut self, series: IdentityId, ts: TimestampMs, value: f64, start: Option<TimestampMs>) {
        self.sample_series.push(series.to_column());
        self.sample_ts.push(ts.0);
        self.sample_start.append_option(start.map(|start| start.0));
        self.sample_value.push(value);
    }

    /// Adds a native-histogram sample.
    pub fn histogram(&mut self, series: IdentityId, ts: TimestampMs, value: Histogram, start: Option<TimestampMs>) {
        self.histograms.push((series, ts, start, value));
    }

    /// Adds an exemplar with its own labels.
    pub fn exemplar<'a>(
        &mut self,
        series: IdentityId,
        ts: TimestampMs,
        value: f64,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        self.exemplar_series.push(series.to_column());
        self.exemplar_ts.push(ts.0);
        self.exemplar_value.push(value);
        self.exemplar_labels.get_or_insert_with(LinkedMap::new).append(labels)
    }

    /// Adds what is known of a family; `kind` is Prometheus' word (`counter`, …, `unknown`).
    pub fn metadata(&mut self, metric: &str, kind: &str, unit: &str, help: &str) {
        let row = [metric, kind, unit, help];
        let (rows, hasher) = (&mut self.metadata, &self.hasher);
        let hash = hasher.hash_one(row);
        if self.known_metadata.find(hash, |i| rows[*i] == row).is_none() {
            rows.push(row.map(str::to_owned));
            let hash_of = |i: &usize| hasher.hash_one(rows[*i].each_ref().map(String::as_str));
            self.known_metadata.insert_unique(hash, rows.len() - 1, hash_of);
        }
    }

    /// Float samples so far.
    pub fn samples(&self) -> usize {
        self.sample_ts.len()
    }

    /// The batch.
    pub fn finish(mut self) -> Result<Batch> {
        let mut facts = Vec::new();
        if !self.metadata.is_empty() {
            let column =
                |i: usize| Arc::new(StringArray::from_iter_values(self.metadata.iter().map(|row| &row[i]))) as ArrayRef;
            push(&mut facts, Table::MetricMetadata, vec![column(0), column(1), column(2), column(3)])?;
        }
        if let Some(labels) = &mut self.exemplar_labels {
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(std::mem::take(&mut self.exemplar_series))),
                Arc::new(Int64Array::from(std::mem::take(&mut self.exemplar_ts))),
                Arc::new(Float64Array::from(std::mem::take(&mut self.exemplar_value))),
            ];
            columns.extend(labels.finish());
            push(&mut facts, Table::Exemplars, columns)?;
        }
        if !self.histograms.is_empty() {
            push(&mut facts, Table::Histograms, histogram_columns(&self.histograms))?;
        }
        if !self.sample_ts.is_empty() {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from(self.sample_series)),
                Arc::new(Int64Array::from(self.sample_ts)),
                Arc::new(self.sample_start.finish()),
                Arc::new(Float64Array::from(self.sample_value)),
            ];
            push(&mut facts, Table::Samples, columns)?;
        }
        Ok(Batch { signal: Signal::Metrics, identities: self.series.list, facts })
    }
}

fn push(facts: &mut Vec<(Table, RecordBatch)>, table: Table, columns: Vec<ArrayRef>) -> Result<()> {
    facts.push((table, RecordBatch::try_new((table.spec().schema)(), columns)?));
    Ok(())
}

fn histogram_columns(rows: &[(IdentityId, TimestampMs, Option<TimestampMs>, Histogram)]) -> Vec<ArrayRef> {
    let doubles = |pick: fn(&Histogram) -> f64| {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| pick(&row.3)))) as ArrayRef
    };
    let mut positive_spans = list_of_ints();
    let mut negative_spans = list_of_ints();
    let mut positive = list_of_doubles();
    let mut negative = list_of_doubles();
    let mut custom = list_of_doubles();
    let mut float = BooleanBuilder::new();
    for (_, _, _, h) in rows {
        append_spans(&mut positive_spans, &h.positive_spans);
        append_spans(&mut negative_spans, &h.negative_spans);
        append_doubles(&mut positive, &h.positive_buckets);
        append_doubles(&mut negative, &h.negative_buckets);
        append_doubles(&mut custom, &h.custom_values);
        float.append_value(h.float);
    }
    vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0.to_column()))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1.0))),
        Arc::new(rows.iter().map(|row| row.2.map(|start| start.0)).collect::<Int64Array>()),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.3.schema))),
        doubles(|h| h.count),
        doubles(|h| h.sum),
        doubles(|h| h.zero_threshold),
        doubles(|h| h.zero_count),
        Arc::new(positive_spans.finish()),
        Arc::new(positive.finish()),
        Arc::new(negative_spans.finish()),
        Arc::new(negative.finish()),
        Arc::new(custom.finish()),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.3.reset_hint.to_number()))),
        Arc::new(float.finish()),
    ]
}

fn list_of_ints() -> ListBuilder<Int32Builder> {
    ListBuilder::new(Int32Builder::new()).with_field(Field::new("element", DataType::Int32, true))
}

fn list_of_doubles() -> ListBuilder<Float64Builder> {
    ListBuilder::new(Float64Builder::new()).with_field(Field::new("element", DataType::Float64, true))
}

fn append_spans(list: &mut ListBuilder<Int32Builder>, spans: &[BucketSpan]) {
    for span in spans {
        list.values().append_value(span.offset);
        list.values().append_value(i32::try_from(span.length).unwrap_or(i32::MAX));
    }
    list.append(true);
}

fn append_doubles(list: &mut ListBuilder<Float64Builder>, values: &[f64]) {
    list.values().append_slice(values);
    list.append(true);
}
