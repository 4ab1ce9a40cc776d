//! OTLP in JSON, each signal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::otlp::json::{decode_logs, decode_metrics, decode_traces};

fuzz_target!(|body: &[u8]| {
    let _ = decode_metrics(body);
    let _ = decode_logs(body);
    let _ = decode_traces(body);
});
