//! Rows by content: what makes two rows equal.
//!
//! Owns: a hash of a row's unique columns and the order of trace ids. Does not own: which columns those are
//! (`TableSpec::unique_by`).

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, Schema};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};
use crate::model::columns::TextMaps;
use crate::signal::Table;

/// Hashes the unique columns of rows. 128 bits, so that unequal rows never collide in practice; doubles by their
/// bits, maps by their pairs in any order, null unlike any value.
pub(crate) struct RowHasher {
    columns: Vec<usize>,
    content: Vec<u8>,
}

impl RowHasher {
    /// For rows of `table` in `schema`, which has all unique columns.
    pub(crate) fn new(table: Table, schema: &Schema) -> Result<Self> {
        let columns = table.spec().unique_by.iter().map(|name| schema.index_of(name));
        Ok(Self { columns: columns.collect::<Result<_, _>>()?, content: Vec::new() })
    }

    pub(crate) fn hash(&mut self, rows: &RecordBatch, row: usize) -> Result<u128> {
        self.content.clear();
        for &column in &self.columns {
            append(&mut self.content, rows.column(column), row)?;
        }
        Ok(xxh3_128(&self.content))
    }
}

fn append(content: &mut Vec<u8>, array: &dyn Array, row: usize) -> Result<()> {
    content.push(u8::from(array.is_valid(row)));
    if array.is_null(row) {
        return Ok(());
    }
    match array.data_type() {
        DataType::Int64 => content.extend_from_slice(&array.as_primitive::<Int64Type>().value(row).to_le_bytes()),
        DataType::Int32 => content.extend_from_slice(&array.as_primitive::<Int32Type>().value(row).to_le_bytes()),
        DataType::Float64 => {
            content.extend_from_slice(&array.as_primitive::<Float64Type>().value(row).to_bits().to_le_bytes());
        }
        DataType::Utf8 => append_bytes(content, array.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => append_bytes(content, array.as_binary::<i32>().value(row)),
        DataType::Map(..) => {
            let mut pairs: Vec<(&str, &str)> = TextMaps::new(array.as_map()).pairs(row).collect();
            pairs.sort_unstable();
            content.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
            for (key, value) in pairs {
                append_bytes(content, key.as_bytes());
                append_bytes(content, value.as_bytes());
            }
        }
        other => return Err(Error::bug(format!("rows cannot be told apart by a column of type {other}"))),
    }
    Ok(())
}

fn append_bytes(content: &mut Vec<u8>, bytes: &[u8]) {
    content.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    content.extend_from_slice(bytes);
}

/// A trace id as a number in the same order.
pub(crate) fn trace_key(id: &[u8]) -> Result<u128> {
    let id = id.try_into().map_err(|_| Error::corrupt(format!("a trace id has {} bytes instead of 16", id.len())))?;
    Ok(u128::from_be_bytes(id))
}
