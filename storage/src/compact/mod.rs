//! Compaction: many small blocks of a day become few large ones.
//!
//! Owns: which blocks to merge (`policy`, pure) and merging them (`run`). Does not own: when, and for whom (`engine`),
//! the commit (`table::replace`).
//!
//! Invariants
//! 1. Only blocks that are neighbours in the order of arrival become one: of equal rows the older one stays.
//! 2. Rows out and repeats dropped count as many as rows in, or nothing is committed.
//! 3. Memory does not grow with the size of blocks: see `run`.

mod keyed;
pub(crate) mod policy;
pub(crate) mod run;
