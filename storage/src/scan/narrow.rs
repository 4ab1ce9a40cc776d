//! Conjuncts on the rows of a block: the columns they look at are read first, the others only of rows that pass.
//!
//! Owns: testing conjuncts on columns, their order. Does not own: proofs about pages (`prune`), nor the last word: the
//! asker tests again, so what cannot be tested here passes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, MapArray, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;
use memchr::memmem::Finder;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn, RowFilter};
use parquet::schema::types::SchemaDescriptor;

use super::repeats::Overlap;
use super::{Conjunct, ScanRequest};
use crate::error::Result;
use crate::model::span::TraceId;
use crate::signal::Table;

/// What a request will test, sorted into steps.
#[derive(Debug)]
pub(super) struct Narrowing {
    table: Table,
    steps: Vec<Arc<Step>>,
}

/// Conjuncts on the same columns.
#[derive(Debug)]
struct Step {
    /// Places in the table's schema, which are the same in its files.
    places: Vec<usize>,
    conjuncts: Vec<Conjunct>,
    /// What reading and testing costs, as a rank.
    cost: u32,
    /// Whether repeats of a row pass or fail with it.
    same_for_repeats: bool,
}

impl Narrowing {
    /// The tests of `request` that can be run on columns, cheapest first.
    pub(super) fn new(request: &ScanRequest) -> Self {
        let table = request.table;
        let schema = (table.spec().schema)();
        let mut steps: Vec<Step> = Vec::new();
        for conjunct in &request.narrow {
            let names = conjunct.columns();
            let Ok(mut places) = names.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>() else {
                continue;
            };
            places.sort_unstable();
            places.dedup();
            let fits = fits(conjunct, &|name| schema.field_with_name(name).ok().map(|field| field.data_type().clone()));
            if !fits || places.is_empty() {
                continue;
            }
            match steps.iter_mut().find(|step| step.places == places) {
                Some(step) => step.conjuncts.push(conjunct.clone()),
                None => steps.push(Step {
                    cost: cost(conjunct),
                    same_for_repeats: names.iter().all(|name| table.spec().unique_by.contains(name)),
                    conjuncts: vec![conjunct.clone()],
                    places,
                }),
            }
        }
        steps.sort_by_key(|step| step.cost);
        Self { table, steps: steps.into_iter().map(Arc::new).collect() }
    }

    /// The tests as the Parquet reader runs them, of spans of `traces` (ascending) only, if given; rows in `overlap` are
    /// spared tests in which repeats may differ.
    pub(super) fn filter(
        &self,
        schema: &SchemaDescriptor,
        overlap: &Arc<Overlap>,
        traces: Option<Arc<Vec<TraceId>>>,
    ) -> Option<RowFilter> {
        let of_traces = traces.and_then(|traces| in_traces(schema, traces));
        let predicate = |step: &Arc<Step>| -> Box<dyn ArrowPredicate> {
            let (step, table, overlap) = (Arc::clone(step), self.table, Arc::clone(overlap));
            let spares = !step.same_for_repeats && !overlap.is_empty();
            let mut places = step.places.clone();
            if spares {
                places.extend(key_places(table));
            }
            let mask = ProjectionMask::roots(schema, places);
            Box::new(ArrowPredicateFn::new(mask, move |rows: RecordBatch| {
                let mut passed = step.test(&rows).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
                if spares {
                    let spared = overlap.of_rows(table, &rows);
                    let spared = spared.map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
                    passed = &passed | &BooleanBuffer::from(spared);
                }
                Ok(BooleanArray::new(passed, None))
            }))
        };
        let predicates: Vec<_> = of_traces.into_iter().chain(self.steps.iter().map(predicate)).collect();
        (!predicates.is_empty()).then(|| RowFilter::new(predicates))
    }

    /// The conjuncts that may prove that pages hold no wanted row, although another source holds rows of `overlap`.
    pub(super) fn provable(&self, overlap: &Overlap) -> impl Iterator<Item = &Conjunct> {
        let usable = |step: &&Arc<Step>| step.same_for_repeats || overlap.is_empty();
        self.steps.iter().filter(usable).flat_map(|step| &step.conjuncts)
    }
}

impl Step {
    fn test(&self, rows: &RecordBatch) -> Result<BooleanBuffer> {
        let mut passed = BooleanBuffer::new_set(rows.num_rows());
        for conjunct in &self.conjuncts {
            if passed.count_set_bits() == 0 {
                break;
            }
            passed = &passed & &test(conjunct, rows);
        }
        Ok(passed)
    }
}

/// Keeps the spans of `traces`.
fn in_traces(schema: &SchemaDescriptor, traces: Arc<Vec<TraceId>>) -> Option<Box<dyn ArrowPredicate>> {
    let place = (Table::Spans.spec().schema)().index_of("trace_id").ok()?;
    let mask = ProjectionMask::roots(schema, [place]);
    Some(Box::new(ArrowPredicateFn::new(mask, move |rows: RecordBatch| {
        let Some(ids) = rows.columns().first().and_then(|ids| ids.as_binary_opt::<i32>()) else {
            return Ok(BooleanArray::new(BooleanBuffer::new_set(rows.num_rows()), None));
        };
        // Rows and traces ascend alike: each id is looked for behind the one before.
        let mut from = 0;
        let passed = BooleanBuffer::collect_bool(ids.len(), |row| {
            let id = ids.value(row);
            let rest = traces.get(from..).unwrap_or(&[]);
            if rest.first().is_none_or(|next| next.as_slice() < id) {
                from += rest.partition_point(|trace| trace.as_slice() < id);
            }
            traces.get(from).is_some_and(|trace| trace.as_slice() == id)
        });
        Ok(BooleanArray::new(passed, None))
    })))
}

/// The group and the time of rows.
fn key_places(table: Table) -> Vec<usize> {
    let spec = table.spec();
    let names = spec.identity.into_iter().chain(spec.time.map(|(name, _)| name));
    names.filter_map(|name| (spec.schema)().index_of(name).ok()).collect()
}

/// Whether the columns have the types that the test is about.
fn fits(conjunct: &Conjunct, type_of: &dyn Fn(&str) -> Option<DataType>) -> bool {
    match conjunct {
        Conjunct::Contains { column, .. } | Conjunct::TextIn { column, .. } => type_of(column) == Some(DataType::Utf8),
        Conjunct::LongBetween { column, .. } => matches!(type_of(column), Some(DataType::Int64 | DataType::Int32)),
        Conjunct::BytesIn { column, .. } => type_of(column) == Some(DataType::Binary),
        Conjunct::EntryIn { column, .. } | Conjunct::HasKey { column, .. } | Conjunct::EntryInOrList { column, .. } => {
            matches!(type_of(column), Some(DataType::Map(..)))
        }
        Conjunct::AnyOf(groups) => groups.iter().flatten().all(|conjunct| fits(conjunct, type_of)),
    }
}

/// Numbers before texts before bytes before maps before lines.
fn cost(conjunct: &Conjunct) -> u32 {
    match conjunct {
        Conjunct::LongBetween { .. } => 1,
        Conjunct::TextIn { .. } => 2,
        Conjunct::BytesIn { .. } => 3,
        Conjunct::EntryIn { .. } | Conjunct::HasKey { .. } | Conjunct::EntryInOrList { .. } => 6,
        Conjunct::Contains { .. } => 8,
        Conjunct::AnyOf(groups) => groups.iter().flatten().map(cost).sum(),
    }
}

/// The rows that pass; all, where the column is not what it should be.
pub(super) fn test(conjunct: &Conjunct, rows: &RecordBatch) -> BooleanBuffer {
    let of_column = |name: &str, test: &dyn Fn(&ArrayRef) -> Option<BooleanBuffer>| {
        let passed = rows.column_by_name(name).and_then(test);
        passed.unwrap_or_else(|| BooleanBuffer::new_set(rows.num_rows()))
    };
    match conjunct {
        Conjunct::Contains { column, text } => of_column(column, &|array| Some(contains(array.as_string_opt()?, text))),
        Conjunct::TextIn { column, texts } => of_column(column, &|array| Some(text_in(array.as_string_opt()?, texts))),
        Conjunct::BytesIn { column, values } => {
            of_column(column, &|array| Some(bytes_in(array.as_binary_opt()?, values)))
        }
        Conjunct::LongBetween { column, first, last } => of_column(column, &|array| {
            let inside = match array.data_type() {
                DataType::Int32 => {
                    let values = array.as_primitive_opt::<Int32Type>()?.values();
                    let inside = |at: usize| (*first..=*last).contains(&i64::from(values[at]));
                    BooleanBuffer::collect_bool(values.len(), inside)
                }
                _ => {
                    let values = array.as_primitive_opt::<Int64Type>()?.values();
                    BooleanBuffer::collect_bool(values.len(), |at| (*first..=*last).contains(&values[at]))
                }
            };
            Some(present(array, inside))
        }),
        Conjunct::EntryIn { column, key, values } => of_column(column, &|array| {
            let values = |entry: Option<&str>| values.iter().any(|value| Some(&**value) == entry.or(Some("")));
            Some(entries(array.as_map_opt()?, key, Some(&values)))
        }),
        Conjunct::EntryInOrList { column, key, values } => of_column(column, &|array| {
            let of_list = |entry: &str| entry.starts_with('[') || values.iter().any(|value| **value == *entry);
            Some(entries(array.as_map_opt()?, key, Some(&|entry| of_list(entry.unwrap_or("")))))
        }),
        Conjunct::HasKey { column, key } => of_column(column, &|array| Some(entries(array.as_map_opt()?, key, None))),
        Conjunct::AnyOf(groups) => {
            let mut any = BooleanBuffer::new_unset(rows.num_rows());
            for group in groups {
                let all = group.iter().map(|conjunct| test(conjunct, rows));
                any = &any | &all.fold(BooleanBuffer::new_set(rows.num_rows()), |all, one| &all & &one);
            }
            any
        }
    }
}

/// `passed` without the rows that have no value.
fn present(array: &dyn Array, passed: BooleanBuffer) -> BooleanBuffer {
    match array.nulls() {
        Some(nulls) => &passed & nulls.inner(),
        None => passed,
    }
}

/// One search over the text of all rows at once; a hit across a border of rows is none.
fn contains(texts: &StringArray, text: &str) -> BooleanBuffer {
    let finder = Finder::new(text.as_bytes());
    let (offsets, bytes, rows) = (texts.value_offsets(), texts.value_data(), texts.len());
    if text.is_empty() || rows == 0 {
        return present(texts, BooleanBuffer::new_set(rows));
    }
    let place = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
    let mut found = vec![false; rows];
    let (mut row, mut at, end) = (0, place(0), place(rows));
    while let Some(hit) = bytes.get(at..end).and_then(|rest| finder.find(rest)).map(|hit| at + hit) {
        // The row in which the hit begins.
        row += offsets[row + 1..=rows].partition_point(|offset| usize::try_from(*offset).unwrap_or(0) <= hit);
        let inside = hit + text.len() <= place(row + 1);
        found[row] |= inside;
        at = if inside { place(row + 1) } else { hit + 1 };
    }
    present(texts, BooleanBuffer::from(found))
}

fn text_in(array: &StringArray, texts: &[Arc<str>]) -> BooleanBuffer {
    // Neighbours often have the same text; comparing with the last is a comparison of lengths first.
    let mut last: Option<(&str, bool)> = None;
    let passed = BooleanBuffer::collect_bool(array.len(), |row| {
        let value = array.value(row);
        let known = last.filter(|(text, _)| *text == value).map(|(_, known)| known);
        let passes = known.unwrap_or_else(|| texts.iter().any(|text| **text == *value));
        last = Some((value, passes));
        passes
    });
    present(array, passed)
}

fn bytes_in(array: &BinaryArray, values: &[Box<[u8]>]) -> BooleanBuffer {
    let passed = BooleanBuffer::collect_bool(array.len(), |row| {
        let value = array.value(row);
        values.iter().any(|wanted| **wanted == *value)
    });
    present(array, passed)
}

/// A test of an entry's value; `None` is a missing one.
type ValueTest<'t> = &'t dyn Fn(Option<&str>) -> bool;

/// The rows whose map has `key` with a value that passes; without a test, any.
fn entries(maps: &MapArray, key: &str, passes: Option<ValueTest<'_>>) -> BooleanBuffer {
    let everything = || BooleanBuffer::new_set(maps.len());
    let (Some(keys), Some(values)) = (maps.keys().as_string_opt::<i32>(), maps.values().as_string_opt::<i32>()) else {
        return everything();
    };
    let offsets = maps.value_offsets();
    let hit = |entry: usize| {
        keys.value(entry) == key
            && passes.is_none_or(|passes| passes(values.is_valid(entry).then(|| values.value(entry))))
    };
    let passed = BooleanBuffer::collect_bool(maps.len(), |row| {
        let place = |offset: i32| usize::try_from(offset).unwrap_or(0);
        (place(offsets[row])..place(offsets[row + 1])).any(hit)
    });
    present(maps, passed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_contains_what_its_texts_contain(
            texts in proptest::collection::vec(proptest::option::of("[ab]{0,5}"), 0..20), needle in "[ab]{0,3}", skip in 0_usize..5,
        ) {
            let array = StringArray::from(texts);
            let array = array.slice(skip.min(array.len()), array.len() - skip.min(array.len()));
            let expected: Vec<bool> = array.iter().map(|text| text.is_some_and(|text| text.contains(&needle))).collect();
            prop_assert_eq!(contains(&array, &needle).iter().collect::<Vec<bool>>(), expected);
        }
    }
}
