//! Remote write 2.0: `io.prometheus.write.v2.Request`.
//!
//! Owns: the walk over the body and its table of symbols. Everything refused is told the sender.

use storage::model::identity::IdentityId;
use storage::model::labels::METRIC_NAME;
use storage::model::time::TimestampMs;

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::series::{self, Pair};
use crate::wire::{Fields, low32};

use super::{Decoded, EXEMPLAR_CHARS_MAX, Sink, in_series};

/// Decodes the unpacked body of a 2.0 request (`io.prometheus.write.v2.Request`).
pub fn decode(body: &[u8], limits: &Limits) -> Result<Decoded> {
    let symbols = Symbols::read(body, limits)?;
    let mut sink = Sink::new(limits);
    let mut series = Series::default();
    let mut labels = Vec::new();
    let mut index = 0;
    let mut fields = Fields::new(body);
    while let Some((number, field)) = fields.next()? {
        if number == 5 {
            let message = field.bytes()?;
            series
                .read(message)
                .and_then(|()| append(&mut sink, &symbols, &series, &mut labels, index))
                .map_err(in_series(index))?;
            index += 1;
        }
    }
    sink.finish()
}

/// The texts that references of a request point at.
struct Symbols<'a>(Vec<&'a [u8]>);

impl<'a> Symbols<'a> {
    fn read(body: &'a [u8], limits: &Limits) -> Result<Self> {
        let mut symbols = Vec::new();
        let mut fields = Fields::new(body);
        while let Some((number, field)) = fields.next()? {
            if number == 4 {
                symbols.push(field.bytes()?);
                if symbols.len() > limits.symbols_per_request_max {
                    let max = limits.symbols_per_request_max;
                    return Err(Error::too_large(format!("the request is over symbols_per_request_max {max}")));
                }
            }
        }
        Ok(Self(symbols))
    }

    fn get(&self, reference: u32) -> Result<&'a str, String> {
        let bytes = usize::try_from(reference).ok().and_then(|i| self.0.get(i).copied());
        let bytes = bytes.ok_or_else(|| format!("the reference {reference} is beyond the {} symbols", self.0.len()))?;
        std::str::from_utf8(bytes).map_err(|_| format!("symbol {reference} is not valid UTF-8"))
    }

    /// References come in pairs of name and value.
    fn labels(&self, references: &[u32], out: &mut Vec<Pair<'a>>) -> Result<(), String> {
        out.clear();
        let (pairs, rest) = references.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(format!("{} label references, they come in pairs", references.len()));
        }
        for [name, value] in pairs {
            out.push((self.get(*name)?, self.get(*value)?));
        }
        Ok(())
    }
}

/// One `TimeSeries`; used again for the next.
#[derive(Default)]
struct Series<'a> {
    references: Vec<u32>,
    samples: Vec<Sample>,
    histograms: Vec<&'a [u8]>,
    exemplars: Vec<&'a [u8]>,
    metadata: Metadata,
}

#[derive(Clone, Copy)]
struct Sample {
    value: f64,
    ts: TimestampMs,
    start: Option<TimestampMs>,
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Metadata {
    kind: u32,
    help: u32,
    unit: u32,
}

impl<'a> Series<'a> {
    fn read(&mut self, message: &'a [u8]) -> Result<()> {
        self.references.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.metadata = Metadata::default();
        let mut fields = Fields::new(message);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => field.varints(|value| self.references.push(low32(value)))?,
                2 => self.samples.push(sample(field.bytes()?)?),
                3 => self.histograms.push(field.bytes()?),
                4 => self.exemplars.push(field.bytes()?),
                5 => self.metadata = metadata(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn sample(message: &[u8]) -> Result<Sample> {
    let mut sample = Sample { value: 0.0, ts: TimestampMs(0), start: None };
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => sample.value = field.double()?,
            2 => sample.ts = TimestampMs(field.signed()?),
            3 => sample.start = Some(field.signed()?).filter(|start| *start != 0).map(TimestampMs),
            _ => {}
        }
    }
    Ok(sample)
}

fn metadata(message: &[u8]) -> Result<Metadata> {
    let mut metadata = Metadata::default();
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => metadata.kind = field.low32()?,
            3 => metadata.help = field.low32()?,
            4 => metadata.unit = field.low32()?,
            _ => {}
        }
    }
    Ok(metadata)
}

fn append<'a>(
    sink: &mut Sink<'_>,
    symbols: &Symbols<'a>,
    series: &Series<'_>,
    labels: &mut Vec<Pair<'a>>,
    index: usize,
) -> Result<()> {
    let label_bytes = match check(symbols, series, labels, sink.limits) {
        Ok(bytes) => bytes,
        Err(reason) => {
            sink.rejected.push(|| format!("series {index} refused, {reason}: {}", series::describe(labels)));
            return Ok(());
        }
    };
    let id = sink.series(labels, label_bytes)?;
    for sample in &series.samples {
        sink.sample(id, labels, sample.ts, sample.value, sample.start)?;
    }
    for message in &series.histograms {
        sink.histogram(id, labels, message)?;
    }
    for message in &series.exemplars {
        exemplar(sink, symbols, id, labels, message)?;
    }
    if series.metadata != Metadata::default()
        && let (Ok(unit), Ok(help)) = (symbols.get(series.metadata.unit), symbols.get(series.metadata.help))
    {
        let metric = labels.iter().find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| *value);
        sink.metadata(family(metric, series.metadata.kind), series.metadata.kind, unit, help);
    }
    Ok(())
}

/// What must hold before anything of a series is taken.
fn check<'a>(
    symbols: &Symbols<'a>,
    series: &Series<'_>,
    labels: &mut Vec<Pair<'a>>,
    limits: &Limits,
) -> Result<usize, String> {
    symbols.labels(&series.references, labels)?;
    let label_bytes = series::check(labels, limits)?;
    if series.samples.is_empty() && series.histograms.is_empty() {
        return Err("neither samples nor histograms".to_owned());
    }
    if series.metadata != Metadata::default() {
        symbols.get(series.metadata.help)?;
        symbols.get(series.metadata.unit)?;
    }
    Ok(label_bytes)
}

fn exemplar(
    sink: &mut Sink<'_>,
    symbols: &Symbols<'_>,
    id: IdentityId,
    labels: &[Pair<'_>],
    message: &[u8],
) -> Result<()> {
    let (mut references, mut value, mut ts) = (Vec::new(), 0.0, 0);
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => field.varints(|value| references.push(low32(value)))?,
            2 => value = field.double()?,
            3 => ts = field.signed()?,
            _ => {}
        }
    }
    if references.len() > 2 * EXEMPLAR_CHARS_MAX {
        sink.skipped
            .push(|| format!("exemplar with {} label references: {}", references.len(), series::describe(labels)));
        return Ok(());
    }
    let mut own = Vec::new();
    match symbols.labels(&references, &mut own) {
        Ok(()) => sink.exemplar(id, labels, TimestampMs(ts), value, &own),
        Err(reason) => {
            sink.rejected.push(|| format!("exemplar refused, {reason}: {}", series::describe(labels)));
            Ok(())
        }
    }
}

/// The family of a metric: histograms and summaries have several metrics to one family.
fn family(metric: &str, kind: u32) -> &str {
    let suffixes: &[&str] = match super::metric_type(kind) {
        "histogram" | "gaugehistogram" | "summary" => &["_bucket", "_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| metric.strip_suffix(suffix)).unwrap_or(metric)
}

#[cfg(test)]
mod tests {
    use storage::model::columns::{ExemplarColumns, SampleColumns};
    use storage::signal::Table;

    use super::super::messages::{metadata_rows, v2};
    use super::*;

    fn request(symbols: &[&str], timeseries: Vec<v2::TimeSeries>) -> v2::Request {
        v2::Request { symbols: symbols.iter().map(|s| (*s).to_owned()).collect(), timeseries }
    }

    fn point(refs: &[u32]) -> v2::TimeSeries {
        let samples = vec![v2::Sample { value: 1.5, timestamp: 1000, start_timestamp: 0 }];
        v2::TimeSeries { labels_refs: refs.to_vec(), samples, ..Default::default() }
    }

    fn decoded(request: &v2::Request) -> Decoded {
        decode(&prost::Message::encode_to_vec(request), &Limits::default()).unwrap()
    }

    const SYMBOLS: [&str; 7] = ["", "__name__", "up", "job", "a", "help", "seconds"];

    #[test]
    fn labels_are_looked_up_and_counted() {
        let mut series = point(&[3, 4, 1, 2]);
        series.samples[0].start_timestamp = 400;
        let decoded = decoded(&request(&SYMBOLS, vec![series]));
        assert!(decoded.rejected.is_empty());
        assert_eq!(decoded.written.samples, 1);
        assert_eq!(decoded.batch.identities[0].labels.to_string(), r#"{__name__="up", job="a"}"#);
        let samples = SampleColumns::new(decoded.batch.table(Table::Samples).unwrap()).unwrap();
        assert_eq!((samples.ts_ms.value(0), samples.start_ts_ms.value(0), samples.value.value(0)), (1000, 400, 1.5));
    }

    #[test]
    fn a_bad_series_is_refused_and_the_rest_kept() {
        let bad = [
            (point(&[1, 2, 3]), "pairs"),
            (point(&[1, 99]), "beyond the 7 symbols"),
            (point(&[3, 4]), "no metric name"),
            (point(&[1, 2, 3, 4, 3, 5]), "stands twice"),
            (point(&[1, 2, 0, 4]), "empty"),
            (v2::TimeSeries { labels_refs: vec![1, 2], ..Default::default() }, "neither samples nor histograms"),
            (
                v2::TimeSeries {
                    metadata: Some(v2::Metadata { r#type: 1, help_ref: 99, unit_ref: 0 }),
                    ..point(&[1, 2])
                },
                "99",
            ),
        ];
        for (series, reason) in bad {
            let decoded = decoded(&request(&SYMBOLS, vec![series, point(&[1, 2])]));
            assert_eq!((decoded.written.samples, decoded.rejected.total), (1, 1), "{reason}");
            let line = &decoded.rejected.lines[0];
            assert!(line.starts_with("series 0 refused") && line.contains(reason), "{line}");
        }
    }

    #[test]
    fn metadata_names_the_family() {
        let with = |metric: u32, kind: i32| {
            let metadata = Some(v2::Metadata { r#type: kind, help_ref: 5, unit_ref: 6 });
            v2::TimeSeries { metadata, ..point(&[1, metric]) }
        };
        let symbols = ["", "__name__", "h_bucket", "h_sum", "c_count", "help", "seconds"];
        let decoded = decoded(&request(&symbols, vec![with(2, 3), with(3, 3), with(4, 1), with(4, 5), point(&[1, 2])]));
        let row = |family: &str, kind: &str| [family, kind, "seconds", "help"].map(str::to_owned);
        assert_eq!(
            metadata_rows(&decoded.batch),
            [row("h", "histogram"), row("c_count", "counter"), row("c", "summary")]
        );
    }

    #[test]
    fn exemplars_never_cost_samples() {
        let exemplar =
            |labels_refs: &[u32]| v2::Exemplar { labels_refs: labels_refs.to_vec(), value: 2.0, timestamp: 5 };
        let long = "x".repeat(200);
        let symbols = ["", "__name__", "up", "trace_id", "feed", &long];
        let exemplars = vec![exemplar(&[3, 4]), exemplar(&[3]), exemplar(&[3, 5]), exemplar(&[3, 77])];
        let decoded = decoded(&request(&symbols, vec![v2::TimeSeries { exemplars, ..point(&[1, 2]) }]));
        assert_eq!((decoded.written.samples, decoded.written.exemplars), (1, 1));
        assert_eq!((decoded.rejected.total, decoded.skipped.total), (2, 1));
        let exemplars = ExemplarColumns::new(decoded.batch.table(Table::Exemplars).unwrap()).unwrap();
        assert_eq!(exemplars.labels(0), [("trace_id".to_owned(), "feed".to_owned())]);
    }

    #[test]
    fn a_symbol_that_is_not_text_refuses_its_series_only() {
        let mut body = prost::Message::encode_to_vec(&request(&SYMBOLS, vec![point(&[1, 2, 3, 7]), point(&[1, 2])]));
        body.extend([0x22, 2, 0xff, 0xfe]); // symbol 7, after the series
        let decoded = decode(&body, &Limits::default()).unwrap();
        assert_eq!((decoded.written.samples, decoded.rejected.total), (1, 1));
        assert!(decoded.rejected.lines[0].contains("symbol 7 is not valid UTF-8"));
    }

    #[test]
    fn a_small_body_that_stands_for_much_is_refused() {
        let long = "x".repeat(1000);
        let symbols = ["", "__name__", "up", "job", &long];
        let request = request(&symbols, vec![point(&[1, 2, 3, 4]); 20]);
        let limits = Limits { label_bytes_per_request_max: 10_000, ..Limits::default() };
        let error = decode(&prost::Message::encode_to_vec(&request), &limits).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::TooLarge);
        assert!(error.message().starts_with("series 9: the request is over label_bytes_per_request_max"), "{error}");
    }
}
