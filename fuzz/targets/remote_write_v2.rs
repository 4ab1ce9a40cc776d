//! Prometheus remote write 2.0.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::limits::Limits;

fuzz_target!(|body: &[u8]| {
    let _ = proto::remote_write::decode_v2(body, &Limits::default());
});
