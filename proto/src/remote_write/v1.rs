//! Remote write 1.0: `prometheus.WriteRequest`.
//!
//! Owns: the walk over the body. A bad series is skipped without telling the sender, as Prometheus does.

use std::ops::Range;

use storage::model::time::TimestampMs;

use crate::error::Result;
use crate::limits::Limits;
use crate::series::{self, Pair};
use crate::wire::Fields;

use super::{Decoded, Sink, in_series};

/// Decodes the unpacked body of a 1.0 request (`prometheus.WriteRequest`).
pub fn decode(body: &[u8], limits: &Limits) -> Result<Decoded> {
    let mut sink = Sink::new(limits);
    let mut series = Series::default();
    let mut index = 0;
    let mut fields = Fields::new(body);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => {
                series.read(field.bytes()?).and_then(|()| append(&mut sink, &mut series)).map_err(in_series(index))?;
                index += 1;
            }
            3 => metadata(&mut sink, field.bytes()?)?,
            _ => {}
        }
    }
    sink.finish()
}

/// One `TimeSeries`, its parts borrowed from the body; used again for the next.
#[derive(Default)]
struct Series<'a> {
    places: Vec<LabelPlace>,
    labels: Vec<Pair<'a>>,
    /// Whether a name or value was not UTF-8.
    garbled: bool,
    samples: Vec<(TimestampMs, f64)>,
    histograms: Vec<&'a [u8]>,
    exemplars: Vec<&'a [u8]>,
}

impl<'a> Series<'a> {
    fn read(&mut self, message: &'a [u8]) -> Result<()> {
        self.places.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        let mut labels_end = 0;
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => {
                    labels_end = message.len() - fields.left();
                    let label = field.bytes()?;
                    self.places.push(LabelPlace::read(label, labels_end - label.len())?);
                }
                2 => self.samples.push(sample(field.bytes()?)?),
                3 => self.exemplars.push(field.bytes()?),
                4 => self.histograms.push(field.bytes()?),
                _ => {}
            }
        }
        self.resolve(message, labels_end);
        Ok(())
    }

    /// Turns the places of labels into text. Validating the bytes of all labels at once is several times faster
    /// than one by one; what stands between them is ASCII unless a label is longer than 127 bytes.
    fn resolve(&mut self, message: &'a [u8], labels_end: usize) {
        let text = message.get(..labels_end).and_then(|labels| std::str::from_utf8(labels).ok());
        let part = |place: &Range<usize>| match text {
            Some(text) => text.get(place.clone()),
            None => message.get(place.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()),
        };
        self.labels.clear();
        self.labels.extend(self.places.iter().filter_map(|place| part(&place.name).zip(part(&place.value))));
        self.garbled = self.labels.len() < self.places.len();
    }
}

/// Where the name and the value of a label stand in the message of their series.
struct LabelPlace {
    name: Range<usize>,
    value: Range<usize>,
}

impl LabelPlace {
    /// Reads a `Label` message that begins at `base`.
    fn read(message: &[u8], base: usize) -> Result<Self> {
        let (mut name, mut value) = (0..0, 0..0);
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            let place = match number {
                1 => &mut name,
                2 => &mut value,
                _ => continue,
            };
            let end = base + message.len() - fields.left();
            *place = end - field.bytes()?.len()..end;
        }
        Ok(Self { name, value })
    }
}

/// A label of an exemplar; `None` when the name or the value is not UTF-8.
fn label(message: &[u8]) -> Result<Option<Pair<'_>>> {
    let place = LabelPlace::read(message, 0)?;
    let part = |place: Range<usize>| message.get(place).and_then(|bytes| std::str::from_utf8(bytes).ok());
    Ok(part(place.name).zip(part(place.value)))
}

fn sample(message: &[u8]) -> Result<(TimestampMs, f64)> {
    let (mut value, mut ts) = (0.0, 0);
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => value = field.double()?,
            2 => ts = field.signed()?,
            _ => {}
        }
    }
    Ok((TimestampMs(ts), value))
}

fn append(sink: &mut Sink<'_>, series: &mut Series<'_>) -> Result<()> {
    let checked = match series.garbled {
        true => Err("a label is not valid UTF-8".to_owned()),
        false => series::check(&mut series.labels, sink.limits),
    };
    let labels = &series.labels;
    let label_bytes = match checked {
        Ok(bytes) => bytes,
        Err(reason) => {
            sink.skipped.push(|| format!("series skipped, {reason}: {}", series::describe(labels)));
            return Ok(());
        }
    };
    if series.samples.is_empty() && series.histograms.is_empty() && series.exemplars.is_empty() {
        return Ok(());
    }
    let id = sink.series(labels, label_bytes)?;
    for (ts, value) in &series.samples {
        sink.sample(id, labels, *ts, *value, None)?;
    }
    for message in &series.histograms {
        sink.histogram(id, labels, message)?;
    }
    for message in &series.exemplars {
        let (mut own, mut value, mut ts, mut garbled) = (Vec::new(), 0.0, 0, false);
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => match label(field.bytes()?)? {
                    Some(pair) => own.push(pair),
                    None => garbled = true,
                },
                2 => value = field.double()?,
                3 => ts = field.signed()?,
                _ => {}
            }
        }
        match garbled {
            true => sink.skipped.push(|| format!("exemplar with invalid UTF-8: {}", series::describe(labels))),
            false => sink.exemplar(id, labels, TimestampMs(ts), value, &own)?,
        }
    }
    Ok(())
}

fn metadata(sink: &mut Sink<'_>, message: &[u8]) -> Result<()> {
    let mut kind = 0;
    let [mut family, mut help, mut unit]: [&[u8]; 3] = [b""; 3];
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => kind = field.low32()?,
            2 => family = field.bytes()?,
            4 => help = field.bytes()?,
            5 => unit = field.bytes()?,
            _ => {}
        }
    }
    match (std::str::from_utf8(family), std::str::from_utf8(unit), std::str::from_utf8(help)) {
        (Ok(family), Ok(unit), Ok(help)) => sink.metadata(family, kind, unit, help),
        _ => sink.skipped.push(|| format!("metadata with invalid UTF-8 of {:?}", String::from_utf8_lossy(family))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use storage::model::columns::{ExemplarColumns, HistogramColumns, SampleColumns};
    use storage::model::histogram::{STALE_NAN_BITS, stale_nan};
    use storage::signal::Table;

    use super::super::messages::{self, metadata_rows, v1};
    use super::*;

    fn series(labels: &[(&str, &str)]) -> v1::TimeSeries {
        v1::TimeSeries {
            labels: v1::labels(labels),
            samples: vec![v1::Sample { value: 1.0, timestamp: 7 }],
            ..Default::default()
        }
    }

    fn decoded(timeseries: Vec<v1::TimeSeries>) -> Decoded {
        let request = v1::WriteRequest { timeseries, metadata: Vec::new() };
        decode(&request.encode_to_vec(), &Limits::default()).unwrap()
    }

    #[test]
    fn an_empty_request_is_an_empty_batch() {
        assert!(decoded(Vec::new()).batch.is_empty());
    }

    #[test]
    fn unsorted_labels_are_sorted_and_empty_values_dropped() {
        let decoded = decoded(vec![series(&[("z", "é"), ("a.b", ""), ("__name__", "w.utf8 名")])]);
        assert_eq!(decoded.batch.identities[0].labels.to_string(), r#"{__name__="w.utf8 名", z="é"}"#);
        assert!(decoded.skipped.is_empty() && decoded.rejected.is_empty());
    }

    #[test]
    fn a_bad_series_is_skipped_and_the_rest_kept() {
        for bad in [&[("a", "1")][..], &[("__name__", "x"), ("a", "1"), ("a", "2")], &[("__name__", "x"), ("", "1")]] {
            let decoded = decoded(vec![series(bad), series(&[("__name__", "ok")])]);
            assert_eq!((decoded.written.samples, decoded.skipped.total, decoded.rejected.total), (1, 1, 0), "{bad:?}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_skips_its_series_only() {
        // A series of one label "__name__" = ff and a sample without fields, then a good series.
        let mut body = vec![0x0a, 17, 0x0a, 13, 0x0a, 8];
        body.extend(b"__name__");
        body.extend([0x12, 1, 0xff, 0x12, 0]);
        body.extend(
            v1::WriteRequest { timeseries: vec![series(&[("__name__", "ok")])], metadata: Vec::new() }.encode_to_vec(),
        );
        let decoded = decode(&body, &Limits::default()).unwrap();
        assert_eq!((decoded.written.samples, decoded.skipped.total), (1, 1));
        assert!(decoded.skipped.lines[0].contains("not valid UTF-8"));
    }

    #[test]
    fn values_keep_their_bits() {
        let values = [f64::NAN, stale_nan(), f64::INFINITY, f64::NEG_INFINITY, 5e-324];
        let samples = values.iter().map(|value| v1::Sample { value: *value, timestamp: -5 }).collect();
        let decoded = decoded(vec![v1::TimeSeries { samples, ..series(&[("__name__", "x")]) }]);
        let columns = SampleColumns::new(decoded.batch.table(Table::Samples).unwrap()).unwrap();
        let bits: Vec<u64> = columns.value.values().iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits, values.map(f64::to_bits));
        assert_eq!((bits[1], columns.ts_ms.value(0)), (STALE_NAN_BITS, -5));
    }

    #[test]
    fn negative_zero_is_not_zero() {
        // An encoder may take -0 for the default and leave it out: the message is written by hand.
        let message = [0x09, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x10, 5];
        let (ts, value) = sample(&message).unwrap();
        assert_eq!((ts, value.to_bits()), (TimestampMs(5), (-0.0f64).to_bits()));
    }

    #[test]
    fn a_bad_histogram_is_told_and_the_rest_kept() {
        let good = messages::Histogram { sum: 0.0, timestamp: 9, ..Default::default() };
        let bad = messages::Histogram { schema: 99, ..good.clone() };
        let decoded = decoded(vec![v1::TimeSeries { histograms: vec![bad, good], ..series(&[("__name__", "x")]) }]);
        assert_eq!((decoded.written.samples, decoded.written.histograms), (1, 1));
        assert_eq!(decoded.rejected.lines, [r#"histogram refused, unknown schema 99: {__name__="x"}"#]);
        let columns = HistogramColumns::new(decoded.batch.table(Table::Histograms).unwrap()).unwrap();
        assert_eq!(columns.ts_ms.value(0), 9);
    }

    #[test]
    fn exemplars_are_kept_unless_their_labels_are_long() {
        let exemplar =
            |value: &str| v1::Exemplar { labels: v1::labels(&[("trace_id", value)]), value: 3.0, timestamp: 4 };
        let exemplars = vec![exemplar("feed"), exemplar(&"é".repeat(120)), exemplar(&"é".repeat(121))];
        let decoded = decoded(vec![v1::TimeSeries { exemplars, ..series(&[("__name__", "x")]) }]);
        assert_eq!((decoded.written.exemplars, decoded.skipped.total, decoded.rejected.total), (2, 1, 0));
        let columns = ExemplarColumns::new(decoded.batch.table(Table::Exemplars).unwrap()).unwrap();
        assert_eq!((columns.value.value(0), columns.ts_ms.value(0)), (3.0, 4));
    }

    #[test]
    fn metadata_comes_with_or_without_series() {
        let family = |kind, name: &str| v1::MetricMetadata {
            r#type: kind,
            metric_family_name: name.to_owned(),
            help: "h".to_owned(),
            unit: "bytes".to_owned(),
        };
        let metadata = vec![family(1, "a_total"), family(7, "b"), family(99, "c"), family(1, "a_total"), family(1, "")];
        let request = v1::WriteRequest { timeseries: Vec::new(), metadata };
        let decoded = decode(&request.encode_to_vec(), &Limits::default()).unwrap();
        let row = |name: &str, kind: &str| [name, kind, "bytes", "h"].map(str::to_owned);
        assert_eq!(
            metadata_rows(&decoded.batch),
            [row("a_total", "counter"), row("b", "stateset"), row("c", "unknown")]
        );
    }

    #[test]
    fn the_future_is_refused() {
        let limits = Limits { future_max: Some(TimestampMs(6)), ..Limits::default() };
        let request = v1::WriteRequest { timeseries: vec![series(&[("__name__", "x")])], metadata: Vec::new() };
        let decoded = decode(&request.encode_to_vec(), &limits).unwrap();
        assert_eq!((decoded.written.samples, decoded.rejected.total), (0, 1));
        assert!(decoded.rejected.lines[0].contains("too far in the future"));
    }

    #[test]
    fn damage_is_an_error_that_names_the_series() {
        let error = decode(&[0x0a, 0xff, 0xff, 0xff, 1, b'g'], &Limits::default()).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Malformed);
        let error = decode(&[0x0a, 0, 0x0a, 2, 0x12, 9], &Limits::default()).unwrap_err();
        assert!(error.message().starts_with("series 1: the body is not a valid protobuf message"), "{error}");
    }
}
