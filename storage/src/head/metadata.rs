//! Rows that belong to no identity: metric metadata, each row once.
//!
//! Owns: the set of rows. Senders repeat them every minute, so they are few and mostly known.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};

use super::{Group, Incoming, Outcome, Reserve, Selection, Wanted};
use crate::error::{Error, Result};
use crate::model::time::Day;
use crate::signal::Table;

const COLUMNS: usize = 4;

/// Distinct rows in the order of their texts.
#[derive(Default)]
pub(super) struct Metadata {
    rows: BTreeSet<[Box<str>; COLUMNS]>,
    bytes: usize,
}

impl Group for Metadata {
    fn insert(&mut self, incoming: &Incoming<'_>, outcome: &mut Outcome) -> Result<()> {
        let columns: Option<Vec<&StringArray>> =
            incoming.rows.columns().iter().map(|column| column.as_string_opt::<i32>()).collect();
        let columns: [&StringArray; COLUMNS] = columns
            .and_then(|columns| columns.try_into().ok())
            .ok_or_else(|| Error::bug("metadata has other columns than texts"))?;
        for row in 0..incoming.rows.num_rows() {
            let texts = columns.map(|column| if column.is_null(row) { "" } else { column.value(row) });
            let bytes = texts.iter().map(|text| text.len() + 16).sum::<usize>() + 16;
            if self.rows.insert(texts.map(Box::from)) {
                self.bytes += bytes;
            } else {
                outcome.repeats += 1;
            }
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn days(&self) -> Result<BTreeSet<Day>> {
        Ok(BTreeSet::new())
    }

    fn select(&self, _wanted: &Wanted<'_>, reserve: Reserve<'_>) -> Result<Selection> {
        if self.rows.is_empty() {
            return Ok(Selection::empty());
        }
        reserve(self.bytes)?;
        let column =
            |i: usize| Arc::new(StringArray::from_iter_values(self.rows.iter().map(|row| &row[i]))) as ArrayRef;
        let columns = (0..COLUMNS).map(column).collect();
        let rows = RecordBatch::try_new((Table::MetricMetadata.spec().schema)(), columns)?;
        Ok(Selection::built(vec![rows]))
    }
}
