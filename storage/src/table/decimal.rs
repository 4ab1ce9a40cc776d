//! How a file holds the values of samples: as decimals where that loses no bit, as doubles otherwise.
//!
//! Owns: the choice of a scale and both directions. A decimal is `mantissa / 10^scale` for `scale ≥ 0` and
//! `mantissa · 10^-scale` for `scale < 0`: one rounding, so encoder and decoder agree on every bit.
//!
//! Invariants
//! 1. A value comes back with the bits it had. Negative zero, NaNs (the stale marker among them) and infinities
//!    are never decimals.
//! 2. Within a run of one series either all values are decimals of one scale or none is. A run ends with its series or
//!    after [`RUN_ROWS_MAX`] rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};

use crate::error::{Error, Result};

/// The largest power of ten that is exact as a double; beyond it one rounding would become two.
const SCALE_MAX: i32 = 22;
/// More digits after the point than any measured source prints; giving up there keeps flushes fast.
const SCALE_TRIED_MAX: i32 = 15;
/// Integers up to here are exact as doubles.
const MANTISSA_MAX: f64 = 9_007_199_254_740_992.0;

const POWERS: [f64; SCALE_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// The column that a file may hold as decimals, the last one in memory.
pub(crate) const VALUE: &str = "value";
/// The places of mantissa and scale in a file.
pub(crate) const BESIDE_VALUE: [usize; 2] = [4, 5];

/// The columns of `samples` in a file.
pub(super) fn file_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("series_id", DataType::Int64, false),
        Field::new("ts_ms", DataType::Int64, false),
        Field::new("start_ts_ms", DataType::Int64, true),
        Field::new("value", DataType::Float64, true),
        Field::new("mantissa", DataType::Int64, true),
        Field::new("scale", DataType::Int32, true),
    ]))
}

fn power(scale: i32) -> Option<f64> {
    POWERS.get(usize::try_from(scale.unsigned_abs()).unwrap_or(usize::MAX)).copied()
}

/// The mantissa of `value` at `scale`, if it is a decimal there. `power` is `10^|scale|`.
#[inline]
fn mantissa(value: f64, negative: bool, power: f64) -> Option<i64> {
    let rounded = if negative { value / power } else { value * power }.round_ties_even();
    if rounded.abs() > MANTISSA_MAX || rounded.is_nan() {
        return None;
    }
    // Exact: the bound above is within what both types hold.
    #[allow(clippy::cast_possible_truncation)]
    let mantissa = rounded as i64;
    (decimal(mantissa, negative, power).to_bits() == value.to_bits()).then_some(mantissa)
}

#[inline]
fn decimal(mantissa: i64, negative: bool, power: f64) -> f64 {
    let whole = mantissa as f64;
    if negative { whole * power } else { whole / power }
}

fn fits(values: &[&[f64]], scale: i32) -> bool {
    let Some(power) = power(scale) else { return false };
    values.iter().all(|part| part.iter().all(|value| mantissa(*value, scale < 0, power).is_some()))
}

/// A scale at which all values of a run are decimals, if there is one; the smallest that is not negative, and a
/// negative one only for numbers too large otherwise.
fn choose_scale(values: &[&[f64]]) -> Option<i32> {
    let all = || values.iter().flat_map(|part| part.iter());
    let mut scale = 0;
    let mut large = false;
    for value in all() {
        if !value.is_finite() || (*value == 0.0 && value.is_sign_negative()) {
            return None;
        }
        if value.abs() > MANTISSA_MAX {
            large = true;
            break;
        }
        while mantissa(*value, false, POWERS[scale]).is_none() {
            scale += 1;
            if scale > SCALE_TRIED_MAX as usize {
                return None;
            }
        }
    }
    if large {
        return (1..=SCALE_MAX).map(|n| -n).find(|scale| fits(values, *scale));
    }
    let scale = i32::try_from(scale).ok()?;
    // A value that fits a small scale may be too large for the one that a later value needs.
    fits(values, scale).then_some(scale)
}

/// Rows of one series that are looked at together; more are packed apart, so that a long series takes no more memory.
const RUN_ROWS_MAX: usize = 64 << 10;

/// Packs rows as they come, each run once it is complete.
#[derive(Debug, Default)]
pub(super) struct Packer {
    /// Rows of the series that may go on.
    open: Vec<RecordBatch>,
}

impl Packer {
    /// Takes rows; gives what is complete.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let series = column::<Int64Type>(rows, "series_id")?.values();
        let Some(last) = series.last() else { return Ok(Vec::new()) };
        let start = series.iter().rposition(|id| id != last).map_or(0, |before| before + 1);
        let goes_on = match self.open.last() {
            Some(open) => column::<Int64Type>(open, "series_id")?.values().last() == Some(last),
            None => true,
        };
        if start > 0 {
            self.open.push(rows.slice(0, start));
        }
        let complete = if start > 0 || !goes_on || self.open_rows() + rows.num_rows() > RUN_ROWS_MAX {
            self.finish()?
        } else {
            Vec::new()
        };
        self.open.push(rows.slice(start, rows.num_rows() - start));
        Ok(complete)
    }

    /// Gives what is left.
    pub(super) fn finish(&mut self) -> Result<Vec<RecordBatch>> {
        pack(&std::mem::take(&mut self.open))
    }

    fn open_rows(&self) -> usize {
        self.open.iter().map(RecordBatch::num_rows).sum()
    }
}

/// The rows of `samples` as a file holds them. The batches belong together: a series may go on from one batch to
/// the next.
pub(super) fn pack(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let mut runs: Vec<Part> = Vec::new();
    for (batch, rows) in batches.iter().enumerate() {
        let series = column::<Int64Type>(rows, "series_id")?.values();
        let mut start = 0;
        for end in 1..=series.len() {
            if end == series.len() || series[end] != series[start] {
                runs.push(Part { series: series[start], batch, start, end, scale: None });
                start = end;
            }
        }
    }
    let values: Vec<&[f64]> = batches
        .iter()
        .map(|rows| column::<Float64Type>(rows, "value").map(|array| array.values().as_ref()))
        .collect::<Result<_>>()?;
    for run in runs.chunk_by_mut(|a, b| a.series == b.series) {
        let parts: Vec<&[f64]> = run.iter().map(|part| &values[part.batch][part.start..part.end]).collect();
        let scale = choose_scale(&parts);
        run.iter_mut().for_each(|part| part.scale = scale);
    }
    batches
        .iter()
        .enumerate()
        .map(|(batch, rows)| pack_batch(rows, values[batch], runs.iter().filter(|part| part.batch == batch)))
        .collect()
}

/// The rows of one series in one batch.
struct Part {
    series: i64,
    batch: usize,
    start: usize,
    end: usize,
    scale: Option<i32>,
}

fn pack_batch<'a>(rows: &RecordBatch, values: &[f64], parts: impl Iterator<Item = &'a Part>) -> Result<RecordBatch> {
    let mut mantissas = vec![0_i64; values.len()];
    let mut scales = vec![0_i32; values.len()];
    let mut is_decimal = vec![false; values.len()];
    for part in parts {
        let Some((scale, power)) = part.scale.and_then(|scale| Some((scale, power(scale)?))) else { continue };
        for at in part.start..part.end {
            mantissas[at] = mantissa(values[at], scale < 0, power)
                .ok_or_else(|| Error::bug("a value stopped being a decimal of its series' scale"))?;
            scales[at] = scale;
            is_decimal[at] = true;
        }
    }
    let decimals = NullBuffer::from(is_decimal);
    let doubles = NullBuffer::new(!decimals.inner());
    let own = |name: &str| rows.column_by_name(name).cloned().ok_or_else(|| missing(name));
    let columns: Vec<ArrayRef> = vec![
        own("series_id")?,
        own("ts_ms")?,
        own("start_ts_ms")?,
        Arc::new(Float64Array::new(ScalarBuffer::from(values.to_vec()), Some(doubles))),
        Arc::new(Int64Array::new(mantissas.into(), Some(decimals.clone()))),
        Arc::new(Int32Array::new(scales.into(), Some(decimals))),
    ];
    Ok(RecordBatch::try_new(file_schema(), columns)?)
}

/// The `value` column of rows from a file.
pub(crate) fn unpack(rows: &RecordBatch) -> Result<ArrayRef> {
    let doubles = column::<Float64Type>(rows, "value")?;
    let mantissas = column::<Int64Type>(rows, "mantissa")?;
    let scales = column::<Int32Type>(rows, "scale")?;
    if mantissas.null_count() == rows.num_rows() {
        return whole(doubles.values().clone(), doubles.null_count());
    }
    let mut values: Vec<f64> = doubles.values().to_vec();
    let (mantissa, scale) = (mantissas.values(), scales.values());
    let valid = mantissas.nulls();
    let mut start = 0;
    while start < values.len() {
        let decimal_here = valid.is_none_or(|valid| valid.is_valid(start));
        let mut end = start + 1;
        while end < values.len()
            && scale[end] == scale[start]
            && valid.is_none_or(|valid| valid.is_valid(end)) == decimal_here
        {
            end += 1;
        }
        if decimal_here {
            let power = power(scale[start])
                .ok_or_else(|| Error::corrupt(format!("a sample has the unknown scale {}", scale[start])))?;
            fill(&mut values[start..end], &mantissa[start..end], scale[start] < 0, power);
        } else if doubles.nulls().is_some_and(|nulls| (start..end).any(|at| nulls.is_null(at))) {
            return Err(no_value());
        }
        start = end;
    }
    whole(values.into(), 0)
}

fn fill(values: &mut [f64], mantissas: &[i64], negative: bool, power: f64) {
    for (value, mantissa) in values.iter_mut().zip(mantissas) {
        *value = decimal(*mantissa, negative, power);
    }
}

fn whole(values: ScalarBuffer<f64>, nulls: usize) -> Result<ArrayRef> {
    match nulls {
        0 => Ok(Arc::new(Float64Array::new(values, None))),
        _ => Err(no_value()),
    }
}

fn no_value() -> Error {
    Error::corrupt("a sample has neither a value nor a mantissa")
}

fn missing(name: &str) -> Error {
    Error::corrupt(format!("the rows of samples lack the column `{name}`"))
}

fn column<'a, T: arrow::array::ArrowPrimitiveType>(
    rows: &'a RecordBatch,
    name: &str,
) -> Result<&'a arrow::array::PrimitiveArray<T>> {
    rows.column_by_name(name).and_then(|array| array.as_primitive_opt::<T>()).ok_or_else(|| missing(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::histogram::STALE_NAN_BITS;
    use crate::signal::Table;

    fn batch(rows: &[(i64, f64)]) -> RecordBatch {
        let times = Int64Array::from_iter_values(0..rows.len() as i64);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(times.clone()),
            Arc::new(Int64Array::new_null(rows.len())),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.1))),
        ];
        RecordBatch::try_new((Table::Samples.spec().schema)(), columns).expect("fits")
    }

    fn round_trip(batches: &[RecordBatch]) -> Vec<u64> {
        let packed = pack(batches).expect("packs");
        let mut bits = Vec::new();
        for rows in &packed {
            let values = unpack(rows).expect("unpacks");
            bits.extend(values.as_primitive::<Float64Type>().values().iter().map(|value| value.to_bits()));
        }
        bits
    }

    fn scale_of(values: &[f64]) -> Option<i32> {
        choose_scale(&[values])
    }

    #[test]
    fn scales_are_the_smallest_that_fit() {
        assert_eq!(scale_of(&[1.0, 2.0, -3.0]), Some(0));
        assert_eq!(scale_of(&[0.1, 2.25]), Some(2));
        assert_eq!(scale_of(&[1e300]), None);
        assert_eq!(scale_of(&[1.5e20, 3e20]), Some(-5));
        assert_eq!(scale_of(&[std::f64::consts::PI]), Some(15));
        assert_eq!(scale_of(&[1.0 / 3.0]), None);
        assert_eq!(scale_of(&[9_007_199_254_740_991.0, 0.5]), None);
        for odd in [-0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(STALE_NAN_BITS)] {
            assert_eq!(scale_of(&[1.0, odd]), None, "{odd}");
        }
    }

    #[test]
    fn one_series_keeps_one_form_across_batches() {
        let packed = pack(&[batch(&[(1, 1.5), (2, 1.0)]), batch(&[(2, f64::NAN), (3, 2.0)])]).expect("packs");
        let nulls = |rows: &RecordBatch| (0..2).map(|i| rows.column(4).is_null(i)).collect::<Vec<_>>();
        assert_eq!(packed.iter().map(nulls).collect::<Vec<_>>(), [[false, true], [true, false]]);
    }

    #[test]
    fn rows_that_come_in_pieces_are_packed_as_if_they_came_at_once() {
        let all: Vec<(i64, f64)> =
            (0..4000_i64).map(|n| (n * n / 70_000, if n % 700 == 3 { 1.0 / 3.0 } else { n as f64 / 4.0 })).collect();
        let whole = pack(&[batch(&all)]).expect("packs");
        for piece in [1, 7, 512, 4000] {
            let mut packer = Packer::default();
            let mut packed = Vec::new();
            for rows in all.chunks(piece) {
                packed.extend(packer.push(&batch(rows)).expect("packs"));
            }
            packed.extend(packer.finish().expect("packs"));
            let joined = arrow::compute::concat_batches(&file_schema(), &packed).expect("fits");
            for column in [0, 3, 4, 5] {
                assert_eq!(joined.column(column), whole[0].column(column), "{piece}");
            }
        }
    }

    #[test]
    fn a_series_without_end_is_packed_in_parts() {
        let mut packer = Packer::default();
        for _ in 0..3 * RUN_ROWS_MAX / 1000 {
            let rows: Vec<(i64, f64)> = (0..1000).map(|n| (1, f64::from(n))).collect();
            packer.push(&batch(&rows)).expect("packs");
            assert!(packer.open_rows() <= RUN_ROWS_MAX);
        }
    }

    #[test]
    fn a_row_without_any_value_is_damage() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(Int64Array::new_null(1)),
            Arc::new(Float64Array::new_null(1)),
            Arc::new(Int64Array::new_null(1)),
            Arc::new(Int32Array::new_null(1)),
        ];
        let rows = RecordBatch::try_new(file_schema(), columns).expect("fits");
        assert_eq!(unpack(&rows).expect_err("damaged").kind(), crate::Kind::Corrupt);
    }

    fn any_bits() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (any::<i32>(), 0..8_i32).prop_map(|(m, s)| f64::from(m) / 10_f64.powi(s)),
            any::<i64>().prop_map(|m| m as f64),
            Just(f64::from_bits(STALE_NAN_BITS)),
            Just(-0.0),
            Just(0.0),
        ]
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(
            rows in proptest::collection::vec((0..4_i64, any_bits()), 1..60),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut rows = rows;
            rows.sort_by_key(|row| row.0);
            let whole = batch(&rows);
            let cut = cut.index(rows.len());
            let parts = [whole.slice(0, cut), whole.slice(cut, rows.len() - cut)];
            let bits: Vec<u64> = rows.iter().map(|row| row.1.to_bits()).collect();
            prop_assert_eq!(&round_trip(&[whole]), &bits);
            prop_assert_eq!(&round_trip(&parts), &bits);
        }

        #[test]
        fn decimals_of_one_series_are_stored_as_decimals(
            mantissas in proptest::collection::vec(-1_000_000_000_i64..1_000_000_000, 1..40),
            scale in 0..6_i32,
        ) {
            let values: Vec<f64> = mantissas.iter().map(|m| *m as f64 / 10_f64.powi(scale)).collect();
            prop_assert!(scale_of(&values).is_some_and(|found| found <= scale));
        }
    }
}
