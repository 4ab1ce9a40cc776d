//! Opening a block: its footer, its directory, its rows.
//!
//! Owns: the reader over the object store, the use of the caches, the rebuilding of a lost directory, the way from
//! a file's columns to the columns in memory. Does not own: which rows are wanted (`prune`).
//!
//! Invariant: a missing or damaged sidecar costs time, never an answer.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowFilter, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::arrow::{ProjectionMask, RowNumber};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::SchemaDescriptor;

use super::BatchStream;
use crate::context::Stats;
use crate::error::{Error, Kind, Result};
use crate::index::Sidecar;
use crate::index::directory::{Directory, columns};
use crate::index::tokens::TokenFilter;
use crate::paths;
use crate::signal::Table;
use crate::store::{Cause, Store, because};
use crate::table::{Block, TenantTables, decimal, file_schema};

/// Rows of a batch on its way out.
pub(crate) const BATCH_ROWS: usize = 8_192;
/// Bytes read from the end of a file at first: footer and page index of all but the largest.
const TAIL_BYTES: usize = 64 << 10;

/// Reads ranges of one object; the store joins ranges that lie close together.
#[derive(Clone)]
struct BlockReader {
    store: Arc<Store>,
    object: Path,
    /// Length of the object.
    bytes: u64,
    footer: Option<Arc<ParquetMetaData>>,
    stats: Option<Arc<Stats>>,
    /// What is read at the moment.
    cause: Cause,
}

impl BlockReader {
    /// A range past the end is damage in the footer; a store would report it as a fault of its own.
    fn inside(&self, range: &Range<u64>) -> parquet::errors::Result<()> {
        if range.start <= range.end && range.end <= self.bytes {
            return Ok(());
        }
        Err(ParquetError::EOF(format!("bytes {}..{} of {} are referred to", range.start, range.end, self.bytes)))
    }

    fn count(&self, bytes: usize) {
        if let Some(stats) = &self.stats {
            Stats::add(&stats.fetched_bytes, bytes as u64);
        }
    }
}

fn external(source: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(source))
}

impl AsyncFileReader for BlockReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            self.inside(&range)?;
            let ranges = [range];
            let read = because(self.cause, self.store.read_block(&self.object, self.bytes, &ranges));
            let bytes = read.await.map_err(external)?.into_iter().next().unwrap_or_default();
            self.count(bytes.len());
            Ok(bytes)
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            ranges.iter().try_for_each(|range| self.inside(range))?;
            let read = because(self.cause, self.store.read_block(&self.object, self.bytes, &ranges));
            let all = read.await.map_err(external)?;
            self.count(all.iter().map(Bytes::len).sum());
            Ok(all)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let footer = self.footer.clone();
        async move { footer.ok_or_else(|| ParquetError::General("the footer is not loaded".to_owned())) }.boxed()
    }
}

/// The rows that `open` leads to. The Parquet library panics on some damaged files; such a panic is the error it
/// should have been, and ends the stream.
pub(crate) fn guarded(object: Path, open: impl Future<Output = Result<BatchStream>> + Send + 'static) -> BatchStream {
    let rows = AssertUnwindSafe(stream::once(open).try_flatten()).catch_unwind();
    rows.map(move |rows| rows.unwrap_or_else(|_| Err(panicked(&object)))).boxed()
}

/// What `opening` leads to, a panic being an error here, too.
pub(crate) async fn guarded_opening<T>(object: &Path, opening: impl Future<Output = Result<T>> + Send) -> Result<T> {
    AssertUnwindSafe(opening).catch_unwind().await.unwrap_or_else(|_| Err(panicked(object)))
}

fn panicked(object: &Path) -> Error {
    Error::corrupt(format!("the block `{object}` is damaged: reading it panicked"))
}

/// What is read of a block.
struct Reading<'a> {
    footer: ArrowReaderMetadata,
    ranges: &'a [Range<u64>],
    places: Option<&'a [usize]>,
    filter: Option<RowFilter>,
}

/// A block whose footer is read.
pub(crate) struct Opened {
    table: Table,
    reader: BlockReader,
    footer: ArrowReaderMetadata,
    batch_rows: usize,
}

/// Opens `block`; reads its footer unless it is cached.
pub(crate) async fn open_block(
    tables: &TenantTables,
    table: Table,
    block: &Block,
    stats: Option<&Arc<Stats>>,
) -> Result<Opened> {
    let object = paths::block_object(tables.tenant(), table, &block.path);
    let store = Arc::clone(tables.store());
    let (bytes, stats) = (block.bytes, stats.cloned());
    let mut reader = BlockReader { store, object, bytes, footer: None, stats, cause: Cause::QueryFooter };
    let key = reader.object.to_string();
    let footer = match tables.caches().footers.get(&key) {
        Some(footer) => footer,
        None => {
            let footer = Arc::new(load_footer(&mut reader).await?);
            tables.caches().footers.put(&key, Arc::clone(&footer), footer.memory_size());
            footer
        }
    };
    reader.footer = Some(Arc::clone(&footer));
    reader.cause = Cause::QueryRows;
    let options = ArrowReaderOptions::new().with_schema(file_schema(table));
    let footer = ArrowReaderMetadata::try_new(footer, options).map_err(|source| unreadable(&reader.object, source))?;
    Ok(Opened { table, reader, footer, batch_rows: BATCH_ROWS })
}

async fn load_footer(reader: &mut BlockReader) -> Result<ParquetMetaData> {
    let loader = ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .with_prefetch_hint(Some(TAIL_BYTES));
    let (object, bytes) = (reader.object.clone(), reader.bytes);
    loader.load_and_finish(reader, bytes).await.map_err(|source| unreadable(&object, source))
}

/// The footer and page index of any Parquet file of `bytes` bytes.
pub(crate) async fn read_footer(store: &Store, object: &Path, bytes: u64) -> Result<ParquetMetaData> {
    let (store, object, cause) = (Arc::new(store.clone()), object.clone(), Cause::QueryFooter);
    load_footer(&mut BlockReader { store, object, bytes, footer: None, stats: None, cause }).await
}

fn unreadable(object: &Path, source: ParquetError) -> Error {
    let from_store = matches!(&source, ParquetError::External(cause)
        if cause.downcast_ref::<object_store::Error>().is_some_and(|e| !matches!(e, object_store::Error::NotFound { .. })));
    let kind = if from_store { Kind::Unavailable } else { Kind::Corrupt };
    Error::new(kind, format!("the block `{object}` cannot be read")).with_source(source)
}

impl Opened {
    /// Gives rows in batches of at most `batch_rows` from here on.
    pub(crate) fn set_batch_rows(&mut self, batch_rows: usize) {
        self.batch_rows = batch_rows;
    }

    /// The block's object.
    pub(crate) fn object(&self) -> &Path {
        &self.reader.object
    }

    pub(crate) fn footer(&self) -> &ParquetMetaData {
        self.footer.metadata()
    }

    /// Rows of the file.
    pub(crate) fn rows(&self) -> u64 {
        self.footer().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum()
    }

    /// The range of all rows.
    pub(crate) fn every_row(&self) -> Range<u64> {
        0..self.rows()
    }

    /// The leaf column of a flat column.
    pub(crate) fn leaf(&self, name: &str) -> Option<usize> {
        self.footer.parquet_schema().columns().iter().position(|leaf| leaf.path().parts() == [name])
    }

    /// Whether row group `group` may hold one of `values` in its column `leaf`, by its bloom filter.
    pub(crate) async fn bloom_may_hold(&self, group: usize, leaf: usize, values: &[&[u8]]) -> Result<bool> {
        let bloom = self.bloom(group, leaf).await?;
        Ok(bloom.is_none_or(|bloom| values.iter().any(|value| bloom.check(*value))))
    }

    /// How many of `values` the bloom filter of row group `group` denies in its column `leaf`.
    pub(crate) async fn bloom_misses<'a>(
        &self,
        group: usize,
        leaf: usize,
        values: impl Iterator<Item = &'a [u8]>,
    ) -> Result<u64> {
        let bloom = self.bloom(group, leaf).await?;
        Ok(bloom.map_or(0, |bloom| values.filter(|value| !bloom.check(*value)).count() as u64))
    }

    async fn bloom(&self, group: usize, leaf: usize) -> Result<Option<Sbbf>> {
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.footer.clone());
        let bloom = builder.get_row_group_column_bloom_filter(group, leaf).await;
        bloom.map_err(|source| unreadable(&self.reader.object, source))
    }

    /// All rows in the columns of memory.
    pub(crate) fn all_rows(&self) -> Result<BatchStream> {
        self.selected_rows(&[self.every_row()], None)
    }

    /// The rows of `ranges`, which ascend and do not overlap, in the columns of memory at `places`; `None`: in all.
    pub(crate) fn selected_rows(&self, ranges: &[Range<u64>], places: Option<&[usize]>) -> Result<BatchStream> {
        self.filtered_rows(ranges, places, None)
    }

    /// Those of the rows that pass `filter`.
    pub(crate) fn filtered_rows(
        &self,
        ranges: &[Range<u64>],
        places: Option<&[usize]>,
        filter: Option<RowFilter>,
    ) -> Result<BatchStream> {
        self.rows_of(Reading { footer: self.footer.clone(), ranges, places, filter })
    }

    /// Like [`Opened::filtered_rows`], with each row's number in the block as one more column.
    pub(crate) fn numbered_rows(
        &self,
        ranges: &[Range<u64>],
        places: Option<&[usize]>,
        filter: Option<RowFilter>,
    ) -> Result<BatchStream> {
        let number = Field::new("", DataType::Int64, false).with_extension_type(RowNumber);
        let options = ArrowReaderOptions::new().with_schema(file_schema(self.table));
        let footer = options
            .with_virtual_columns(vec![Arc::new(number)])
            .and_then(|options| ArrowReaderMetadata::try_new(Arc::clone(self.footer.metadata()), options))
            .map_err(|source| unreadable(&self.reader.object, source))?;
        self.rows_of(Reading { footer, ranges, places, filter })
    }

    fn rows_of(&self, reading: Reading<'_>) -> Result<BatchStream> {
        let schema = (self.table.spec().schema)();
        let schema = match reading.places {
            Some(places) => Arc::new(schema.project(places)?),
            None => schema,
        };
        let value = schema.index_of(decimal::VALUE).ok().filter(|_| self.table == Table::Samples);
        let (Some(value), places) = (value, reading.places) else { return self.stream(reading) };
        // The last column in memory is three in the file.
        let in_file = places.map(|places| [places, &decimal::BESIDE_VALUE].concat());
        let stream = self.stream(Reading { places: in_file.as_deref(), ..reading })?;
        Ok(stream
            .map(move |rows| {
                let rows = rows?;
                let columns = rows.columns()[..value].iter().cloned().chain([decimal::unpack(&rows)?]).collect();
                Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
            })
            .boxed())
    }

    /// Only the columns `names` of all rows.
    pub(crate) fn columns_of_all_rows(&self, names: &[&str]) -> Result<BatchStream> {
        let schema = (self.table.spec().schema)();
        let places = names.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        self.selected_rows(&[self.every_row()], Some(&places))
    }

    /// The rows as the file has them.
    fn stream(&self, reading: Reading<'_>) -> Result<BatchStream> {
        let total = usize::try_from(self.rows()).map_err(|_| Error::corrupt("a block has too many rows"))?;
        let place = |row: u64| usize::try_from(row).unwrap_or(total).min(total);
        let ranges = reading.ranges.iter().map(|range| place(range.start)..place(range.end));
        let selection = RowSelection::from_consecutive_ranges(ranges, total);
        let mask = match reading.places {
            Some(places) => ProjectionMask::roots(reading.footer.parquet_schema(), places.iter().copied()),
            None => ProjectionMask::all(),
        };
        let object = self.reader.object.clone();
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), reading.footer)
            .with_projection(mask)
            .with_batch_size(self.batch_rows)
            .with_row_selection(selection);
        if let Some(filter) = reading.filter {
            builder = builder.with_row_filter(filter);
        }
        let stream = builder.build().map_err(|source| unreadable(&object, source))?;
        Ok(stream.map_err(move |source| unreadable(&object, source)).boxed())
    }

    /// The columns of the file.
    pub(crate) fn file_columns(&self) -> &SchemaDescriptor {
        self.footer.parquet_schema()
    }

    /// The directory of the block: cached, or read, or rebuilt from its rows.
    pub(crate) async fn directory(&self, tables: &TenantTables, block: &Block) -> Result<Arc<Directory>> {
        let object = paths::sidecar_object(tables.tenant(), self.table, &block.path, Sidecar::Directory);
        if let Some(directory) = tables.caches().directories.get(object.as_ref()) {
            return Ok(directory);
        }
        let read = match because(Cause::QuerySidecar, tables.store().read_sidecar(&object)).await {
            Ok(Some(bytes)) => {
                self.reader.count(bytes.len());
                Directory::decode(&bytes).and_then(|directory| match directory.rows() == self.rows() {
                    true => Ok(directory),
                    false => Err(Error::corrupt("the directory counts other rows than its block")),
                })
            }
            Ok(None) => Err(Error::corrupt("there is no directory")),
            Err(error) => Err(error),
        };
        let directory = match read {
            Ok(directory) => directory,
            Err(error) => {
                tracing::warn!(%object, %error, "a directory is rebuilt from its block");
                self.rebuild_directory().await?
            }
        };
        let directory = Arc::new(directory);
        tables.caches().directories.put(object.as_ref(), Arc::clone(&directory), directory.heap_bytes());
        Ok(directory)
    }

    /// The token filter of the block, unless it is lost: it costs as much to build again as the scan that it would spare.
    pub(crate) async fn tokens(&self, tables: &TenantTables, block: &Block) -> Option<Arc<TokenFilter>> {
        let object = paths::sidecar_object(tables.tenant(), self.table, &block.path, Sidecar::Tokens);
        if let Some(filter) = tables.caches().tokens.get(object.as_ref()) {
            return filter;
        }
        let read = match because(Cause::QuerySidecar, tables.store().read_sidecar(&object)).await {
            Ok(Some(bytes)) => {
                self.reader.count(bytes.len());
                TokenFilter::decode(bytes).and_then(|filter| match filter.rows() == self.rows() {
                    true => Ok(filter),
                    false => Err(Error::corrupt("the token filter counts other rows than its block")),
                })
            }
            Ok(None) => Err(Error::corrupt("there is no token filter")),
            Err(error) => Err(error),
        };
        let filter = match read {
            Ok(filter) => Some(Arc::new(filter)),
            Err(error) => {
                tracing::warn!(%object, %error, "a block is read without its token filter");
                if error.kind() != Kind::Corrupt {
                    return None;
                }
                None
            }
        };
        let bytes = filter.as_ref().map_or(0, |filter| filter.heap_bytes());
        tables.caches().tokens.put(object.as_ref(), filter.clone(), bytes);
        filter
    }

    async fn rebuild_directory(&self) -> Result<Directory> {
        let (identity, time) =
            columns(self.table).ok_or_else(|| Error::bug("this table's blocks have no directories"))?;
        let mut stream = self.columns_of_all_rows(&[identity, time])?;
        let mut directory = Directory::default();
        while let Some(rows) = stream.try_next().await? {
            directory.extend_from(self.table, &rows)?;
        }
        Ok(directory)
    }
}
