//! Postings: label name → value → the identities that have it, in memory.
//!
//! Owns: the answer to selectors. Does not own: the identities themselves.
//!
//! Invariant: the answer equals testing every matcher on every label set; a missing label equals the empty value.

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use crate::model::labels::Labels;
use crate::model::matcher::Matcher;

type Values = HashMap<String, RoaringBitmap, ahash::RandomState>;

/// Bytes of a value beside its text: the map's entry and an empty bitmap.
const VALUE_BYTES: usize = 64;
/// Bytes of one identity in one bitmap, about.
const POSTING_BYTES: usize = 3;

/// Postings over label sets that are numbered in the order they were added.
#[derive(Debug, Default)]
pub struct Postings {
    names: HashMap<String, Values, ahash::RandomState>,
    count: u32,
    bytes: usize,
}

impl Postings {
    /// Postings of a list.
    pub fn of<'a>(labels: impl Iterator<Item = &'a Labels>) -> Self {
        let mut postings = Self::default();
        postings.extend(labels);
        postings
    }

    /// Adds label sets.
    pub fn extend<'a>(&mut self, labels: impl Iterator<Item = &'a Labels>) {
        for labels in labels {
            for (name, value) in labels {
                let values = self.names.entry_ref(name).or_default();
                if !values.contains_key(value) {
                    self.bytes += VALUE_BYTES + value.len();
                }
                values.entry_ref(value).or_default().insert(self.count);
                self.bytes += POSTING_BYTES;
            }
            self.count += 1;
        }
    }

    /// How many label sets.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The numbers of the label sets that pass at least one of `selectors`.
    pub fn select(&self, selectors: &[Vec<Matcher>]) -> RoaringBitmap {
        selectors.iter().map(|matchers| self.select_one(matchers)).fold(RoaringBitmap::new(), |all, one| all | one)
    }

    fn select_one(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let mut passed: Option<RoaringBitmap> = None;
        for matcher in matchers {
            let set = self.matching(matcher);
            let both = match passed {
                Some(before) => before & set,
                None => set,
            };
            if both.is_empty() {
                return both;
            }
            passed = Some(both);
        }
        passed.unwrap_or_else(|| self.all())
    }

    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.count);
        all
    }

    fn matching(&self, matcher: &Matcher) -> RoaringBitmap {
        let Some(values) = self.names.get(matcher.name.as_str()) else {
            return if matcher.matches_empty() { self.all() } else { RoaringBitmap::new() };
        };
        let mut set = RoaringBitmap::new();
        if matcher.matches_empty() {
            // Those without the label pass too: take all and remove whose value does not.
            for bitmap in values.iter().filter_map(|(value, bitmap)| (!matcher.matches(value)).then_some(bitmap)) {
                set |= bitmap;
            }
            return self.all() - set;
        }
        match matcher.accepted() {
            Some(accepted) => {
                for bitmap in accepted.iter().filter_map(|value| values.get(*value)) {
                    set |= bitmap;
                }
            }
            None => {
                for bitmap in values.iter().filter_map(|(value, bitmap)| matcher.matches(value).then_some(bitmap)) {
                    set |= bitmap;
                }
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::matcher::MatchOp;

    fn any_labels() -> impl Strategy<Value = Labels> {
        proptest::collection::vec(("[abc]", "[xyz]{0,2}"), 0..4).prop_map(Labels::from_pairs)
    }

    fn any_matcher() -> impl Strategy<Value = Matcher> {
        let op =
            prop_oneof![Just(MatchOp::Equal), Just(MatchOp::NotEqual), Just(MatchOp::Regex), Just(MatchOp::NotRegex)];
        let value = prop_oneof!["[xyz]{0,2}", Just("x|y".to_owned()), Just("x.*".to_owned()), Just("|y".to_owned())];
        ("[abcd]", op, value).prop_map(|(name, op, value)| Matcher::new(name, op, value).expect("compiles"))
    }

    proptest! {
        #[test]
        fn postings_answer_as_testing_each_label_set_does(
            sets in proptest::collection::vec(any_labels(), 0..20),
            selectors in proptest::collection::vec(proptest::collection::vec(any_matcher(), 0..3), 1..3),
        ) {
            let postings = Postings::of(sets.iter());
            let passes = |labels: &Labels| {
                selectors.iter().any(|matchers| matchers.iter().all(|matcher| matcher.matches_labels(labels)))
            };
            let expected: Vec<u32> = (0..).zip(&sets).filter_map(|(i, labels)| passes(labels).then_some(i)).collect();
            prop_assert_eq!(postings.select(&selectors).iter().collect::<Vec<_>>(), expected);
        }
    }
}
