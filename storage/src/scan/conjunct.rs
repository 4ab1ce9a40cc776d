//! What a reader will test of each row, told to the scan so that it may read less.
//!
//! Owns: the form of such tests and their meaning, row by row. Does not own: their use (`scan::prune`, `scan::narrow`),
//! nor the test itself, which the reader runs again.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Int32Type, Int64Type};

use crate::model::columns::TextMaps;

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
    /// The map column `column` has `key` with one of these values or with a list, whose text begins with `[`.
    EntryInOrList { column: &'static str, key: Arc<str>, values: Arc<[Arc<str>]> },
    /// At least one of these groups passes whole.
    AnyOf(Vec<Vec<Conjunct>>),
}

impl Conjunct {
    /// The columns it looks at.
    pub fn columns(&self) -> Vec<&'static str> {
        match self {
            Self::Contains { column, .. }
            | Self::TextIn { column, .. }
            | Self::LongBetween { column, .. }
            | Self::BytesIn { column, .. }
            | Self::EntryIn { column, .. }
            | Self::HasKey { column, .. }
            | Self::EntryInOrList { column, .. } => vec![column],
            Self::AnyOf(groups) => groups.iter().flatten().flat_map(Self::columns).collect(),
        }
    }

    /// Whether a row passes: the meaning of a test, for references. A column that is missing or of another type is no
    /// reason to fail.
    pub fn passes(&self, rows: &RecordBatch, row: usize) -> bool {
        match self {
            Self::Contains { column, text } => {
                text_at(rows, column, row).is_none_or(|found| found.is_some_and(|found| found.contains(&**text)))
            }
            Self::TextIn { column, texts } => {
                let one = |found: &str| texts.iter().any(|text| **text == *found);
                text_at(rows, column, row).is_none_or(|found| found.is_some_and(one))
            }
            Self::LongBetween { column, first, last } => {
                let Some(array) = rows.column_by_name(column) else { return true };
                let long = array.as_primitive_opt::<Int64Type>().map(|array| array.value(row));
                let int = array.as_primitive_opt::<Int32Type>().map(|array| i64::from(array.value(row)));
                long.or(int).is_none_or(|found| array.is_valid(row) && (*first..=*last).contains(&found))
            }
            Self::BytesIn { column, values } => {
                let array = rows.column_by_name(column).and_then(|array| array.as_binary_opt::<i32>());
                array.is_none_or(|array| array.is_valid(row) && values.iter().any(|value| **value == *array.value(row)))
            }
            Self::EntryIn { column, key, values } => {
                entry_passes(rows, column, row, |k, v| k == &**key && values.iter().any(|value| **value == *v))
            }
            Self::HasKey { column, key } => entry_passes(rows, column, row, |k, _| k == &**key),
            Self::EntryInOrList { column, key, values } => entry_passes(rows, column, row, |k, v| {
                k == &**key && (v.starts_with('[') || values.iter().any(|value| **value == *v))
            }),
            Self::AnyOf(groups) => groups.iter().any(|group| group.iter().all(|one| one.passes(rows, row))),
        }
    }

    /// The rows that pass: the same as [`Conjunct::passes`] of each, faster.
    pub fn test(&self, rows: &RecordBatch) -> BooleanBuffer {
        super::narrow::test(self, rows)
    }
}

/// `None` without such a column.
fn text_at<'r>(rows: &'r RecordBatch, column: &str, row: usize) -> Option<Option<&'r str>> {
    let array = rows.column_by_name(column)?.as_string_opt::<i32>()?;
    Some(array.is_valid(row).then(|| array.value(row)))
}

fn entry_passes(rows: &RecordBatch, column: &str, row: usize, passes: impl Fn(&str, &str) -> bool) -> bool {
    let map = rows.column_by_name(column).and_then(|array| array.as_map_opt());
    map.is_none_or(|map| TextMaps::new(map).pairs(row).any(|(key, value)| passes(key, value)))
}
