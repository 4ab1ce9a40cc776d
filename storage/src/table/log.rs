//! The log of one table: atomic commits, marks, fencing.
//!
//! Owns: the table's versions as the Delta protocol defines them, through the library's snapshot, conflict check
//! and checkpoints. Does not own: what a block holds.
//!
//! Invariants
//! 1. A commit is one new log entry, created if absent: it is seen whole or not at all.
//! 2. A writer's mark moves only in entries made by the process that last read it; another process' entry with the
//!    same writer's name fences this one.
//! 3. A commit whose outcome is unknown may be repeated: an entry of our own is recognised by its token.
//! 4. A commit returns once its entry is visible here. One that landed but cannot be read back is reported as failed
//!    and recognised when it is repeated; what was visible stays so meanwhile.
//! 5. An entry is made for one version and checked against the one before it. The library would let an entry that lost
//!    its version land in a later one, and then two compactions of the same blocks would both land.
//! 6. The order of a block names the version that brought its first rows, so it is total and known to all readers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::{CommitBuilder, TransactionError};
use deltalake_core::kernel::{Action, StructType, Transaction};
use deltalake_core::logstore::{CommitOrBytes, LogStoreRef, StorageConfig, default_logstore, get_actions};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError, checkpoints};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use parking_lot::RwLock;
use serde_json::{Value, json};
use uuid::Uuid;

use super::replace::{self, Replaced, Replacement, Replacing};
use super::snapshot::{NewBlock, Order, Snapshot};
use super::{Mark, writer};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::tenant::Tenant;
use crate::model::time::NS_PER_S;
use crate::paths::{self, PARTITION};
use crate::signal::Table;
use crate::store::{Attributed, Attribution, Cause, Store, instead};

/// Versions between two checkpoints: a reader that starts reads at most so many entries.
const CHECKPOINT_INTERVAL: u64 = 32;
/// How long entries are kept that a checkpoint has made superfluous.
const LOG_RETENTION: &str = "interval 2 days";
/// So long after a listing the next entry, if there is one, is still there: far less than [`LOG_RETENTION`].
const LISTING_VALID_NS: i64 = 3600 * NS_PER_S;
/// The name of our token in an entry's `commitInfo`.
pub(crate) const TOKEN: &str = "tercetCommit";
/// Other writers may commit between our look at the log and our entry; more often than this in a row is a fault.
const ATTEMPTS_MAX: usize = 100;

/// What an entry is to say.
enum Change<'a> {
    /// New rows, and how far their writer is with them; `lifted`: it would itself say less.
    Append { blocks: &'a [NewBlock], mark: Mark<'a>, lifted: bool },
    /// Other blocks for the same rows, or for fewer.
    Replace { replacements: &'a [Replacement], replacing: Replacing },
}

/// How a change stands to the loaded version.
enum Standing {
    /// It may be written.
    Open,
    /// It is there already.
    Landed,
    /// What it removes is gone.
    Conflict(Vec<String>),
}

/// The log of one table.
pub(super) struct Log {
    table: Table,
    entries: LogStoreRef,
    /// Set apart from all other processes' entries.
    token: String,
    clock: Arc<dyn Clock>,
    /// Why the store is called at the moment; the state's lock is held meanwhile.
    attribution: Arc<Attribution>,
    state: tokio::sync::Mutex<State>,
    visible: RwLock<Option<Arc<Snapshot>>>,
    /// When commits of other processes were last looked for, and whose turn it is to look.
    looked_ns: AtomicI64,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The loaded table; `None` before the first load and while the table does not exist.
    loaded: Option<DeltaTable>,
    /// What this process last knew of each writer's mark.
    known: HashMap<String, Known>,
    /// When the log was last listed.
    listed_ns: i64,
}

/// A mark as it was at a version; `version: None`: before the table existed.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    mark: Option<u64>,
    version: Option<u64>,
    /// Whether this process moved it there; otherwise an earlier one with the same writer's name did.
    ours: bool,
    /// Where an earlier process with the same writer's name left it: this one's own may begin below.
    floor: Option<u64>,
}

/// Notes the time of a look when it is over.
struct Looked<'a>(&'a AtomicI64, i64);

impl Drop for Looked<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Release);
    }
}

impl Log {
    pub(super) fn new(store: &Store, tenant: &Tenant, table: Table, clock: Arc<dyn Clock>) -> Result<Self> {
        let attribution = Arc::<Attribution>::default();
        let (inner, noted) = (Arc::clone(store.objects()), Arc::clone(&attribution));
        let root: Arc<dyn ObjectStore> = Arc::new(Attributed { inner, attribution: noted });
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(&root), paths::table(tenant, table)));
        let url = paths::table_url(tenant, table)?;
        let entries = default_logstore(prefixed, root, &url, &StorageConfig::default());
        Ok(Self {
            table,
            entries,
            token: crate::clock::unique_id().to_string(),
            clock,
            attribution,
            state: tokio::sync::Mutex::default(),
            visible: RwLock::new(None),
            looked_ns: AtomicI64::new(i64::MIN),
            turn: tokio::sync::Mutex::default(),
        })
    }

    pub(super) async fn snapshot(&self) -> Result<Arc<Snapshot>> {
        if let Some(snapshot) = self.visible.read().clone() {
            return Ok(snapshot);
        }
        self.refresh().await
    }

    pub(super) async fn refresh(&self) -> Result<Arc<Snapshot>> {
        let mut state = self.state.lock().await;
        self.attribution.note(Cause::QueryLog);
        let now = self.clock.now().0;
        self.update(&mut state).await?;
        let snapshot = self.publish(&state)?;
        self.looked_ns.store(now, Ordering::Release);
        Ok(snapshot)
    }

    /// See [`super::TenantTables::look`]. Whoever asks while another looks waits for that; while this process commits,
    /// what is known serves, since the commit brings the rest.
    pub(super) async fn look(&self, age_max: Duration) -> Result<()> {
        let age_max = i64::try_from(age_max.as_nanos()).unwrap_or(i64::MAX);
        let known = self.visible.read().is_some();
        // A clock that was set back tells nothing of the age.
        let recent = |now: i64| (0..age_max).contains(&now.saturating_sub(self.looked_ns.load(Ordering::Acquire)));
        if !known || recent(self.clock.now().0) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let now = self.clock.now().0;
        let Ok(mut state) = self.state.try_lock() else { return Ok(()) };
        if recent(now) {
            return Ok(());
        }
        // A look that fails or is given up is not repeated at once either.
        let _looked = Looked(&self.looked_ns, now);
        self.read_news(&mut state).await
    }

    async fn read_news(&self, state: &mut State) -> Result<()> {
        self.attribution.note(Cause::Refresh);
        if self.has_news(state).await? {
            self.update(state).await?;
            self.publish(state)?;
        }
        Ok(())
    }

    /// Whether there is an entry behind the loaded version: one read instead of a listing. Its absence proves nothing
    /// once it may have been cleaned away, so now and then the answer is yes without a look.
    async fn has_news(&self, state: &State) -> Result<bool> {
        let since = self.clock.now().0.saturating_sub(state.listed_ns);
        let lost = state.loaded.is_none() && self.visible_version().is_some();
        if lost || !(0..LISTING_VALID_NS).contains(&since) {
            return Ok(true);
        }
        let next = state.loaded.as_ref().and_then(DeltaTable::version).map_or(0, |version| version + 1);
        let entry = self.entries.read_commit_entry(next).await.map_err(|source| self.failed("reading", source))?;
        Ok(entry.is_some())
    }

    pub(super) async fn mark(&self, writer: &str) -> Result<Option<u64>> {
        let mut state = self.state.lock().await;
        self.attribution.note(Cause::Open);
        self.update(&mut state).await?;
        let known = self.read_mark(&state, writer).await?;
        state.known.insert(writer.to_owned(), known);
        Ok(known.mark)
    }

    pub(super) async fn commit(&self, blocks: &[NewBlock], mark: Mark<'_>) -> Result<()> {
        let mut state = self.state.lock().await;
        self.attribution.note(Cause::Commit);
        if state.loaded.is_none() {
            self.update(&mut state).await?;
        }
        if !state.known.contains_key(mark.writer) {
            let known = self.read_mark(&state, mark.writer).await?;
            state.known.insert(mark.writer.to_owned(), known);
        }
        if state.loaded.is_none() {
            self.create().await?;
            self.update(&mut state).await?;
        }
        let own = mark.sequence;
        let mark = never_below(state.known.get(mark.writer), mark);
        self.land(&mut state, &Change::Append { blocks, mark, lifted: mark.sequence > own }).await?;
        let version = self.publish(&state)?.version;
        let floor = state.known.get(mark.writer).and_then(|known| known.floor);
        state.known.insert(mark.writer.to_owned(), Known { mark: Some(mark.sequence), version, ours: true, floor });
        self.checkpoint_if_due(&state).await;
        Ok(())
    }

    /// See [`super::TenantTables::replace`].
    pub(super) async fn replace(&self, replacements: &[Replacement], replacing: Replacing) -> Result<Replaced> {
        replace::check(self.table, replacements, replacing)?;
        let mut state = self.state.lock().await;
        self.attribution.note(Cause::Commit);
        if state.loaded.is_none() {
            self.update(&mut state).await?;
        }
        let before = state.loaded.as_ref().and_then(DeltaTable::version);
        let gone = self.land(&mut state, &Change::Replace { replacements, replacing }).await?;
        let version = self.publish(&state)?.version;
        if !gone.is_empty() {
            return Ok(Replaced::Conflict(gone));
        }
        // Our own entry moves no mark: nobody need read it again to know.
        if version == before.map(|before| before + 1) {
            state.known.values_mut().filter(|known| known.version == before).for_each(|known| known.version = version);
        }
        self.checkpoint_if_due(&state).await;
        Ok(Replaced::Done)
    }

    /// Brings `change` into the log, once; the paths that it wanted to remove and that are gone, if there are such.
    async fn land(&self, state: &mut State, change: &Change<'_>) -> Result<Vec<String>> {
        for _ in 0..ATTEMPTS_MAX {
            match self.standing(state, change).await? {
                Standing::Open => {}
                Standing::Landed => return Ok(Vec::new()),
                Standing::Conflict(gone) => return Ok(gone),
            }
            match self.write(state, change).await {
                Ok(version) => {
                    self.advance(state, version).await?;
                    return Ok(Vec::new());
                }
                Err(error) if lost_race(&error) => self.update(state).await?,
                Err(error) => {
                    let failed = self.failed("committing to", error);
                    if failed.kind() != Kind::Unavailable {
                        return Err(failed);
                    }
                    self.update(state).await?;
                    return match self.standing(state, change).await? {
                        Standing::Landed => Ok(Vec::new()),
                        _ => Err(failed),
                    };
                }
            }
        }
        let text = format!("other processes committed to the table `{}` all the time: retry later", self.table.name());
        Err(Error::new(Kind::Unavailable, text))
    }

    async fn standing(&self, state: &State, change: &Change<'_>) -> Result<Standing> {
        match change {
            Change::Append { mark, lifted, .. } => {
                Ok(if self.settled(state, *mark, *lifted).await? { Standing::Landed } else { Standing::Open })
            }
            Change::Replace { replacements, .. } => {
                let snapshot = self.loaded_snapshot(state)?;
                Ok(match replace::standing(&snapshot, replacements)? {
                    None => Standing::Landed,
                    Some(gone) if gone.is_empty() => Standing::Open,
                    Some(gone) => Standing::Conflict(gone),
                })
            }
        }
    }

    async fn checkpoint_if_due(&self, state: &State) {
        let version = state.loaded.as_ref().and_then(DeltaTable::version);
        if version.is_some_and(|version| version % CHECKPOINT_INTERVAL == 0) {
            instead(Cause::Checkpoint, self.checkpoint(state)).await;
        }
    }

    /// Loads the table, or brings it to its newest version. A table that does not exist stays unloaded.
    async fn update(&self, state: &mut State) -> Result<()> {
        let mut table = match state.loaded.take() {
            Some(table) => table,
            None => DeltaTable::new(Arc::clone(&self.entries)),
        };
        let listed_ns = self.clock.now().0;
        let mut updated = table.update_incremental(None).await;
        if updated.as_ref().is_err_and(|error| !caused_by_store(error)) && table.version().is_some() {
            // The entries behind the loaded version may be cleaned away; a checkpoint has what they said.
            table = DeltaTable::new(Arc::clone(&self.entries));
            updated = table.update_incremental(None).await;
        }
        match updated {
            Ok(()) => {
                state.loaded = Some(table);
                state.listed_ns = listed_ns;
                Ok(())
            }
            Err(DeltaTableError::NotATable(_)) if self.visible_version().is_none() => {
                state.listed_ns = listed_ns;
                Ok(())
            }
            Err(DeltaTableError::NotATable(_)) => {
                Err(Error::corrupt(format!("the log of the table `{}` was there and is gone", self.table.name())))
            }
            Err(source) => Err(self.failed("reading", source)),
        }
    }

    fn visible_version(&self) -> Option<u64> {
        self.visible.read().as_ref().and_then(|snapshot| snapshot.version)
    }

    /// After a commit that landed as `version`: brings the loaded table there.
    async fn advance(&self, state: &mut State, version: u64) -> Result<()> {
        if let Some(table) = state.loaded.as_mut() {
            match table.update_incremental(Some(version)).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(table = self.table.name(), version, %error, "a commit landed but was not read back");
                }
            }
        }
        self.update(state).await?;
        match state.loaded.as_ref().and_then(DeltaTable::version) {
            Some(loaded) if loaded >= version => Ok(()),
            _ => {
                let text = format!("version {version} of the table `{}` landed but is not listed", self.table.name());
                Err(Error::new(Kind::Unavailable, text))
            }
        }
    }

    fn loaded_snapshot(&self, state: &State) -> Result<Snapshot> {
        match state.loaded.as_ref().and_then(|table| table.snapshot().ok()) {
            None => Ok(Snapshot::empty(self.table)),
            Some(loaded) => {
                let files = loaded.snapshot().try_log_data().map_err(|source| self.failed("reading", source))?;
                Snapshot::new(self.table, loaded.version(), files.iter())
            }
        }
    }

    fn publish(&self, state: &State) -> Result<Arc<Snapshot>> {
        let snapshot = Arc::new(self.loaded_snapshot(state)?);
        *self.visible.write() = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// See [`super::TenantTables::removed`].
    pub(super) async fn removed(&self) -> Result<hashbrown::HashMap<String, i64>> {
        let state = self.state.lock().await;
        let Some(loaded) = state.loaded.as_ref().and_then(|table| table.snapshot().ok()) else {
            return Ok(hashbrown::HashMap::new());
        };
        let removed = loaded.all_tombstones(self.entries.as_ref());
        let removed = removed.map_ok(|file| (file.path().into_owned(), file.deletion_timestamp().unwrap_or(0)));
        removed.try_collect().await.map_err(|source| self.failed("reading what was removed from", source))
    }

    async fn read_mark(&self, state: &State, writer: &str) -> Result<Known> {
        let Some(loaded) = state.loaded.as_ref().and_then(|table| table.snapshot().ok()) else {
            return Ok(Known::default());
        };
        let mark = loaded.transaction_version(self.entries.as_ref(), writer).await;
        let mark = mark.map_err(|source| self.failed("reading a mark from", source))?;
        let mark = mark.and_then(|mark| u64::try_from(mark).ok());
        Ok(Known { mark, version: Some(loaded.version()), ours: false, floor: mark })
    }

    /// Makes version 0. Losing that race is fine: every process would write the same.
    async fn create(&self) -> Result<()> {
        let now_ms = self.clock.now().to_ms().0;
        let schema: StructType = self.table_schema()?;
        let schema = serde_json::to_string(&schema)
            .map_err(|source| Error::bug("a table's schema cannot be written").with_source(source))?;
        let lines = [
            json!({"commitInfo": {"timestamp": now_ms, "operation": "CREATE TABLE", TOKEN: self.token}}),
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
            json!({"metaData": {
                "id": crate::clock::unique_id().to_string(),
                "name": self.table.name(),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": schema,
                "partitionColumns": [PARTITION],
                "configuration": {
                    "delta.checkpointInterval": CHECKPOINT_INTERVAL.to_string(),
                    "delta.logRetentionDuration": LOG_RETENTION,
                },
                "createdTime": now_ms,
            }}),
        ];
        let text = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        match self.entries.write_commit_entry(0, CommitOrBytes::LogBytes(text.into()), Uuid::nil()).await {
            Ok(()) | Err(TransactionError::VersionAlreadyExists(_)) => Ok(()),
            Err(source) => Err(self.failed("creating", source.into())),
        }
    }

    fn table_schema(&self) -> Result<StructType> {
        let mut fields: Vec<_> = writer::file_schema(self.table).fields().iter().cloned().collect();
        fields.push(Arc::new(arrow::datatypes::Field::new(PARTITION, arrow::datatypes::DataType::Date32, true)));
        let schema = arrow::datatypes::Schema::new(fields);
        (&schema).try_into_kernel().map_err(Error::from)
    }

    /// Makes the entry after the loaded version; fails if another one is there.
    async fn write(&self, state: &State, change: &Change<'_>) -> Result<u64, DeltaTableError> {
        let loaded = state.loaded.as_ref().ok_or_else(|| DeltaTableError::NotATable(self.table.name().to_owned()))?;
        let now_ms = self.clock.now().to_ms().0;
        let version = loaded.version().map_or(0, |version| version + 1);
        let (actions, operation) = match change {
            Change::Append { blocks, mark, .. } => {
                let sequence = i64::try_from(mark.sequence).unwrap_or(i64::MAX);
                let added = blocks.iter().zip(0..);
                let mut actions: Vec<Action> = added
                    .map(|(block, at)| Action::Add(block.add(self.table, Order::new(version, at), true)))
                    .collect();
                actions.push(Action::Txn(Transaction::new_with_last_update(mark.writer, sequence, Some(now_ms))));
                let partition_by = Some(vec![PARTITION.to_owned()]);
                (actions, DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None })
            }
            Change::Replace { replacements, replacing } => {
                (replace::actions(self.table, replacements, *replacing, now_ms), replacing.operation())
            }
        };
        let builder = CommitBuilder::default()
            .with_actions(actions)
            .with_app_metadata(HashMap::from([(TOKEN.to_owned(), Value::from(self.token.as_str()))]))
            .with_max_retries(0)
            .build(Some(loaded.snapshot()?), Arc::clone(&self.entries), operation);
        Ok(builder.into_prepared_commit_future().await?.await?.version)
    }

    /// Whether this very commit is in the log already, or an error if another process moved the mark. Looks at the
    /// entries between the version at which the mark was known and the loaded one.
    async fn settled(&self, state: &State, mark: Mark<'_>, lifted: bool) -> Result<bool> {
        let known = state.known.get(mark.writer).copied().unwrap_or_default();
        let loaded = state.loaded.as_ref().and_then(DeltaTable::version);
        let Some(loaded) = loaded else { return Ok(false) };
        let mut ours = false;
        for version in known.version.map_or(0, |version| version + 1)..=loaded {
            match self.moved_by(state, known, version, mark.writer).await? {
                None => {}
                Some((token, sequence)) if token == self.token => ours |= sequence == mark.sequence,
                Some(_) => return Err(self.fenced(mark.writer)),
            }
        }
        // An earlier process may have ended between this commit and a later one of the same flush: then the same
        // mark comes again, with identities that are there already and without facts, which replay left out.
        if !ours && !lifted && known.ours && known.mark.is_some_and(|last| last >= mark.sequence) {
            return Err(Error::bug(format!(
                "the mark of `{}` in `{}` would fall from {:?} to {}",
                mark.writer,
                self.table.name(),
                known.mark,
                mark.sequence
            )));
        }
        Ok(ours)
    }

    /// Whether the entry `version` moves the mark of `writer`: whose token it carries, and to where.
    async fn moved_by(&self, state: &State, known: Known, version: u64, writer: &str) -> Result<Option<(String, u64)>> {
        let bytes = self.entries.read_commit_entry(version).await.map_err(|source| self.failed("reading", source))?;
        let Some(bytes) = bytes else {
            // Cleaned away, so days old: we slept meanwhile, and a mark that is another one now was not moved by us.
            let now = self.read_mark(state, writer).await?.mark;
            return Ok(now.filter(|_| now != known.mark).map(|sequence| (String::new(), sequence)));
        };
        let actions = get_actions(version, &bytes).map_err(|source| self.failed("reading", source))?;
        let token = actions.iter().find_map(|action| match action {
            Action::CommitInfo(info) => info.info.get(TOKEN).and_then(Value::as_str),
            _ => None,
        });
        Ok(actions.iter().find_map(|action| match action {
            Action::Txn(txn) if txn.app_id == writer => {
                Some((token.unwrap_or_default().to_owned(), u64::try_from(txn.version).unwrap_or(0)))
            }
            _ => None,
        }))
    }

    fn fenced(&self, writer: &str) -> Error {
        Error::new(
            Kind::Fenced,
            format!(
                "another process writes to the table `{}` under the name `{writer}`: this one must stop",
                self.table.name()
            ),
        )
    }

    fn failed(&self, doing: &str, source: DeltaTableError) -> Error {
        let kind = match &source {
            DeltaTableError::Transaction { .. } => Kind::Unavailable,
            other if caused_by_store(other) => Kind::Unavailable,
            _ => Kind::Corrupt,
        };
        Error::new(kind, format!("{doing} the log of the table `{}` failed", self.table.name())).with_source(source)
    }

    /// Checkpoints and cleans the log. Derived data: a failure costs later readers time, nothing else.
    async fn checkpoint(&self, state: &State) {
        let Some(table) = state.loaded.as_ref() else { return };
        self.attribution.note(Cause::Checkpoint);
        if let Err(error) = checkpoints::create_checkpoint(table, None).await {
            tracing::warn!(table = self.table.name(), %error, "no checkpoint of the table's log could be written");
            return;
        }
        if let Err(error) = checkpoints::cleanup_metadata(table, None).await {
            tracing::warn!(table = self.table.name(), %error, "the table's log could not be cleaned");
        }
    }
}

/// What an earlier process with the same writer's name left ahead of us stays: a mark does not fall.
fn never_below<'a>(known: Option<&Known>, mark: Mark<'a>) -> Mark<'a> {
    match known {
        Some(Known { floor: Some(held), .. }) => Mark { sequence: mark.sequence.max(*held), ..mark },
        _ => mark,
    }
}

/// Whether another process made an entry that we had not seen.
fn lost_race(error: &DeltaTableError) -> bool {
    match error {
        DeltaTableError::Transaction { source } => matches!(source, TransactionError::MaxCommitAttempts(_)),
        // The loaded version was even cleaned away.
        other => matches!(other, DeltaTableError::InvalidVersion(_)),
    }
}

/// Whether somewhere beneath lies an error of the object store or the disk.
fn caused_by_store(error: &DeltaTableError) -> bool {
    // The library hides this cause from `source`; only its text tells.
    let opaque = matches!(error, DeltaTableError::KernelError(_) | DeltaTableError::Generic(_));
    if opaque && error.to_string().contains("object store") {
        return true;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<object_store::Error>() || error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("table", &self.table).finish_non_exhaustive()
    }
}
