//! The dictionary sidecar: whatever decodes encodes to a file that decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::index::dictionary::Dictionary;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(dictionary) = Dictionary::decode(bytes) {
        let encoded = dictionary.encode().expect("what was decoded encodes");
        let again = Dictionary::decode(&encoded).expect("what was encoded decodes");
        assert_eq!(dictionary, again);
    }
});
