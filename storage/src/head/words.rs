//! The keys and values that the rows of a head have.
//!
//! Owns: a dictionary that is filled when first asked for: appends neither pay nor wait for it. Does not own: what is in it
//! (`index::dictionary`).
//!
//! Invariant: a row is added once, whichever question brings it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use super::rows::Rows;
use crate::error::Result;
use crate::index::dictionary::Dictionary;
use crate::signal::Table;

/// The dictionary of one head.
#[derive(Default)]
pub struct Words {
    dictionary: Mutex<Option<Dictionary>>,
    /// Rows and bytes in it.
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

impl Words {
    /// Bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Rows of a head that its dictionary may not have yet.
pub struct Spelling {
    table: Table,
    words: Arc<Words>,
    /// Each with the number of its first row.
    batches: Vec<(usize, RecordBatch)>,
}

impl Spelling {
    pub(super) fn of(table: Table, words: &Arc<Words>, rows: &Rows) -> Self {
        let known = words.rows.load(Ordering::Acquire);
        let batches = if known < rows.count() { rows.from(known) } else { Vec::new() };
        Self { table, words: Arc::clone(words), batches }
    }

    /// Calls `ask` with the dictionary of at least all rows that the head had.
    pub fn ask<R>(self, ask: impl FnOnce(&Dictionary) -> R) -> Result<R> {
        let mut held = self.words.dictionary.lock();
        let dictionary = held.get_or_insert_with(|| Dictionary::new(self.table));
        for (first, rows) in &self.batches {
            let known = usize::try_from(dictionary.rows()).unwrap_or(usize::MAX);
            let skip = known.saturating_sub(*first);
            if skip < rows.num_rows() {
                dictionary.extend_from(&rows.slice(skip, rows.num_rows() - skip))?;
            }
        }
        self.words.bytes.store(dictionary.heap_bytes(), Ordering::Relaxed);
        self.words.rows.store(usize::try_from(dictionary.rows()).unwrap_or(usize::MAX), Ordering::Release);
        Ok(ask(dictionary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::tests::traces;

    #[test]
    fn overlapping_questions_add_each_row_once() {
        let batch = |n| traces(n).facts.remove(0).1;
        let (mut rows, words) = (Rows::default(), Arc::<Words>::default());
        let ask =
            |spelling: Spelling| spelling.ask(|all| (all.rows(), all.values("attributes", "http.status").texts.len()));
        rows.push(&batch(5)).expect("fits");
        let early = Spelling::of(Table::Spans, &words, &rows);
        rows.push(&batch(7)).expect("fits");
        let late = Spelling::of(Table::Spans, &words, &rows);
        assert_eq!(ask(late).expect("answers"), (12, 7));
        assert_eq!(ask(early).expect("answers"), (12, 7), "more is fine");
        rows.push(&batch(9)).expect("fits");
        assert_eq!(ask(Spelling::of(Table::Spans, &words, &rows)).expect("answers"), (21, 9));
        assert!(Spelling::of(Table::Spans, &words, &rows).batches.is_empty());
        assert!(words.bytes() > 0);
    }
}
