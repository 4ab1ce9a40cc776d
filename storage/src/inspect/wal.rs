//! The WAL of one signal: segments, what their records hold, damage.
//!
//! Owns: the report. Does not own: reading (`wal::reader`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::signal::Signal;
use crate::wal::segment::{HEADER_BYTES, Header};
use crate::wal::{Damage, survey};

/// The WAL of one signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WalReport {
    /// `metrics`, `logs` or `traces`.
    pub signal: &'static str,
    /// Its folder.
    pub folder: String,
    /// Its files, oldest first.
    pub segments: Vec<SegmentReport>,
    /// What whole records hold, by tenant and table.
    pub rows: Vec<RowCount>,
    /// Places that cannot be read.
    pub damages: Vec<DamageReport>,
    /// Bytes behind the last whole record: never acknowledged, or just being written.
    pub torn_bytes: u64,
}

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    /// Its name.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Whole records.
    pub records: u64,
    /// Sequence number of the first record.
    pub first: Option<u64>,
    /// Sequence number of the last record.
    pub last: Option<u64>,
    /// The last acknowledged number before this file, as its header says.
    pub previous: Option<u64>,
    /// Damage was cut out of it.
    pub repaired: bool,
}

/// Rows of one table of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RowCount {
    /// Whose.
    pub tenant: String,
    /// Of which table; of the identity table, the label sets that records define.
    pub table: &'static str,
    /// How many.
    pub rows: u64,
}

/// One place that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamageReport {
    /// The file.
    pub segment: String,
    /// First byte.
    pub from: u64,
    /// The byte after the last.
    pub to: u64,
    /// What is wrong there.
    pub what: String,
}

impl From<Damage> for DamageReport {
    fn from(damage: Damage) -> Self {
        let Damage { segment, from, to, what } = damage;
        Self { segment: name(&segment), from, to, what }
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads the WAL of `signal` below `data_dir`; one that does not exist holds nothing.
pub fn wal(data_dir: &Path, signal: Signal) -> Result<WalReport> {
    let folder = data_dir.join("wal").join(signal.name());
    let mut segments: BTreeMap<String, SegmentReport> = BTreeMap::new();
    let mut rows: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
    let found = survey(&folder, signal, |path, frame, record| {
        let segment = segments.entry(name(path)).or_default();
        segment.records += 1;
        segment.first = segment.first.or(Some(frame.sequence));
        segment.last = Some(frame.sequence);
        let tenant = record.tenant.as_str();
        if !record.identities.is_empty() {
            let identities = rows.entry((tenant.to_owned(), signal.spec().identities.name())).or_default();
            *identities += record.identities.len() as u64;
        }
        for (table, batch) in &record.facts {
            *rows.entry((tenant.to_owned(), table.name())).or_default() += batch.num_rows() as u64;
        }
        Ok(())
    })?;
    for closed in &found.closed {
        let segment = segments.entry(name(&closed.path)).or_default();
        segment.bytes = closed.bytes;
        let header = header(&closed.path);
        segment.previous = header.map(|header| header.previous);
        segment.repaired = header.is_some_and(|header| header.repaired);
    }
    Ok(WalReport {
        signal: signal.name(),
        folder: folder.display().to_string(),
        segments: segments.into_iter().map(|(file, segment)| SegmentReport { file, ..segment }).collect(),
        rows: rows.into_iter().map(|((tenant, table), rows)| RowCount { tenant, table, rows }).collect(),
        damages: found.places.into_iter().map(DamageReport::from).collect(),
        torn_bytes: found.torn_bytes,
    })
}

fn header(path: &Path) -> Option<Header> {
    let mut bytes = [0; HEADER_BYTES];
    File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    Header::decode(&bytes)
}
