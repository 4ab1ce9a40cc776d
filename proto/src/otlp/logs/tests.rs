//! Tests of the mapping of log records.

use proptest::prelude::*;
use storage::Table;
use storage::model::columns::EntryColumns;

use super::super::json::decode_logs;
use super::*;

const NOW: i64 = 1_767_571_200_000_000_000;

fn decoded(body: &str, settings: &OtlpLogsSettings) -> Decoded {
    let request = decode_logs(body.as_bytes()).unwrap();
    decode(&request, settings, &PushLimits::default(), TimestampNs(NOW)).unwrap()
}

/// `{labels} ts line metadata` of every entry.
fn rows(decoded: &Decoded) -> Vec<String> {
    let table = decoded.batch.table(Table::Logs).unwrap();
    let columns = EntryColumns::new(table).unwrap();
    let row = |row: usize| {
        let id = columns.stream_id.value(row);
        let stream = decoded.batch.identities.iter().find(|identity| identity.id.to_column() == id).unwrap();
        let pairs = columns.structured_metadata(row);
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let ts = columns.ts_ns.value(row) - NOW;
        format!("{} {ts} {} {}", stream.labels, columns.line.value(row), pairs.join(","))
    };
    (0..table.num_rows()).map(row).collect()
}

fn request(resource: &str, record: &str) -> String {
    format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{resource}]}},"scopeLogs":[{{"scope":{{"name":"lib",
        "version":"1.2","droppedAttributesCount":4,"attributes":[{{"key":"scope.attr","value":{{"stringValue":"sa"}}}},
        {{"key":"host.name","value":{{"stringValue":"of scope"}}}}]}},"logRecords":[{{{record}}}]}}]}}]}}"#
    )
}

fn attribute(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
}

#[test]
fn a_full_record_is_mapped() {
    let resource = [
        attribute("service.name", "shop"),
        attribute("k8s.pod.name", "p-1"),
        attribute("cloud.region", ""),
        attribute("host.name", "h1"),
        attribute("1st", "x"),
    ]
    .join(",");
    let record = format!(
        r#""timeUnixNano":"{}","observedTimeUnixNano":"{}","severityNumber":17,"severityText":"Oops","flags":1,
        "droppedAttributesCount":3,"eventName":"real","traceId":"28BFCAD7C2C8892CDCA2CC71DCDB8677",
        "spanId":"773de84e96ca5eec","body":{{"doubleValue":3.5}},"attributes":[
        {{"key":"user.id","value":{{"intValue":"5"}}}},{},{},{},
        {{"key":"nested","value":{{"kvlistValue":{{"values":[{{"key":"k.1","value":{{"boolValue":true}}}}]}}}}}},
        {{"key":"arr","value":{{"arrayValue":{{"values":[{{"intValue":1}},{{"stringValue":"two"}}]}}}}}}]"#,
        NOW + 5,
        NOW + 7,
        attribute("user_id", "clash"),
        attribute("event.name", "attribute"),
        attribute("none", ""),
    );
    let decoded = decoded(&request(&resource, &record), &OtlpLogsSettings::default());
    let expected = "{k8s_pod_name=\"p-1\", service_name=\"shop\"} 5 3.5 arr=[1,\"two\"],detected_level=Oops,\
        dropped_attributes_count=3,event_name=real,flags=1,host_name=of scope,key_1st=x,nested_k_1=true,\
        observed_timestamp=1767571200000000007,scope_attr=sa,scope_dropped_attributes_count=4,scope_name=lib,\
        scope_version=1.2,severity_number=17,severity_text=Oops,span_id=773de84e96ca5eec,\
        trace_id=28bfcad7c2c8892cdca2cc71dcdb8677,user_id=5";
    assert_eq!(rows(&decoded), [expected]);
    assert!(decoded.refused.is_empty());
}

#[test]
fn times_and_levels_have_fallbacks() {
    let times = [
        (format!(r#""observedTimeUnixNano":"{}","severityNumber":13"#, NOW + 7), "7  detected_level=warn,"),
        (r#""body":{"stringValue":"an error"}"#.to_owned(), "0 an error detected_level=error,"),
        (
            format!(r#""timeUnixNano":"{}","severityNumber":25,"spanId":"0000000000000000""#, NOW + 1),
            "1  detected_level=unknown,",
        ),
    ];
    for (record, expected) in times {
        let row = rows(&decoded(&request("", &record), &OtlpLogsSettings::default())).remove(0);
        let rest = row.strip_prefix("{service_name=\"unknown_service\"} ").unwrap();
        assert!(rest.starts_with(expected), "{rest}");
        assert!(!rest.contains("observed_timestamp") && !rest.contains("span_id"), "{rest}");
    }
}

#[test]
fn services_are_named_by_index_labels_only() {
    for (attributes, stream) in [
        (attribute("container.name", "ctr"), r#"{container_name="ctr", service_name="ctr"}"#),
        (
            attribute("service.name", "") + "," + &attribute("k8s.job.name", "j"),
            r#"{k8s_job_name="j", service_name="j"}"#,
        ),
        (attribute("app", "x"), r#"{service_name="unknown_service"}"#),
    ] {
        let row = rows(&decoded(&request(&attributes, ""), &OtlpLogsSettings::default())).remove(0);
        assert!(row.starts_with(stream), "{row}");
    }
}

#[test]
fn attributes_go_where_the_configuration_says() {
    let settings: OtlpLogsSettings = serde_json::from_str(
        r#"{"resource_attributes":[{"action":"drop","attributes":["service.name"]},
                                   {"action":"index_label","regex":"k8s\\..*"}],
            "scope_attributes":[{"action":"drop","regex":".*"}],
            "log_attributes":[{"action":"drop","attributes":["secret"]}]}"#,
    )
    .unwrap();
    let resource = attribute("service.name", "s") + "," + &attribute("k8s.node", "n") + "," + &attribute("xk8s.", "m");
    let record = format!(r#""attributes":[{},{}]"#, attribute("secret", "1"), attribute("open", "2"));
    let row = rows(&decoded(&request(&resource, &record), &settings)).remove(0);
    let expected = "{k8s_node=\"n\", service_name=\"unknown_service\"} 0  detected_level=unknown,open=2,\
        scope_dropped_attributes_count=4,scope_name=lib,scope_version=1.2,xk8s_=m";
    assert_eq!(row, expected);
    for wrong in [r#"{"nope":[]}"#, r#"{"log_attributes":[{"action":"drop","regex":"("}]}"#] {
        assert!(serde_json::from_str::<OtlpLogsSettings>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn limits_hold_here_too() {
    let record = format!(r#""timeUnixNano":"{}""#, u64::MAX);
    let decoded = decoded(&request("", &record), &OtlpLogsSettings::default());
    assert!(decoded.refused.message().contains("has timestamp too new"), "{}", decoded.refused.message());
    assert!(decoded.batch.is_empty());
    assert_eq!(decoded.streams, 1);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(request) = super::super::decode_protobuf::<ExportLogsServiceRequest>(&bytes) {
            let _ = decode(&request, &OtlpLogsSettings::default(), &PushLimits::default(), TimestampNs(NOW));
        }
    }
}
