//! The blocks of one table version, with what its log says of them.
//!
//! Owns: [`Block`] and [`Snapshot`], and their form in the log (`Add` actions and statistics).

use std::collections::HashMap;
use std::sync::Arc;

use deltalake_core::kernel::{Add, LogicalFileView};
use serde_json::{Value, json};

use super::writer::times_ns;
use crate::error::{Error, Result};
use crate::model::time::Day;
use crate::paths::PARTITION;
use crate::signal::Table;

/// The tag of a file in the log that holds its CRC-32C, as eight hex digits. Parquet pages carry no checksums here:
/// the library cannot write them, and one over the whole file covers the footer and the indexes too.
const CHECKSUM_TAG: &str = "tercet.crc32c";

/// An immutable data file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Path inside the table: `date=YYYY-MM-DD/<id>.parquet`.
    pub path: String,
    /// The partition.
    pub day: Day,
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// First and last nanosecond of the rows' times (a millisecond counts to its end); `None` for tables without
    /// time and for files of foreign writers without statistics.
    pub times: Option<(i64, i64)>,
    /// When it was written, in milliseconds since the epoch.
    pub written_ms: i64,
    /// CRC-32C of the file's bytes; `None` for files of foreign writers.
    pub checksum: Option<u32>,
}

/// A block that is written but that no snapshot names yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewBlock {
    /// What the commit will say of it.
    pub block: Block,
    /// First and last value of the time column, in its own unit.
    pub(super) times: Option<(i64, i64)>,
}

/// The visible blocks of one table version, oldest first.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The table.
    pub table: Table,
    /// Version of the table's log; `None` while the table does not exist.
    pub version: Option<u64>,
    /// All visible blocks, in the order they were written.
    pub blocks: Vec<Arc<Block>>,
}

impl Snapshot {
    /// Of a table that does not exist.
    pub(super) fn empty(table: Table) -> Self {
        Self { table, version: None, blocks: Vec::new() }
    }

    pub(super) fn new(table: Table, version: u64, files: impl Iterator<Item = LogicalFileView>) -> Result<Self> {
        let mut blocks: Vec<Arc<Block>> =
            files.map(|file| read_block(table, &file).map(Arc::new)).collect::<Result<_>>()?;
        blocks.sort_by(|a, b| (a.written_ms, &a.path).cmp(&(b.written_ms, &b.path)));
        Ok(Self { table, version: Some(version), blocks })
    }

    /// Rows of all blocks.
    pub fn rows(&self) -> u64 {
        self.blocks.iter().map(|block| block.rows).sum()
    }
}

impl NewBlock {
    /// The action that makes it visible.
    pub(super) fn add(&self, table: Table) -> Add {
        let mut stats = json!({ "numRecords": self.block.rows });
        if let (Some((name, _)), Some((first, last))) = (table.spec().time, self.times) {
            stats["minValues"] = json!({ name: first });
            stats["maxValues"] = json!({ name: last });
            stats["nullCount"] = json!({ name: 0 });
        }
        Add {
            path: self.block.path.clone(),
            partition_values: HashMap::from([(PARTITION.to_owned(), Some(self.block.day.to_string()))]),
            size: i64::try_from(self.block.bytes).unwrap_or(i64::MAX),
            modification_time: self.block.written_ms,
            data_change: true,
            stats: Some(stats.to_string()),
            tags: self.block.checksum.map(|sum| HashMap::from([(CHECKSUM_TAG.to_owned(), Some(format!("{sum:08x}")))])),
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
    }
}

fn read_block(table: Table, file: &LogicalFileView) -> Result<Block> {
    let path = file.path().into_owned();
    // The only door to the tags of a file.
    #[allow(deprecated)]
    let tags = file.add_action().tags.unwrap_or_default();
    let checksum =
        tags.get(CHECKSUM_TAG).and_then(Option::as_deref).and_then(|text| u32::from_str_radix(text, 16).ok());
    let day = file.partition_values_map().remove(PARTITION).flatten();
    let day = day.as_deref().and_then(Day::parse).ok_or_else(|| {
        Error::corrupt(format!("the log of `{}` names the file `{path}` without a valid `{PARTITION}`", table.name()))
    })?;
    let stats: Value = file.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null);
    let bound = |side: &str| table.spec().time.and_then(|(name, _)| stats[side][name].as_i64());
    Ok(Block {
        day,
        rows: stats["numRecords"].as_u64().unwrap_or(0),
        bytes: u64::try_from(file.size()).unwrap_or(0),
        times: bound("minValues").zip(bound("maxValues")).map(|times| times_ns(table, times)),
        written_ms: file.modification_time(),
        checksum,
        path,
    })
}
