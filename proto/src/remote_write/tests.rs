//! Properties of both decoders: nothing panics, and what prost encodes is read as prost reads it.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use storage::model::columns::SampleColumns;
use storage::model::labels::Labels;
use storage::signal::Table;

use super::messages::{self, v1, v2};
use super::*;

fn text() -> impl Strategy<Value = String> {
    "[a-zé]{1,6}"
}

/// Labels without duplicates, the metric name somewhere among them.
fn label_sets() -> impl Strategy<Value = Vec<(String, String)>> {
    (proptest::collection::btree_map(text(), "[a-zé]{0,200}", 0..8), text(), any::<prop::sample::Index>()).prop_map(
        |(others, name, at)| {
            let mut pairs: Vec<_> = others.into_iter().collect();
            pairs.insert(at.index(pairs.len() + 1), ("__name__".to_owned(), name));
            pairs
        },
    )
}

/// Labels of a series, and time and bits of its samples.
type SentSeries = (Vec<(String, String)>, Vec<(i64, u64)>);
type Sent = Vec<SentSeries>;

/// Any bits but those of -0, which prost leaves out as if it were the default.
fn sent() -> impl Strategy<Value = Sent> {
    let bits = any::<u64>().prop_filter("-0", |bits| *bits != (-0.0f64).to_bits());
    vec((label_sets(), vec((any::<i64>(), bits), 1..5)), 0..6)
}

fn to_v1(sent: &Sent) -> v1::WriteRequest {
    let series = |(labels, samples): &SentSeries| v1::TimeSeries {
        labels: labels.iter().map(|(n, v)| v1::Label { name: n.clone(), value: v.clone() }).collect(),
        samples: samples.iter().map(|(ts, bits)| v1::Sample { value: f64::from_bits(*bits), timestamp: *ts }).collect(),
        ..Default::default()
    };
    v1::WriteRequest { timeseries: sent.iter().map(series).collect(), metadata: Vec::new() }
}

fn to_v2(sent: &Sent) -> v2::Request {
    let mut symbols = vec![String::new()];
    let mut reference = |text: &String| {
        let at = symbols.iter().position(|symbol| symbol == text).unwrap_or(symbols.len());
        if at == symbols.len() {
            symbols.push(text.clone());
        }
        u32::try_from(at).unwrap()
    };
    let timeseries = sent
        .iter()
        .map(|(labels, samples)| v2::TimeSeries {
            labels_refs: labels.iter().flat_map(|(n, v)| [reference(n), reference(v)]).collect(),
            samples: samples
                .iter()
                .map(|(ts, bits)| v2::Sample { value: f64::from_bits(*bits), timestamp: *ts, start_timestamp: 0 })
                .collect(),
            ..Default::default()
        })
        .collect();
    v2::Request { symbols, timeseries }
}

/// Labels, time and bits of every sample, in order.
fn expected(sent: &Sent) -> Vec<(Labels, i64, u64)> {
    let rows = |(labels, samples): &SentSeries| {
        let labels = Labels::from_pairs(labels.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        samples.iter().map(move |(ts, bits)| (labels.clone(), *ts, *bits)).collect::<Vec<_>>()
    };
    sent.iter().flat_map(rows).collect()
}

fn found(decoded: &Decoded) -> Vec<(Labels, i64, u64)> {
    let Some(rows) = decoded.batch.table(Table::Samples) else { return Vec::new() };
    let columns = SampleColumns::new(rows).unwrap();
    let labels = |id| decoded.batch.identities.iter().find(|i| i.id.to_column() == id).unwrap().labels.clone();
    (0..rows.num_rows())
        .map(|row| (labels(columns.series_id.value(row)), columns.ts_ms.value(row), columns.value.value(row).to_bits()))
        .collect()
}

fn rich() -> v1::WriteRequest {
    let histogram = messages::Histogram {
        count: Some(messages::histogram::Count::CountInt(3)),
        positive_spans: vec![messages::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp: 5,
        ..Default::default()
    };
    let exemplar = v1::Exemplar { labels: v1::labels(&[("trace_id", "ab")]), value: 1.0, timestamp: 5 };
    let series = v1::TimeSeries {
        labels: v1::labels(&[("__name__", "m"), ("job", "a")]),
        samples: vec![v1::Sample { value: 1.0, timestamp: 5 }; 3],
        exemplars: vec![exemplar],
        histograms: vec![histogram; 2],
    };
    let metadata = v1::MetricMetadata { r#type: 1, metric_family_name: "m".to_owned(), ..Default::default() };
    v1::WriteRequest { timeseries: vec![series; 3], metadata: vec![metadata] }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(sent in sent()) {
        let limits = Limits::default();
        let from_v1 = decode_v1(&to_v1(&sent).encode_to_vec(), &limits).unwrap();
        prop_assert_eq!(found(&from_v1), expected(&sent));
        prop_assert_eq!(from_v1.written.samples, expected(&sent).len());
        let from_v2 = decode_v2(&to_v2(&sent).encode_to_vec(), &limits).unwrap();
        prop_assert_eq!(found(&from_v2), expected(&sent));
        prop_assert!(from_v1.skipped.is_empty() && from_v2.rejected.is_empty());
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode_v1(&bytes, &Limits::default());
        let _ = decode_v2(&bytes, &Limits::default());
    }

    #[test]
    fn mutated_requests_never_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8), cut in any::<prop::sample::Index>(),
    ) {
        let second = to_v2(&vec![(vec![("__name__".to_owned(), "m".to_owned())], vec![(1, 1)]); 3]);
        for mut body in [rich().encode_to_vec(), second.encode_to_vec()] {
            for (at, byte) in &changes {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            body.truncate(cut.index(body.len()) + 1);
            let _ = decode_v1(&body, &Limits::default());
            let _ = decode_v2(&body, &Limits::default());
        }
    }
}
