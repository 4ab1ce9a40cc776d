//! The delete requests of one tenant in the store: `<tenant>/_deletes/<number>.json`, each number a whole state.
//!
//! Owns: loading, refreshing, the atomic step from one state to the next. Does not own: what a request hides (`hide`).
//!
//! A step creates the object of the next number, if absent, so two processes never both succeed. A process that reads
//! asks for the number after its own: one request that mostly finds nothing, no listing. States are kept long enough
//! ([`STATES_KEPT_NS`]) that a reader who asks at least every [`PROBE_AGE_MAX_NS`] meets each; one that paused longer
//! lists the folder once.
//!
//! Invariants
//! 1. A state is never changed; the one of the highest number holds.
//! 2. A step and a replacement of blocks exclude each other: a compaction that read before a request was made does not
//!    commit after it ([`DeleteLog::hold`]).
//! 3. A block stays covered for a while after it is gone: a reader may hold an older snapshot than requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use hashbrown::HashMap;
use object_store::{ObjectStore, PutMode, PutPayload};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::hide::Resolved;
use super::{DONE_MAX, DeleteRequest, Deletion, PENDING_MAX, Stored};
use crate::clock::{Clock, unique_id};
use crate::error::{Error, Kind, Result};
use crate::model::tenant::Tenant;
use crate::model::time::NS_PER_S;
use crate::paths;
use crate::signal::Table;
use crate::store::Store;
use crate::table::Block;

/// How long a state stays in the store after the next one was made.
const STATES_KEPT_NS: i64 = 86_400 * NS_PER_S;
/// A reader that has not asked for so long lists the folder instead of asking for the next number.
const PROBE_AGE_MAX_NS: i64 = 3_600 * NS_PER_S;
/// How long a block stays covered after it is gone, and a done request's matchers with it.
const COVERED_KEPT_NS: i64 = 3_600 * NS_PER_S;
/// Tries of one step against other processes.
const ATTEMPTS_MAX: usize = 100;
const VERSION: u32 = 1;

/// A block that some requests cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Covered {
    /// The first request that was made when the block was there; later ones cover it too.
    since: u64,
    /// When it was found gone.
    gone_ns: Option<i64>,
}

/// One request in a state.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) deletion: Deletion,
    /// Place among the requests of the tenant.
    pub(crate) sequence: u64,
}

type ByPath = HashMap<String, Covered, ahash::RandomState>;

/// All requests of a tenant at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    number: Option<u64>,
    /// The sequence of the next request.
    next: u64,
    pub(crate) requests: Vec<Arc<Kept>>,
    covered: HashMap<Table, ByPath, ahash::RandomState>,
}

#[derive(Serialize, Deserialize)]
struct StoredState {
    version: u32,
    /// Drawn for each state: two processes never write the same bytes.
    token: String,
    next: u64,
    requests: Vec<Stored>,
    covered: BTreeMap<String, BTreeMap<String, Covered>>,
}

impl State {
    /// The requests that apply to `block`: those made while it was there, of times that it may hold.
    pub(crate) fn applying(&self, table: Table, block: &Block) -> impl Iterator<Item = &Arc<Kept>> {
        let since = self.covered.get(&table).and_then(|blocks| blocks.get(&block.path)).map(|covered| covered.since);
        self.requests.iter().filter(move |kept| {
            let request = &kept.deletion.request;
            since.is_some_and(|since| since <= kept.sequence)
                && request.signal == table.signal()
                && block.times.is_none_or(|(first, last)| request.range.overlaps(first, last))
        })
    }

    /// Whether some request covers the block `path` of `table`.
    fn is_covered(&self, table: Table, path: &str) -> bool {
        let covered = self.covered.get(&table).and_then(|blocks| blocks.get(path));
        covered.is_some_and(|covered| covered.gone_ns.is_none())
    }

    /// Whether some request covers a block of `table`.
    pub(crate) fn covers(&self, table: Table) -> bool {
        self.covered.get(&table).is_some_and(|blocks| !blocks.is_empty())
    }

    /// Whether the tenant never had a request.
    pub(crate) fn is_new(&self) -> bool {
        self.number.is_none()
    }

    /// The sequence of the next request.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The covered blocks of `table` that were not found gone.
    pub(crate) fn covered(&self, table: Table) -> impl Iterator<Item = &str> {
        let blocks = self.covered.get(&table).into_iter().flatten();
        blocks.filter(|(_, covered)| covered.gone_ns.is_none()).map(|(path, _)| path.as_str())
    }

    /// Whether a request may still hide something.
    pub(crate) fn is_idle(&self) -> bool {
        self.covered.values().all(HashMap::is_empty) && self.requests.iter().all(|kept| kept.deletion.done)
    }

    /// This state with `request`, which covers `blocks`.
    pub(crate) fn with(
        &self,
        request: &DeleteRequest,
        blocks: &[(Table, Vec<Arc<Block>>)],
        id: &str,
        now_ns: i64,
    ) -> Result<Self> {
        if self.requests.iter().filter(|kept| !kept.deletion.done).count() >= PENDING_MAX {
            return Err(Error::limit(format!(
                "{PENDING_MAX} delete requests wait to be done already: retry after the next compaction"
            )));
        }
        let mut state = self.clone();
        let deletion = Deletion { id: id.to_owned(), request: request.clone(), created_ns: now_ns, done: false };
        for (table, blocks) in blocks {
            let covered = state.covered.entry(*table).or_default();
            for block in blocks {
                covered.entry_ref(&block.path).or_insert(Covered { since: self.next, gone_ns: None });
            }
        }
        state.requests.push(Arc::new(Kept { deletion, sequence: self.next }));
        state.next += 1;
        Ok(state)
    }

    /// This state without the request `id`; `None` if there is no such request.
    pub(crate) fn without(&self, id: &str) -> Option<Self> {
        let mut state = self.clone();
        state.requests.retain(|kept| kept.deletion.id != id);
        (state.requests.len() < self.requests.len()).then_some(state)
    }

    /// This state as it is once only the blocks for which `is_there` are visible: requests without such blocks are done,
    /// blocks that are gone for long are forgotten. Of the blocks `clean` it is known that no request before the sequence
    /// `clean_before` hides a row of them. `None` if nothing changes.
    pub(crate) fn settled(
        &self,
        is_there: impl Fn(Table, &str) -> bool,
        clean: &[(Table, String)],
        clean_before: u64,
        now_ns: i64,
    ) -> Option<Self> {
        let mut state = self.clone();
        let mut changed = false;
        for (table, path) in clean {
            let Some(blocks) = state.covered.get_mut(table) else { continue };
            if clean_before >= self.next {
                changed |= blocks.remove(path).is_some();
            } else if let Some(covered) = blocks.get_mut(path) {
                changed |= covered.since < clean_before;
                covered.since = covered.since.max(clean_before);
            }
        }
        for (table, blocks) in &mut state.covered {
            for (path, covered) in blocks.iter_mut() {
                if covered.gone_ns.is_none() && !is_there(*table, path) {
                    covered.gone_ns = Some(now_ns);
                    changed = true;
                }
            }
            let before = blocks.len();
            blocks.retain(|_, covered| covered.gone_ns.is_none_or(|gone| now_ns - gone < COVERED_KEPT_NS));
            changed |= blocks.len() < before;
        }
        let mut requests = std::mem::take(&mut state.requests);
        for kept in requests.iter_mut().filter(|kept| !kept.deletion.done) {
            let covers = |blocks: &ByPath| {
                blocks.values().any(|covered| covered.gone_ns.is_none() && covered.since <= kept.sequence)
            };
            let signal = kept.deletion.request.signal;
            if !state.covered.iter().any(|(table, blocks)| table.signal() == signal && covers(blocks)) {
                let deletion = Deletion { done: true, ..kept.deletion.clone() };
                *kept = Arc::new(Kept { deletion, sequence: kept.sequence });
                changed = true;
            }
        }
        let mut done = requests.iter().filter(|kept| kept.deletion.done).count();
        let needed = |sequence: u64| {
            state.covered.values().any(|blocks| blocks.values().any(|covered| covered.since <= sequence))
        };
        requests.retain(|kept| {
            let forgotten = kept.deletion.done && done > DONE_MAX && !needed(kept.sequence);
            done -= usize::from(forgotten);
            changed |= forgotten;
            !forgotten
        });
        state.requests = requests;
        changed.then_some(state)
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let covered = self.covered.iter().map(|(table, blocks)| {
            let blocks = blocks.iter().map(|(path, covered)| (path.clone(), *covered)).collect();
            (table.name().to_owned(), blocks)
        });
        let stored = StoredState {
            version: VERSION,
            token: unique_id().to_string(),
            next: self.next,
            requests: self.requests.iter().map(|kept| Stored::new(&kept.deletion, kept.sequence)).collect(),
            covered: covered.collect(),
        };
        serde_json::to_vec(&stored).map_err(|cause| Error::bug("delete requests cannot be written").with_source(cause))
    }

    fn decode(number: u64, bytes: &[u8]) -> Result<Self> {
        let damaged =
            |what: &str| Error::corrupt(format!("the delete requests of number {number} are damaged: {what}"));
        let stored: StoredState =
            serde_json::from_slice(bytes).map_err(|cause| damaged("they are not JSON").with_source(cause))?;
        if stored.version != VERSION {
            return Err(damaged(&format!("their version {} is unknown", stored.version)));
        }
        let mut requests = Vec::with_capacity(stored.requests.len());
        for request in stored.requests {
            let (deletion, sequence) = request.read()?;
            requests.push(Arc::new(Kept { deletion, sequence }));
        }
        let mut covered: HashMap<Table, ByPath, ahash::RandomState> = HashMap::default();
        for (name, blocks) in stored.covered {
            let table = Table::ALL.into_iter().find(|table| table.name() == name);
            let table = table.ok_or_else(|| damaged(&format!("there is no table `{name}`")))?;
            covered.insert(table, blocks.into_iter().collect());
        }
        Ok(Self { number: Some(number), next: stored.next, requests, covered })
    }
}

/// The requests of one tenant.
#[derive(Debug)]
pub(crate) struct DeleteLog {
    store: Arc<Store>,
    tenant: Tenant,
    clock: Arc<dyn Clock>,
    visible: RwLock<Option<Arc<State>>>,
    /// When the store was last asked, in nanoseconds.
    asked_ns: AtomicI64,
    /// A step failed that may have landed.
    unsure: AtomicBool,
    /// Held by steps and by replacements.
    step: tokio::sync::Mutex<()>,
    resolved: Resolved,
}

impl DeleteLog {
    pub(crate) fn new(store: Arc<Store>, tenant: Tenant, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            tenant,
            clock,
            visible: RwLock::new(None),
            asked_ns: AtomicI64::new(i64::MIN),
            unsure: AtomicBool::new(false),
            step: tokio::sync::Mutex::default(),
            resolved: Resolved::default(),
        }
    }

    /// Who is meant by selectors.
    pub(crate) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// What is known: this process' own steps always, others' after a refresh.
    pub(crate) async fn state(&self) -> Result<Arc<State>> {
        let known = self.visible.read().clone();
        match known {
            Some(state) if self.unsure.load(Ordering::Acquire) => {
                if let Err(error) = self.probe(Arc::clone(&state)).await {
                    tracing::warn!(tenant = %self.tenant, %error, "whether a delete request landed is not known yet");
                    return Ok(state);
                }
                let known = self.visible.read().clone();
                Ok(known.unwrap_or(state))
            }
            Some(state) => Ok(state),
            None => self.load().await,
        }
    }

    /// Whether some state is known.
    pub(crate) fn is_loaded(&self) -> bool {
        self.visible.read().is_some()
    }

    /// Looks for steps of other processes, unless it was done less than `age_max` ago.
    pub(crate) async fn refresh(&self, age_max: Duration) -> Result<()> {
        let now = self.clock.now().0;
        let age = now.saturating_sub(self.asked_ns.load(Ordering::Acquire));
        if age < i64::try_from(age_max.as_nanos()).unwrap_or(i64::MAX) {
            return Ok(());
        }
        let known = self.visible.read().clone();
        match known {
            Some(state) if (0..PROBE_AGE_MAX_NS).contains(&age) => self.probe(state).await,
            _ => self.load().await.map(|_| ()),
        }
    }

    /// Keeps replacements of blocks and steps apart while it is held; `None` if a request was made after `seen`: then
    /// rows that it deletes may stand in what was written, which must be thrown away.
    pub(crate) async fn hold(&self, seen: &State) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>> {
        let held = self.step.lock().await;
        let now = self.newest().await?;
        Ok((now.next == seen.next).then_some(held))
    }

    /// The newest state, whoever made it.
    async fn newest(&self) -> Result<Arc<State>> {
        let known = self.state().await?;
        self.probe(Arc::clone(&known)).await?;
        let newest = self.visible.read().clone();
        Ok(newest.unwrap_or(known))
    }

    /// Keeps requests away from `blocks` of `table` while it is held; the blocks that some cover already, if there are
    /// such.
    pub(crate) async fn hold_uncovered<'a>(
        &self,
        table: Table,
        blocks: impl Iterator<Item = &'a Block>,
    ) -> Result<std::result::Result<tokio::sync::MutexGuard<'_, ()>, Vec<String>>> {
        let held = self.step.lock().await;
        let state = self.newest().await?;
        let covered: Vec<String> =
            blocks.filter(|block| state.is_covered(table, &block.path)).map(|block| block.path.clone()).collect();
        Ok(if covered.is_empty() { Ok(held) } else { Err(covered) })
    }

    /// Makes the next state: `change` gets the newest one, and is asked again if another process was faster. `None` from
    /// it changes nothing.
    pub(crate) async fn step<F, W>(&self, change: F) -> Result<Arc<State>>
    where
        F: Fn(Arc<State>) -> W,
        W: Future<Output = Result<Option<State>>>,
    {
        let _step = self.step.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let now = self.state().await?;
            let Some(mut next) = change(Arc::clone(&now)).await? else { return Ok(now) };
            let number = now.number.map_or(0, |number| number + 1);
            next.number = Some(number);
            let path = paths::deletes(&self.tenant, number);
            let bytes = PutPayload::from(next.encode()?);
            match self.store.objects().put_opts(&path, bytes, PutMode::Create.into()).await {
                Ok(_) => return Ok(self.show(next)),
                Err(object_store::Error::AlreadyExists { .. }) => self.probe(now).await?,
                Err(cause) => {
                    self.unsure.store(true, Ordering::Release);
                    let text = format!("writing the delete requests `{path}` failed");
                    return Err(Error::new(Kind::Unavailable, text).with_source(cause));
                }
            }
        }
        Err(Error::new(Kind::Unavailable, "other processes made delete requests all the time: retry later"))
    }

    fn show(&self, state: State) -> Arc<State> {
        let state = Arc::new(state);
        let mut visible = self.visible.write();
        match visible.as_ref() {
            // Another task was faster.
            Some(known) if known.number > state.number => Arc::clone(known),
            _ => {
                *visible = Some(Arc::clone(&state));
                state
            }
        }
    }

    /// Reads the states after `known`.
    async fn probe(&self, known: Arc<State>) -> Result<()> {
        let asked = self.clock.now().0;
        let mut number = known.number.map_or(0, |number| number + 1);
        while let Some(bytes) = self.store.get(&paths::deletes(&self.tenant, number)).await? {
            self.show(State::decode(number, &bytes)?);
            number += 1;
        }
        self.asked_ns.store(asked, Ordering::Release);
        self.unsure.store(false, Ordering::Release);
        Ok(())
    }

    /// Finds the newest state.
    async fn load(&self) -> Result<Arc<State>> {
        let asked = self.clock.now().0;
        for _ in 0..ATTEMPTS_MAX {
            let Some(number) = self.numbers().await?.last().map(|(number, _)| *number) else {
                self.asked_ns.store(asked, Ordering::Release);
                return Ok(self.show(State::default()));
            };
            // It may have been cleaned away since it was listed, if a newer one is there.
            if let Some(bytes) = self.store.get(&paths::deletes(&self.tenant, number)).await? {
                self.asked_ns.store(asked, Ordering::Release);
                return Ok(self.show(State::decode(number, &bytes)?));
            }
        }
        Err(Error::new(Kind::Unavailable, "the delete requests change all the time: retry later"))
    }

    /// The numbers in the store, ascending, with the times they were written, in nanoseconds.
    async fn numbers(&self) -> Result<Vec<(u64, i64)>> {
        let folder = paths::deletes_folder(&self.tenant);
        let listed: Vec<_> = self.store.objects().list(Some(&folder)).try_collect().await?;
        let number = |meta: object_store::ObjectMeta| {
            let number = meta.location.filename()?.strip_suffix(".json")?.parse().ok()?;
            Some((number, meta.last_modified.timestamp_nanos_opt()?))
        };
        let mut numbers: Vec<(u64, i64)> = listed.into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Deletes states that no reader needs any more; how many.
    pub(crate) async fn clean(&self) -> Result<u64> {
        let numbers = self.numbers().await?;
        let now = self.clock.now().0;
        let old = numbers.windows(2).filter(|pair| now.saturating_sub(pair[1].1) >= STATES_KEPT_NS);
        let mut deleted = 0;
        for pair in old {
            self.store.delete(&paths::deletes(&self.tenant, pair[0].0)).await?;
            deleted += 1;
        }
        Ok(deleted)
    }
}
