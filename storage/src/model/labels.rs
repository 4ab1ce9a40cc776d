//! Labels: a sorted, unique set of name–value pairs in one allocation, with a stable 64-bit identity.
//!
//! Owns: the encoding and its hash. The encoding is one string: for each pair, in bytewise order of names, the
//! length of the name, the name, the length of the value, the value. A length is a base-64 varint of ASCII
//! bytes (six bits each, low first, bit 6 says that more follow), so that the whole stays valid UTF-8.
//!
//! Invariants
//! 1. Names ascend strictly; names and values are not empty.
//! 2. The hash depends on the pairs only; it is written to disk and must never change.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::identity::IdentityId;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A sorted set of labels. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<str>);

impl Labels {
    /// No labels.
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// Sorts `pairs`, drops empty values and names. Of pairs with the same name the first stays; use
    /// [`Labels::try_from_pairs`] where a duplicate is an error.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut list: Vec<(N, V)> =
            pairs.into_iter().filter(|(name, value)| !name.as_ref().is_empty() && !value.as_ref().is_empty()).collect();
        list.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        list.dedup_by(|later, earlier| later.0.as_ref() == earlier.0.as_ref());
        Self::encode(&list)
    }

    /// As [`Labels::from_pairs`], but a repeated name is returned as the error.
    pub fn try_from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, String> {
        let mut list: Vec<(N, V)> = pairs.into_iter().collect();
        list.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        if let Some(pair) = list.windows(2).find(|pair| pair[0].0.as_ref() == pair[1].0.as_ref()) {
            return Err(pair[0].0.as_ref().to_owned());
        }
        list.retain(|(name, value)| !name.as_ref().is_empty() && !value.as_ref().is_empty());
        Ok(Self::encode(&list))
    }

    /// From pairs that already stand as invariant 1 says; others go through [`Labels::from_pairs`].
    pub fn from_sorted(pairs: &[(&str, &str)]) -> Self {
        let ascending = pairs.is_sorted_by(|a, b| a.0 < b.0);
        if ascending && pairs.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()) {
            Self::encode(pairs)
        } else {
            Self::from_pairs(pairs.iter().copied())
        }
    }

    fn encode<N: AsRef<str>, V: AsRef<str>>(sorted: &[(N, V)]) -> Self {
        let bytes = sorted.iter().map(|(n, v)| n.as_ref().len() + v.as_ref().len() + 4).sum();
        let mut text = String::with_capacity(bytes);
        for (name, value) in sorted {
            push_part(&mut text, name.as_ref());
            push_part(&mut text, value.as_ref());
        }
        Self(text.into())
    }

    /// The pairs in order of names.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    /// The value of `name`, or `None`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(n, v)| (n == name).then_some(v))
    }

    /// The metric name, or "".
    pub fn metric(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// How many pairs.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes this set takes in memory, besides the handle.
    pub fn heap_bytes(&self) -> usize {
        self.0.len() + 2 * std::mem::size_of::<usize>()
    }

    /// The stable identity: XXH3-64 of the encoding.
    pub fn id(&self) -> IdentityId {
        IdentityId(xxh3_64(self.0.as_bytes()))
    }

    /// The encoding itself, for records on disk.
    pub fn as_encoded(&self) -> &str {
        &self.0
    }

    /// Reads an encoding back, checking invariant 1; `None` if it is damaged.
    pub fn from_encoded(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut last: Option<&str> = None;
        while !rest.is_empty() {
            let name = take_part(&mut rest)?;
            let value = take_part(&mut rest)?;
            if name.is_empty() || value.is_empty() || last.is_some_and(|last| last >= name) {
                return None;
            }
            last = Some(name);
        }
        Some(Self(text.into()))
    }

    /// These labels with `name` set to `value`; an empty value removes it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let others = self.iter().filter(|(n, _)| *n != name);
        Self::from_pairs(others.chain(std::iter::once((name, value))))
    }

    /// These labels without those for which `drop` says so.
    #[must_use]
    pub fn without(&self, mut drop: impl FnMut(&str) -> bool) -> Self {
        let kept: Vec<(&str, &str)> = self.iter().filter(|(name, _)| !drop(name)).collect();
        Self::encode(&kept)
    }
}

fn push_part(text: &mut String, part: &str) {
    let mut len = part.len();
    loop {
        let low = u8::try_from(len & 0x3f).unwrap_or(0);
        len >>= 6;
        if len == 0 {
            text.push(char::from(low));
            break;
        }
        text.push(char::from(low | 0x40));
    }
    text.push_str(part);
}

fn take_part<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let mut len = 0usize;
    let mut shift = 0u32;
    let mut used = 0usize;
    for byte in rest.bytes() {
        used += 1;
        if byte >= 0x80 || shift > 30 {
            return None;
        }
        len |= usize::from(byte & 0x3f) << shift;
        shift += 6;
        if byte & 0x40 == 0 {
            // One set has one encoding: a length is never padded.
            if byte == 0 && used > 1 {
                return None;
            }
            let part = rest.get(used..used.checked_add(len)?)?;
            *rest = &rest[used + len..];
            return Some(part);
        }
    }
    None
}

/// Iterates the pairs of [`Labels`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name = take_part(&mut self.rest)?;
        Some((name, take_part(&mut self.rest)?))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.id().0);
    }
}

/// Label by label, name then value; of two sets of which one begins the other, the shorter comes first.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As Prometheus prints label sets: `{a="b", c="d"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_sorted_unique_and_never_empty() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("b", "3"), ("", "x")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(Labels::try_from_pairs([("a", "1"), ("a", "2")]), Err("a".to_owned()));
        assert_eq!(Labels::from_sorted(&[("a", "1"), ("b", "2")]), labels);
        assert_eq!(Labels::from_sorted(&[("b", "2"), ("a", "1"), ("c", "")]), labels);
    }

    #[test]
    fn the_identity_is_pinned_because_it_is_on_disk() {
        // XXH3-64 of the bytes 08 "__name__" 02 "up" 03 "job" 01 "x", computed with Python's xxhash 3.
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "x")]);
        assert_eq!(labels.as_encoded(), "\u{8}__name__\u{2}up\u{3}job\u{1}x");
        assert_eq!(labels.id(), IdentityId(PINNED));
    }

    const PINNED: u64 = 16972462233062735839;

    #[test]
    fn order_is_by_pairs_and_the_shorter_is_first() {
        let a = Labels::from_pairs([("a", "1")]);
        let ab = Labels::from_pairs([("a", "1"), ("b", "1")]);
        let b = Labels::from_pairs([("b", "1")]);
        assert!(Labels::empty() < a && a < ab && ab < b);
    }

    #[test]
    fn a_padded_length_is_damage() {
        assert_eq!(Labels::from_encoded("\u{1}a\u{1}b"), Some(Labels::from_pairs([("a", "b")])));
        assert_eq!(Labels::from_encoded("\u{1}a\u{41}\0b"), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(pairs in proptest::collection::btree_map("\\PC{1,80}", "\\PC{1,200}", 0..12)) {
            let labels = Labels::from_pairs(&pairs);
            let back: Vec<_> = labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(back, pairs.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Labels::from_encoded(labels.as_encoded()), Some(labels));
        }

        #[test]
        fn damage_is_found_or_harmless(text in "\\PC{0,40}") {
            if let Some(labels) = Labels::from_encoded(&text) {
                let names: Vec<_> = labels.iter().map(|(n, _)| n).collect();
                prop_assert!(names.windows(2).all(|w| w[0] < w[1]));
            }
        }
    }
}
