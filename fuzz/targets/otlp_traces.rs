//! OTLP spans, as JSON and as protobuf.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::otlp::{decode_protobuf, json, traces};
use proto::tempo::{trace_json, trace_to_otlp};

fuzz_target!(|body: &[u8]| {
    for request in [json::decode_traces(body), decode_protobuf(body)].into_iter().flatten() {
        let _ = traces::decode(&request, &traces::TraceLimits::default());
    }
    let _ = trace_json(&decode_protobuf(body).unwrap_or_else(|_| trace_to_otlp(&[])), "batches");
});
