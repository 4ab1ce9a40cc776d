//! Rows of a projected scan in the whole schema of their table.
//!
//! Owns: what stands in columns that were not asked for. Does not own: which these are (`ScanRequest::projection`).
//!
//! Typed views (`columns`) name all columns of a table. Whoever asks for some of them pads what comes; the blanks are
//! made once and shared by all batches.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray, new_empty_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::error::{Error, Result};
use crate::signal::Table;

/// Gives batches the columns that they lack.
#[derive(Debug)]
pub struct Padding {
    schema: SchemaRef,
    /// A blank column for each of the schema, as long as the longest batch so far; made when first needed.
    blanks: Vec<Option<ArrayRef>>,
}

impl Padding {
    /// For rows of `table`.
    pub fn new(table: Table) -> Self {
        let schema = (table.spec().schema)();
        Self { blanks: vec![None; schema.fields().len()], schema }
    }

    /// `rows` in the schema of the table: columns that they lack are null, or zero or empty where the table has no nulls.
    pub fn pad(&mut self, rows: &RecordBatch) -> Result<RecordBatch> {
        if rows.schema_ref() == &self.schema {
            return Ok(rows.clone());
        }
        let mut columns = Vec::with_capacity(self.blanks.len());
        for (field, blank) in self.schema.fields().iter().zip(&mut self.blanks) {
            if let Some(column) = rows.column_by_name(field.name()) {
                columns.push(Arc::clone(column));
                continue;
            }
            let made = match blank.take().filter(|made| made.len() >= rows.num_rows()) {
                Some(made) => made,
                None => blank_column(field, rows.num_rows())?,
            };
            columns.push(made.slice(0, rows.num_rows()));
            *blank = Some(made);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn blank_column(field: &Field, rows: usize) -> Result<ArrayRef> {
    if field.is_nullable() {
        return Ok(new_null_array(field.data_type(), rows));
    }
    let offsets = || OffsetBuffer::<i32>::new_zeroed(rows);
    Ok(match field.data_type() {
        DataType::Int64 => Arc::new(Int64Array::from(vec![0; rows])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![0; rows])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![0.0; rows])),
        DataType::Boolean => Arc::new(BooleanArray::new(BooleanBuffer::new_unset(rows), None)),
        DataType::Utf8 => Arc::new(StringArray::new(offsets(), Buffer::from(&[]), None)),
        DataType::Binary => Arc::new(BinaryArray::new(offsets(), Buffer::from(&[]), None)),
        DataType::Map(entries, sorted) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(Error::bug("a map whose entries are no pairs"));
            };
            let none = StructArray::try_new(
                fields.clone(),
                fields.iter().map(|field| new_empty_array(field.data_type())).collect(),
                None,
            )?;
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets(), none, None, *sorted)?)
        }
        DataType::List(item) => {
            let none = new_empty_array(item.data_type());
            Arc::new(ListArray::try_new(Arc::clone(item), offsets(), none, None)?)
        }
        other => return Err(Error::bug(format!("no blank column of type {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::columns::{EntryColumns, ExemplarColumns, HistogramColumns, SpanColumns};

    /// Rows of `table` that have no column but the first.
    fn padded(table: Table, padding: &mut Padding, rows: usize) -> RecordBatch {
        let schema = (table.spec().schema)();
        let first = blank_column(schema.field(0), rows).expect("is blank");
        let batch =
            RecordBatch::try_new(Arc::new(schema.project(&[0]).expect("projects")), vec![first]).expect("builds");
        padding.pad(&batch).expect("pads")
    }

    #[test]
    fn every_view_reads_padded_rows_of_any_length() {
        for table in [Table::Logs, Table::Spans, Table::Histograms, Table::Exemplars, Table::Samples] {
            let mut padding = Padding::new(table);
            for rows in [3, 2, 9] {
                let rows = padded(table, &mut padding, rows);
                for row in 0..rows.num_rows() {
                    match table {
                        Table::Logs => {
                            assert!(EntryColumns::new(&rows).expect("views").structured_metadata(row).is_empty())
                        }
                        Table::Spans => {
                            let columns = SpanColumns::new(&rows).expect("views");
                            assert!(
                                columns.events(row).expect("reads").is_empty() && columns.name.value(row).is_empty()
                            );
                        }
                        Table::Histograms => {
                            let histogram = HistogramColumns::new(&rows).expect("views").histogram(row);
                            assert!(histogram.positive_buckets.is_empty());
                        }
                        Table::Exemplars => assert!(ExemplarColumns::new(&rows).expect("views").labels(row).is_empty()),
                        _ => {}
                    }
                }
            }
        }
    }
}
