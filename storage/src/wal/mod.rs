//! The write-ahead log: own files per signal, one writer thread per signal, group commit.
//!
//! Owns: what is on disk between an acknowledgement and the commit of a flush. Does not own: what records mean
//! (`head`, `engine::recover`), when segments may go (`engine::flush`).
//! Format: `docs/formats/wal.md`.

mod columns;
pub mod reader;
pub mod record;
pub mod segment;
#[cfg(test)]
pub(crate) mod tests;
pub mod writer;

pub use reader::{Damage, Replayed, replay, survey};
pub use record::Record;
pub use writer::{Apply, Limits, Wal};
