//! `tercet inspect`: prints the reports of the storage as columns or JSON.
//!
//! Owns: the arguments and the form of what is printed. Does not own: what is reported (`storage::inspect`).

use std::future::Future;
use std::path::Path as Local;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use clap::Subcommand;
use serde::Serialize;
use storage::clock::{Clock, SystemClock};
use storage::inspect::{self, File, SidecarReport, TableReport, TableSummary, WalReport};
use storage::model::tenant::Tenant;
use storage::paths::ObjectPath;
use storage::store::{Store, StoreOptions};
use storage::{Signal, Table};

use crate::cli::{Failure, Place, say};

/// The tenant while tenancy is off.
const SINGLE: &str = "default";

/// What is looked at.
#[derive(Subcommand)]
pub enum What {
    /// The write-ahead log: segments, records, tenants, rows, sequence numbers, damage.
    Wal {
        /// Only this signal: metrics, logs or traces.
        signal: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// The tables with their versions, rows and bytes; one table with its blocks and marks.
    Table {
        /// TENANT/TABLE such as default/samples, or only TABLE for the tenant `default`.
        table: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// A Parquet file: row groups, columns with encodings, compression, bytes and pages, bloom filters.
    File {
        /// Path in the store such as default/samples/date=…/….parquet, or the path of a local file.
        path: String,
        #[command(flatten)]
        place: Place,
    },
    /// Sidecars: kinds, sizes, what they hold.
    Index {
        /// Path in the store of a sidecar, of a block, or of a table such as default/samples; or of a local sidecar.
        path: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Prints what is asked for.
pub fn run(what: &What) -> Result<(), Failure> {
    match what {
        What::Wal { signal, place } => wal(signal.as_deref(), place),
        What::Table { table: None, place } => {
            let (store, clock) = (place.open_store()?, clock());
            let all = block_on(inspect::tables(&store, &clock))?.map_err(Failure::run)?;
            print(place, &all, |all| tables_text(all))
        }
        What::Table { table: Some(name), place } => {
            let (tenant, table) = parse_table(name)?;
            let (store, clock) = (place.open_store()?, clock());
            let report = block_on(inspect::table(&store, &clock, &tenant, table))?.map_err(Failure::run)?;
            print(place, &report, table_text)
        }
        What::File { path, place } => {
            let (store, object) = locate(path, place)?;
            let report = block_on(inspect::file(&store, &object))?.map_err(Failure::run)?;
            print(place, &report, file_text)
        }
        What::Index { path, place } => {
            let (store, object) = locate(path, place)?;
            let one = path.contains("/_index/") || Local::new(path).is_file();
            let report = block_on(async {
                match one {
                    true => inspect::sidecar(&store, &object).await.map(|one| vec![one]),
                    false => inspect::sidecars_of(&store, &object).await,
                }
            })?;
            print(place, &report.map_err(Failure::run)?, |all| index_text(all))
        }
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// Runs `work` to its end on threads of its own.
pub fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.map_err(|e| Failure::run(format!("the threads cannot be started: {e}")))?.block_on(work))
}

/// Prints `value` as JSON.
pub fn say_json(value: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
    say(&serde_json::to_string_pretty(value).map_err(Failure::run)?)
}

fn print<T: Serialize>(place: &Place, value: &T, text: impl Fn(&T) -> String) -> Result<(), Failure> {
    if place.json { say_json(value) } else { say(text(value).trim_end()) }
}

fn wal(signal: Option<&str>, place: &Place) -> Result<(), Failure> {
    let signals: Vec<Signal> = match signal {
        None => Signal::ALL.to_vec(),
        Some(name) => match Signal::ALL.into_iter().find(|signal| signal.name() == name) {
            Some(signal) => vec![signal],
            None => return Err(Failure::usage(format!("`{name}` is no signal: use metrics, logs or traces"))),
        },
    };
    let data = place.load()?.data;
    if !data.join("wal").is_dir() {
        let text =
            format!("there is no write-ahead log in {}: name the server's data folder with --data", data.display());
        return Err(Failure::usage(text));
    }
    let reports: Result<Vec<WalReport>, _> = signals.into_iter().map(|signal| inspect::wal(&data, signal)).collect();
    print(place, &reports.map_err(Failure::run)?, |all| all.iter().map(wal_text).collect::<Vec<_>>().join("\n"))
}

fn parse_table(name: &str) -> Result<(Tenant, Table), Failure> {
    let (tenant, table) = name.trim_end_matches('/').rsplit_once('/').unwrap_or((SINGLE, name));
    let known = Table::ALL.into_iter().find(|known| known.name() == table).ok_or_else(|| {
        let names: Vec<&str> = Table::ALL.into_iter().map(Table::name).collect();
        Failure::usage(format!("`{table}` is no table: use one of {}", names.join(", ")))
    })?;
    Ok((Tenant::new(tenant).map_err(Failure::usage)?, known))
}

/// The store and the path in it: a local file's folder and name, or a path in the store of `place`.
fn locate(path: &str, place: &Place) -> Result<(Arc<Store>, ObjectPath), Failure> {
    let local = Local::new(path);
    if local.is_file() {
        let file = local.canonicalize().map_err(|e| Failure::run(format!("{path}: {e}")))?;
        let folder = file.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let store = Store::open_existing(&folder, &StoreOptions::default()).map_err(Failure::run)?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok((Arc::new(store), ObjectPath::from(name)));
    }
    let object = ObjectPath::parse(path).map_err(|e| Failure::usage(format!("`{path}` is no path in a store: {e}")))?;
    Ok((place.open_store()?, object))
}

/// Lines of columns; numbers stand to the right.
fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(String::as_str).chain([heads[at]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let number = cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains(['T', '/', '.']);
            let padded = if number { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            text.push_str(&padded);
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut heads.iter().copied());
    rows.iter().for_each(|row| text.push_str(&line(&mut row.iter().map(String::as_str))));
    text
}

/// Bytes in a unit that people read.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn time(ns: Option<i64>) -> String {
    ns.map_or_else(|| "-".into(), |ns| DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn number<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn wal_text(wal: &WalReport) -> String {
    let mut text = format!("{} ({})\n", wal.signal, wal.folder);
    let segments: Vec<Vec<String>> = wal
        .segments
        .iter()
        .map(|s| {
            let repaired = if s.repaired { "repaired" } else { "" };
            let counts = [s.bytes.to_string(), s.records.to_string()];
            let numbers = [number(s.first), number(s.last), number(s.previous)];
            [s.file.clone()].into_iter().chain(counts).chain(numbers).chain([repaired.into()]).collect()
        })
        .collect();
    text += &columns(&["segment", "bytes", "records", "first", "last", "previous", ""], &segments);
    let rows: Vec<Vec<String>> =
        wal.rows.iter().map(|r| vec![r.tenant.clone(), r.table.into(), r.rows.to_string()]).collect();
    if !rows.is_empty() {
        text += &columns(&["tenant", "table", "rows"], &rows);
    }
    for damage in &wal.damages {
        text += &format!("damage: {} bytes {} to {}: {}\n", damage.segment, damage.from, damage.to, damage.what);
    }
    if wal.torn_bytes > 0 {
        text += &format!("{} bytes at the end are no whole record: not acknowledged\n", wal.torn_bytes);
    }
    text
}

fn tables_text(all: &[TableSummary]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|t| {
            let name = format!("{}/{}", t.tenant, t.table);
            let counts = [t.version.to_string(), t.blocks.to_string(), t.rows.to_string(), t.bytes.to_string()];
            [name].into_iter().chain(counts).chain([time(t.first_ns), time(t.last_ns)]).collect()
        })
        .collect();
    columns(&["table", "version", "blocks", "rows", "bytes", "first", "last"], &rows)
}

fn table_text(report: &TableReport) -> String {
    let mut text = tables_text(std::slice::from_ref(&report.summary));
    if let Some((first, last)) = report.entries {
        let checkpoints: Vec<String> = report.checkpoints.iter().map(u64::to_string).collect();
        text += &format!("log entries {first} to {last}, checkpoints: {}\n", or_none(&checkpoints.join(", ")));
    }
    let marks: Vec<Vec<String>> =
        report.marks.iter().map(|m| vec![m.writer.clone(), m.sequence.to_string(), m.version.to_string()]).collect();
    text += &columns(&["writer", "mark", "version"], &marks);
    let blocks: Vec<Vec<String>> = report
        .blocks
        .iter()
        .map(|b| {
            let counts = [b.rows.to_string(), b.bytes.to_string(), b.level.to_string()];
            let times = [time(b.first_ns), time(b.last_ns), time(b.written_ms.checked_mul(1_000_000))];
            [b.object.clone()]
                .into_iter()
                .chain(counts)
                .chain(times)
                .chain([or_none(&number(b.checksum.as_ref()))])
                .collect()
        })
        .collect();
    text += &columns(&["block", "rows", "bytes", "level", "first", "last", "written", "crc32c"], &blocks);
    text
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".into() } else { text.into() }
}

fn file_text(file: &File) -> String {
    let mut text = format!(
        "{}: {}, {} rows, {} row groups, written by {}\n",
        file.object,
        bytes(file.bytes),
        file.rows,
        file.row_groups.len(),
        file.created_by
    );
    let groups: Vec<Vec<String>> = file
        .row_groups
        .iter()
        .enumerate()
        .map(|(at, g)| vec![at.to_string(), g.rows.to_string(), g.bytes.to_string(), g.raw_bytes.to_string()])
        .collect();
    text += &columns(&["row group", "rows", "bytes", "raw bytes"], &groups);
    let rows: Vec<Vec<String>> = file
        .columns
        .iter()
        .map(|c| {
            let counts = [c.bytes.to_string(), c.raw_bytes.to_string(), number(c.pages), c.values.to_string()];
            let index = if c.page_index { "page index" } else { "" };
            let bloom = if c.bloom_bytes > 0 { format!("bloom {}", c.bloom_bytes) } else { String::new() };
            let names = [c.name.clone(), c.kind.clone()];
            let forms = [c.encodings.join(","), c.compression.join(","), format!("{index} {bloom}").trim().to_owned()];
            names.into_iter().chain(counts).chain(forms).collect()
        })
        .collect();
    let heads = ["column", "type", "bytes", "raw bytes", "pages", "values", "encodings", "compression", "indexes"];
    text += &columns(&heads, &rows);
    text
}

fn index_text(all: &[SidecarReport]) -> String {
    let rows: Vec<Vec<String>> =
        all.iter().map(|s| vec![s.object.clone(), s.kind.clone(), s.bytes.to_string(), s.summary.clone()]).collect();
    columns(&["sidecar", "kind", "bytes", "holds"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".into(), "7".into(), "2026-01-01T00:00:00Z".into()],
            vec!["bbb".into(), "12345".into(), "-".into()],
        ];
        let text = columns(&["x", "rows", "first"], &rows);
        assert_eq!(text, "x    rows   first\na        7  2026-01-01T00:00:00Z\nbbb  12345  -\n");
    }

    #[test]
    fn tables_are_named_with_or_without_their_tenant() {
        let (tenant, table) = parse_table("team-a/logs").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((tenant.as_str(), table), ("team-a", Table::Logs));
        let (tenant, table) = parse_table("samples").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((tenant.as_str(), table), ("default", Table::Samples));
        let error = parse_table("sample").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("samples, histograms"), "{error}");
    }

    #[test]
    fn bytes_are_said_in_a_unit_that_fits() {
        assert_eq!([bytes(0), bytes(1023), bytes(1536), bytes(3 << 30)], ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
    }
}
