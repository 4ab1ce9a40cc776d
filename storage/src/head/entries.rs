//! Rows grouped by stream or series: log entries, histograms, exemplars.
//!
//! Owns: which rows belong to which identity. Does not own: the rows (`rows`), sorting and duplicates
//! (`selection`).

use std::collections::BTreeSet;

use super::rows::Rows;
use super::{Group, Incoming, Outcome, Reserve, Selection, Wanted, days_of, times};
use crate::error::Result;
use crate::model::time::Day;
use crate::signal::Table;

/// Rows by identity, in arrival order.
pub(super) struct Entries {
    table: Table,
    rows: Rows,
    /// Row numbers by ordinal.
    lists: Vec<Vec<u32>>,
    lists_bytes: usize,
}

impl Entries {
    pub(super) fn new(table: Table) -> Self {
        Self { table, rows: Rows::default(), lists: Vec::new(), lists_bytes: 0 }
    }
}

impl Group for Entries {
    fn insert(&mut self, incoming: &Incoming<'_>, _outcome: &mut Outcome) -> Result<()> {
        let first = self.rows.push(incoming.rows)?;
        for (number, ordinal) in (first..).zip(incoming.ordinals) {
            let place = usize::try_from(*ordinal).unwrap_or(usize::MAX);
            if place >= self.lists.len() {
                self.lists_bytes += (place + 1 - self.lists.len()) * std::mem::size_of::<Vec<u32>>();
                self.lists.resize_with(place + 1, Vec::new);
            }
            self.lists[place].push(number);
        }
        self.lists_bytes += incoming.ordinals.len() * 2 * std::mem::size_of::<u32>();
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows.count()
    }

    fn arrived(&self) -> Option<&Rows> {
        Some(&self.rows)
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.lists_bytes
    }

    fn days(&self) -> Result<BTreeSet<Day>> {
        let mut days = BTreeSet::new();
        for rows in self.rows.iter() {
            let (times, unit) = times(self.table, rows)?.unwrap_or((&[], 1));
            days_of(times, unit, &mut days);
        }
        Ok(days)
    }

    fn select(&self, wanted: &Wanted<'_>, reserve: Reserve<'_>) -> Result<Selection> {
        let times: Vec<_> =
            self.rows.iter().map(|rows| Ok(times(self.table, rows)?.unwrap_or((&[], 1)))).collect::<Result<_>>()?;
        let mut picked = Selection::picking(self.table, &self.rows, wanted.identities.iter().map(|(_, id)| *id));
        for (ordinal, id) in wanted.identities {
            let Some(list) = usize::try_from(*ordinal).ok().and_then(|place| self.lists.get(place)) else { continue };
            let places = list.iter().map(|number| self.rows.locate(*number));
            let inside = places.filter_map(|(batch, row)| {
                let (times, unit) = times.get(batch)?;
                let time = *times.get(row)?;
                wanted.range.contains(time.saturating_mul(*unit)).then_some((time, (batch, row)))
            });
            picked.push_group(Some(id.to_column()), inside, reserve)?;
        }
        Ok(picked.finish())
    }
}
