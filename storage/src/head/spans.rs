//! Rows grouped by trace.
//!
//! Owns: which rows belong to which trace. Does not own: the rows (`rows`), sorting and duplicates (`selection`).

use std::collections::BTreeSet;

use arrow::array::{Array, BinaryArray, RecordBatch};
use hashbrown::HashMap;

use super::rows::Rows;
use super::{Group, Incoming, Outcome, Reserve, Selection, Wanted, days_of, times};
use crate::error::{Error, Result};
use crate::model::span::TraceId;
use crate::model::time::Day;
use crate::signal::Table;

/// Bytes of a trace beside its row numbers.
const TRACE_BYTES: usize = 64;

/// Rows by trace, in arrival order.
#[derive(Default)]
pub(super) struct Spans {
    rows: Rows,
    traces: HashMap<TraceId, Vec<u32>, ahash::RandomState>,
}

fn trace_ids(rows: &RecordBatch) -> Result<&BinaryArray> {
    rows.column_by_name("trace_id")
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or_else(|| Error::bug("spans without trace ids"))
}

/// Whether every trace id has 16 bytes.
pub(super) fn validate(rows: &RecordBatch) -> Result<()> {
    match trace_ids(rows)?.iter().flatten().find(|id| id.len() != std::mem::size_of::<TraceId>()) {
        Some(id) => Err(Error::invalid(format!("a trace id has {} bytes instead of 16", id.len()))),
        None => Ok(()),
    }
}

impl Group for Spans {
    fn insert(&mut self, incoming: &Incoming<'_>, _outcome: &mut Outcome) -> Result<()> {
        validate(incoming.rows)?;
        let first = self.rows.push(incoming.rows)?;
        for (number, id) in (first..).zip(trace_ids(incoming.rows)?) {
            if let Some(Ok(id)) = id.map(TraceId::try_from) {
                self.traces.entry(id).or_default().push(number);
            }
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.count()
    }

    fn arrived(&self) -> Option<&Rows> {
        Some(&self.rows)
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.traces.len() * TRACE_BYTES + self.rows.count() * 2 * std::mem::size_of::<u32>()
    }

    fn days(&self) -> Result<BTreeSet<Day>> {
        let mut days = BTreeSet::new();
        for rows in self.rows.iter() {
            let (times, unit) = times(Table::Spans, rows)?.unwrap_or((&[], 1));
            days_of(times, unit, &mut days);
        }
        Ok(days)
    }

    fn select(&self, wanted: &Wanted<'_>, reserve: Reserve<'_>) -> Result<Selection> {
        let mut groups: Vec<(&TraceId, &Vec<u32>)> = match wanted.traces {
            Some(ids) => ids.iter().filter_map(|id| self.traces.get_key_value(id)).collect(),
            None => self.traces.iter().collect(),
        };
        groups.sort_unstable_by_key(|(id, _)| **id);
        groups.dedup_by_key(|(id, _)| **id);
        let times: Vec<_> =
            self.rows.iter().map(|rows| Ok(times(Table::Spans, rows)?.unwrap_or((&[], 1)))).collect::<Result<_>>()?;
        let mut picked = Selection::picking(Table::Spans, &self.rows, std::iter::empty());
        for (_, list) in groups {
            let places = list.iter().map(|number| self.rows.locate(*number));
            let inside = places.filter_map(|(batch, row)| {
                let (times, unit) = times.get(batch)?;
                let time = *times.get(row)?;
                wanted.range.contains(time.saturating_mul(*unit)).then_some((time, (batch, row)))
            });
            picked.push_group(None, inside, reserve)?;
        }
        Ok(picked.finish())
    }
}
