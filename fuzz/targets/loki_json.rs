//! Loki push in JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::loki_push::{PushLimits, decode_json};
use storage::model::time::TimestampNs;

fuzz_target!(|body: &[u8]| {
    let _ = decode_json(body, &PushLimits::default(), TimestampNs(1_769_904_000_000_000_000));
});
