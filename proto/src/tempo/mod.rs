//! Tempo's messages: traces as they are answered, and the protobuf of search, tags and metrics.
//!
//! Owns: the messages (`messages`), spans to OTLP (`trace`), traces,
//! searches and metrics as JSON (`json`, `search_json`, `metrics_json`). Does not own: gRPC services,
//! status codes, what is searched.

mod json;
mod messages;
mod metrics_json;
mod search_json;
mod trace;

pub use json::trace_json;
pub use messages::*;
pub use metrics_json::{query_instant_json, query_range_json};
pub use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
pub use opentelemetry_proto::tonic::trace::v1::TracesData;
pub use search_json::search_json;
pub use trace::{any_value_of, key_value, trace_to_otlp};
