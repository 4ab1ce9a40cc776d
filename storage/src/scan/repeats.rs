//! Where sources of one scan may hold rows that repeat each other.
//!
//! Owns: which groups and times more than one source holds, and the form in which a source that does not give all its
//! columns still tells what makes its rows equal. Does not own: the comparison (`merge`).
//!
//! A scan that asks for few columns need not read those that tell rows apart: a row outside of all overlaps repeats no
//! row of another source. For the others a source appends one column, [`hash_field`].
//!
//! Invariant: two rows of two sources with one group and time lie in the overlaps of both.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema, SchemaRef};
use hashbrown::HashMap;

use super::ScanRequest;
use super::prune::Bounds;
use crate::budget::Reservation;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::signal::{SortBy, Table, TableSpec};

/// Bytes of one entry of an extent while extents are compared.
const ENTRY_BYTES: usize = 64;
/// The group of all rows of a table that is sorted by trace.
const EVERY_TRACE: i64 = 0;

/// The times at which a source holds rows, by group: an identity's column value. Traces are one group.
#[derive(Clone, Debug, Default)]
pub struct Extent(Vec<(i64, Bounds)>);

impl Extent {
    /// Adds the times of an identity.
    pub(crate) fn push(&mut self, identity: i64, bounds: Bounds) {
        self.0.push((identity, bounds));
    }

    /// Adds the times of a trace.
    pub(crate) fn widen(&mut self, bounds: Bounds) {
        match self.0.first_mut() {
            Some((_, all)) => *all = Bounds { first: all.first.min(bounds.first), last: all.last.max(bounds.last) },
            None => *self = Self::of_traces(bounds),
        }
    }

    /// Of a source sorted by trace.
    pub(crate) fn of_traces(bounds: Bounds) -> Self {
        Self(vec![(EVERY_TRACE, bounds)])
    }
}

/// The groups and times of a source that another source of the scan holds too.
#[derive(Debug, Default)]
pub struct Overlap {
    by_group: HashMap<i64, Bounds, ahash::RandomState>,
    /// The memory it takes.
    _held: Option<Reservation>,
}

impl Overlap {
    /// Whether no row can repeat one of another source.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// For each row whether it may repeat one of another source.
    pub(crate) fn of_rows(&self, table: Table, rows: &RecordBatch) -> Result<Vec<bool>> {
        let spec = table.spec();
        let lacks = || Error::bug(format!("rows of `{}` lack a key column", spec.name));
        let longs = |name: &str| {
            let array = rows.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
            array.map(|array| array.values().clone())
        };
        let times = longs(spec.time.ok_or_else(lacks)?.0).ok_or_else(lacks)?;
        if spec.sort_by == SortBy::Trace {
            let bounds = self.by_group.get(&EVERY_TRACE);
            return Ok(times.iter().map(|time| bounds.is_some_and(|bounds| bounds.contains(*time))).collect());
        }
        let ids = longs(spec.identity.ok_or_else(lacks)?).ok_or_else(lacks)?;
        let mut last: Option<(i64, Option<Bounds>)> = None;
        let may_repeat = ids.iter().zip(times.iter()).map(|(id, time)| {
            let bounds = match last {
                Some((known, bounds)) if known == *id => bounds,
                _ => self.by_group.get(id).copied(),
            };
            last = Some((*id, bounds));
            bounds.is_some_and(|bounds| bounds.contains(*time))
        });
        Ok(may_repeat.collect())
    }
}

/// What more than one source of `request` holds, for each of the sources that `extents` are of; nothing if that makes no
/// difference.
pub(crate) fn overlaps(request: &ScanRequest, extents: Vec<Extent>, context: &Context) -> Result<Vec<Overlap>> {
    match Asked::of(request).anything() {
        true => compare(&extents, context),
        false => Ok(extents.iter().map(|_| Overlap::default()).collect()),
    }
}

fn compare(extents: &[Extent], context: &Context) -> Result<Vec<Overlap>> {
    let mut found: Vec<Overlap> = extents.iter().map(|_| Overlap::default()).collect();
    let count: usize = extents.iter().map(|extent| extent.0.len()).sum();
    let _held = context.reserve(count * ENTRY_BYTES)?;
    let mut entries: Vec<(i64, Bounds, usize)> = Vec::with_capacity(count);
    for (source, extent) in extents.iter().enumerate() {
        entries.extend(extent.0.iter().map(|(group, bounds)| (*group, *bounds, source)));
    }
    entries.sort_unstable_by_key(|(group, bounds, source)| (*group, bounds.first, *source));
    for of_group in entries.chunk_by(|a, b| a.0 == b.0) {
        context.check()?;
        let mut latest: Option<i64> = None;
        for (at, (group, own, source)) in of_group.iter().enumerate() {
            let before = latest.filter(|latest| *latest >= own.first).map(|latest| (own.first, latest.min(own.last)));
            let after = of_group.get(at + 1).map(|(_, next, _)| (next.first, own.last)).filter(|(from, to)| from <= to);
            for (first, last) in before.into_iter().chain(after) {
                let bounds = Bounds { first, last };
                let known = found[*source].by_group.entry(*group).or_insert(bounds);
                *known = Bounds { first: known.first.min(first), last: known.last.max(last) };
            }
            latest = latest.max(Some(own.last));
        }
    }
    for overlap in found.iter_mut().filter(|overlap| !overlap.is_empty()) {
        overlap._held = Some(context.reserve(overlap.by_group.len() * ENTRY_BYTES)?);
    }
    Ok(found)
}

/// What the sources of `request` must tell apart beyond their own columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Rows that may repeat one of another source come with the hash of what makes them equal.
    pub(crate) hashes: bool,
    /// Rows that may repeat one of another source must not be left out by a conjunct: it looks at columns in which
    /// repeats may differ, so that the first could fail where the second passes.
    pub(crate) spare: bool,
}

impl Asked {
    pub(crate) fn of(request: &ScanRequest) -> Self {
        let spec = request.table.spec();
        let tells = |name: &str| spec.unique_by.contains(&name);
        let given = |name: &str| {
            Some(name) == spec.identity || request.columns.as_ref().is_none_or(|list| list.contains(&name))
        };
        let key = |name: &str| is_key(spec, name);
        let sorted = spec.sort_by != SortBy::Text;
        Self {
            hashes: sorted && spec.unique_by.iter().any(|name| !key(name) && !given(name)),
            spare: sorted && request.narrow.iter().any(|conjunct| !conjunct.columns().iter().all(|name| tells(name))),
        }
    }

    /// Whether overlaps must be known.
    pub(crate) fn anything(self) -> bool {
        self.hashes || self.spare
    }
}

/// Whether a column is always given: the group and the time.
pub(super) fn is_key(spec: &TableSpec, name: &str) -> bool {
    let group = if spec.sort_by == SortBy::Trace { Some("trace_id") } else { spec.identity };
    group == Some(name) || spec.time.is_some_and(|(time, _)| time == name)
}

/// The columns that make rows equal, in the table's order.
pub(crate) fn unique_places(table: Table) -> Vec<usize> {
    let spec = table.spec();
    let fields = (spec.schema)().fields().clone();
    fields
        .iter()
        .enumerate()
        .filter(|(_, field)| spec.unique_by.contains(&field.name().as_str()))
        .map(|(at, _)| at)
        .collect()
}

const HASH_PRECISION: u8 = 38;

/// The column of hashes: null where a row repeats no row of another source.
fn hash_field() -> Field {
    Field::new("", DataType::Decimal128(HASH_PRECISION, 0), true)
}

/// `rows` with the hashes of those that may repeat rows of another source.
pub(crate) fn with_hashes(rows: &RecordBatch, hashes: Vec<Option<u128>>) -> Result<RecordBatch> {
    // The bits matter, not the number.
    let hashes = hashes.into_iter().map(|hash| hash.map(u128::cast_signed));
    let array = Decimal128Array::from_iter(hashes).with_data_type(DataType::Decimal128(HASH_PRECISION, 0));
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(Arc::new(array));
    Ok(RecordBatch::try_new(schema_with_hashes(rows.schema_ref()), columns)?)
}

fn schema_with_hashes(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().cloned().chain([Arc::new(hash_field())]).collect();
    Arc::new(Schema::new(fields))
}

/// Takes the hashes off `rows`, if it has any beside `columns` columns.
pub(super) fn split(rows: RecordBatch, columns: usize) -> Result<(RecordBatch, Option<Decimal128Array>)> {
    if rows.num_columns() != columns + 1 {
        return Ok((rows, None));
    }
    let hashes = rows.column(columns).as_primitive_opt::<Decimal128Type>().cloned();
    let hashes = hashes.ok_or_else(|| Error::bug("a source gives a column that nobody asked for"))?;
    let places: Vec<usize> = (0..columns).collect();
    Ok((rows.project(&places)?, Some(hashes)))
}

/// The hash of a row, if it has one.
pub(super) fn hash_at(hashes: &Decimal128Array, row: usize) -> Option<u128> {
    hashes.is_valid(row).then(|| hashes.value(row).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Share;
    use crate::model::tenant::Tenant;

    proptest! {
        #[test]
        fn a_time_of_two_sources_lies_in_the_overlaps_of_both(
            sources in proptest::collection::vec(
                proptest::collection::btree_map(0..3_i64, (0..20_i64, 0..6_i64), 0..3), 0..6),
        ) {
            let extents: Vec<Extent> = sources
                .iter()
                .map(|groups| Extent(groups.iter().map(|(g, (t, n))| (*g, Bounds { first: *t, last: t + n })).collect()))
                .collect();
            let context = Context::new(Tenant::single(), Share::root("test", 1 << 20));
            let found = compare(&extents, &context).expect("fits");
            for (a, one) in sources.iter().enumerate() {
                for (group, (t, n)) in one {
                    for time in *t..=t + n {
                        let also = sources.iter().enumerate().any(|(b, other)| {
                            a != b && other.get(group).is_some_and(|(t, n)| (*t..=t + n).contains(&time))
                        });
                        let inside = found[a].by_group.get(group).is_some_and(|bounds| bounds.contains(time));
                        prop_assert!(inside || !also, "source {a}, group {group}, time {time}");
                    }
                }
            }
        }
    }
}
