//! One Parquet file: footer, row groups, columns, pages.
//!
//! Owns: the report. Does not own: reading the footer (`scan::open`).

use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::scan::open::read_footer;
use crate::store::Store;

/// One Parquet file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its path in the store.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Who wrote it.
    pub created_by: String,
    /// Rows.
    pub rows: i64,
    /// Its row groups in order.
    pub row_groups: Vec<RowGroup>,
    /// Its leaf columns in order, over all row groups.
    pub columns: Vec<Column>,
}

/// One row group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowGroup {
    /// Rows.
    pub rows: i64,
    /// Bytes as stored.
    pub bytes: i64,
    /// Bytes before compression.
    pub raw_bytes: i64,
}

/// One leaf column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its path in the schema.
    pub name: String,
    /// Its physical type, and the logical one if it has one.
    pub kind: String,
    /// Encodings of its pages.
    pub encodings: Vec<String>,
    /// Compressions of its pages.
    pub compression: Vec<String>,
    /// Bytes as stored.
    pub bytes: i64,
    /// Bytes before compression.
    pub raw_bytes: i64,
    /// Data pages; `None` when no offset index tells.
    pub pages: Option<usize>,
    /// Values, nulls among them.
    pub values: i64,
    /// Bytes of its bloom filters.
    pub bloom_bytes: i64,
    /// The page index holds bounds of its pages.
    pub page_index: bool,
    /// Row groups with smallest and largest value in the footer.
    pub bounds: usize,
}

/// Reads the footer and the page index of `object`.
pub async fn file(store: &Store, object: &Path) -> Result<File> {
    let size = match store.objects().head(object).await {
        Ok(meta) => meta.size,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(Error::invalid(format!("there is no object `{object}` in {}", store.url())));
        }
        Err(source) => return Err(source.into()),
    };
    let footer = read_footer(store, object, size).await?;
    let groups = footer.row_groups();
    let row_groups = groups.iter().map(|group| RowGroup {
        rows: group.num_rows(),
        bytes: group.compressed_size(),
        raw_bytes: group.total_byte_size(),
    });
    let leaves = footer.file_metadata().schema_descr().num_columns();
    Ok(File {
        object: object.to_string(),
        bytes: size,
        created_by: footer.file_metadata().created_by().unwrap_or_default().to_owned(),
        rows: footer.file_metadata().num_rows(),
        row_groups: row_groups.collect(),
        columns: (0..leaves).map(|leaf| column(&footer, leaf)).collect(),
    })
}

fn column(footer: &ParquetMetaData, leaf: usize) -> Column {
    let descriptor = footer.file_metadata().schema_descr().column(leaf);
    let logical = descriptor.logical_type_ref().map(|logical| format!(" {logical:?}")).unwrap_or_default();
    let mut column = Column {
        name: descriptor.path().string(),
        kind: format!("{}{logical}", descriptor.physical_type()),
        pages: footer.offset_index().map(|_| 0),
        ..Column::default()
    };
    for (at, group) in footer.row_groups().iter().enumerate() {
        let Some(chunk) = group.columns().get(leaf) else { continue };
        column.add(chunk);
        let index = footer.offset_index().and_then(|index| index.get(at)?.get(leaf));
        column.pages = column.pages.zip(index).map(|(pages, index)| pages + index.page_locations().len());
    }
    column
}

impl Column {
    fn add(&mut self, chunk: &ColumnChunkMetaData) {
        for encoding in chunk.encodings().map(|encoding| encoding.to_string()) {
            if !self.encodings.contains(&encoding) {
                self.encodings.push(encoding);
            }
        }
        let compression = chunk.compression().to_string();
        if !self.compression.contains(&compression) {
            self.compression.push(compression);
        }
        self.bytes += chunk.compressed_size();
        self.raw_bytes += chunk.uncompressed_size();
        self.values += chunk.num_values();
        self.bloom_bytes += chunk.bloom_filter_length().map_or(0, i64::from);
        self.page_index |= chunk.column_index_offset().is_some();
        self.bounds += usize::from(chunk.statistics().is_some_and(|bounds| bounds.min_bytes_opt().is_some()));
    }
}
