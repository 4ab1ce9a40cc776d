//! A block that is stored while its rows come: encoded on a thread that may compute, sent in parts.
//!
//! Owns: the pipeline. Does not own: the encoding (`writer`), the parts (`store::parts`).
//!
//! Invariant: besides what `writer` and `store::parts` hold, at most [`BATCHES_MAX`] batches wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::writer::{BlockWriter, Encoded};
use super::{NewBlock, Place, TenantTables};
use crate::clock::unique_id;
use crate::error::{Error, Kind, Result};
use crate::model::time::Day;
use crate::paths;
use crate::signal::Table;
use crate::store::parts::PartSink;
use crate::store::{Cause, because};

/// Batches that wait to be encoded.
const BATCHES_MAX: usize = 2;

/// What comes next in a block.
enum Next {
    Rows(RecordBatch),
    End,
}

/// Bytes and checksum of a file, and what is to be said of it.
type Written = ((u64, u32), Encoded<()>);

/// A block that a compaction writes, on its way into the store. Dropping it gives it up: nothing of it stays.
pub(crate) struct BlockStream {
    tables: Arc<TenantTables>,
    table: Table,
    place: Place,
    rows: mpsc::Sender<Next>,
    bytes: Arc<AtomicU64>,
    encoding: JoinHandle<Result<Written>>,
    storing: JoinHandle<Result<bool>>,
}

impl BlockStream {
    /// A block of `day` without rows, of data that was rewritten `level` times.
    pub(crate) fn start(tables: &Arc<TenantTables>, table: Table, day: Day, level: u32) -> Self {
        let path = paths::block(day, unique_id());
        let object = paths::block_object(tables.tenant(), table, &path);
        let (sink, parts) = PartSink::new();
        let (rows, batches) = mpsc::channel(BATCHES_MAX);
        let bytes = Arc::new(AtomicU64::new(0));
        let progress = Arc::clone(&bytes);
        let encoding = tokio::task::spawn_blocking(move || encode(table, level, sink, batches, &progress));
        let store = Arc::clone(tables.store());
        let storing = tokio::spawn(because(Cause::Compaction, async move { store.put_stream(&object, parts).await }));
        Self { tables: Arc::clone(tables), table, place: Place { path, day, level }, rows, bytes, encoding, storing }
    }

    /// Adds rows in the in-memory schema, which follow those before in the table's order. An error is said by
    /// [`BlockStream::finish`].
    pub(crate) async fn push(&mut self, rows: RecordBatch) -> bool {
        self.rows.send(Next::Rows(rows)).await.is_ok()
    }

    /// Bytes of the file so far, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends the file and writes its sidecars. Nothing is visible until a commit names the block.
    pub(crate) async fn finish(self) -> Result<NewBlock> {
        let Self { tables, table, place, rows, encoding, storing, .. } = self;
        // If nobody listens any more, the encoder failed and says why.
        let _ = rows.send(Next::End).await;
        let stopped = |source: tokio::task::JoinError| Error::bug("writing a block stopped").with_source(source);
        let (encoded, stored) = (encoding.await.map_err(stopped)?, storing.await.map_err(stopped)?);
        // An error of the store stops the encoder too; bytes that only ended too early are the encoder's fault.
        let whole = stored?;
        let (size, encoded) = encoded?;
        if !whole {
            return Err(Error::bug(format!("the block `{}` was not written to its end", place.path)));
        }
        tables.finish_block(table, place, size, encoded).await
    }
}

fn encode(
    table: Table,
    level: u32,
    sink: PartSink,
    mut batches: mpsc::Receiver<Next>,
    bytes: &AtomicU64,
) -> Result<Written> {
    let mut writer = BlockWriter::at_level(table, level, sink)?;
    loop {
        match batches.blocking_recv() {
            Some(Next::Rows(rows)) => writer.push(&rows)?,
            Some(Next::End) => break,
            None => return Err(Error::new(Kind::Canceled, "a block was given up")),
        }
        bytes.store(writer.bytes() as u64, Ordering::Relaxed);
    }
    let (encoded, sink) = writer.finish()?.without_sink();
    Ok((sink.end()?, encoded))
}
