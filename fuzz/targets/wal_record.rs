//! Records of the write-ahead log: no bytes make the decoder panic, and whole frames are found among any others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::wal::record;

fuzz_target!(|bytes: &[u8]| {
    let _ = record::decode(bytes);
    let mut at = 0;
    while let Some(frame) = record::find(bytes, at) {
        assert!(frame.from >= at && frame.to > frame.from && frame.to <= bytes.len());
        let _ = record::decode(frame.payload);
        at = frame.to;
    }
});
