//! Typed attribute values of OpenTelemetry and their text form in the tables.
//!
//! Owns: [`Value`] and its text, which is JSON: strings are quoted, integers bare, doubles always carry a point
//! or an exponent, arrays and maps as they are, the empty value `null`. What JSON lacks is written as a map of
//! one key: bytes `{"$bytes":"<base64>"}`, doubles that are no numbers `{"$double":"NaN"}`. A key of a real map
//! that begins with `$` gets one more `$`.
//!
//! Invariants
//! 1. `parse(text(v)) == v` for every value (NaN equals itself here).
//! 2. One value has one text, so that equal texts mean equal values.

use std::fmt::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// How deep values may nest; decoders refuse more.
pub const VALUE_DEPTH_MAX: usize = 64;

/// One attribute value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Present without a value.
    Empty,
    /// UTF-8 text.
    String(String),
    /// `true` or `false`.
    Bool(bool),
    /// 64-bit integer.
    Int(i64),
    /// IEEE 754 double.
    Double(f64),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// A list of values.
    Array(Vec<Value>),
    /// Named values in their order.
    Map(Vec<(String, Value)>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Double(a), Self::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl Value {
    /// The text form.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text);
        text
    }

    /// Appends the text form.
    pub fn write_text(&self, out: &mut String) {
        match self {
            Self::Empty => out.push_str("null"),
            Self::String(text) => write_string_text(text, out),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => push(out, format_args!("{value}")),
            // `{:?}` is the shortest text that reads back and always has a point or an exponent.
            Self::Double(value) if value.is_finite() => push(out, format_args!("{value:?}")),
            Self::Double(value) => {
                let name = if value.is_nan() {
                    "NaN"
                } else if *value > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                };
                push(out, format_args!("{{\"$double\":\"{name}\"}}"));
            }
            Self::Bytes(bytes) => push(out, format_args!("{{\"$bytes\":\"{}\"}}", BASE64.encode(bytes))),
            Self::Array(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    value.write_text(out);
                }
                out.push(']');
            }
            Self::Map(pairs) => {
                out.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    if key.starts_with('$') {
                        write_string_text(&format!("${key}"), out);
                    } else {
                        write_string_text(key, out);
                    }
                    out.push(':');
                    value.write_text(out);
                }
                out.push('}');
            }
        }
    }

    /// Reads a text form; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Appends the text form of a string value, without building a [`Value`].
pub fn write_string_text(text: &str, out: &mut String) {
    out.push('"');
    let mut plain_from = 0;
    for (i, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain_from..i]);
        plain_from = i + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => push(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

/// The text form of a string value.
pub fn string_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_string_text(text, &mut out);
    out
}

fn push(out: &mut String, arguments: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(arguments);
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Double(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs: Vec<(String, Value)> = Vec::new();
        while let Some(pair) = map.next_entry::<String, Value>()? {
            pairs.push(pair);
        }
        if let [(key, Value::String(text))] = pairs.as_slice()
            && let Some(value) = special(key, text)
        {
            return Ok(value);
        }
        for (key, _) in &mut pairs {
            if key.starts_with('$') {
                key.remove(0);
            }
        }
        Ok(Value::Map(pairs))
    }
}

fn special(key: &str, text: &str) -> Option<Value> {
    match (key, text) {
        ("$bytes", _) => BASE64.decode(text).ok().map(Value::Bytes),
        ("$double", "NaN") => Some(Value::Double(f64::NAN)),
        ("$double", "Infinity") => Some(Value::Double(f64::INFINITY)),
        ("$double", "-Infinity") => Some(Value::Double(f64::NEG_INFINITY)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_json_with_visible_types() {
        let cases = [
            (Value::String("GET \"x\"\n".into()), r#""GET \"x\"\n""#),
            (Value::Int(200), "200"),
            (Value::Double(200.0), "200.0"),
            (Value::Double(1e300), "1e300"),
            (Value::Bool(true), "true"),
            (Value::Empty, "null"),
            (Value::Bytes(vec![1, 2]), r#"{"$bytes":"AQI="}"#),
            (Value::Double(f64::NAN), r#"{"$double":"NaN"}"#),
            (Value::Map(vec![("$bytes".into(), Value::String("x".into()))]), r#"{"$$bytes":"x"}"#),
            (Value::Array(vec![Value::Int(1), Value::String("a".into())]), r#"[1,"a"]"#),
        ];
        for (value, text) in cases {
            assert_eq!(value.to_text(), text);
            assert_eq!(Value::parse(text), Some(value));
        }
    }

    #[test]
    fn deep_text_is_refused_not_overflowed() {
        let deep = "[".repeat(100_000);
        assert_eq!(Value::parse(&deep), None);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Empty),
            "\\PC*".prop_map(Value::String),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>().prop_map(Value::Double),
            proptest::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec(("\\$?\\PC{0,4}", inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_reads_back(value in any_value()) {
            prop_assert_eq!(Value::parse(&value.to_text()), Some(value));
        }
    }
}
