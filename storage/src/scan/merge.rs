//! Merges sorted streams into one, each row once.
//!
//! Owns: the order across sources and the removal of duplicates. Does not own: the order within a source.
//!
//! Works on runs: the source with the lowest key gives all rows below the next source's key at once, so sources that
//! do not overlap pass through as slices, without work per row. Only rows that tie are compared.
//!
//! Invariants
//! 1. At any time each source has at most one batch in memory, counted in the query's share.
//! 2. Of equal rows the one of the first source stays.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Decimal128Array, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashSet;

use super::open::BATCH_ROWS;
use super::prune::Ranks;
use super::read::ranks;
use super::repeats::{hash_at, is_key, split};
use super::rows::{RowHasher, trace_key};
use super::{BatchStream, ScanRequest};
use crate::budget::Reservation;
use crate::context::{Context, Stats};
use crate::error::{Error, Result};
use crate::signal::{SortBy, Table};

pub(crate) use super::sort::sort_hashed;
pub use super::sort::{sort_rows, split_by_day};

/// A run of at least so many rows leaves as a slice of its batch; shorter ones are gathered.
const SLICE_ROWS_MIN: usize = 1_024;
/// Gathered runs shorter than this on average are picked row by row.
const PICK_ROWS_MAX: usize = 16;
/// Gathered rows of this size leave even if they are few.
const GATHERED_BYTES_MAX: usize = 4 << 20;
/// Sources that are opened at the same time.
const OPENINGS_MAX: usize = 16;
/// Steps between two looks at the deadline.
const STEPS_PER_CHECK: u32 = 256;

/// Merges `sources` (oldest data first) into one stream in the order of `request`. Each source must itself be in
/// that order and without duplicates. Of rows equal in `TableSpec::unique_by` the one of the first source stays.
/// `request.identities` must be given for tables that are sorted by identity. Sources give the columns that the request
/// asks for (all, for tables sorted by text); where these do not tell rows apart, and where another source may hold the
/// same row, also its hash (`repeats`). Counts rows and bytes that leave.
pub fn merge(request: &ScanRequest, sources: Vec<BatchStream>, context: &Context) -> BatchStream {
    let (table, context) = (request.table, context.clone());
    let stats = Arc::clone(&context.stats);
    let merged = match (table.spec().sort_by, &request.identities) {
        (SortBy::Text, _) => stream::once(merge_text(table, sources, context)).boxed(),
        (SortBy::Identity, None) if crate::index::directory::columns(table).is_some() => {
            stream::once(async { Err(Error::bug("a merge by identity needs the identities")) }).boxed()
        }
        (_, identities) => {
            let ranks = identities.as_ref().map(|list| ranks(list)).unwrap_or_default();
            let schema = request.schema();
            let start = async move {
                let merge = Merge::start(table, schema?, ranks, sources, context).await?;
                Ok::<_, Error>(stream::try_unfold(merge, |mut merge| async move {
                    let rows = merge.next().await?;
                    Ok(rows.map(|rows| (rows, merge)))
                }))
            };
            stream::once(start).try_flatten().boxed()
        }
    };
    merged
        .inspect_ok(move |rows| {
            Stats::add(&stats.rows, rows.num_rows() as u64);
            Stats::add(&stats.bytes, batch_bytes(rows) as u64);
        })
        .boxed()
}

/// Tables sorted by their texts are small: all rows are gathered.
async fn merge_text(table: Table, sources: Vec<BatchStream>, context: Context) -> Result<RecordBatch> {
    let mut held = context.reserve(0)?;
    let mut all = Vec::new();
    for mut source in sources {
        while let Some(rows) = source.try_next().await? {
            context.check()?;
            held.grow(batch_bytes(&rows))?;
            all.push(rows);
        }
    }
    let rows = concat_batches(&(table.spec().schema)(), &all)?;
    sort_rows(table, &rows, &|_| 0)
}

/// Bytes of the rows themselves, also when they are a slice of more.
pub fn batch_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// Group (rank or trace) and time of a row.
type Key = (u128, i64);

/// One source with its current batch.
struct Cursor {
    stream: BatchStream,
    rows: RecordBatch,
    /// First row and group of each run of equal groups.
    groups: Vec<(usize, u128)>,
    times: ScalarBuffer<i64>,
    /// Of rows that do not tell by themselves what makes them equal.
    hashes: Option<Decimal128Array>,
    at: usize,
    /// The batch's number, to tell slices of one batch.
    batch: u64,
    held: Reservation,
}

impl Cursor {
    fn group_at(&self) -> usize {
        self.groups.partition_point(|(start, _)| *start <= self.at).saturating_sub(1)
    }

    fn key(&self) -> Key {
        (self.groups.get(self.group_at()).map_or(0, |(_, group)| *group), self.times[self.at])
    }

    /// The first row at or after `at` whose key is above `key`.
    fn end_of(&self, key: Key) -> usize {
        let above = match key.1.checked_add(1) {
            Some(time) => Some((key.0, time)),
            None => key.0.checked_add(1).map(|group| (group, i64::MIN)),
        };
        above.map_or(self.rows.num_rows(), |above| self.end_below(above))
    }

    /// The first row at or after `at` whose key is not below `limit`.
    fn end_below(&self, limit: Key) -> usize {
        let from = self.group_at();
        let lower = from + self.groups[from..].partition_point(|(_, group)| *group < limit.0);
        let Some(&(start, group)) = self.groups.get(lower) else { return self.rows.num_rows() };
        let start = start.max(self.at);
        if group != limit.0 {
            return start;
        }
        let end = self.groups.get(lower + 1).map_or(self.rows.num_rows(), |(next, _)| *next);
        start + self.times[start..end].partition_point(|time| *time < limit.1)
    }
}

struct Merge {
    table: Table,
    /// Columns that leave.
    columns: usize,
    ranks: Ranks,
    cursors: Vec<Option<Cursor>>,
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    equal_by: EqualBy,
    output: Output,
    context: Context,
    batches: u64,
    steps: u32,
}

/// What makes rows with one key equal.
enum EqualBy {
    /// The key alone.
    Key,
    /// Columns they have.
    Columns(RowHasher),
    /// The hash that comes with them.
    Hash,
}

impl EqualBy {
    fn of(table: Table, schema: &SchemaRef) -> Result<Self> {
        let spec = table.spec();
        if spec.unique_by.iter().all(|name| is_key(spec, name)) {
            return Ok(Self::Key);
        }
        Ok(match spec.unique_by.iter().all(|name| schema.index_of(name).is_ok()) {
            true => Self::Columns(RowHasher::new(table, schema)?),
            false => Self::Hash,
        })
    }

    fn hash(&mut self, cursor: &Cursor, row: usize) -> Result<u128> {
        match self {
            Self::Key => Ok(0),
            Self::Columns(hasher) => hasher.hash(&cursor.rows, row),
            Self::Hash => {
                let hash = cursor.hashes.as_ref().and_then(|hashes| hash_at(hashes, row));
                hash.ok_or_else(|| Error::bug("a source does not tell what makes a row equal to another"))
            }
        }
    }
}

impl Merge {
    async fn start(
        table: Table,
        schema: SchemaRef,
        ranks: Ranks,
        sources: Vec<BatchStream>,
        context: Context,
    ) -> Result<Self> {
        let mut merge = Self {
            table,
            columns: schema.fields().len(),
            equal_by: EqualBy::of(table, &schema)?,
            ranks,
            cursors: Vec::new(),
            heap: BinaryHeap::new(),
            output: Output::new(),
            context,
            batches: 0,
            steps: 0,
        };
        let openings: Vec<BoxFuture<'static, Result<Opening>>> =
            sources.into_iter().map(|source| first_rows(source).boxed()).collect();
        let mut opened = stream::iter(openings).buffered(OPENINGS_MAX);
        while let Some(source) = opened.try_next().await? {
            let Some((stream, rows)) = source else { continue };
            let held = merge.context.reserve(0)?;
            let empty = ScalarBuffer::from(Vec::new());
            let mut cursor =
                Cursor { stream, rows, groups: Vec::new(), times: empty, hashes: None, at: 0, batch: 0, held };
            merge.index(&mut cursor)?;
            merge.heap.push(Reverse((cursor.key(), merge.cursors.len())));
            merge.cursors.push(Some(cursor));
        }
        drop(opened);
        Ok(merge)
    }

    /// Reads groups and times of the cursor's new batch.
    fn index(&mut self, cursor: &mut Cursor) -> Result<()> {
        let spec = self.table.spec();
        let lacks = || Error::bug(format!("rows of `{}` lack a key column", spec.name));
        let (rows, hashes) = split(cursor.rows.clone(), self.columns)?;
        (cursor.rows, cursor.hashes) = (rows, hashes);
        let (time, _) = spec.time.ok_or_else(lacks)?;
        let times = cursor.rows.column_by_name(time).and_then(|array| array.as_primitive_opt::<Int64Type>());
        cursor.times = times.ok_or_else(lacks)?.values().clone();
        cursor.groups.clear();
        match spec.sort_by {
            SortBy::Trace => {
                let ids = cursor.rows.column_by_name("trace_id").and_then(|array| array.as_binary_opt::<i32>());
                let ids = ids.ok_or_else(lacks)?;
                for row in 0..ids.len() {
                    if row == 0 || ids.value(row) != ids.value(row - 1) {
                        cursor.groups.push((row, trace_key(ids.value(row))?));
                    }
                }
            }
            _ => {
                let name = spec.identity.ok_or_else(lacks)?;
                let ids = cursor.rows.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
                let ids = ids.ok_or_else(lacks)?.values();
                for row in 0..ids.len() {
                    if row == 0 || ids[row] != ids[row - 1] {
                        let rank = self.ranks.get(&ids[row]);
                        let rank = rank.ok_or_else(|| Error::bug("a source gave rows that were not asked for"))?;
                        cursor.groups.push((row, u128::from(*rank)));
                    }
                }
            }
        }
        let bytes = batch_bytes(&cursor.rows);
        cursor.held.shrink_to(bytes);
        cursor.held.grow(bytes - cursor.held.bytes())?;
        cursor.at = 0;
        self.batches += 1;
        cursor.batch = self.batches;
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = self.output.ready.pop_front() {
                return Ok(Some(rows));
            }
            if self.steps.is_multiple_of(STEPS_PER_CHECK) {
                self.context.check()?;
            }
            self.steps = self.steps.wrapping_add(1);
            match (self.heap.pop(), self.heap.peek()) {
                (None, _) => {
                    self.output.flush()?;
                    return Ok(self.output.ready.pop_front());
                }
                (Some(Reverse((key, source))), Some(Reverse((next, _)))) if key == *next => {
                    self.tie(key, source).await?;
                }
                (Some(Reverse((_, source))), next) => {
                    let next = next.map(|Reverse((next, _))| *next);
                    self.run(source, next).await?;
                }
            }
        }
    }

    /// Gives the rows of `source` below `limit`, or the rest of its batch.
    async fn run(&mut self, source: usize, limit: Option<Key>) -> Result<()> {
        let Some(mut cursor) = self.cursors.get_mut(source).and_then(Option::take) else { return Ok(()) };
        let end = limit.map_or(cursor.rows.num_rows(), |limit| cursor.end_below(limit));
        self.output.push(&cursor, cursor.at..end)?;
        cursor.at = end;
        self.put_back(source, cursor).await
    }

    /// Brings the cursor to its next row and back into the heap, unless its source is at its end.
    async fn put_back(&mut self, source: usize, mut cursor: Cursor) -> Result<()> {
        if cursor.at >= cursor.rows.num_rows() && !self.advance(&mut cursor).await? {
            return Ok(());
        }
        self.heap.push(Reverse((cursor.key(), source)));
        if let Some(place) = self.cursors.get_mut(source) {
            *place = Some(cursor);
        }
        Ok(())
    }

    async fn advance(&mut self, cursor: &mut Cursor) -> Result<bool> {
        match next_rows(&mut cursor.stream).await? {
            None => Ok(false),
            Some(rows) => {
                cursor.rows = rows;
                self.index(cursor)?;
                Ok(true)
            }
        }
    }

    /// Several sources stand at `key`: gives their rows with that key in the order of sources, equal ones once.
    async fn tie(&mut self, key: Key, first: usize) -> Result<()> {
        let mut sources = vec![first];
        while let Some(Reverse((next, source))) = self.heap.peek()
            && *next == key
        {
            sources.push(*source);
            self.heap.pop();
        }
        let mut seen: HashSet<u128, ahash::RandomState> = HashSet::default();
        for source in sources {
            let Some(mut cursor) = self.cursors.get_mut(source).and_then(Option::take) else { continue };
            loop {
                let end = cursor.end_of(key);
                for row in cursor.at..end {
                    if seen.insert(self.equal_by.hash(&cursor, row)?) {
                        self.output.push(&cursor, row..row + 1)?;
                    } else {
                        Stats::add(&self.context.stats.repeats, 1);
                    }
                }
                cursor.at = end;
                if end < cursor.rows.num_rows() {
                    self.put_back(source, cursor).await?;
                    break;
                }
                if !self.advance(&mut cursor).await? {
                    break;
                }
                if cursor.key() != key {
                    self.put_back(source, cursor).await?;
                    break;
                }
                self.context.check()?;
            }
        }
        Ok(())
    }
}

/// A source with its first rows, unless it has none.
type Opening = Option<(BatchStream, RecordBatch)>;

/// Polls a source for the first time, which opens it.
async fn first_rows(mut stream: BatchStream) -> Result<Opening> {
    let rows = next_rows(&mut stream).await?;
    Ok(rows.map(|rows| (stream, rows)))
}

async fn next_rows(stream: &mut BatchStream) -> Result<Option<RecordBatch>> {
    while let Some(rows) = stream.try_next().await? {
        if rows.num_rows() > 0 {
            return Ok(Some(rows));
        }
    }
    Ok(None)
}

/// Gathers runs into batches.
struct Output {
    ready: VecDeque<RecordBatch>,
    /// Batches that gathered runs come from.
    batches: Vec<(u64, RecordBatch)>,
    /// Runs as places in `batches` and rows there.
    runs: Vec<(usize, Range<usize>)>,
    rows: usize,
    /// Bytes of these rows, by the average of their batches.
    bytes: usize,
}

impl Output {
    fn new() -> Self {
        Self { ready: VecDeque::new(), batches: Vec::new(), runs: Vec::new(), rows: 0, bytes: 0 }
    }

    fn push(&mut self, cursor: &Cursor, rows: Range<usize>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if rows.len() >= SLICE_ROWS_MIN {
            self.flush()?;
            let mut at = rows.start;
            while at < rows.end {
                let length = BATCH_ROWS.min(rows.end - at);
                self.ready.push_back(cursor.rows.slice(at, length));
                at += length;
            }
            return Ok(());
        }
        let known = self.batches.iter().rposition(|(batch, _)| *batch == cursor.batch);
        let place = known.unwrap_or_else(|| {
            self.batches.push((cursor.batch, cursor.rows.clone()));
            self.batches.len() - 1
        });
        self.rows += rows.len();
        self.bytes += cursor.held.bytes() * rows.len() / cursor.rows.num_rows().max(1);
        match self.runs.last_mut() {
            Some((last, run)) if *last == place && run.end == rows.start => run.end = rows.end,
            _ => self.runs.push((place, rows)),
        }
        if self.rows >= BATCH_ROWS || self.bytes >= GATHERED_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let slice = |(place, rows): &(usize, Range<usize>)| self.batches[*place].1.slice(rows.start, rows.len());
        let gathered = match self.runs.as_slice() {
            [] => return Ok(()),
            [run] => slice(run),
            runs if self.rows < runs.len() * PICK_ROWS_MAX => {
                let picked: Vec<(usize, usize)> =
                    runs.iter().flat_map(|(place, rows)| rows.clone().map(|row| (*place, row))).collect();
                let batches: Vec<&RecordBatch> = self.batches.iter().map(|(_, rows)| rows).collect();
                interleave_record_batch(&batches, &picked)?
            }
            runs => {
                let slices: Vec<RecordBatch> = runs.iter().map(slice).collect();
                concat_batches(&self.batches[0].1.schema(), &slices)?
            }
        };
        self.ready.push_back(gathered);
        self.batches.clear();
        self.runs.clear();
        self.rows = 0;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
