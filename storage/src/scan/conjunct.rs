//! What a reader will test of each row, told to the scan so that it may read less.
//!
//! Owns: the form of such tests. Does not own: their use (`scan::prune`, `scan::read`), nor the test itself, which the
//! reader runs again.

use std::sync::Arc;

/// One test that rows must pass, in the terms of stored columns.
#[derive(Clone, Debug, PartialEq)]
pub enum Conjunct {
    /// The text column `column` contains this text (case counts).
    Contains { column: &'static str, text: Arc<str> },
    /// The flat column `column` is one of these texts. A column without a value fails.
    TextIn { column: &'static str, texts: Arc<[Arc<str>]> },
    /// The flat integer column `column` lies between the two, both included. A column without a value fails.
    LongBetween { column: &'static str, first: i64, last: i64 },
    /// The flat column of bytes `column` is one of these.
    BytesIn { column: &'static str, values: Arc<[Box<[u8]>]> },
    /// The map column `column` has `key` with one of these values.
    EntryIn { column: &'static str, key: Arc<str>, values: Arc<[Arc<str>]> },
    /// The map column `column` has `key`, whatever its value.
    HasKey { column: &'static str, key: Arc<str> },
    /// At least one of these groups passes whole.
    AnyOf(Vec<Vec<Conjunct>>),
}
