//! The rows of one block: order, repeats, day, identities.
//!
//! Owns: what must hold between neighbouring rows, and between a row and its block. Does not own: reading them.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use hashbrown::{HashMap, HashSet};
use object_store::path::Path;

use super::Report;
use crate::error::{Error, Result};
use crate::model::labels::Labels;
use crate::model::time::{Day, NS_PER_MS, TimestampNs};
use crate::scan::rows::{RowHasher, trace_key};
use crate::signal::{SortBy, Table, TimeUnit};
use crate::table::{Block, identity_rows, read_identities};

const RESTORE: &str =
    "restore it from a backup, or report it with the version that wrote it: no crash leaves this behind";

/// The identities of a signal: their order, and the days that name them.
#[derive(Default)]
pub(super) struct Known {
    labels: HashMap<i64, Labels, ahash::RandomState>,
    ranks: HashMap<i64, u64, ahash::RandomState>,
    days: HashMap<Day, HashSet<i64, ahash::RandomState>, ahash::RandomState>,
}

impl Known {
    /// Gives each identity its place in label order, once all are known.
    pub(super) fn rank(&mut self) {
        if self.labels.is_empty() {
            return;
        }
        let mut all: Vec<(Labels, i64)> = std::mem::take(&mut self.labels).into_iter().map(|(id, l)| (l, id)).collect();
        all.sort();
        self.ranks = all.into_iter().map(|(_, id)| id).zip(0..).collect();
    }
}

/// A kind of fault: how many rows have it, and the first.
#[derive(Clone, Copy, Default)]
struct Fault {
    rows: u64,
    first: u64,
}

impl Fault {
    fn at(&mut self, row: u64) {
        if self.rows == 0 {
            self.first = row;
        }
        self.rows += 1;
    }
}

/// What sorts a row.
#[derive(PartialEq, PartialOrd)]
enum Key {
    Group(u128, i64),
    Text(Vec<String>),
    Labels(Labels),
}

/// The rows of a block so far.
pub(super) struct Rows {
    table: Table,
    day: Day,
    hasher: RowHasher,
    rows: u64,
    times: Option<(i64, i64)>,
    last: Option<Key>,
    /// The last row of the batch before.
    before: Option<RecordBatch>,
    /// The contents of the rows with the last key, once there are two.
    seen: HashSet<u128, ahash::RandomState>,
    /// First row and id of each trace.
    traces: Vec<(u64, [u8; 16])>,
    unsorted: Fault,
    repeated: Fault,
    unknown: Fault,
    other_day: Fault,
    unlike: Fault,
}

impl Rows {
    pub(super) fn new(table: Table, day: Day) -> Result<Self> {
        Ok(Self {
            table,
            day,
            hasher: RowHasher::new(table, &(table.spec().schema)())?,
            rows: 0,
            times: None,
            last: None,
            before: None,
            seen: HashSet::default(),
            traces: Vec::new(),
            unsorted: Fault::default(),
            repeated: Fault::default(),
            unknown: Fault::default(),
            other_day: Fault::default(),
            unlike: Fault::default(),
        })
    }

    pub(super) fn add(&mut self, batch: &RecordBatch, known: &mut Known) -> Result<()> {
        if self.table.spec().identity.is_some() && self.table.spec().time.is_none() {
            self.identities(batch, known)?;
        } else {
            self.facts(batch, known)?;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Identities must have the ids and names that follow from their labels.
    fn identities(&mut self, batch: &RecordBatch, known: &mut Known) -> Result<()> {
        let identities = read_identities(batch)?;
        let expected = identity_rows(self.table.signal(), &identities)?;
        for (row, identity) in identities.into_iter().enumerate() {
            let at = self.rows + row as u64;
            let key = Key::Labels(identity.labels.clone());
            match self.last.as_ref().and_then(|last| last.partial_cmp(&key)) {
                Some(std::cmp::Ordering::Equal) => self.repeated.at(at),
                Some(std::cmp::Ordering::Greater) => self.unsorted.at(at),
                _ => {}
            }
            self.last = Some(key);
            known.days.entry(self.day).or_default().insert(identity.id.to_column());
            known.labels.insert(identity.id.to_column(), identity.labels);
        }
        let same = |row: usize| {
            batch.columns().iter().zip(expected.columns()).all(|(a, b)| a.slice(row, 1) == b.slice(row, 1))
        };
        if self.unsorted.rows == 0 {
            (0..batch.num_rows()).filter(|row| !same(*row)).for_each(|row| self.unlike.at(self.rows + row as u64));
        }
        Ok(())
    }

    fn facts(&mut self, batch: &RecordBatch, known: &Known) -> Result<()> {
        let spec = self.table.spec();
        let times = spec.time.map(|(name, unit)| longs(batch, name).map(|times| (times, unit))).transpose()?;
        let ids = spec.identity.map(|name| longs(batch, name)).transpose()?;
        let days = known.days.get(&self.day);
        // Without its labels a row has no place; that is told as such.
        let place = |id: i64| {
            let named = days.is_some_and(|days| days.contains(&id));
            (id, named, known.ranks.get(&id).map_or(u128::MAX, |rank| u128::from(*rank)))
        };
        let mut last: Option<(i64, bool, u128)> = None;
        for row in 0..batch.num_rows() {
            let at = self.rows + row as u64;
            let time = times.map_or(0, |(times, _)| times[row]);
            if let Some((_, unit)) = times {
                let (first, last) = self.times.unwrap_or((time, time));
                self.times = Some((first.min(time), last.max(time)));
                let ns = if unit == TimeUnit::Ms { time.saturating_mul(NS_PER_MS) } else { time };
                if TimestampNs(ns).day() != self.day {
                    self.other_day.at(at);
                }
            }
            let mut rank = u128::MAX;
            if let Some(ids) = ids {
                let found = last.filter(|(id, ..)| *id == ids[row]).unwrap_or_else(|| place(ids[row]));
                last = Some(found);
                rank = found.2;
                if !found.1 {
                    self.unknown.at(at);
                }
            }
            let key = self.key(batch, row, time, rank)?;
            self.order(batch, row, key)?;
        }
        if batch.num_rows() > 0 {
            self.before = Some(batch.slice(batch.num_rows() - 1, 1));
        }
        Ok(())
    }

    fn key(&mut self, batch: &RecordBatch, row: usize, time: i64, rank: u128) -> Result<Key> {
        Ok(match self.table.spec().sort_by {
            SortBy::Identity => Key::Group(rank, time),
            SortBy::Trace => {
                let ids = batch.column_by_name("trace_id").and_then(|ids| ids.as_binary_opt::<i32>());
                let id = ids.ok_or_else(|| Error::corrupt("spans lack their trace ids"))?.value(row);
                let key = trace_key(id)?;
                if self.traces.last().is_none_or(|(_, last)| last != id) {
                    self.traces.push((self.rows + row as u64, key.to_be_bytes()));
                }
                Key::Group(key, time)
            }
            SortBy::Text => {
                let texts = batch.columns().iter().filter_map(|column| column.as_string_opt::<i32>());
                Key::Text(texts.map(|column| column.value(row).to_owned()).collect())
            }
        })
    }

    fn order(&mut self, batch: &RecordBatch, row: usize, key: Key) -> Result<()> {
        let unranked = matches!(key, Key::Group(u128::MAX, _)) && self.table.spec().sort_by == SortBy::Identity;
        let at = self.rows + row as u64;
        match self.last.as_ref().filter(|_| !unranked).and_then(|last| last.partial_cmp(&key)) {
            Some(std::cmp::Ordering::Equal) => {
                if self.seen.is_empty() {
                    let before = match (row.checked_sub(1), &self.before) {
                        (Some(row), _) => Some(self.hasher.hash(batch, row)?),
                        (None, Some(before)) => Some(self.hasher.hash(before, 0)?),
                        (None, None) => None,
                    };
                    self.seen.extend(before);
                }
                if !self.seen.insert(self.hasher.hash(batch, row)?) {
                    self.repeated.at(at);
                }
            }
            other => {
                self.seen.clear();
                if other == Some(std::cmp::Ordering::Greater) {
                    self.unsorted.at(at);
                }
            }
        }
        if !unranked {
            self.last = Some(key);
        }
        Ok(())
    }

    /// Tells what is wrong; returns the traces.
    pub(super) fn settle(self, object: &Path, block: &Block, report: &mut Report) -> Vec<(u64, [u8; 16])> {
        let mut tell = |fault: Fault, what: &str| {
            if fault.rows > 0 {
                report.damage(object, format!("{} rows {what}, the first is row {}", fault.rows, fault.first), RESTORE);
            }
        };
        tell(self.unsorted, "are not in the table's order");
        tell(self.repeated, "repeat a row before them");
        tell(self.unknown, "belong to an identity that the signal's identity table does not name on that day");
        tell(self.other_day, "have a time of another day than their partition");
        tell(self.unlike, "have an id or a name that does not follow from their labels");
        if self.rows != block.rows {
            report.damage(object, format!("it holds {} rows, the log says {}", self.rows, block.rows), RESTORE);
        }
        let ns = self.times.map(|(first, last)| crate::table::times_ns(self.table, (first, last)));
        if block.times.is_some() && ns != block.times {
            let wrong = format!("its times are {ns:?}, the log says {:?} (nanoseconds, first and last)", block.times);
            report.damage(object, wrong, RESTORE);
        }
        self.traces
    }
}

fn longs<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a [i64]> {
    let array = rows.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
    array.map(|array| array.values().as_ref()).ok_or_else(|| Error::corrupt(format!("rows lack the column `{name}`")))
}
