//! The model: labels, matchers, times, histograms, attribute values and batches, as every signal uses them.
//!
//! Owns: the nouns. Does not own: wire formats (crate `proto`), files (`wal`, `table`), languages (crate `query`).

pub mod batch;
pub mod columns;
pub mod histogram;
pub mod identity;
pub mod labels;
pub mod matcher;
pub mod padding;
pub mod span;
pub mod tenant;
pub mod time;
pub mod value;
