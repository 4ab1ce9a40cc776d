//! The storage engine: write-ahead log, head, tables and their scans, one engine for three signals.
//!
//! Invariants
//! 1. Knows no query language, no wire format, no HTTP.
//! 2. Nothing is acknowledged before the fsync that covers it; once acknowledged, a scan sees it.

pub mod budget;
pub mod clock;
mod compact;
pub mod context;
pub mod delete;
pub mod engine;
pub mod error;
pub mod head;
pub mod index;
pub mod inspect;
#[cfg(test)]
mod kept;
pub mod model;
pub mod paths;
pub mod retention;
pub mod scan;
pub mod signal;
pub mod store;
pub mod table;
pub mod verify;
pub mod wal;

pub use context::Context;
pub use engine::{Appended, Engine, EngineConfig};
pub use error::{Error, Kind, Result};
pub use model::batch::Batch;
pub use scan::{Scan, ScanRequest};
pub use signal::{Signal, Table};
