//! Who calls whom: spans whose parent belongs to another service.
//!
//! Owns: counting calls between services. Does not own: reading traces (`eval::stream`).

use std::collections::BTreeMap;

use hashbrown::HashMap;
use storage::model::time::TimeRange;
use storage::{Context, Scan};

use super::super::Call;
use super::super::plan::Plan;
use super::reads::Reads;
use super::stream::{Window, each_trace};
use super::trace::parent_of;
use crate::error::{Error, Kind, Result};

/// Pairs of services that one answer may have.
const PAIRS_MAX: usize = 10_000;

/// The calls between different services that begin in `range`, by caller and called.
pub async fn calls(scan: &dyn Scan, range: TimeRange, context: &Context) -> Result<Vec<Call>> {
    let reads = Reads::Columns(["span_id", "parent_span_id", "service_name", "kind"].into());
    let window = Window::spans(Some(range), reads);
    let mut found: BTreeMap<(String, String), u64> = BTreeMap::new();
    each_trace(scan, &window, &Plan::default(), context, &mut |trace| {
        let mut services: HashMap<&[u8], &str, ahash::RandomState> = HashMap::default();
        for span in 0..trace.len() {
            let (columns, row) = trace.row(span);
            services.entry(columns.span_id.value(row)).or_insert(columns.service_name.value(row));
        }
        for span in 0..trace.len() {
            let (columns, row) = trace.row(span);
            let called = columns.service_name.value(row);
            let caller = parent_of(columns, row).and_then(|parent| services.get(parent).copied());
            let Some(caller) = caller.filter(|caller| *caller != called && !caller.is_empty() && !called.is_empty())
            else {
                continue;
            };
            *found.entry((caller.to_owned(), called.to_owned())).or_default() += 1;
        }
        if found.len() > PAIRS_MAX {
            return Err(Error::new(Kind::Limit, format!("more than {PAIRS_MAX} pairs of services call each other")));
        }
        Ok(())
    })
    .await?;
    Ok(found.into_iter().map(|((caller, called), count)| Call { caller, called, count }).collect())
}
