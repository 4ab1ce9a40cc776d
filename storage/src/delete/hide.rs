//! Leaving rows out: what of a block or a head must not be shown.
//!
//! Owns: [`Hide`], the filter over rows, which identities a selector means. Does not own: requests (`delete`), ages
//! (`retention`), who calls it.
//!
//! Identities are resolved day by day against the identity table: the identities of a day's facts are committed before
//! the facts and stay as long as these, so a matcher always finds the facts it means.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::RowTest;
use super::log::State;
use crate::error::{Error, Result};
use crate::model::identity::Identity;
use crate::model::matcher::Matcher;
use crate::model::time::{Day, NS_PER_MS, TimeRange};
use crate::signal::{Table, TimeUnit};
use crate::table::{Block, TenantTables};

/// Lists of resolved identities that are kept: days times requests of a few queries.
const RESOLVED_MAX: usize = 1024;

/// Values of an identity column.
pub(crate) type Set = HashSet<i64, ahash::RandomState>;

/// Identities by the value of their column.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    /// Only these; `None`: all.
    pub(crate) within: Option<Arc<Set>>,
    /// But none of these.
    pub(crate) without: Vec<Arc<Set>>,
}

impl Ids {
    pub(crate) fn contains(&self, id: i64) -> bool {
        self.within.as_ref().is_none_or(|set| set.contains(&id)) && !self.without.iter().any(|set| set.contains(&id))
    }
}

/// Rows that are not shown: of these identities, in this range, that pass all tests.
#[derive(Clone, Debug)]
pub(crate) struct Hide {
    pub(crate) ids: Ids,
    pub(crate) range: TimeRange,
    pub(crate) tests: Arc<[RowTest]>,
}

impl Hide {
    /// Whether it hides every row of `id` with a time in the range.
    pub(crate) fn is_whole(&self, id: i64) -> bool {
        self.tests.is_empty() && self.ids.contains(id)
    }
}

/// The rows of a batch of `table` that none of `hides` hides.
pub(crate) fn visible_rows(table: Table, rows: RecordBatch, hides: &[Hide]) -> Result<RecordBatch> {
    if hides.is_empty() || rows.num_rows() == 0 {
        return Ok(rows);
    }
    let spec = table.spec();
    let (Some(identity), Some((time, unit))) = (spec.identity, spec.time) else { return Ok(rows) };
    let lacks = |name: &str| Error::bug(format!("rows of `{}` lack the column `{name}`", spec.name));
    let long = |name: &str| rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let ids = long(identity).ok_or_else(|| lacks(identity))?.values();
    let times = long(time).ok_or_else(|| lacks(time))?.values();
    let factor = if unit == TimeUnit::Ms { NS_PER_MS } else { 1 };
    let mut shown = vec![true; rows.num_rows()];
    for hide in hides {
        let columns: Vec<_> = hide.tests.iter().map(|test| rows.column_by_name(test.column)).collect();
        let mut columns_of_text = Vec::with_capacity(columns.len());
        for (column, test) in columns.into_iter().zip(hide.tests.iter()) {
            let text = column.and_then(|column| column.as_string_opt::<i32>()).ok_or_else(|| lacks(test.column))?;
            columns_of_text.push((text, test));
        }
        let mut before: Option<(i64, bool)> = None;
        for (row, shown) in shown.iter_mut().enumerate().filter(|(_, shown)| **shown) {
            let of_these = match before {
                Some((id, of_these)) if id == ids[row] => of_these,
                _ => hide.ids.contains(ids[row]),
            };
            before = Some((ids[row], of_these));
            let passes = || {
                columns_of_text.iter().all(|(text, test)| {
                    let text = if text.is_null(row) { "" } else { text.value(row) };
                    test.passes(text)
                })
            };
            *shown = !(of_these && hide.range.contains(times[row].saturating_mul(factor)) && passes());
        }
    }
    if shown.iter().all(|shown| *shown) {
        return Ok(rows);
    }
    let mask = BooleanBuffer::collect_bool(shown.len(), |row| shown[row]);
    Ok(filter_record_batch(&rows, &BooleanArray::new(mask, None))?)
}

/// What one selector means on one day: the list it was asked of, and who passed.
type Meaning = (Arc<Vec<Identity>>, Arc<Set>);

/// What selectors mean on days, so that scan after scan need not test them again.
#[derive(Debug, Default)]
pub(crate) struct Resolved(Mutex<HashMap<(u64, Day), Meaning, ahash::RandomState>>);

impl Resolved {
    /// Of `list`, the identities of `day`, those that pass one of `selectors`, which `key` names.
    pub(crate) fn ids(&self, key: u64, day: Day, list: &Arc<Vec<Identity>>, selectors: &[Vec<Matcher>]) -> Arc<Set> {
        let mut kept = self.0.lock();
        if let Some((of, ids)) = kept.get(&(key, day))
            && Arc::ptr_eq(of, list)
        {
            return Arc::clone(ids);
        }
        let passes = |identity: &&Identity| {
            selectors.iter().any(|matchers| matchers.iter().all(|m| m.matches_labels(&identity.labels)))
        };
        let ids: Set = list.iter().filter(passes).map(|identity| identity.id.to_column()).collect();
        let ids = Arc::new(ids);
        if kept.len() >= RESOLVED_MAX {
            kept.clear();
        }
        kept.insert((key, day), (Arc::clone(list), Arc::clone(&ids)));
        ids
    }
}

/// What delete requests hide of the block.
pub(crate) async fn deleted_of(
    tables: &Arc<TenantTables>,
    state: &State,
    table: Table,
    block: &Block,
) -> Result<Vec<Hide>> {
    let mut hides = Vec::new();
    for kept in state.applying(table, block) {
        let request = &kept.deletion.request;
        let list = tables.identities(table.signal(), (block.day, block.day)).await?;
        let ids = tables.deletes().resolved().ids(kept.sequence, block.day, &list, &request.selectors);
        if !ids.is_empty() {
            let tests = request.tests.clone().into();
            let ids = Ids { within: Some(ids), without: Vec::new() };
            hides.push(Hide { ids, range: request.range, tests });
        }
    }
    Ok(hides)
}
