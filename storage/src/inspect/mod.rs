//! What is there: the WAL, tables, files and sidecars of a store, as values to print.
//!
//! Owns: what is reported of each. Does not own: how it is printed (the `tercet` binary), whether it is sound (`verify`).
//!
//! Invariant: nothing is locked, changed or deleted; a writer may be running.

mod file;
mod index;
mod table;
#[cfg(test)]
mod tests;
mod wal;

pub use file::{Column, File, RowGroup, file};
pub use index::{SidecarReport, sidecar, sidecars_of};
pub use table::{BlockReport, MarkReport, TableReport, TableSummary, table, tables};
pub use wal::{DamageReport, RowCount, SegmentReport, WalReport, wal};
