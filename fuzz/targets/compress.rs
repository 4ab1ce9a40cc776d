//! Content encodings: never more than the limit, whatever the body declares.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::compress::{Encoding, decompress};

const LIMIT_BYTES: usize = 1 << 20;

fuzz_target!(|body: &[u8]| {
    for encoding in [Encoding::Snappy, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
        if let Ok(out) = decompress(encoding, body.to_vec().into(), LIMIT_BYTES) {
            assert!(out.len() <= LIMIT_BYTES);
        }
    }
});
