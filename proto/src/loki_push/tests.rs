//! Tests of both wire forms against the rules of the protocol.

use std::time::Duration;

use proptest::prelude::*;
use storage::Table;
use storage::model::columns::EntryColumns;

use super::*;
use crate::error::Result;

const NOW: i64 = 1_767_571_200_000_000_000;

fn now() -> TimestampNs {
    TimestampNs(NOW)
}

/// `{labels} ts line {metadata}` of every entry.
fn rows(decoded: &Decoded) -> Vec<String> {
    let Some(table) = decoded.batch.table(Table::Logs) else { return Vec::new() };
    let columns = EntryColumns::new(table).unwrap();
    (0..table.num_rows())
        .map(|row| {
            let id = columns.stream_id.value(row);
            let stream = decoded.batch.identities.iter().find(|identity| identity.id.to_column() == id).unwrap();
            let metadata: Vec<String> =
                columns.structured_metadata(row).iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!(
                "{} {} {:?} {}",
                stream.labels,
                columns.ts_ns.value(row) - NOW,
                columns.line.value(row),
                metadata.join(",")
            )
        })
        .collect()
}

fn push(body: &str) -> Result<Decoded> {
    decode_json(body.as_bytes(), &PushLimits::default(), now())
}

fn one(stream: &str, values: &str) -> Result<Decoded> {
    push(&format!(r#"{{"streams":[{{"stream":{stream},"values":[{values}]}}]}}"#))
}

#[test]
fn entries_are_read_with_what_ingestion_adds() {
    let body = format!(
        r#"{{"x":[{{"y":1e999}}],"streams":[{{"stream":{{"app":"x","env":""}},"z":null,"values":[
        ["{NOW}","one"],null,["{}","tab\t\u0000 \ud83d\ude00 level=WRN",{{"b.c":"2","9x":"é","a":"1"}}],["{}"]]}},
        {{"values":[["{NOW}","late labels"]],"stream":{{"job":"j","service_name":"given"}}}},
        {{"stream":{{"a":"b"}},"values":null}}, null]}}"#,
        NOW + 1,
        NOW + 2,
    );
    let decoded = push(&body).unwrap();
    assert_eq!(
        rows(&decoded),
        [
            r#"{app="x", service_name="x"} 0 "one" detected_level=unknown"#,
            "{app=\"x\", service_name=\"x\"} 1 \"tab\\t\\0 😀 level=WRN\" a=1,b_c=2,detected_level=warn,key_9x=é",
            r#"{app="x", service_name="x"} 2 "" detected_level=unknown"#,
            r#"{job="j", service_name="given"} 0 "late labels" detected_level=unknown"#,
        ]
    );
    assert!(decoded.refused.is_empty());
    assert_eq!((decoded.streams, decoded.lines, decoded.batch.identities.len()), (3, 4, 2));
}

#[test]
fn streams_without_labels_get_a_service_or_are_refused() {
    let decoded = one("{}", &format!(r#"["{NOW}","x"]"#)).unwrap();
    assert_eq!(rows(&decoded), [r#"{service_name="unknown_service"} 0 "x" detected_level=unknown"#]);
    let limits = PushLimits { discover_service_name: false, discover_level: false, ..PushLimits::default() };
    let body = format!(r#"{{"streams":[{{"stream":{{}},"values":[["{NOW}","x"]]}}]}}"#);
    let decoded = decode_json(body.as_bytes(), &limits, now()).unwrap();
    assert_eq!(decoded.refused.message(), "error at least one label pair is required per stream");
    assert!(decoded.batch.is_empty() && decoded.batch.identities.is_empty());
}

#[test]
fn empty_requests_are_told_from_empty_streams() {
    assert_eq!(push("{}").unwrap().streams, 0);
    assert_eq!(push(r#"{"streams":[]}"#).unwrap().streams, 0);
    assert_eq!(push(r#"{"streams":null}"#).unwrap().streams, 0);
    let decoded = one(r#"{"app":"x"}"#, "").unwrap();
    assert!(decoded.streams == 1 && decoded.batch.is_empty() && decoded.refused.is_empty());
    assert_eq!(decode_protobuf(b"", &PushLimits::default(), now()).unwrap().streams, 0);
}

#[test]
fn wrong_shapes_are_errors() {
    for body in ["", "not json", "[]", "5", r#"{"streams":{}}"#, r#"{"streams":[5]}"#, r#"{"streams":[]"#, "{} x"] {
        assert!(push(body).is_err(), "{body}");
    }
    for value in [
        r#"["notanumber","x"]"#,
        r#"[1767571200000000000,"x"]"#,
        r#"["1767571200000000000",5]"#,
        r#"["1767571200000000000",null]"#,
        r#"["1767571200000000000","x",{"n":5}]"#,
        r#"["1767571200000000000","x",{"n":{"m":"o"}}]"#,
        r#"["1767571200000000000","x",{"n":null}]"#,
        r#"["1767571200000000000","x",["a"]]"#,
        r#"["1767571200000000000","x","a"]"#,
        r#"["1767571200000000000","x",null]"#,
        r#"["9999999999999999999","x"]"#,
        r#"["","x"]"#,
        r#"[]"#,
        r#""x""#,
        r#"{"ts":"1"}"#,
    ] {
        assert!(one(r#"{"app":"x"}"#, value).is_err(), "{value}");
    }
    let deep = format!(r#"{{"other":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(push(&deep).unwrap().streams, 0);
    assert!(push(&"[".repeat(100_000)).is_err());
    let long = format!(r#"{{"streams":"{}"}}"#, "x".repeat(100_000));
    assert!(push(&long).unwrap_err().message().len() < 2000);
}

#[test]
fn one_bad_label_name_fails_the_request() {
    let body = format!(
        r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[["{NOW}","x"]]}},
           {{"stream":{{"a.b":"c"}},"values":[["{NOW}","x"]]}}]}}"#
    );
    assert!(push(&body).unwrap_err().message().starts_with("couldn't parse labels: "));
}

#[test]
fn refusals_carry_the_texts_of_the_contract() {
    let value = |ts: i64| format!(r#"["{ts}","x"]"#);
    let stream = r#"{"app":"x"}"#;
    let day = 86_400 * 1_000_000_000;
    let long = "n".repeat(1025);
    let labels: String = (0..16).map(|i| format!(r#""l{i:02}":"v","#)).collect();
    let labels = format!(r#"{{{labels}"app":"x","env":"y"}}"#);
    let listed: String = (0..16).map(|i| format!(r#", l{i:02}="v""#)).collect();
    let pairs: String = (0..130).map(|i| format!(r#""k{i}":"v","#)).collect();
    let cases = [
        (
            one(&labels, &value(NOW)),
            format!(
                r#"entry for stream '{{app="x", env="y"{listed}, service_name="x"}}' has 18 label names; limit 15"#
            ),
        ),
        (
            one(&format!(r#"{{"{long}":"v","service_name":"s"}}"#), &value(NOW)),
            format!(r#"stream '{{{long}="v", service_name="s"}}' has label name too long: '{long}'"#),
        ),
        (
            one(stream, &value(NOW - 8 * day)),
            "entry for stream '{app=\"x\", service_name=\"x\"}' has timestamp too old: 2025-12-28T00:00:00Z, \
             oldest acceptable timestamp is: 2025-12-29T00:00:00Z"
                .to_owned(),
        ),
        (
            one(stream, &value(NOW + 601_000_000_000)),
            r#"entry for stream '{app="x", service_name="x"}' has timestamp too new: 2026-01-05T00:10:01Z"#.to_owned(),
        ),
        (
            one(stream, &format!(r#"["{NOW}","{}"]"#, "x".repeat(300_000))),
            "max entry size '262144' bytes exceeded for stream '{app=\"x\", service_name=\"x\"}' while adding an \
             entry with length '300000' bytes"
                .to_owned(),
        ),
        (
            one(stream, &format!(r#"["{NOW}","x",{{"k":"{}"}}]"#, "v".repeat(66_000))),
            "stream '{app=\"x\", service_name=\"x\"}' has structured metadata too large: '66001' bytes, limit: \
             '65536' bytes. The setting is `structured_metadata_bytes_max`."
                .to_owned(),
        ),
        (
            one(stream, &format!(r#"["{NOW}","x",{{{}}}]"#, pairs.trim_end_matches(','))),
            "stream '{app=\"x\", service_name=\"x\"}' has too many structured metadata labels: '130', limit: \
             '128'. The setting is `structured_metadata_pairs_max`."
                .to_owned(),
        ),
    ];
    for (decoded, expected) in cases {
        let decoded = decoded.unwrap();
        assert_eq!(decoded.refused.message(), expected);
        assert!(decoded.batch.is_empty() && decoded.batch.identities.is_empty());
        assert_eq!(decoded.refused.groups()[0].entries, 1);
    }
}

#[test]
fn valid_entries_of_a_request_are_kept() {
    let long = "x".repeat(300_000);
    let values = format!(r#"["{NOW}","{long}"],["{NOW}","kept"],["{NOW}","{long}"],["1","old"]"#);
    let decoded = one(r#"{"app":"x"}"#, &values).unwrap();
    assert_eq!(rows(&decoded), [r#"{app="x", service_name="x"} 0 "kept" detected_level=unknown"#]);
    let message = decoded.refused.message();
    assert!(message.starts_with("2 errors like: max entry size"), "{message}");
    assert!(message.contains("; entry for stream '{app=\"x\", service_name=\"x\"}' has timestamp too old"));
    assert_eq!(decoded.refused.groups()[0].bytes, 600_000);
}

#[test]
fn long_lines_are_cut_when_configured() {
    let limits = PushLimits { line_truncate: true, line_bytes_max: 4, reject_old: None, ..PushLimits::default() };
    let body = r#"{"streams":[{"stream":{"a":"b"},"values":[["1","éab"],["2","aaaé"]]}]}"#;
    let decoded = decode_json(body.as_bytes(), &limits, now()).unwrap();
    let lines: Vec<String> = rows(&decoded).iter().map(|row| row.split('"').nth(5).unwrap_or("").to_owned()).collect();
    assert_eq!(lines, ["éab", "aaa"]);
}

#[test]
fn metadata_is_equal_in_any_order_and_unique() {
    let values = format!(
        r#"["{NOW}","x",{{"a.b":"1","z":"2","a_b":"3","level":"WARN"}}],["{NOW}","x",{{"level":"WARN","z":"2","a-b":"1"}}]"#
    );
    let rows = rows(&one(r#"{"app":"x"}"#, &values).unwrap());
    assert_eq!(rows[0], rows[1]);
    assert!(rows[0].ends_with("a_b=1,detected_level=warn,level=WARN,z=2"), "{}", rows[0]);
}

#[test]
fn bytes_that_are_no_text_get_stand_ins() {
    let mut body = format!(r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[["{NOW}","l\ud800?",{{"k":"v?w"}}]]}}]}}"#);
    body = body.replace("v?w", "v\u{7f}w");
    let bytes: Vec<u8> = body.bytes().map(|b| if b == 0x7f { 0xff } else { b }).collect();
    let decoded = decode_json(&bytes, &PushLimits::default(), now()).unwrap();
    assert!(rows(&decoded)[0].ends_with("\"l\u{fffd}?\" detected_level=unknown,k=v w"), "{:?}", rows(&decoded));
}

/// One length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// A request of one stream and one entry at `seconds` with one pair `pod.name`.
fn request(labels: &str, seconds: u8, line: &str) -> Vec<u8> {
    let pair = [field(1, b"pod.name"), field(2, b"p-1")].concat();
    let entry = [field(2, line.as_bytes()), field(3, &pair), field(1, &[8, seconds, 16, 7])].concat();
    field(1, &[field(2, &entry), field(1, labels.as_bytes())].concat())
}

#[test]
fn protobuf_means_the_same_as_json() {
    let limits = PushLimits { reject_old: None, ..PushLimits::default() };
    let body =
        [request(r#"{app="x", env="y\n"}"#, 5, "an error"), request(r#"{app="x", env="y\n"}"#, 6, "fine")].concat();
    let from_protobuf = decode_protobuf(&body, &limits, now()).unwrap();
    let body = r#"{"streams":[{"stream":{"app":"x","env":"y\n"},"values":[
        ["5000000007","an error",{"pod.name":"p-1"}],["6000000007","fine",{"pod.name":"p-1"}]]}]}"#;
    let from_json = decode_json(body.as_bytes(), &limits, now()).unwrap();
    assert_eq!(rows(&from_protobuf), rows(&from_json));
    assert_eq!(from_protobuf.streams, 2);
    assert_eq!(from_protobuf.batch.identities, from_json.batch.identities);
}

#[test]
fn protobuf_faults_are_errors_or_refusals() {
    let limits = PushLimits { reject_old: Some(Duration::MAX), ..PushLimits::default() };
    assert!(decode_protobuf(b"garbage", &limits, now()).is_err());
    assert!(decode_protobuf(&request("{app=x}", 5, "x"), &limits, now()).is_err());
    let decoded = decode_protobuf(&request(r#"{a="1",b="2",a="3"}"#, 5, "x"), &limits, now()).unwrap();
    assert!(decoded.refused.message().ends_with("has duplicate label name: 'a'"));
    let stream_without_entries = field(1, &field(1, b"{nonsense"));
    assert_eq!(decode_protobuf(&stream_without_entries, &limits, now()).unwrap().streams, 1);
    let late = field(1, &[0xff; 9].iter().copied().chain([1]).collect::<Vec<u8>>());
    assert!(decode_protobuf(&field(1, &field(2, &late)), &limits, now()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode_json(&bytes, &PushLimits::default(), now());
        let _ = decode_protobuf(&bytes, &PushLimits::default(), now());
    }

    #[test]
    fn no_mutation_panics(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
        let json = format!(
            r#"{{"streams":[{{"stream":{{"app":"x"}},"values":[["{NOW}","{{\"level\":\"err\"}}",{{"k.é":"v"}}],["{NOW}","b=c level=warn"]]}}]}}"#
        );
        let protobuf = [request(r#"{app="x"}"#, 5, "l=1 \"x"), request("{b=`y`}", 6, "{\"a\":{\"b\"}}")].concat();
        for mut body in [json.into_bytes(), protobuf] {
            let at = at % body.len();
            body[at] = byte;
            body.truncate(cut.max(1));
            let _ = decode_json(&body, &PushLimits::default(), now());
            let _ = decode_protobuf(&body, &PushLimits::default(), now());
        }
    }
}
