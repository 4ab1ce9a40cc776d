//! OpenTelemetry's protocol: export requests to batches, for three signals.
//!
//! Owns: protobuf decoding shared by the signals, attribute values. Does not own: JSON (`json`).

pub mod json;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod traces;
pub mod value;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use storage::model::value::{VALUE_DEPTH_MAX, Value};

use crate::error::{Error, Result};

/// Decodes a protobuf message. Nesting is bounded by the decoder's recursion limit (100 messages).
pub fn decode_protobuf<T: prost::Message + Default>(body: &[u8]) -> Result<T> {
    T::decode(body).map_err(|e| Error::malformed(format!("the body is not a valid protobuf message: {e}")))
}

/// An attribute value; nested deeper than [`VALUE_DEPTH_MAX`] it is an error.
pub fn value(any: Option<&AnyValue>) -> Result<Value> {
    value_at(any, 0)
}

fn value_at(any: Option<&AnyValue>, depth: usize) -> Result<Value> {
    use any_value::Value as Any;
    if depth > VALUE_DEPTH_MAX {
        return Err(Error::malformed(format!("an attribute value is nested deeper than {VALUE_DEPTH_MAX} levels")));
    }
    Ok(match any.and_then(|any| any.value.as_ref()) {
        // An index into the string table of the profiles signal says nothing here: taken as absent.
        None | Some(Any::StringValueStrindex(_)) => Value::Empty,
        Some(Any::StringValue(text)) => Value::String(text.clone()),
        Some(Any::BoolValue(value)) => Value::Bool(*value),
        Some(Any::IntValue(value)) => Value::Int(*value),
        Some(Any::DoubleValue(value)) => Value::Double(*value),
        Some(Any::BytesValue(bytes)) => Value::Bytes(bytes.clone()),
        Some(Any::ArrayValue(list)) => {
            Value::Array(list.values.iter().map(|v| value_at(Some(v), depth + 1)).collect::<Result<_>>()?)
        }
        Some(Any::KvlistValue(list)) => Value::Map(attributes_at(&list.values, depth + 1)?),
    })
}

/// Attributes in their order, keys as they are.
pub fn attributes(pairs: &[KeyValue]) -> Result<Vec<(String, Value)>> {
    attributes_at(pairs, 0)
}

fn attributes_at(pairs: &[KeyValue], depth: usize) -> Result<Vec<(String, Value)>> {
    pairs.iter().map(|pair| Ok((pair.key.clone(), value_at(pair.value.as_ref(), depth)?))).collect()
}
