//! The identities of one head: labels by id, the times of their facts, and their postings.
//!
//! Owns: ordinals (places in arrival order) and extents. Does not own: how postings answer matchers (`postings`),
//! which identities the tables already have (`written`).
//!
//! Invariant: one id has one label set; another with the same id is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::postings::Postings;
use super::times;
use crate::error::{Error, Kind, Result};
use crate::model::columns::longs;
use crate::model::identity::{Identity, IdentityId};
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::time::TimeRange;
use crate::signal::Table;
use crate::wal::writer::collision;

/// The identities of one head.
#[derive(Default)]
pub struct Identities {
    by_id: HashMap<IdentityId, u32, ahash::RandomState>,
    entries: Vec<Known>,
    bytes: usize,
    index: Arc<Index>,
}

/// Postings that are filled when first asked for: appends neither pay nor wait for it.
#[derive(Default)]
struct Index {
    postings: Mutex<Postings>,
    /// Identities and bytes in it.
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// What must be known to tell which identities pass selectors.
pub struct Question {
    index: Arc<Index>,
    /// Labels from this ordinal on that were not indexed yet.
    from: usize,
    labels: Vec<Labels>,
}

/// The ordinals of the identities that pass.
pub struct Answer {
    index: Arc<Index>,
    passed: RoaringBitmap,
}

impl Question {
    /// Tests the selectors. Long: regular expressions meet every value of their label.
    pub fn ask(self, selectors: &[Vec<Matcher>]) -> Answer {
        let Self { index, from, labels } = self;
        let mut postings = index.postings.lock();
        // Another question may have brought some of them meanwhile.
        let known = postings.len().saturating_sub(from);
        postings.extend(labels.iter().skip(known));
        index.count.store(postings.len(), Ordering::Release);
        index.bytes.store(postings.bytes(), Ordering::Relaxed);
        let passed = postings.select(selectors);
        drop(postings);
        Answer { index, passed }
    }
}

struct Known {
    identity: Identity,
    /// First and last time of a fact in nanoseconds; the first is later while there is none.
    first: i64,
    last: i64,
}

/// Bytes of an identity beside its labels: the entry, its place in the map, the handle.
const ENTRY_BYTES: usize = std::mem::size_of::<Known>() + 24;

impl Identities {
    /// Takes `identity` in; its ordinal.
    pub fn add(&mut self, identity: &Identity) -> Result<u32> {
        match self.by_id.entry(identity.id) {
            Entry::Occupied(held) => {
                let ordinal = *held.get();
                self.check(identity)?;
                Ok(ordinal)
            }
            Entry::Vacant(place) => {
                let ordinal = u32::try_from(self.entries.len()).map_err(|_| {
                    Error::new(Kind::Busy, "the head holds 2^32 identities: retry after the next flush")
                })?;
                place.insert(ordinal);
                self.bytes += ENTRY_BYTES + identity.labels.heap_bytes();
                self.entries.push(Known { identity: identity.clone(), first: i64::MAX, last: i64::MIN });
                Ok(ordinal)
            }
        }
    }

    /// Refuses an identity whose id is held with other labels.
    pub fn check(&self, identity: &Identity) -> Result<()> {
        match self.ordinal(identity.id).and_then(|ordinal| self.get(ordinal)) {
            Some(held) if held.labels != identity.labels => Err(collision(&identity.labels, &held.labels)),
            _ => Ok(()),
        }
    }

    /// The ordinal of `id`.
    pub fn ordinal(&self, id: IdentityId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The identity at `ordinal`.
    pub fn get(&self, ordinal: u32) -> Option<&Identity> {
        Some(&self.entries.get(usize::try_from(ordinal).ok()?)?.identity)
    }

    /// The id at `ordinal`.
    pub fn id(&self, ordinal: u32) -> Option<IdentityId> {
        self.get(ordinal).map(|identity| identity.id)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.index.bytes.load(Ordering::Relaxed)
    }

    /// The ordinal of each row's identity (none for tables without identities); widens the identities' extents.
    pub(super) fn touch(&mut self, table: Table, rows: &RecordBatch) -> Result<Vec<u32>> {
        let Some(column) = table.spec().identity else { return Ok(Vec::new()) };
        let ids = longs(rows, column)?.values();
        let Some((times, unit)) = times(table, rows)? else { return Ok(Vec::new()) };
        let mut ordinals = Vec::with_capacity(ids.len());
        // Senders group their rows: the identity of the row before is the best guess.
        let mut before: Option<(i64, u32)> = None;
        for (id, time) in ids.iter().zip(times) {
            let ordinal = match before {
                Some((same, ordinal)) if same == *id => ordinal,
                _ => self
                    .ordinal(IdentityId::from_column(*id))
                    .ok_or_else(|| Error::bug("a row names an identity that its batch does not have"))?,
            };
            before = Some((*id, ordinal));
            if let Some(known) = usize::try_from(ordinal).ok().and_then(|i| self.entries.get_mut(i)) {
                let ns = time.saturating_mul(unit);
                known.first = known.first.min(ns);
                known.last = known.last.max(ns);
            }
            ordinals.push(ordinal);
        }
        Ok(ordinals)
    }

    /// All identities in order of their labels.
    pub(super) fn sorted(&self) -> Vec<(u32, IdentityId)> {
        let mut order: Vec<&Known> = self.entries.iter().collect();
        order.sort_by(|a, b| a.identity.labels.cmp(&b.identity.labels));
        order.iter().filter_map(|known| Some((self.ordinal(known.identity.id)?, known.identity.id))).collect()
    }

    /// Whether an identity may have facts in `range`.
    pub fn any_in(&self, range: TimeRange) -> bool {
        self.entries.iter().any(|known| known.first <= known.last && range.overlaps(known.first, known.last))
    }

    /// See [`super::TenantHead::question`].
    pub fn question(&self) -> Question {
        let from = self.index.count.load(Ordering::Acquire);
        let labels = self.entries.iter().skip(from).map(|known| known.identity.labels.clone()).collect();
        Question { index: Arc::clone(&self.index), from, labels }
    }

    /// See [`super::TenantHead::matching`].
    pub fn matching(&self, answer: Option<&Answer>, range: TimeRange) -> Vec<Identity> {
        let in_range = |known: &&Known| known.first <= known.last && range.overlaps(known.first, known.last);
        let Some(answer) = answer else {
            return self.entries.iter().filter(in_range).map(|known| known.identity.clone()).collect();
        };
        if !Arc::ptr_eq(&answer.index, &self.index) {
            return Vec::new();
        }
        let known = answer.passed.iter().filter_map(|i| self.entries.get(usize::try_from(i).ok()?));
        known.filter(in_range).map(|known| known.identity.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matcher::MatchOp;

    fn identity(i: usize) -> Identity {
        Identity::from(Labels::from_pairs([("i", i.to_string())]))
    }

    fn add(identities: &mut Identities, range: std::ops::Range<usize>) {
        for i in range {
            let ordinal = identities.add(&identity(i)).expect("fits");
            let known = &mut identities.entries[usize::try_from(ordinal).expect("fits")];
            (known.first, known.last) = (0, 1);
        }
    }

    #[test]
    fn questions_that_overlap_are_answered_each_as_of_its_time() {
        let selectors = [vec![Matcher::new("i", MatchOp::Regex, "[0-9]*[02468]").expect("compiles")]];
        let mut identities = Identities::default();
        add(&mut identities, 0..10);
        let early = identities.question();
        add(&mut identities, 10..20);
        let late = identities.question();
        // The later one brings the labels of both into the index.
        let late = late.ask(&selectors);
        add(&mut identities, 20..30);
        let early = early.ask(&selectors);
        let names = |answer: &Answer| {
            let found = identities.matching(Some(answer), TimeRange::ALL);
            found
                .iter()
                .map(|identity| identity.labels.get("i").unwrap_or("").parse().unwrap_or(99))
                .collect::<Vec<_>>()
        };
        let even = |end: usize| (0..end).step_by(2).collect::<Vec<usize>>();
        assert_eq!(names(&late), even(20));
        assert_eq!(names(&early), even(20), "more is fine: it is fixed when the rows are taken");
        let again = identities.question().ask(&selectors);
        assert_eq!(names(&again), even(30));
        assert!(Identities::default().matching(Some(&again), TimeRange::ALL).is_empty(), "of another head");
        assert_eq!(identities.index.count.load(Ordering::Relaxed), 30);
    }
}
