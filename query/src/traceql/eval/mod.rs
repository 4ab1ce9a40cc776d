//! Evaluation, one trace at a time.
//!
//! Owns: what runs a plan over a scan. One file per concern; a trace's details are read only when something asks.

pub mod calls;
pub mod completion;
pub mod field;
pub mod lookup;
pub mod metrics;
pub mod pipeline;
pub mod proof;
pub mod reads;
pub mod search;
pub mod stream;
pub mod tags;
pub mod trace;
pub mod tree;
pub mod value;
pub mod words;

#[cfg(test)]
mod tests;
