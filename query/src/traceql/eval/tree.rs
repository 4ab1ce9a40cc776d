//! The tree of a trace's spans with its nested-set numbers.
//!
//! Owns: who is whose parent, the numbering, and the relations between sets of spans. Nothing here recurses: a trace
//! may be a chain of any length.
//!
//! Invariants
//! 1. Roots come first, then spans whose parent is missing, each subtree numbered depth first from 1 on.
//! 2. Spans on a cycle of parents belong to no subtree: their numbers are 0 and they stand in no relation.

use super::super::ast::{Keep, Relation};
use super::trace::{Trace, parent_of};

/// No span.
const NONE: u32 = u32::MAX;
/// OTLP's numbers of kinds that answer a call: of spans that share an id they are the ones with children.
const ANSWERING: [i32; 2] = [2, 5];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    Orphan,
    Child,
    Unreached,
}

/// The tree of one trace; spans are numbered as in the trace.
#[derive(Debug)]
pub struct Tree {
    parent: Vec<u32>,
    place: Vec<Place>,
    left: Vec<u32>,
    right: Vec<u32>,
    children: Vec<u32>,
    /// Reached spans, parents before their children.
    order: Vec<u32>,
}

fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(NONE)
}

impl Tree {
    /// Builds the tree of `trace`.
    pub fn of(trace: &Trace<'_>) -> Self {
        let len = trace.len();
        let mut ids: Vec<(&[u8], bool, u32)> = Vec::with_capacity(len);
        for span in 0..len {
            let (columns, row) = trace.row(span);
            ids.push((columns.span_id.value(row), !ANSWERING.contains(&columns.kind.value(row)), index(span)));
        }
        ids.sort_unstable();
        let mut links = Vec::with_capacity(len);
        for span in 0..len {
            let (columns, row) = trace.row(span);
            links.push(match parent_of(columns, row) {
                None => (NONE, Place::Root),
                Some(id) => {
                    let from = ids.partition_point(|(known, ..)| *known < id);
                    let same = ids[from..].iter().take_while(|(known, ..)| *known == id);
                    match same.map(|(.., at)| *at).find(|at| *at != index(span)) {
                        Some(parent) => (parent, Place::Child),
                        None => (NONE, Place::Orphan),
                    }
                }
            });
        }
        Self::number(&links)
    }

    /// Numbers spans of which each one's parent and place are given.
    fn number(links: &[(u32, Place)]) -> Self {
        let len = links.len();
        let mut tree = Self {
            parent: links.iter().map(|(parent, _)| *parent).collect(),
            place: links.iter().map(|(_, place)| *place).collect(),
            left: vec![0; len],
            right: vec![0; len],
            children: vec![0; len],
            order: Vec::with_capacity(len),
        };
        // Children of one parent are neighbours in `kin`, in order of their numbers.
        let mut kin: Vec<(u32, u32)> =
            tree.parent.iter().enumerate().filter(|(_, p)| **p != NONE).map(|(i, p)| (*p, index(i))).collect();
        kin.sort_unstable();
        let mut first_child = vec![NONE; len];
        for (at, (parent, _)) in kin.iter().enumerate().rev() {
            let parent = *parent as usize;
            first_child[parent] = index(at);
            tree.children[parent] += 1;
        }
        let mut counter = 0u32;
        for wanted in [Place::Root, Place::Orphan] {
            for start in 0..len {
                if tree.place[start] == wanted {
                    tree.walk(index(start), &kin, &first_child, &mut counter);
                }
            }
        }
        for span in 0..len {
            if tree.left[span] == 0 {
                tree.place[span] = Place::Unreached;
                tree.parent[span] = NONE;
            }
        }
        tree
    }

    fn walk(&mut self, start: u32, kin: &[(u32, u32)], first_child: &[u32], counter: &mut u32) {
        let mut stack = vec![(start, first_child[start as usize])];
        *counter += 1;
        self.left[start as usize] = *counter;
        self.order.push(start);
        while let Some((span, next)) = stack.last_mut() {
            match kin.get(*next as usize).filter(|(parent, _)| parent == span) {
                Some((_, child)) => {
                    *next += 1;
                    let child = *child;
                    *counter += 1;
                    self.left[child as usize] = *counter;
                    self.order.push(child);
                    stack.push((child, first_child[child as usize]));
                }
                None => {
                    *counter += 1;
                    self.right[*span as usize] = *counter;
                    stack.pop();
                }
            }
        }
    }

    /// Number on entry.
    pub fn left(&self, span: usize) -> i64 {
        i64::from(self.left[span])
    }

    /// Number on exit.
    pub fn right(&self, span: usize) -> i64 {
        i64::from(self.right[span])
    }

    /// The parent's number on entry, −1 for roots, 0 for spans without a known parent.
    pub fn parent_left(&self, span: usize) -> i64 {
        match (self.place[span], self.parent[span]) {
            (Place::Root, _) => -1,
            (_, NONE) => 0,
            (_, parent) => self.left(parent as usize),
        }
    }

    /// Direct children.
    pub fn child_count(&self, span: usize) -> i64 {
        i64::from(self.children[span])
    }

    /// Whether some span's parent is missing.
    pub fn has_orphans(&self) -> bool {
        self.place.contains(&Place::Orphan)
    }

    /// The spans that `left op right` keeps; both sides and the result ascend.
    pub fn related(&self, relation: Relation, keep: Keep, left: &[u32], right: &[u32]) -> Vec<u32> {
        let matching = self.matching(relation, left, right);
        match keep {
            Keep::Right => matching,
            Keep::Not => {
                let marks = self.marks(&matching);
                right.iter().copied().filter(|span| !marks[*span as usize]).collect()
            }
            Keep::Both if relation == Relation::Descendant => self.with_topmost(left, right),
            Keep::Both if relation == Relation::Ancestor => self.with_topmost(right, left),
            Keep::Both => {
                let mut both = self.matching(mirrored(relation), right, left);
                both.extend(matching);
                both.sort_unstable();
                both.dedup();
                both
            }
        }
    }

    /// Marks spans near the marked ones: at most `up` levels above and `down` levels below them (`None`: any).
    pub fn near(&self, marked: &[bool], up: Option<u32>, down: Option<u32>) -> Vec<bool> {
        let far = u32::MAX;
        let start: Vec<u32> = marked.iter().map(|mark| if *mark { 0 } else { far }).collect();
        let (mut above, mut below) = (start.clone(), start);
        for span in &self.order {
            let parent = self.parent[*span as usize];
            if parent != NONE {
                let through = below[parent as usize].saturating_add(1);
                below[*span as usize] = below[*span as usize].min(through);
            }
        }
        for span in self.order.iter().rev() {
            let parent = self.parent[*span as usize];
            if parent != NONE {
                let through = above[*span as usize].saturating_add(1);
                above[parent as usize] = above[parent as usize].min(through);
            }
        }
        let within = |levels: u32, limit: Option<u32>| levels < far && limit.is_none_or(|limit| levels <= limit);
        above.iter().zip(&below).map(|(above, below)| within(*above, up) || within(*below, down)).collect()
    }

    /// The spans of `lower` that have an ancestor in `upper`, each with the topmost such ancestor. Those between the
    /// two are left out, as Tempo does.
    fn with_topmost(&self, upper: &[u32], lower: &[u32]) -> Vec<u32> {
        let is_upper = self.marks(upper);
        let mut topmost = vec![NONE; self.parent.len()];
        for span in &self.order {
            let parent = self.parent[*span as usize];
            if parent != NONE {
                topmost[*span as usize] = match topmost[parent as usize] {
                    NONE if is_upper[parent as usize] => parent,
                    above => above,
                };
            }
        }
        let reached = lower.iter().filter(|span| topmost[**span as usize] != NONE);
        let mut both: Vec<u32> = reached.flat_map(|span| [*span, topmost[*span as usize]]).collect();
        both.sort_unstable();
        both.dedup();
        both
    }

    fn marks(&self, spans: &[u32]) -> Vec<bool> {
        let mut marks = vec![false; self.parent.len()];
        for span in spans {
            marks[*span as usize] = true;
        }
        marks
    }

    /// The spans of `right` that stand in `relation` to some span of `left`.
    fn matching(&self, relation: Relation, left: &[u32], right: &[u32]) -> Vec<u32> {
        let is_left = self.marks(left);
        let hit: Vec<bool> = match relation {
            Relation::Child => self.parent.iter().map(|parent| *parent != NONE && is_left[*parent as usize]).collect(),
            Relation::Descendant => {
                let mut hit = vec![false; self.parent.len()];
                for span in &self.order {
                    let parent = self.parent[*span as usize];
                    hit[*span as usize] = parent != NONE && (is_left[parent as usize] || hit[parent as usize]);
                }
                hit
            }
            Relation::Parent => {
                let mut hit = vec![false; self.parent.len()];
                for span in left {
                    let parent = self.parent[*span as usize];
                    if parent != NONE {
                        hit[parent as usize] = true;
                    }
                }
                hit
            }
            Relation::Ancestor => {
                let mut hit = vec![false; self.parent.len()];
                for span in self.order.iter().rev() {
                    let parent = self.parent[*span as usize];
                    if parent != NONE && (is_left[*span as usize] || hit[*span as usize]) {
                        hit[parent as usize] = true;
                    }
                }
                hit
            }
            Relation::Sibling => self.siblings(left, &is_left),
        };
        right.iter().copied().filter(|span| hit[*span as usize]).collect()
    }

    fn siblings(&self, left: &[u32], is_left: &[bool]) -> Vec<bool> {
        let mut per_parent = vec![0u32; self.parent.len()];
        let mut roots = 0u32;
        for span in left {
            match (self.place[*span as usize], self.parent[*span as usize]) {
                (Place::Root, _) => roots += 1,
                (_, NONE) => {}
                (_, parent) => per_parent[parent as usize] += 1,
            }
        }
        (0..self.parent.len())
            .map(|span| {
                let around = match (self.place[span], self.parent[span]) {
                    (Place::Root, _) => roots,
                    (_, NONE) => 0,
                    (_, parent) => per_parent[parent as usize],
                };
                around > u32::from(is_left[span])
            })
            .collect()
    }
}

fn mirrored(relation: Relation) -> Relation {
    match relation {
        Relation::Child => Relation::Parent,
        Relation::Descendant => Relation::Ancestor,
        Relation::Parent => Relation::Child,
        Relation::Ancestor => Relation::Descendant,
        Relation::Sibling => Relation::Sibling,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 is the root; -1 a root, -2 an orphan, else the parent's number.
    fn tree(parents: &[i32]) -> Tree {
        let links: Vec<(u32, Place)> = parents
            .iter()
            .map(|parent| match parent {
                -1 => (NONE, Place::Root),
                -2 => (NONE, Place::Orphan),
                parent => (u32::try_from(*parent).expect("a number"), Place::Child),
            })
            .collect();
        Tree::number(&links)
    }

    #[test]
    fn numbering_is_depth_first_from_the_roots() {
        // 0 ─┬ 1 ─ 3
        //    └ 2      and an orphan 4
        let tree = tree(&[-1, 0, 0, 1, -2]);
        let numbers: Vec<(i64, i64, i64)> =
            (0..5).map(|i| (tree.left(i), tree.right(i), tree.parent_left(i))).collect();
        assert_eq!(numbers, [(1, 8, -1), (2, 5, 1), (6, 7, 1), (3, 4, 2), (9, 10, 0)]);
        assert_eq!((0..5).map(|i| tree.child_count(i)).collect::<Vec<_>>(), [2, 1, 0, 0, 0]);
    }

    #[test]
    fn relations_follow_the_tree() {
        use Keep::{Both, Not, Right};
        use Relation::{Ancestor, Child, Descendant, Parent, Sibling};
        let tree = tree(&[-1, 0, 0, 1, -2]);
        let all = [0, 1, 2, 3, 4];
        type Case<'a> = (Relation, Keep, &'a [u32], &'a [u32], &'a [u32]);
        let cases: &[Case] = &[
            (Child, Right, &[0], &all, &[1, 2]),
            (Descendant, Right, &[0], &all, &[1, 2, 3]),
            (Parent, Right, &[3], &all, &[1]),
            (Ancestor, Right, &[3], &all, &[0, 1]),
            (Sibling, Right, &[1], &all, &[2]),
            (Sibling, Right, &[1, 2], &all, &[1, 2]),
            (Sibling, Right, &[4], &all, &[]),
            (Child, Not, &[0], &all, &[0, 3, 4]),
            (Child, Not, &[], &all, &all),
            (Child, Both, &[0, 4], &[1, 3], &[0, 1]),
            (Descendant, Both, &[0, 2], &[3], &[0, 3]),
            (Ancestor, Both, &[3], &[0], &[0, 3]),
        ];
        for (relation, keep, left, right, expected) in cases {
            assert_eq!(tree.related(*relation, *keep, left, right), *expected, "{relation:?} {keep:?} {left:?}");
        }
    }

    #[test]
    fn roots_are_siblings_of_each_other() {
        let tree = tree(&[-1, -1, 0]);
        assert_eq!(tree.related(Relation::Sibling, Keep::Right, &[0], &[0, 1, 2]), [1]);
    }

    #[test]
    fn levels_above_and_below_are_counted() {
        // 0 ─┬ 1 ─ 3
        //    └ 2
        let tree = tree(&[-1, 0, 0, 1]);
        let near = |marked: usize, up, down| {
            let marks: Vec<bool> = (0..4).map(|span| span == marked).collect();
            let near = tree.near(&marks, up, down);
            (0..4).filter(|span| near[*span]).collect::<Vec<_>>()
        };
        assert_eq!(near(3, Some(0), Some(0)), [3]);
        assert_eq!(near(3, Some(1), Some(0)), [1, 3]);
        assert_eq!(near(3, None, Some(0)), [0, 1, 3]);
        assert_eq!(near(0, None, Some(1)), [0, 1, 2]);
        assert_eq!(near(0, None, None), [0, 1, 2, 3]);
    }

    #[test]
    fn cycles_and_long_chains_end() {
        let cycle = tree(&[1, 0, -1]);
        assert_eq!((cycle.left(0), cycle.left(1), cycle.left(2)), (0, 0, 1));
        assert_eq!(cycle.related(Relation::Child, Keep::Right, &[0, 1, 2], &[0, 1, 2]), [] as [u32; 0]);
        let chain: Vec<i32> = (0..50_000).map(|i| i - 1).collect();
        let chain = tree(&chain);
        assert_eq!((chain.left(49_999), chain.right(0)), (50_000, 100_000));
        assert_eq!(chain.related(Relation::Descendant, Keep::Right, &[0], &[49_999]), [49_999]);
    }
}
