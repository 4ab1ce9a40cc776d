//! Wire bytes to model batches and back: remote write, OTLP, Loki push, Tempo's messages.
//!
//! Invariants
//! 1. A pure function of bytes: no clock, no I/O, no configuration files.
//! 2. Bad input is an error or a rejected item with its reason, never a panic; sizes and depths have limits.

pub mod compress;
pub mod error;
pub mod level;
pub mod limits;
pub mod loki_push;
pub mod names;
pub mod otlp;
pub mod remote_write;
pub mod tempo;

mod native;
mod series;
mod wire;

pub use error::{Error, Kind, Result};
pub use limits::{Limits, Rejections};
