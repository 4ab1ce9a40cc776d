//! Attribute values and bodies as the texts that logs show.
//!
//! Owns: the text of each type. Does not own: the typed form that traces keep (`storage::model::value`).
//!
//! Strings stand as they are, numbers in their shortest form, bytes as base64, lists and maps as compact JSON with
//! sorted keys, spelt as Go's `encoding/json` does (so `<`, `>` and `&` are escaped in it): queries written for the
//! original match these texts.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
use storage::model::value::VALUE_DEPTH_MAX;

/// The text of a value, "" for an absent one. What is nested deeper than [`VALUE_DEPTH_MAX`] is left out as `null`.
pub fn value_text(value: Option<&AnyValue>) -> Cow<'_, str> {
    match value.and_then(|value| value.value.as_ref()) {
        None | Some(Any::StringValueStrindex(_)) => Cow::Borrowed(""),
        Some(Any::StringValue(text)) => Cow::Borrowed(text),
        Some(Any::BoolValue(value)) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Some(Any::IntValue(value)) => Cow::Owned(value.to_string()),
        Some(Any::DoubleValue(value)) => Cow::Owned(double_text(*value)),
        Some(Any::BytesValue(bytes)) => Cow::Owned(BASE64.encode(bytes)),
        Some(Any::ArrayValue(_) | Any::KvlistValue(_)) => {
            let mut out = String::new();
            write_json(value, 0, &mut out);
            Cow::Owned(out)
        }
    }
}

/// The shortest decimal; with an exponent below 1e-6 and from 1e21 on.
fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return if size >= 1.0 { text.replace('e', "e+") } else { text };
    }
    format!("{value}")
}

fn write_json(value: Option<&AnyValue>, depth: usize, out: &mut String) {
    match value.and_then(|value| value.value.as_ref()) {
        None | Some(Any::StringValueStrindex(_)) => out.push_str("null"),
        Some(_) if depth > VALUE_DEPTH_MAX => out.push_str("null"),
        Some(Any::StringValue(text)) => write_string(text, out),
        Some(Any::BytesValue(_)) => write_string(&value_text(value), out),
        Some(Any::BoolValue(_) | Any::IntValue(_)) => out.push_str(&value_text(value)),
        // JSON has no other numbers.
        Some(Any::DoubleValue(double)) if !double.is_finite() => write_string(&double_text(*double), out),
        Some(Any::DoubleValue(double)) => out.push_str(&double_text(*double)),
        Some(Any::ArrayValue(list)) => {
            out.push('[');
            for (i, value) in list.values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(Some(value), depth + 1, out);
            }
            out.push(']');
        }
        Some(Any::KvlistValue(map)) => {
            let mut pairs: Vec<&KeyValue> = map.values.iter().collect();
            // Of equal keys the last counts, as in any JSON object.
            pairs.reverse();
            pairs.sort_by(|a, b| a.key.cmp(&b.key));
            pairs.dedup_by(|earlier, last| earlier.key == last.key);
            out.push('{');
            for (i, pair) in pairs.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(&pair.key, out);
                out.push(':');
                write_json(pair.value.as_ref(), depth + 1, out);
            }
            out.push('}');
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Calls `each` with the name and the value of every attribute; maps are flattened, their keys joined with `_`.
/// Values without text are left out.
pub fn flatten<'a>(pairs: &'a [KeyValue], mut each: impl FnMut(Cow<'a, str>, Cow<'a, str>)) {
    for pair in pairs {
        flatten_value(Cow::Borrowed(pair.key.as_str()), pair.value.as_ref(), 0, &mut each);
    }
}

/// As [`flatten`] for one attribute.
fn flatten_value<'a>(
    name: Cow<'a, str>,
    value: Option<&'a AnyValue>,
    depth: usize,
    each: &mut impl FnMut(Cow<'a, str>, Cow<'a, str>),
) {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::KvlistValue(map)) if depth < VALUE_DEPTH_MAX => {
            for pair in &map.values {
                let name = Cow::Owned(format!("{name}_{}", pair.key));
                flatten_value(name, pair.value.as_ref(), depth + 1, each);
            }
        }
        _ => {
            let text = value_text(value);
            if !text.is_empty() {
                each(name, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    fn any(value: Any) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
    }

    #[test]
    fn values_have_the_texts_of_the_contract() {
        let array = |values: Vec<Any>| Any::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() });
        let map = |values: Vec<KeyValue>| Any::KvlistValue(KeyValueList { values });
        let string = |text: &str| Any::StringValue(text.to_owned());
        let cases = [
            (string("as \"is\"\n"), "as \"is\"\n"),
            (Any::IntValue(-42), "-42"),
            (Any::BoolValue(true), "true"),
            (Any::DoubleValue(3.5), "3.5"),
            (Any::DoubleValue(0.25), "0.25"),
            (Any::DoubleValue(3.0), "3"),
            (Any::DoubleValue(-0.0), "-0"),
            (Any::DoubleValue(1e21), "1e+21"),
            (Any::DoubleValue(1e20), "100000000000000000000"),
            (Any::DoubleValue(1.5e-7), "1.5e-7"),
            (Any::DoubleValue(f64::NAN), "NaN"),
            (Any::BytesValue(vec![0, 1, b'B', b'y', b't', b'e', b's']), "AAFCeXRlcw=="),
            (array(vec![string("a"), Any::IntValue(1), Any::BoolValue(false)]), r#"["a",1,false]"#),
            (
                map(vec![
                    pair("event", string("kv")),
                    pair("n", Any::IntValue(5)),
                    pair("deep", map(vec![pair("x", Any::BoolValue(true))])),
                ]),
                r#"{"deep":{"x":true},"event":"kv","n":5}"#,
            ),
            (map(vec![pair("t", string("<a&b>\u{1}\n\""))]), r#"{"t":"\u003ca\u0026b\u003e\u0001\n\""}"#),
        ];
        for (value, text) in cases {
            assert_eq!(value_text(Some(&any(value))), text);
        }
        assert_eq!(value_text(None), "");
    }

    #[test]
    fn depth_is_bounded() {
        let mut value = Any::IntValue(1);
        for _ in 0..VALUE_DEPTH_MAX + 5 {
            value = Any::ArrayValue(ArrayValue { values: vec![any(value)] });
        }
        assert!(value_text(Some(&any(value))).contains("null"));
    }

    #[test]
    fn maps_are_flattened() {
        let inner = Any::KvlistValue(KeyValueList { values: vec![pair("b", Any::IntValue(1))] });
        let outer = Any::KvlistValue(KeyValueList { values: vec![pair("a", inner)] });
        let pairs = [pair("nested", outer), pair("empty", Any::StringValue(String::new()))];
        let mut all = Vec::new();
        flatten(&pairs, |name, value| all.push((name.into_owned(), value.into_owned())));
        assert_eq!(all, [("nested_a_b".to_owned(), "1".to_owned())]);
    }
}
