//! Vector matching: which elements of two vectors are partners, and what labels a result has.

use indexmap::IndexMap;
use storage::model::labels::{Labels, METRIC_NAME};

use super::super::ast::{BinaryOp, Cardinality, Matching};
use super::value::Series;

/// Elements of both sides that share a match key, by index.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Of the side where several may match.
    pub many: Vec<usize>,
    /// Of the side where one may match.
    pub one: Vec<usize>,
}

pub(super) type Groups = IndexMap<Labels, Group, ahash::RandomState>;

/// The labels by which an element finds its partner.
pub(super) fn key(labels: &Labels, matching: &Matching) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.on {
        labels.without(|name| !named(name))
    } else {
        labels.without(|name| name == METRIC_NAME || named(name))
    }
}

/// Groups both sides, in the order of the many side, then of the other.
pub(super) fn groups(many: &[Series], one: &[Series], matching: &Matching) -> Groups {
    let mut groups = Groups::default();
    for (i, series) in many.iter().enumerate() {
        groups.entry(key(&series.labels, matching)).or_default().many.push(i);
    }
    for (i, series) in one.iter().enumerate() {
        groups.entry(key(&series.labels, matching)).or_default().one.push(i);
    }
    groups
}

/// The labels of the result of `many` and `one`; the name is dropped elsewhere.
pub(super) fn result_labels(many: &Labels, one: Option<&Labels>, matching: &Matching) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    let mut labels = many.clone();
    if matching.cardinality == Cardinality::OneToOne {
        labels = if matching.on { labels.without(|name| !named(name)) } else { labels.without(named) };
    }
    for name in &matching.include {
        if let Some(one) = one {
            labels = labels.with(name, one.get(name).unwrap_or(""));
        }
    }
    labels
}

/// Whether the result of `op` is about another quantity than its operands.
pub(super) fn drops_name(op: BinaryOp, bool_modifier: bool) -> bool {
    let trims = matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
    bool_modifier || !(op.is_comparison() || op.is_set() || trims)
}

/// The error of two elements of the one side that share a key.
pub(super) fn duplicate(key: &Labels, a: &Labels, b: &Labels, matching: &Matching) -> String {
    let side = if matching.cardinality == Cardinality::OneToMany { "left" } else { "right" };
    format!(
        "found duplicate series for the match group {key} on the {side} hand-side of the operation: [{a}, {b}];\
         many-to-many matching not allowed: matching labels must be unique on one side"
    )
}
