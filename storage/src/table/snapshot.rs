//! The blocks of one table version, with what its log says of them.
//!
//! Owns: [`Block`], its [`Order`] and [`Snapshot`], and their form in the log (`Add` and `Remove` actions, tags,
//! statistics). Does not own: which blocks may be replaced by which (`replace`).

use std::collections::HashMap;
use std::sync::Arc;

use deltalake_core::kernel::{Add, LogicalFileView, Remove};
use serde_json::{Value, json};

use super::writer::times_ns;
use crate::error::{Error, Result};
use crate::model::time::Day;
use crate::paths::PARTITION;
use crate::signal::Table;

/// The tag of a file in the log that holds its CRC-32C, as eight hex digits. Parquet pages carry no checksums here:
/// the library cannot write them, and one over the whole file covers the footer and the indexes too.
const CHECKSUM_TAG: &str = "tercet.crc32c";
/// Names of our tags in an `Add` action.
const ORDER: &str = "tercet.order";
const ORDER_LAST: &str = "tercet.orderLast";
const LEVEL: &str = "tercet.level";
/// Blocks of one commit that can be told apart.
const BLOCKS_PER_COMMIT: u64 = 1 << 20;

/// Where the rows of a block stand in the order of arrival: of equal rows the one in the block of the lower order
/// stays. A block that a flush wrote has one place, given by the version of the table's log that brought it, so the
/// order of commits, which for one writer is the order of its WAL. A block that replaced others covers their places,
/// from the first to the last; they were neighbours, so the order of blocks stays total: by first, then by last place.
/// Two blocks of the same place came out of one commit or one compaction and hold no equal rows. A file of a foreign
/// writer has place 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// The place of its oldest rows.
    pub first: u64,
    /// The place of its youngest rows.
    pub last: u64,
}

impl Order {
    /// The place of the block number `at` that the log's entry `version` adds.
    pub(super) fn new(version: u64, at: u64) -> Self {
        let place = version.saturating_mul(BLOCKS_PER_COMMIT).saturating_add(at.min(BLOCKS_PER_COMMIT - 1));
        Self { first: place, last: place }
    }

    /// Whether the tags of a file that the log's entry `version` adds name a place which that entry can give: its own for
    /// flushed rows, one of earlier entries for rewritten ones. `None` without any of our tags, as foreign writers have it.
    pub(crate) fn stands(tags: &Value, version: u64) -> Option<bool> {
        let names = [ORDER, ORDER_LAST, LEVEL];
        if names.iter().all(|name| tags.get(name).is_none()) {
            return None;
        }
        let number = |name: &str| tags.get(name).and_then(Value::as_str)?.parse::<u64>().ok();
        let [Some(first), Some(last), Some(level)] = names.map(number) else { return Some(false) };
        let flushed = level == 0 && first == last && first / BLOCKS_PER_COMMIT == version;
        Some(flushed || (first <= last && last / BLOCKS_PER_COMMIT < version))
    }

    /// The places that `blocks` cover together.
    pub(crate) fn over<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Self {
        let cover = |order: Option<Self>, block: &Block| {
            let order = order.unwrap_or(block.order);
            Some(Self { first: order.first.min(block.order.first), last: order.last.max(block.order.last) })
        };
        blocks.into_iter().fold(None, cover).unwrap_or_default()
    }
}

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
    /// Where its rows stand in the order of arrival; known once it is committed.
    pub order: Order,
    /// How often its rows were rewritten: 0 as flushed, more after compactions.
    pub level: u32,
}

impl Block {
    /// The action that makes it invisible.
    pub(super) fn remove(&self, data_change: bool, now_ms: i64) -> Remove {
        Remove {
            path: self.path.clone(),
            data_change,
            deletion_timestamp: Some(now_ms),
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition_values()),
            size: Some(i64::try_from(self.bytes).unwrap_or(i64::MAX)),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
        }
    }

    fn partition_values(&self) -> HashMap<String, Option<String>> {
        HashMap::from([(PARTITION.to_owned(), Some(self.day.to_string()))])
    }
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
    /// All visible blocks, in the order of arrival of what is inside.
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
        blocks.sort_by(|a, b| (a.order, a.written_ms, &a.path).cmp(&(b.order, b.written_ms, &b.path)));
        Ok(Self { table, version: Some(version), blocks })
    }

    /// Rows of all blocks.
    pub fn rows(&self) -> u64 {
        self.blocks.iter().map(|block| block.rows).sum()
    }
}

impl NewBlock {
    /// The action that makes it visible.
    pub(super) fn add(&self, table: Table, order: Order, data_change: bool) -> Add {
        let mut stats = json!({ "numRecords": self.block.rows });
        if let (Some((name, _)), Some((first, last))) = (table.spec().time, self.times) {
            stats["minValues"] = json!({ name: first });
            stats["maxValues"] = json!({ name: last });
            stats["nullCount"] = json!({ name: 0 });
        }
        Add {
            path: self.block.path.clone(),
            partition_values: self.block.partition_values(),
            size: i64::try_from(self.block.bytes).unwrap_or(i64::MAX),
            modification_time: self.block.written_ms,
            data_change,
            stats: Some(stats.to_string()),
            tags: Some(self.tags(order)),
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
    }

    fn tags(&self, order: Order) -> HashMap<String, Option<String>> {
        let mut tags = HashMap::from([
            (ORDER.to_owned(), Some(order.first.to_string())),
            (ORDER_LAST.to_owned(), Some(order.last.to_string())),
            (LEVEL.to_owned(), Some(self.block.level.to_string())),
        ]);
        if let Some(sum) = self.block.checksum {
            tags.insert(CHECKSUM_TAG.to_owned(), Some(format!("{sum:08x}")));
        }
        tags
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
    let tag = |name: &str| tags.get(name).and_then(|text| text.as_deref()?.parse::<u64>().ok());
    let first = tag(ORDER).unwrap_or(0);
    let bound = |side: &str| table.spec().time.and_then(|(name, _)| stats[side][name].as_i64());
    Ok(Block {
        day,
        rows: stats["numRecords"].as_u64().unwrap_or(0),
        bytes: u64::try_from(file.size()).unwrap_or(0),
        times: bound("minValues").zip(bound("maxValues")).map(|times| times_ns(table, times)),
        written_ms: file.modification_time(),
        checksum,
        order: Order { first, last: tag(ORDER_LAST).unwrap_or(first) },
        level: tag(LEVEL).and_then(|level| u32::try_from(level).ok()).unwrap_or(0),
        path,
    })
}
