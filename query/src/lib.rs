//! The three query languages over one storage: text → AST → check → plan → eval.
//!
//! Invariants
//! 1. Knows no HTTP and no JSON shapes; values leave as Rust types.
//! 2. An AST is a pure value; evaluation state never lives in it.
//! 3. The only door to data is [`storage::Scan`].

pub mod error;
pub mod logql;
pub mod promql;
pub mod traceql;

pub use error::{Error, Kind, Result, SourceSpan};
pub use storage::Context;
