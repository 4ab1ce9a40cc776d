//! Prometheus remote write 1.0.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::limits::Limits;

fuzz_target!(|body: &[u8]| {
    let _ = proto::remote_write::decode_v1(body, &Limits::default());
});
