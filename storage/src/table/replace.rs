//! Replacing blocks by others in one commit: what compaction and deletion do.
//!
//! Owns: which blocks may take the place of which, and whether a replacement still stands. Does not own: the entry in
//! the log (`log`), the rows (whoever writes the new blocks).
//!
//! Invariants
//! 1. A replacement lands only if each block that it removes is still visible: nothing is lost, nothing comes twice.
//! 2. New blocks cover the places of those that they replace, which are neighbours in the order of their day. So of
//!    equal rows the older one stays after a compaction as it did before: a block that is not replaced lies before all
//!    of them or behind all of them.
//! 3. A change of layout leaves the range of times as it is and adds no rows.

use std::sync::Arc;

use deltalake_core::kernel::Action;
use deltalake_core::protocol::DeltaOperation;
use hashbrown::HashSet;

use super::snapshot::{Block, NewBlock, Order, Snapshot};
use crate::error::{Error, Result};
use crate::signal::Table;

/// Blocks of one day that are neighbours in its order, and those that take their place.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Visible blocks.
    pub removed: Vec<Arc<Block>>,
    /// Blocks of the same day without common rows; none when all rows go.
    pub added: Vec<NewBlock>,
}

/// Why blocks are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacing {
    /// The same rows in other files: whoever follows the table's changes need not look.
    Layout,
    /// Rows go.
    Rows,
}

/// How a replacement ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Replaced {
    /// It is visible.
    Done,
    /// Blocks that it wanted to remove are gone, since another compaction or deletion was faster, or a delete request
    /// covers them. Nothing changed; look at the new snapshot and begin again. The paths of these blocks.
    Conflict(Vec<String>),
}

impl Replacing {
    fn rows_change(self) -> bool {
        self == Self::Rows
    }

    /// How the log calls it.
    pub(super) fn operation(self) -> DeltaOperation {
        match self {
            Self::Layout => DeltaOperation::Optimize { predicate: None, target_size: 0 },
            Self::Rows => DeltaOperation::Delete { predicate: None },
        }
    }
}

/// What must hold of replacements whatever the table holds.
pub(super) fn check(table: Table, replacements: &[Replacement], replacing: Replacing) -> Result<()> {
    let wrong = |what: &str| Err(Error::bug(format!("a replacement in the table `{}` {what}", table.name())));
    let mut removed = HashSet::new();
    for replacement in replacements {
        let Some(day) = replacement.removed.first().map(|block| block.day) else { return wrong("removes nothing") };
        let days = replacement.removed.iter().map(|block| block.day);
        if days.chain(replacement.added.iter().map(|new| new.block.day)).any(|other| other != day) {
            return wrong("mixes days");
        }
        if !replacement.removed.iter().all(|block| removed.insert(block.path.as_str())) {
            return wrong("removes a block twice");
        }
        let old = replacement.removed.iter().map(AsRef::as_ref);
        let new = replacement.added.iter().map(|new| &new.block);
        let rows_before: u64 = old.clone().map(|block| block.rows).sum();
        let rows_after: u64 = new.clone().map(|block| block.rows).sum();
        if rows_after > rows_before {
            return wrong(&format!("makes {rows_after} rows of {rows_before}"));
        }
        let known = times(old.clone());
        if replacing == Replacing::Layout && known.is_some() && known != times(new.clone()) {
            return wrong(&format!("makes the times {:?} of {known:?}", times(new)));
        }
    }
    Ok(())
}

/// First and last time of blocks; `None` if one of them does not know.
fn times<'a>(blocks: impl Iterator<Item = &'a Block>) -> Option<(i64, i64)> {
    let mut all: Option<(i64, i64)> = None;
    for block in blocks {
        let (first, last) = block.times?;
        all = Some(all.map_or((first, last), |(from, to)| (from.min(first), to.max(last))));
    }
    all
}

/// Which of the blocks to be removed are gone from `snapshot`; `None` if the replacements landed already.
pub(super) fn standing(snapshot: &Snapshot, replacements: &[Replacement]) -> Result<Option<Vec<String>>> {
    let visible: HashSet<&str> = snapshot.blocks.iter().map(|block| block.path.as_str()).collect();
    let removed = || replacements.iter().flat_map(|replacement| &replacement.removed);
    let mut added = replacements.iter().flat_map(|replacement| &replacement.added).peekable();
    let gone: Vec<String> =
        removed().filter(|block| !visible.contains(block.path.as_str())).map(|block| block.path.clone()).collect();
    let landed = match added.peek() {
        Some(_) => added.all(|new| visible.contains(new.block.path.as_str())),
        None => gone.len() == removed().count(),
    };
    if landed {
        return Ok(None);
    }
    if gone.is_empty() {
        replacements.iter().try_for_each(|replacement| neighbours(snapshot, replacement))?;
    }
    Ok(Some(gone))
}

/// Fails unless the blocks to be removed follow each other in the order of their day.
fn neighbours(snapshot: &Snapshot, replacement: &Replacement) -> Result<()> {
    let day = replacement.removed.first().map(|block| block.day);
    let removed: HashSet<&str> = replacement.removed.iter().map(|block| block.path.as_str()).collect();
    let of_day = snapshot.blocks.iter().filter(|block| Some(block.day) == day);
    let rest = of_day.skip_while(|block| !removed.contains(block.path.as_str()));
    let run = rest.take_while(|block| removed.contains(block.path.as_str())).count();
    if run < removed.len() && !replacement.added.is_empty() {
        let text = format!("blocks of `{}` that are no neighbours cannot become one", snapshot.table.name());
        return Err(Error::bug(text));
    }
    Ok(())
}

/// The actions of the entry.
pub(super) fn actions(table: Table, replacements: &[Replacement], replacing: Replacing, now_ms: i64) -> Vec<Action> {
    let change = replacing.rows_change();
    let mut actions = Vec::new();
    for replacement in replacements {
        let order = Order::over(replacement.removed.iter().map(AsRef::as_ref));
        actions.extend(replacement.removed.iter().map(|block| Action::Remove(block.remove(change, now_ms))));
        actions.extend(replacement.added.iter().map(|new| Action::Add(new.add(table, order, change))));
    }
    actions
}
