//! Labels as records on disk hold them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::model::labels::Labels;

fuzz_target!(|text: &str| {
    if let Some(labels) = Labels::from_encoded(text) {
        assert_eq!(Labels::from_pairs(labels.iter()), labels);
    }
});
