//! The text form of attribute values: one value, one text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::model::value::Value;

fuzz_target!(|text: &str| {
    if let Some(value) = Value::parse(text) {
        assert_eq!(Value::parse(&value.to_text()), Some(value));
    }
});
