//! Sorting rows the way blocks hold them.
//!
//! Owns: sort, duplicates and days of rows in memory. Does not own: the merge of sorted sources (`merge`).

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use hashbrown::HashSet;

use super::rows::{RowHasher, trace_key};
use crate::error::{Error, Result};
use crate::model::time::{Day, TimestampMs, TimestampNs};
use crate::signal::{SortBy, Table, TimeUnit};

/// Sorts `rows` of a table as its blocks are sorted and drops duplicates (the first stays); the sort is stable.
/// `rank` gives the place of an identity's column value in label order; not used for spans and metadata.
pub fn sort_rows(table: Table, rows: &RecordBatch, rank: &dyn Fn(i64) -> u64) -> Result<RecordBatch> {
    let mut hasher = RowHasher::new(table, rows.schema_ref())?;
    sort_hashed(table, rows, rank, &mut |row| hasher.hash(rows, row))
}

/// Like [`sort_rows`] for rows that may lack columns that tell them apart: `hash` gives what these come to.
pub(crate) fn sort_hashed(
    table: Table,
    rows: &RecordBatch,
    rank: &dyn Fn(i64) -> u64,
    hash: &mut dyn FnMut(usize) -> Result<u128>,
) -> Result<RecordBatch> {
    let mut order: Vec<u32> = (0..row_count(rows)?).collect();
    let equal: Vec<bool> = match table.spec().sort_by {
        SortBy::Text => {
            let columns = texts(table, rows)?;
            let text = |row: u32| columns.iter().map(move |column| column.value(row as usize));
            order.sort_by(|a, b| text(*a).cmp(text(*b)));
            order.windows(2).map(|pair| text(pair[0]).eq(text(pair[1]))).collect()
        }
        _ => {
            let keys = keys(table, rows, rank)?;
            order.sort_by_key(|row| keys[*row as usize]);
            order.windows(2).map(|pair| keys[pair[0] as usize] == keys[pair[1] as usize]).collect()
        }
    };
    let mut seen: HashSet<u128, ahash::RandomState> = HashSet::default();
    let mut kept = Vec::with_capacity(order.len());
    for (at, &row) in order.iter().enumerate() {
        let (with_last, with_next) = (at > 0 && equal[at - 1], equal.get(at).copied().unwrap_or(false));
        if !with_last {
            seen.clear();
        }
        if !(with_last || with_next) || seen.insert(hash(row as usize)?) {
            kept.push(row);
        }
    }
    let as_it_was = kept.len() == rows.num_rows() && kept.windows(2).all(|pair| pair[0] < pair[1]);
    if as_it_was {
        return Ok(rows.clone());
    }
    Ok(take_record_batch(rows, &UInt32Array::from(kept))?)
}

fn row_count(rows: &RecordBatch) -> Result<u32> {
    u32::try_from(rows.num_rows()).map_err(|_| Error::bug("a batch of more than 4 billion rows"))
}

/// Group and time of each row.
fn keys(table: Table, rows: &RecordBatch, rank: &dyn Fn(i64) -> u64) -> Result<Vec<(u128, i64)>> {
    let spec = table.spec();
    let times = match spec.time {
        Some((name, _)) => longs(rows, name)?.to_vec(),
        None => vec![0; rows.num_rows()],
    };
    let mut keys = Vec::with_capacity(times.len());
    if spec.sort_by == SortBy::Trace {
        let ids = rows.column_by_name("trace_id").and_then(|array| array.as_binary_opt::<i32>());
        let ids = ids.ok_or_else(|| Error::bug("spans lack their trace ids"))?;
        for (row, time) in times.iter().enumerate() {
            keys.push((trace_key(ids.value(row))?, *time));
        }
    } else {
        let name = spec.identity.ok_or_else(|| Error::bug("a table sorted by identity names none"))?;
        let mut last: Option<(i64, u64)> = None;
        for (id, time) in longs(rows, name)?.iter().zip(&times) {
            let place = match last {
                Some((known, place)) if known == *id => place,
                _ => rank(*id),
            };
            last = Some((*id, place));
            keys.push((u128::from(place), *time));
        }
    }
    Ok(keys)
}

fn texts(table: Table, rows: &RecordBatch) -> Result<Vec<&arrow::array::StringArray>> {
    let column = |name: &&str| rows.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
    let columns: Option<Vec<_>> = table.spec().unique_by.iter().map(column).collect();
    columns.ok_or_else(|| Error::bug(format!("rows of `{}` lack a text column", table.name())))
}

fn longs<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a [i64]> {
    let array = rows.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
    array.map(|array| array.values().as_ref()).ok_or_else(|| Error::bug(format!("rows lack the column `{name}`")))
}

/// Cuts `rows` by the UTC day of their time column, keeping their order; days ascend. Tables without time give one
/// part of day 0: there the caller knows the day.
pub fn split_by_day(table: Table, rows: &RecordBatch) -> Result<Vec<(Day, RecordBatch)>> {
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let Some((name, unit)) = table.spec().time else { return Ok(vec![(Day(0), rows.clone())]) };
    let day = |time: i64| match unit {
        TimeUnit::Ms => TimestampMs(time).to_ns().day(),
        TimeUnit::Ns => TimestampNs(time).day(),
    };
    let times = longs(rows, name)?;
    let bounds = times.iter().min().zip(times.iter().max());
    if let Some((first, last)) = bounds
        && day(*first) == day(*last)
    {
        return Ok(vec![(day(*first), rows.clone())]);
    }
    let mut by_day: BTreeMap<Day, Vec<u32>> = BTreeMap::new();
    for (row, time) in (0..row_count(rows)?).zip(times) {
        by_day.entry(day(*time)).or_default().push(row);
    }
    by_day.into_iter().map(|(day, picked)| Ok((day, take_record_batch(rows, &UInt32Array::from(picked))?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::batch::{LogsBuilder, MetricsBuilder};
    use crate::model::labels::Labels;

    #[test]
    fn logs_are_sorted_stably_and_equal_ones_count_once() {
        let mut builder = LogsBuilder::new();
        let a = builder.stream(Labels::from_pairs([("app", "a")]));
        let b = builder.stream(Labels::from_pairs([("app", "b")]));
        let pair = |k: &'static str| [(k, "1"), ("z", "2")].into_iter();
        builder.entry(b, TimestampNs(2), "late", std::iter::empty()).expect("fits");
        builder.entry(a, TimestampNs(5), "x", pair("m")).expect("fits");
        builder.entry(a, TimestampNs(5), "y", pair("m")).expect("fits");
        builder.entry(a, TimestampNs(5), "x", [("z", "2"), ("m", "1")].into_iter()).expect("fits");
        builder.entry(a, TimestampNs(5), "x", pair("n")).expect("fits");
        builder.entry(b, TimestampNs(1), "early", std::iter::empty()).expect("fits");
        let batch = builder.finish().expect("builds");
        let rank = move |id: i64| u64::from(id == b.to_column());
        let rows = sort_rows(Table::Logs, batch.table(Table::Logs).expect("rows"), &rank).expect("sorts");
        let lines: Vec<&str> = rows.column(2).as_string::<i32>().iter().flatten().collect();
        assert_eq!(lines, ["x", "y", "x", "early", "late"]);
    }

    #[test]
    fn days_are_cut_at_midnight() {
        let day_ms = 86_400_000;
        let mut builder = MetricsBuilder::new();
        let series = builder.series(Labels::from_pairs([("__name__", "up")]));
        for ts in [day_ms, -1, 0, day_ms - 1, 2 * day_ms - 1] {
            builder.sample(series, TimestampMs(ts), 1.0, None);
        }
        let batch = builder.finish().expect("builds");
        let rows = batch.table(Table::Samples).expect("rows");
        let parts = split_by_day(Table::Samples, rows).expect("splits");
        let times: Vec<(i32, Vec<i64>)> = parts
            .iter()
            .map(|(day, rows)| (day.0, rows.column(1).as_primitive::<Int64Type>().values().to_vec()))
            .collect();
        assert_eq!(times, [(-1, vec![-1]), (0, vec![0, day_ms - 1]), (1, vec![day_ms, 2 * day_ms - 1])]);
    }
}
