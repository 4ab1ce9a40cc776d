//! The WAL of one signal.
//!
//! Owns: how its damage is told, and whether every row's labels are in it. Does not own: reading it (`wal::reader`).

use std::fs;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use hashbrown::HashSet;

use super::Report;
use crate::error::Result;
use crate::model::identity::IdentityId;
use crate::signal::Signal;
use crate::wal::{Record, survey};

const RESTORE: &str = "keep the file and start the server: it replays all whole records and sets the file aside; the \
                       rows in that place are lost unless the senders still have them";

/// Checks the segments in `folder`, if it exists.
pub(super) fn check(folder: &Path, signal: Signal, report: &mut Report) -> Result<()> {
    let mut known: HashSet<(String, IdentityId), ahash::RandomState> = HashSet::default();
    let mut unknown_rows = 0_u64;
    let found = survey(folder, signal, |_, _, record| {
        known.extend(record.identities.iter().map(|identity| (record.tenant.as_str().to_owned(), identity.id)));
        unknown_rows += rows_without_labels(&record, &known);
        Ok(())
    });
    let found = match found {
        Ok(found) => found,
        Err(error) => return report.failed(folder.display(), error, "run the version that wrote it"),
    };
    report.wal_records += found.records;
    for place in &found.places {
        let wrong = match place.from == place.to {
            true => place.what.clone(),
            false => format!("bytes {} to {}: {}", place.from, place.to, place.what),
        };
        report.damage(place.segment.display(), wrong, RESTORE);
    }
    if unknown_rows > 0 {
        let wrong = format!("{unknown_rows} rows belong to identities whose labels no whole record holds");
        report.damage(folder.display(), wrong, RESTORE);
    }
    if found.torn_bytes > 0 {
        let wrong = format!("the last {} bytes are no whole record", found.torn_bytes);
        let act = "nothing: a write that was never acknowledged, or one that is just being made; a start cuts them off";
        report.notice(folder.display(), wrong, act);
    }
    set_aside(folder, report)
}

fn rows_without_labels(record: &Record, known: &HashSet<(String, IdentityId), ahash::RandomState>) -> u64 {
    let mut unknown = 0;
    for (table, rows) in &record.facts {
        let column = table.spec().identity.and_then(|name| rows.column_by_name(name));
        let Some(ids) = column.and_then(|ids| ids.as_primitive_opt::<Int64Type>()) else { continue };
        let mut before = None;
        for id in ids.values() {
            let found = match before {
                Some((same, found)) if same == *id => found,
                _ => known.contains(&(record.tenant.as_str().to_owned(), IdentityId::from_column(*id))),
            };
            unknown += u64::from(!found);
            before = Some((*id, found));
        }
    }
    unknown
}

/// Files that an earlier replay kept because they were damaged.
fn set_aside(folder: &Path, report: &mut Report) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.contains(".wal.damaged") {
            let wrong = "an earlier start found it damaged and kept it; its whole records were replayed";
            report.notice(path.display(), wrong, "delete it once nobody wants to look for the lost rows in it");
        }
    }
    Ok(())
}
