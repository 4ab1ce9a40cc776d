//! OTLP log records, as JSON and as protobuf.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::loki_push::PushLimits;
use proto::otlp::{decode_protobuf, json, logs};
use storage::model::time::TimestampNs;

fuzz_target!(|body: &[u8]| {
    let now = TimestampNs(1_769_904_000_000_000_000);
    for request in [json::decode_logs(body), decode_protobuf(body)].into_iter().flatten() {
        let _ = logs::decode(&request, &logs::OtlpLogsSettings::default(), &PushLimits::default(), now);
    }
});
