//! OTLP as JSON: proto3's JSON mapping with hex ids, read into protobuf by tables of fields.
//!
//! Owns: the reading. The tables stand in `schema`. Does not own: what the messages mean.
//!
//! A body is rewritten as the protobuf message it stands for and decoded as such: so one decoder judges both forms.
//!
//! Invariants
//! 1. Unknown fields are skipped, whatever they hold; a known field of a wrong type is an error.
//! 2. Nesting is bounded by the JSON reader (128 levels), with an error that says so.

mod schema;

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use self::schema::{Field, Kind, Message};
use crate::error::{Error, Result};

/// Decodes an `ExportTraceServiceRequest`.
pub fn decode_traces(body: &[u8]) -> Result<ExportTraceServiceRequest> {
    decode(&schema::EXPORT_TRACES, body)
}

/// Decodes an `ExportLogsServiceRequest`.
pub fn decode_logs(body: &[u8]) -> Result<ExportLogsServiceRequest> {
    decode(&schema::EXPORT_LOGS, body)
}

/// Decodes an `ExportMetricsServiceRequest`.
pub fn decode_metrics(body: &[u8]) -> Result<ExportMetricsServiceRequest> {
    decode(&schema::EXPORT_METRICS, body)
}

/// The most bytes of an error text: bad input is quoted in it.
const ERROR_BYTES_MAX: usize = 1024;

fn decode<T: prost::Message + Default>(message: &'static Message, body: &[u8]) -> Result<T> {
    let error = |e: serde_json::Error| {
        let text = e.to_string();
        let end = (0..=ERROR_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        Error::malformed(format!("the body is not valid OTLP/JSON: {}", &text[..end.unwrap_or(0)]))
    };
    let mut out = Vec::with_capacity(body.len());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    MessageSeed { message, out: &mut out }.deserialize(&mut deserializer).map_err(error)?;
    deserializer.end().map_err(error)?;
    super::decode_protobuf(&out)
}

/// Reads an object as the fields of a message.
struct MessageSeed<'o> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object: {}", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(NameSeed(self.message))? {
            match field {
                Some(field) => map.next_value_seed(FieldSeed { field, out: &mut *self.out })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a name and finds its field.
struct NameSeed(&'static Message);

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|field| field.name == name))
    }
}

/// Reads a field's value; `null` is a field left out.
struct FieldSeed<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.field.name)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { field, out } = self;
        if field.repeated {
            deserializer.deserialize_seq(ListVisitor { field, out })
        } else {
            ElementSeed { field, out }.deserialize(deserializer)
        }
    }
}

struct ListVisitor<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list: {}", self.field.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(ElementSeed { field: self.field, out: &mut *self.out })?.is_some() {}
        Ok(())
    }
}

/// Reads one value of a field.
struct ElementSeed<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { field, out } = self;
        let Kind::Message(message) = field.kind else {
            return deserializer.deserialize_any(ScalarVisitor { field, out });
        };
        put_key(out, field.tag, LENGTH_DELIMITED);
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        MessageSeed { message, out: &mut *out }.deserialize(deserializer)?;
        let length = out.len() - start - LENGTH_BYTES;
        for (i, slot) in out[start..start + LENGTH_BYTES].iter_mut().enumerate() {
            let more = if i + 1 < LENGTH_BYTES { 0x80 } else { 0 };
            *slot = u8::try_from(length >> (7 * i) & 0x7f).unwrap_or(0) | more;
        }
        Ok(())
    }
}

/// A length is known only after its message: this many bytes are kept free, a varint may have more than it needs.
const LENGTH_BYTES: usize = 5;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn put_key(out: &mut Vec<u8>, tag: u32, wire_type: u32) {
    put_varint(out, u64::from(tag << 3 | wire_type));
}

fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_key(out, tag, LENGTH_DELIMITED);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads text, a number or a boolean as what the field's kind says.
struct ScalarVisitor<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl ScalarVisitor<'_> {
    fn put_integer<E: serde::de::Error>(self, value: i128) -> Result<(), E> {
        let Self { field, out } = self;
        let tag = field.tag;
        let range = || E::custom(format!("{value} is out of range for `{}`", field.name));
        let unsigned = || u64::try_from(value).map_err(|_| range());
        match field.kind {
            Kind::Double => {
                // Integers beyond 2^53 are rounded, as a JSON number is.
                return ScalarVisitor { field, out }.put_double(value as f64);
            }
            Kind::Int64 | Kind::Enum(_) => {
                let value = match field.kind {
                    Kind::Int64 => i64::try_from(value).map_err(|_| range())?,
                    _ => i64::from(i32::try_from(value).map_err(|_| range())?),
                };
                put_key(out, tag, VARINT);
                put_varint(out, u64::from_ne_bytes(value.to_ne_bytes()));
            }
            Kind::Uint32 => {
                let value = u32::try_from(value).map_err(|_| range())?;
                put_key(out, tag, VARINT);
                put_varint(out, value.into());
            }
            Kind::Uint64 => {
                let value = unsigned()?;
                put_key(out, tag, VARINT);
                put_varint(out, value);
            }
            Kind::Sint32 => {
                let value = i32::try_from(value).map_err(|_| range())?;
                put_key(out, tag, VARINT);
                put_varint(out, u32::from_ne_bytes((value << 1 ^ value >> 31).to_ne_bytes()).into());
            }
            Kind::Fixed32 => {
                let value = u32::try_from(value).map_err(|_| range())?;
                put_key(out, tag, FIXED32);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Fixed64 => {
                let value = unsigned()?;
                put_key(out, tag, FIXED64);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Sfixed64 => {
                let value = i64::try_from(value).map_err(|_| range())?;
                put_key(out, tag, FIXED64);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Text | Kind::Bool | Kind::Base64 | Kind::Id(_) | Kind::Message(_) => {
                return Err(wrong(field, "a number"));
            }
        }
        Ok(())
    }

    fn put_double<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                put_key(self.out, self.field.tag, FIXED64);
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            Kind::Text | Kind::Bool | Kind::Base64 | Kind::Id(_) | Kind::Message(_) => {
                Err(wrong(self.field, "a number"))
            }
            // `1e3` is an integer too.
            _ if value.fract() == 0.0 && value.abs() < 1e18 => self.put_integer(value as i128),
            _ => Err(wrong(self.field, "a number that is no integer")),
        }
    }
}

fn wrong<E: serde::de::Error>(field: &Field, what: &str) -> E {
    E::custom(format!("`{}` cannot be {what}", field.name))
}

impl Visitor<'_> for ScalarVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for `{}`", self.field.name)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        if !matches!(self.field.kind, Kind::Bool) {
            return Err(wrong(self.field, "a boolean"));
        }
        put_key(self.out, self.field.tag, VARINT);
        self.out.push(value.into());
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.put_integer(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.put_integer(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.put_double(value)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let Self { field, out } = self;
        match field.kind {
            Kind::Text => put_bytes(out, field.tag, text.as_bytes()),
            Kind::Base64 => {
                let bytes = decode_base64(text).ok_or_else(|| wrong::<E>(field, "text that is no base64"))?;
                put_bytes(out, field.tag, &bytes);
            }
            Kind::Id(length) => {
                let id = hex::decode(text).ok().filter(|id| id.is_empty() || id.len() == length);
                let id =
                    id.ok_or_else(|| E::custom(format!("`{}` must be {} hexadecimal digits", field.name, 2 * length)))?;
                put_bytes(out, field.tag, &id);
            }
            Kind::Bool | Kind::Message(_) => return Err(wrong(field, "a string")),
            Kind::Enum(number_of) => {
                let number = number_of(text).ok_or_else(|| wrong::<E>(field, "a name that is not known"))?;
                return ScalarVisitor { field, out }.put_integer(number.into());
            }
            Kind::Double => {
                let value = match text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => finite(text).ok_or_else(|| wrong::<E>(field, "a string that is no number"))?,
                };
                return ScalarVisitor { field, out }.put_double(value);
            }
            _ => {
                let visitor = ScalarVisitor { field, out };
                return match text.parse::<i128>() {
                    Ok(value) => visitor.put_integer(value),
                    Err(_) => match finite(text) {
                        Some(value) => visitor.put_double(value),
                        None => Err(wrong(field, "a string that is no integer")),
                    },
                };
            }
        }
        Ok(())
    }
}

fn finite(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// Both alphabets, with or without padding, as proto3's JSON mapping takes them.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    GeneralPurpose::new(&alphabet, config).decode(text).ok()
}

#[cfg(test)]
mod tests;
