//! The directory sidecar: whatever decodes encodes to a file that decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::index::directory::Directory;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(directory) = Directory::decode(bytes) {
        let again = Directory::decode(&directory.encode()).expect("what was encoded decodes");
        assert_eq!(directory.runs(), again.runs());
    }
});
