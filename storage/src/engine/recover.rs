//! Recovery: the WAL → the heads, without what the tables have.
//!
//! Owns: which records are still needed. Does not own: reading the WAL (`wal::reader`).
//!
//! Invariants
//! 1. Rows of table T in record N are replayed if and only if N is greater than the writer's marks of T and of the
//!    signal's main table. A flush that ended between two commits is thus completed, not repeated.
//! 2. A mark beyond the last record is not of this WAL's past (a restored folder, a shared writer's name): it proves
//!    nothing about the WAL, so all rows of that table are replayed. Those that the table has count once.
//! 3. Rows whose labels stood in a damaged record get them from any other record or from the tables.
//! 4. New records get numbers above every mark that an earlier process of this writer can have left.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::Int64Type;
use hashbrown::{HashMap, HashSet};

use super::lane::Shared;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::model::batch::Batch;
use crate::model::identity::{Identity, IdentityId};
use crate::model::labels::Labels;
use crate::model::tenant::Tenant;
use crate::model::time::Day;
use crate::signal::Table;
use crate::store::{Cause, because};
use crate::table::TenantTables;
use crate::wal::{Record, Replayed, replay};

type ByTenant<T> = HashMap<Tenant, T, ahash::RandomState>;

/// What became of a WAL.
pub(super) struct Recovered {
    pub(super) replayed: Replayed,
    /// Tables were ahead of it: its rows must be in the tables before a new record makes the marks look right.
    pub(super) behind: bool,
}

/// Replays the WAL in `folder` into the active heads of `shared`.
pub(super) async fn recover(
    folder: &Path,
    shared: &Arc<Shared>,
    writer: &str,
    clock: &Arc<dyn Clock>,
    tables: impl Fn(&Tenant) -> Arc<TenantTables> + Send + 'static,
) -> Result<Recovered> {
    let (folder, writer) = (folder.to_owned(), writer.to_owned());
    let runtime = tokio::runtime::Handle::current();
    let lane = Arc::clone(shared);
    let work = move || {
        let mut recovery = Recovery {
            shared: &lane,
            marks: HashMap::default(),
            labels: HashMap::default(),
            orphans: Vec::new(),
            ahead_of: None,
        };
        let mut replayed = replay(&folder, lane.signal, |sequence, record| {
            if !recovery.marks.contains_key(&record.tenant) {
                let tables = tables(&record.tenant);
                let marks = runtime.block_on(because(Cause::Open, read_marks(&tables, &lane, &writer)))?;
                recovery.marks.insert(record.tenant.clone(), marks);
            }
            recovery.record(sequence, record)
        })?;
        let highest = recovery.marks.values().flatten().map(|(_, mark)| *mark).max().unwrap_or(0);
        let behind = highest > replayed.last;
        if behind {
            let (signal, last) = (lane.signal.name(), replayed.last);
            tracing::error!(
                signal,
                writer,
                last,
                highest,
                "the tables are ahead of the WAL: is the data folder restored, or the writer id used twice? Its rows are kept"
            );
            recovery.ahead_of = Some(last);
            replay(&folder, lane.signal, |sequence, record| recovery.record(sequence, record))?;
            replayed.next = replayed.next.max(highest.saturating_add(1));
        }
        let stored = |tenant: &Tenant| {
            let all = (Day(i32::MIN), Day(i32::MAX));
            runtime.block_on(async { tables(tenant).identities(lane.signal, all).await })
        };
        replayed.damages += recovery.adopt(stored)?;
        Ok::<_, Error>(Recovered { replayed, behind })
    };
    let mut recovered = tokio::task::spawn_blocking(work)
        .await
        .map_err(|cause| Error::bug("the replay of the WAL failed").with_source(cause))??;
    // Microseconds since the epoch run ahead of any count of records, so of any mark in the tables, also those of
    // tenants that the WAL does not name.
    let now_us = u64::try_from(clock.now().0 / 1000).unwrap_or(0);
    recovered.replayed.next = recovered.replayed.next.max(now_us).max(1);
    shared.counters.damages.fetch_add(recovered.replayed.damages, Ordering::Relaxed);
    Ok(recovered)
}

/// How far each table of facts is, for one tenant.
async fn read_marks(tables: &Arc<TenantTables>, shared: &Shared, writer: &str) -> Result<Vec<(Table, u64)>> {
    let spec = shared.signal.spec();
    let main = tables.mark(spec.main(), writer).await?.unwrap_or(0);
    let mut marks = Vec::with_capacity(spec.facts.len());
    for table in spec.facts {
        marks.push((*table, tables.mark(*table, writer).await?.unwrap_or(0).max(main)));
    }
    Ok(marks)
}

struct Recovery<'a> {
    shared: &'a Shared,
    marks: ByTenant<Vec<(Table, u64)>>,
    /// Labels that any record so far defined: behind damage, an earlier segment may still know them.
    labels: ByTenant<HashMap<IdentityId, Labels, ahash::RandomState>>,
    /// Rows whose labels no record before them defines: a damaged one did.
    orphans: Vec<Orphan>,
    /// Set for a second replay, which takes only rows of tables whose mark is above this last sequence number.
    ahead_of: Option<u64>,
}

/// Rows that wait for their labels.
struct Orphan {
    sequence: u64,
    tenant: Tenant,
    table: Table,
    rows: RecordBatch,
}

impl Recovery<'_> {
    fn record(&mut self, sequence: u64, record: Record) -> Result<()> {
        let labels = self.labels.entry_ref(&record.tenant).or_default();
        labels.extend(record.identities.into_iter().map(|identity| (identity.id, identity.labels)));
        let marks = self.marks.get(&record.tenant).map_or(&[][..], Vec::as_slice);
        let in_table = |table: Table| {
            marks.iter().any(|(t, mark)| *t == table && self.ahead_of.map_or(sequence <= *mark, |last| *mark <= last))
        };
        let mut identities: HashMap<IdentityId, Labels, ahash::RandomState> = HashMap::default();
        let mut facts = Vec::with_capacity(record.facts.len());
        for (table, rows) in record.facts {
            if in_table(table) {
                continue;
            }
            let (rows, orphans) = known_rows(table, rows, labels, &mut identities)?;
            if let Some(rows) = orphans {
                self.orphans.push(Orphan { sequence, tenant: record.tenant.clone(), table, rows });
            }
            if rows.num_rows() > 0 {
                facts.push((table, rows));
            }
        }
        self.insert(&record.tenant, identities, facts)
    }

    fn insert(
        &self,
        tenant: &Tenant,
        identities: HashMap<IdentityId, Labels, ahash::RandomState>,
        facts: Vec<(Table, RecordBatch)>,
    ) -> Result<()> {
        if facts.is_empty() {
            return Ok(());
        }
        let identities = identities.into_iter().map(|(id, labels)| Identity { id, labels }).collect();
        self.shared.insert(tenant, &Batch { signal: self.shared.signal, identities, facts })?;
        self.shared.counters.replayed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Inserts the orphans whose labels a later segment or, by `stored`, a table knows. How many records lost rows.
    fn adopt(&mut self, stored: impl Fn(&Tenant) -> Result<Arc<Vec<Identity>>>) -> Result<u64> {
        let mut lost = HashSet::new();
        let mut asked = HashSet::new();
        for Orphan { sequence, tenant, table, rows } in std::mem::take(&mut self.orphans) {
            if asked.insert(tenant.clone()) {
                let labels = self.labels.entry_ref(&tenant).or_default();
                labels.extend(stored(&tenant)?.iter().map(|identity| (identity.id, identity.labels.clone())));
            }
            let labels = self.labels.entry_ref(&tenant).or_default();
            let mut identities = HashMap::default();
            let (rows, orphans) = known_rows(table, rows, labels, &mut identities)?;
            if let Some(orphans) = orphans {
                let rows = orphans.num_rows();
                let table = table.name();
                tracing::error!(
                    sequence,
                    table,
                    rows,
                    "rows of the WAL cannot be replayed: the record with their labels is damaged, and nothing else names them"
                );
                lost.insert(sequence);
            }
            if rows.num_rows() > 0 {
                self.insert(&tenant, identities, vec![(table, rows)])?;
            }
        }
        Ok(u64::try_from(lost.len()).unwrap_or(u64::MAX))
    }
}

/// The rows whose labels are known, and the others; the identities of the known are added to `identities`.
fn known_rows(
    table: Table,
    rows: RecordBatch,
    labels: &HashMap<IdentityId, Labels, ahash::RandomState>,
    identities: &mut HashMap<IdentityId, Labels, ahash::RandomState>,
) -> Result<(RecordBatch, Option<RecordBatch>)> {
    let Some(column) = table.spec().identity else { return Ok((rows, None)) };
    let ids = rows.column_by_name(column).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let ids = ids.ok_or_else(|| Error::corrupt(format!("rows of `{}` without identities", table.name())))?;
    let mut known = Vec::with_capacity(ids.len());
    let mut before: Option<(i64, bool)> = None;
    for id in ids.values() {
        let found = match before {
            Some((same, found)) if same == *id => found,
            _ => {
                let id = IdentityId::from_column(*id);
                let found = labels.get(&id);
                if let Some(labels) = found {
                    identities.entry(id).or_insert_with(|| labels.clone());
                }
                found.is_some()
            }
        };
        before = Some((*id, found));
        known.push(found);
    }
    if known.iter().all(|found| *found) {
        return Ok((rows, None));
    }
    let known = BooleanArray::from(known);
    Ok((filter_record_batch(&rows, &known)?, Some(filter_record_batch(&rows, &not(&known)?)?)))
}
