//! The `Histogram` message, the same in both versions.
//!
//! Owns: its fields, deltas to absolute counts. Does not own: the rules of histograms (`native`).

use storage::model::histogram::{BucketSpan, Histogram, ResetHint};
use storage::model::time::TimestampMs;

use crate::error::Result;
use crate::limits::Limits;
use crate::native;
use crate::wire::{Field, Fields, low32, zigzag32, zigzag64};

/// Bytes one bucket takes at most: a packed delta, or a count and a share of its span.
const BUCKET_BYTES_MAX: usize = 32;
/// Bytes of everything that is not a bucket, custom bounds aside, generously.
const HEADER_BYTES_MAX: usize = 256;

/// One histogram sample.
#[derive(Debug, PartialEq)]
pub(super) struct HistogramSample {
    pub(super) ts: TimestampMs,
    pub(super) start: Option<TimestampMs>,
    pub(super) value: Histogram,
}

/// A count as sent: the field decides between whole and fractional counts.
#[derive(Clone, Copy)]
enum Count {
    Int(u64),
    Float(f64),
}

/// The fields of the message.
struct Raw {
    count: Count,
    zero_count: Count,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    negative: Side,
    positive: Side,
    reset_hint: u32,
    ts: i64,
    custom_values: Vec<f64>,
    start_ts: i64,
}

#[derive(Default)]
struct Side {
    spans: Vec<BucketSpan>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

/// The outer error is a message that is not protobuf; the inner one a histogram that breaks a rule, and which.
pub(super) fn decode(message: &[u8], limits: &Limits) -> Result<Result<HistogramSample, String>> {
    if message.len() > HEADER_BYTES_MAX.saturating_add(limits.histogram_buckets_max.saturating_mul(BUCKET_BYTES_MAX)) {
        return Ok(Err(format!(
            "{} bytes, over histogram_buckets_max {}",
            message.len(),
            limits.histogram_buckets_max
        )));
    }
    let raw = Raw::read(message)?;
    let (ts, start) = (TimestampMs(raw.ts), (raw.start_ts != 0).then_some(TimestampMs(raw.start_ts)));
    Ok(raw.into_model(limits).map(|value| HistogramSample { ts, start, value }))
}

impl Raw {
    fn read(message: &[u8]) -> Result<Self> {
        let mut raw = Self {
            count: Count::Int(0),
            zero_count: Count::Int(0),
            sum: 0.0,
            schema: 0,
            zero_threshold: 0.0,
            negative: Side::default(),
            positive: Side::default(),
            reset_hint: 0,
            ts: 0,
            custom_values: Vec::new(),
            start_ts: 0,
        };
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => raw.count = Count::Int(field.unsigned()?),
                2 => raw.count = Count::Float(field.double()?),
                3 => raw.sum = field.double()?,
                4 => raw.schema = field.zigzag32()?,
                5 => raw.zero_threshold = field.double()?,
                6 => raw.zero_count = Count::Int(field.unsigned()?),
                7 => raw.zero_count = Count::Float(field.double()?),
                8..=10 => raw.negative.read(number - 8, field)?,
                11..=13 => raw.positive.read(number - 11, field)?,
                14 => raw.reset_hint = field.low32()?,
                15 => raw.ts = field.signed()?,
                16 => field.doubles(&mut raw.custom_values)?,
                17 => raw.start_ts = field.signed()?,
                _ => {}
            }
        }
        Ok(raw)
    }

    fn into_model(self, limits: &Limits) -> Result<Histogram, String> {
        for (what, length) in [
            ("positive buckets", self.positive.buckets()),
            ("negative buckets", self.negative.buckets()),
            ("custom bounds", self.custom_values.len()),
        ] {
            if length > limits.histogram_buckets_max {
                return Err(format!("{length} {what}, over histogram_buckets_max {}", limits.histogram_buckets_max));
            }
        }
        let float = matches!(self.count, Count::Float(_));
        let mut total = match self.zero_count {
            Count::Int(count) if !float => u128::from(count),
            _ => 0,
        };
        let (positive_spans, positive_buckets) = self.positive.into_counts(float, &mut total)?;
        let (negative_spans, negative_buckets) = self.negative.into_counts(float, &mut total)?;
        let mut histogram = Histogram {
            schema: self.schema,
            count: self.count.to_double(),
            sum: self.sum,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.to_double(),
            positive_spans,
            positive_buckets,
            negative_spans,
            negative_buckets,
            custom_values: self.custom_values,
            reset_hint: i32::try_from(self.reset_hint).map_or(ResetHint::Unknown, ResetHint::from_number),
            float,
        };
        native::check(&histogram)?;
        if let Count::Int(count) = self.count {
            native::check_total(total, count, self.sum)?;
        }
        native::reduce(&mut histogram)?;
        Ok(histogram)
    }
}

impl Count {
    fn to_double(self) -> f64 {
        match self {
            Self::Int(count) => count as f64,
            Self::Float(count) => count,
        }
    }
}

impl Side {
    /// `part` 0: a span, 1: deltas, 2: counts.
    fn read(&mut self, part: u32, field: Field<'_>) -> Result<()> {
        match part {
            0 => {
                let mut span = BucketSpan { offset: 0, length: 0 };
                let mut fields = Fields::new(field.bytes()?);
                while let Some((number, field)) = fields.next()? {
                    match number {
                        1 => span.offset = zigzag32(field.unsigned()?),
                        2 => span.length = low32(field.unsigned()?),
                        _ => {}
                    }
                }
                self.spans.push(span);
                Ok(())
            }
            1 => field.varints(|value| self.deltas.push(zigzag64(value))),
            _ => field.doubles(&mut self.counts),
        }
    }

    fn buckets(&self) -> usize {
        self.deltas.len().max(self.counts.len()).max(self.spans.len())
    }

    /// Spans and absolute counts; whole counts are added to `total`.
    fn into_counts(self, float: bool, total: &mut u128) -> Result<(Vec<BucketSpan>, Vec<f64>), String> {
        if float {
            return Ok((self.spans, self.counts));
        }
        let mut counts = Vec::with_capacity(self.deltas.len());
        let mut count = 0i64;
        for delta in &self.deltas {
            count = count.checked_add(*delta).ok_or("a bucket count is out of range")?;
            let whole = u64::try_from(count).map_err(|_| format!("the bucket count {count} is negative"))?;
            *total += u128::from(whole);
            counts.push(whole as f64);
        }
        Ok((self.spans, counts))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use storage::model::histogram::{is_stale, stale_nan};

    use super::super::messages::{
        self,
        histogram::{Count as WireCount, ZeroCount},
    };
    use super::*;

    /// Schema 2, zero bucket 1, buckets 0 to 1 and 4 with 2, 2 and 1.
    fn whole() -> messages::Histogram {
        messages::Histogram {
            count: Some(WireCount::CountInt(6)),
            sum: 9.5,
            schema: 2,
            zero_threshold: 0.001,
            zero_count: Some(ZeroCount::ZeroCountInt(1)),
            positive_spans: vec![span(0, 2), span(2, 1)],
            positive_deltas: vec![2, 0, -1],
            timestamp: 1000,
            ..Default::default()
        }
    }

    fn span(offset: i32, length: u32) -> messages::BucketSpan {
        messages::BucketSpan { offset, length }
    }

    fn model(message: &messages::Histogram) -> Result<Histogram, String> {
        decode(&message.encode_to_vec(), &Limits::default()).unwrap().map(|sample| sample.value)
    }

    fn refused(change: impl FnOnce(&mut messages::Histogram)) -> String {
        let mut message = whole();
        change(&mut message);
        model(&message).unwrap_err()
    }

    #[test]
    fn deltas_become_counts() {
        let histogram = model(&whole()).unwrap();
        assert_eq!(histogram.positive_buckets, [2.0, 2.0, 1.0]);
        assert_eq!(
            histogram.positive_spans,
            [BucketSpan { offset: 0, length: 2 }, BucketSpan { offset: 2, length: 1 }]
        );
        assert_eq!((histogram.count, histogram.zero_count, histogram.sum, histogram.float), (6.0, 1.0, 9.5, false));
    }

    #[test]
    fn fractional_counts_are_absolute() {
        let mut message = whole();
        message.count = Some(WireCount::CountFloat(6.5));
        message.zero_count = Some(ZeroCount::ZeroCountFloat(1.5));
        message.positive_deltas.clear();
        message.positive_counts = vec![2.0, 2.0, 1.0];
        let histogram = model(&message).unwrap();
        assert_eq!((histogram.count, histogram.zero_count, histogram.float), (6.5, 1.5, true));
        assert_eq!(histogram.positive_buckets, [2.0, 2.0, 1.0]);
    }

    #[test]
    fn a_stale_marker_keeps_its_bits() {
        let message = messages::Histogram { sum: stale_nan(), schema: 2, ..Default::default() };
        assert!(is_stale(model(&message).unwrap().sum));
    }

    #[test]
    fn every_rule_is_checked() {
        assert!(refused(|h| h.count = Some(WireCount::CountInt(99))).contains("the count is 99"));
        assert!(refused(|h| h.positive_deltas = vec![2, -3, 4]).contains("negative"));
        assert!(refused(|h| h.positive_deltas = vec![2, 0]).contains("spans need 3 buckets"));
        assert!(refused(|h| h.positive_spans[1].offset = -1).contains("negative offset"));
        assert!(refused(|h| h.zero_threshold = -0.1).contains("zero threshold"));
        assert!(refused(|h| h.schema = -5).contains("schema -5"));
        assert!(refused(|h| h.schema = 53).contains("schema 53"));
        assert!(refused(|h| h.custom_values = vec![1.0]).contains("custom bounds"));
        assert!(refused(|h| h.positive_deltas = vec![i64::MAX, 1, 0]).contains("out of range"));
        assert!(refused(|h| h.positive_spans[0].offset = i32::MAX).contains("reach bucket"));
    }

    #[test]
    fn observations_of_nan_are_in_no_bucket() {
        let mut message = whole();
        message.sum = f64::NAN;
        message.count = Some(WireCount::CountInt(8));
        assert_eq!(model(&message).unwrap().count, 8.0);
        message.count = Some(WireCount::CountInt(5));
        assert!(model(&message).is_err());
    }

    #[test]
    fn a_finer_schema_is_reduced_to_eight() {
        let mut message = whole();
        message.schema = 10;
        message.positive_spans = vec![span(1, 3)];
        // Buckets 1, 2, 3 of schema 10 lie in bucket 1 of schema 8.
        let histogram = model(&message).unwrap();
        assert_eq!((histogram.schema, histogram.positive_buckets), (8, vec![5.0]));
        assert_eq!(histogram.positive_spans, [BucketSpan { offset: 1, length: 1 }]);
    }

    fn custom() -> messages::Histogram {
        messages::Histogram {
            count: Some(WireCount::CountInt(4)),
            sum: 3.0,
            schema: -53,
            positive_spans: vec![span(0, 3)],
            positive_deltas: vec![1, 1, -1],
            custom_values: vec![0.5, 5.0],
            ..Default::default()
        }
    }

    #[test]
    fn custom_bounds_are_checked() {
        assert_eq!(model(&custom()).unwrap().custom_values, [0.5, 5.0]);
        let refused = |change: fn(&mut messages::Histogram)| {
            let mut message = custom();
            change(&mut message);
            model(&message).unwrap_err()
        };
        assert!(refused(|h| h.custom_values = vec![0.5]).contains("only 1 custom bounds"));
        assert!(refused(|h| h.custom_values = vec![5.0, 0.5]).contains("do not ascend"));
        assert!(refused(|h| h.custom_values = vec![0.5, 0.5]).contains("do not ascend"));
        assert!(refused(|h| h.custom_values = vec![0.5, f64::INFINITY]).contains("not finite"));
        assert!(refused(|h| h.custom_values = vec![0.5, f64::NAN]).contains("not finite"));
        assert!(refused(|h| h.zero_count = Some(ZeroCount::ZeroCountInt(1))).contains("zero bucket"));
        assert!(refused(|h| h.negative_spans = vec![span(0, 0)]).contains("negative buckets"));
        assert!(refused(|h| h.positive_spans = vec![span(-1, 3)]).contains("negative span offset"));
    }

    #[test]
    fn too_many_buckets_are_refused() {
        let limits = Limits { histogram_buckets_max: 2, ..Limits::default() };
        let refused = decode(&whole().encode_to_vec(), &limits).unwrap().unwrap_err();
        assert!(refused.contains("histogram_buckets_max 2"), "{refused}");
    }
}
