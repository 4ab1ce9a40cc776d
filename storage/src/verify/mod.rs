//! Checks a store against its own checksums and counts, and a WAL with it; changes nothing.
//!
//! Owns: what is checked and how a fault is told ([`Finding`]). Does not own: repair. Safe beside a running writer:
//! what it deletes meanwhile is no fault.
//!
//! Invariants
//! 1. Every byte of a block that the log has a checksum for, of a sidecar and of a whole WAL record is covered by one.
//! 2. Memory is bounded by the identities of one signal of one tenant, one batch of rows and [`FINDINGS_MAX`].
//! 3. An error is returned only when the store does not answer; whatever is wrong with what it holds is a finding.

mod block;
mod log;
mod rows;
#[cfg(test)]
mod tests;
mod wal;

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use serde::Serialize;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::tenant::Tenant;
use crate::paths;
use crate::signal::{Signal, Table};
use crate::store::Store;
use crate::table::{Block, Caches, Snapshot, TenantTables};

use rows::Known;

/// Findings kept; more are only counted.
pub const FINDINGS_MAX: usize = 1_000;
/// Memory for footers while blocks are checked one after the other.
const CACHE_BYTES: usize = 4 << 20;

/// Whether an answer may be wrong or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Data is lost, unreadable or wrong.
    Damage,
    /// Nothing is lost: something is slower, larger or unfinished.
    Notice,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object of the store or the file of the WAL.
    pub object: String,
    /// What is wrong with it.
    pub wrong: String,
    /// What to do.
    pub act: String,
}

/// What was checked and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The first [`FINDINGS_MAX`] findings.
    pub findings: Vec<Finding>,
    /// Findings beyond them.
    pub more_findings: u64,
    /// Findings that are [`Severity::Damage`].
    pub damages: u64,
    /// Tables that exist.
    pub tables: u64,
    /// Blocks that their logs name.
    pub blocks: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sidecars.
    pub sidecars: u64,
    /// Whole records of the WAL.
    pub wal_records: u64,
}

impl Report {
    fn add(&mut self, severity: Severity, object: impl ToString, wrong: impl Into<String>, act: &str) {
        self.damages += u64::from(severity == Severity::Damage);
        if self.findings.len() >= FINDINGS_MAX {
            self.more_findings += 1;
            return;
        }
        let (object, wrong) = (object.to_string(), wrong.into());
        self.findings.push(Finding { severity, object, wrong, act: act.to_owned() });
    }

    fn damage(&mut self, object: impl ToString, wrong: impl Into<String>, act: &str) {
        self.add(Severity::Damage, object, wrong, act);
    }

    fn notice(&mut self, object: impl ToString, wrong: impl Into<String>, act: &str) {
        self.add(Severity::Notice, object, wrong, act);
    }

    /// `error` as a finding, unless the store does not answer.
    fn failed(&mut self, object: impl ToString, error: Error, act: &str) -> Result<()> {
        match error.kind() {
            Kind::Unavailable => Err(error),
            _ => {
                self.damage(object, error.to_string(), act);
                Ok(())
            }
        }
    }
}

/// Checks all tables of all tenants in `store`, and the WAL below `data_dir` if there is one. `tell` is called after
/// each block with its name and what was found so far.
pub async fn verify(
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    data_dir: Option<&Path>,
    tell: &(dyn Fn(&str, &Report) + Send + Sync),
) -> Result<Report> {
    let mut report = Report::default();
    for tenant in tenants(store).await? {
        let caches = Caches::new(CACHE_BYTES);
        let tables = TenantTables::open(Arc::clone(store), tenant, caches, Arc::clone(clock));
        for signal in Signal::ALL {
            let mut known = Known::default();
            let spec = signal.spec();
            for table in std::iter::once(spec.identities).chain(spec.facts.iter().copied()) {
                let mut check = Check { tables: &tables, table, report: &mut report, tell };
                check.table(&mut known).await?;
                known.rank();
            }
        }
    }
    if let Some(data_dir) = data_dir {
        for signal in Signal::ALL {
            wal::check(&data_dir.join("wal").join(signal.name()), signal, &mut report)?;
        }
    }
    Ok(report)
}

/// The tenants that have a folder in `store`.
pub async fn tenants(store: &Store) -> Result<Vec<Tenant>> {
    let listed = store.objects().list_with_delimiter(None).await?;
    let names = listed.common_prefixes.iter().filter_map(|prefix| prefix.filename());
    Ok(names.filter_map(|name| Tenant::new(name).ok()).collect())
}

/// One table on its way.
struct Check<'a> {
    tables: &'a Arc<TenantTables>,
    table: Table,
    report: &'a mut Report,
    tell: &'a (dyn Fn(&str, &Report) + Send + Sync),
}

impl Check<'_> {
    async fn table(&mut self, known: &mut Known) -> Result<()> {
        let folder = paths::table(self.tables.tenant(), self.table);
        if !log::check(self.tables.store(), &folder, self.report).await? {
            return Ok(());
        }
        self.report.tables += 1;
        let snapshot = match self.tables.refresh(self.table).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let act = "restore the table's `_delta_log` from a backup: without it the table cannot be read";
                return self.report.failed(&folder, error, act);
            }
        };
        for block in &snapshot.blocks {
            if block::check(self, block, known).await? == block::Presence::Gone && !self.is_named(block).await? {
                continue;
            }
            self.report.blocks += 1;
            self.report.rows += block.rows;
            self.report.bytes += block.bytes;
            (self.tell)(paths::block_object(self.tables.tenant(), self.table, &block.path).as_ref(), self.report);
        }
        self.unnamed(&snapshot).await
    }

    /// Whether the log still names a block that is not there; a finding if so. Otherwise a running writer removed it.
    async fn is_named(&mut self, block: &Block) -> Result<bool> {
        let snapshot = self.tables.refresh(self.table).await?;
        let named = snapshot.blocks.iter().any(|other| other.path == block.path);
        if named {
            let object = paths::block_object(self.tables.tenant(), self.table, &block.path);
            let act = "restore it from a backup or from the bucket's earlier versions: its rows are missing";
            self.report.damage(object, format!("the log names it with {} rows, and it is not there", block.rows), act);
        }
        Ok(named)
    }

    /// Data files that no version names: of a flush that did not end, or waiting to be collected.
    async fn unnamed(&mut self, snapshot: &Snapshot) -> Result<()> {
        let folder = paths::table(self.tables.tenant(), self.table);
        let named: hashbrown::HashSet<String> = snapshot
            .blocks
            .iter()
            .map(|block| paths::block_object(self.tables.tenant(), self.table, &block.path).to_string())
            .collect();
        let (mut files, mut bytes) = (0_u64, 0);
        let mut list = self.tables.store().objects().list(Some(&folder));
        while let Some(meta) = list.try_next().await? {
            let path = meta.location.as_ref();
            if path.ends_with(".parquet") && path.contains("/date=") && !named.contains(path) {
                files += 1;
                bytes += meta.size;
            }
        }
        if files > 0 {
            let wrong = format!("{files} data files of {bytes} bytes are in no version of the table");
            self.report.notice(
                &folder,
                wrong,
                "nothing: they are not read; a process that writes this table collects them",
            );
        }
        Ok(())
    }
}
