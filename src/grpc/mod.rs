//! gRPC services.

pub mod otlp;
pub mod tempo;
