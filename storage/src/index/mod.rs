//! Sidecar indexes: derived data beside the blocks.
//!
//! Invariant: deleting a sidecar changes speed, never an answer.

pub mod directory;
