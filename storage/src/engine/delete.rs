//! Delete requests of an engine: made, listed, taken back.
//!
//! Owns: what a request covers. Does not own: its form and its durability (`delete`), what scans make of it (`visible`),
//! the rewriting of blocks (`retain`).
//!
//! Invariants
//! 1. All rows acknowledged before the call are in committed blocks when the request is made, so the blocks of that
//!    moment are all it has to cover: the heads and the WAL hold only younger rows.
//! 2. No flush commits between the choice of blocks and the request, and what flushes know as written is forgotten: rows
//!    that arrive later write their identities again.

use std::sync::Arc;

use super::{Engine, REFRESH_PATIENCE};
use crate::clock::unique_id;
use crate::delete::{DeleteRequest, Deletion};
use crate::error::{Error, Kind, Result};
use crate::model::tenant::Tenant;
use crate::model::time::TimeRange;
use crate::signal::{Signal, Table};
use crate::store::{Cause, because};
use crate::table::{Block, TenantTables};

/// The tables whose rows a request of `signal` means: facts that have an identity and a time.
pub(super) fn deletable(signal: Signal) -> impl Iterator<Item = Table> {
    let has_both = |table: &Table| table.spec().identity.is_some() && table.spec().time.is_some();
    signal.spec().facts.iter().copied().filter(has_both)
}

impl Engine {
    /// Hides the rows that are stored now and that `request` means from every answer, and has them removed from the
    /// blocks by and by; the id of the request. Durable when it returns.
    pub async fn delete(self: &Arc<Self>, tenant: &Tenant, request: DeleteRequest) -> Result<String> {
        request.check()?;
        self.check_writable()?;
        let (engine, tenant) = (Arc::clone(self), tenant.clone());
        // On a task of its own, so that a caller who goes away does not stop it half-way.
        let work = async move { engine.make_request(&tenant, &request).await };
        tokio::spawn(work).await.map_err(|cause| Error::bug("a delete request ended in a panic").with_source(cause))?
    }

    async fn make_request(&self, tenant: &Tenant, request: &DeleteRequest) -> Result<String> {
        let lane = self.lane(request.signal);
        self.flush_lane(lane).await?;
        let mut flush = lane.flush.lock().await;
        flush.forget_written(tenant);
        let tables = self.reader.written(tenant);
        let (id, now) = (unique_id().to_string(), self.clock.now().0);
        let (tables, id, request) = (&tables, &id, request);
        let made = tables.deletes().step(|state| async move {
            let blocks = covered(tables, request).await?;
            state.with(request, &blocks, id, now).map(Some)
        });
        made.await?;
        self.upkeep.deletes_made.add(1);
        tracing::info!(%tenant, signal = request.signal.name(), id, request = request.text, "a delete request was made");
        Ok(id.clone())
    }

    /// The delete requests of a tenant, oldest first; those that are done are listed for a while.
    pub async fn deletions(&self, tenant: &Tenant) -> Result<Vec<Deletion>> {
        let tables = self.tables(tenant);
        self.refresh_deletes(&tables).await?;
        let state = tables.deletes().state().await?;
        Ok(state.requests.iter().map(|kept| kept.deletion.clone()).collect())
    }

    /// Takes the request `id` back: rows that are not removed yet are shown again. [`Kind::Invalid`] if there is none.
    pub async fn cancel_delete(self: &Arc<Self>, tenant: &Tenant, id: &str) -> Result<()> {
        self.check_writable()?;
        let (engine, tenant, id) = (Arc::clone(self), tenant.clone(), id.to_owned());
        let work = async move {
            let tables = engine.reader.written(&tenant);
            let without = |state: Arc<crate::delete::State>| {
                let next = state
                    .without(&id)
                    .ok_or_else(|| Error::new(Kind::Invalid, format!("there is no delete request `{id}`")));
                std::future::ready(next.map(Some))
            };
            tables.deletes().step(without).await.map(|_| ())
        };
        tokio::spawn(work).await.map_err(|cause| Error::bug("a cancellation ended in a panic").with_source(cause))?
    }

    /// Looks for requests of other processes if the last look is too old. As for commits, one that writes goes on while
    /// the store does not answer.
    pub(super) async fn refresh_deletes(&self, tables: &TenantTables) -> Result<()> {
        let look = because(Cause::Refresh, tables.deletes().refresh(self.config.refresh_age_max));
        if self.config.read_only || !tables.deletes().is_loaded() {
            return look.await;
        }
        let late = |_| Error::new(Kind::Unavailable, "the store did not answer soon");
        match tokio::time::timeout(REFRESH_PATIENCE, look).await.map_err(late).flatten() {
            Err(error) if error.kind() == Kind::Unavailable => {
                tracing::warn!(%error, "delete requests of other processes, if there are any, are not seen yet");
                Ok(())
            }
            looked => looked,
        }
    }
}

/// The visible blocks that may hold rows of `request`, and those of their identities.
async fn covered(tables: &Arc<TenantTables>, request: &DeleteRequest) -> Result<Vec<(Table, Vec<Arc<Block>>)>> {
    let Some(days) = request.range.days() else { return Ok(Vec::new()) };
    let mut covered = Vec::new();
    let all = deletable(request.signal).chain([request.signal.spec().identities]);
    for table in all {
        let snapshot = tables.refresh(table).await?;
        let blocks = snapshot.blocks.iter().filter(|block| may_hold(block, days, request.range));
        covered.push((table, blocks.cloned().collect()));
    }
    Ok(covered)
}

fn may_hold(block: &Block, days: (crate::model::time::Day, crate::model::time::Day), range: TimeRange) -> bool {
    days.0 <= block.day && block.day <= days.1 && block.times.is_none_or(|(first, last)| range.overlaps(first, last))
}
