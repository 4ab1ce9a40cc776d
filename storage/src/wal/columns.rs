//! Arrow columns as bytes: what a record holds of each column of a table.
//!
//! Owns: the bytes of one column, given its type and its number of rows. Does not own: which columns there are
//! (`signal`), records (`record`). Format: `docs/formats/wal.md`.
//!
//! Invariants
//! 1. Decoding never panics and never allocates more than a small multiple of the bytes it was given.
//! 2. `decode(encode(column)) == column` for every type that a table uses.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray,
    StringArray, StructArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type};

use crate::error::{Error, Result};

/// No row is null.
const NULLS_NONE: u8 = 0;
/// A bitmap follows; a set bit is a row with a value.
const NULLS_SOME: u8 = 1;
/// Every row is null; nothing follows.
const NULLS_ALL: u8 = 2;

/// Bytes that are being decoded.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8> {
        let (byte, rest) = self.rest.split_first().ok_or_else(short)?;
        self.rest = rest;
        Ok(*byte)
    }

    /// An unsigned LEB128 number.
    pub(super) fn number(&mut self) -> Result<usize> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| short());
            }
        }
        Err(Error::corrupt("a WAL record holds a number of more than 64 bits"))
    }

    /// A number of things that take at least one of the bytes left each.
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = self.number()?;
        if count > self.rest.len() { Err(short()) } else { Ok(count) }
    }

    fn fixed<const N: usize, T>(&mut self, rows: usize, read: fn([u8; N]) -> T) -> Result<ScalarBuffer<T>>
    where
        T: arrow::datatypes::ArrowNativeType,
    {
        let bytes = self.take(rows.checked_mul(N).ok_or_else(short)?)?;
        let (values, _) = bytes.as_chunks::<N>();
        Ok(values.iter().map(|value| read(*value)).collect::<Vec<T>>().into())
    }

    fn bits(&mut self, rows: usize) -> Result<BooleanBuffer> {
        Ok(BooleanBuffer::new(Buffer::from(self.take(rows.div_ceil(8))?), 0, rows))
    }

    /// Offsets of `rows` values from their lengths.
    fn offsets(&mut self, rows: usize) -> Result<(OffsetBuffer<i32>, usize)> {
        if rows > self.rest.len() {
            return Err(short());
        }
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut end = 0usize;
        offsets.push(0);
        for _ in 0..rows {
            end = end.checked_add(self.number()?).ok_or_else(short)?;
            offsets.push(i32::try_from(end).map_err(|_| short())?);
        }
        if end > self.rest.len() {
            return Err(short());
        }
        Ok((OffsetBuffer::new(offsets.into()), end))
    }
}

fn short() -> Error {
    Error::corrupt("a WAL record is shorter than its contents say")
}

fn damaged(cause: arrow::error::ArrowError) -> Error {
    Error::corrupt("a WAL record holds a column that does not fit its table").with_source(cause)
}

/// Appends an unsigned LEB128 number.
pub(super) fn put_number(mut value: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends `column`.
pub(super) fn encode(column: &dyn Array, out: &mut Vec<u8>) -> Result<()> {
    if !put_nulls(column, out) {
        return Ok(());
    }
    match column.data_type() {
        DataType::Int64 => put_fixed(column.as_primitive::<Int64Type>().values(), i64::to_le_bytes, out),
        DataType::Int32 => put_fixed(column.as_primitive::<Int32Type>().values(), i32::to_le_bytes, out),
        DataType::Float64 => put_fixed(column.as_primitive::<Float64Type>().values(), f64::to_le_bytes, out),
        DataType::Boolean => put_bits(column.as_boolean().values(), out),
        DataType::Utf8 => {
            let column = column.as_string::<i32>();
            put_bytes(column.value_offsets(), column.value_data(), out);
        }
        DataType::Binary => {
            let column = column.as_binary::<i32>();
            put_bytes(column.value_offsets(), column.value_data(), out);
        }
        DataType::List(_) => {
            let column = column.as_list::<i32>();
            let (from, length) = put_lengths(column.value_offsets(), out);
            encode(&column.values().slice(from, length), out)?;
        }
        DataType::Map(..) => {
            let column = column.as_map();
            let (from, length) = put_lengths(column.value_offsets(), out);
            encode(&column.keys().slice(from, length), out)?;
            encode(&column.values().slice(from, length), out)?;
        }
        DataType::Struct(_) => {
            for child in column.as_struct().columns() {
                encode(child, out)?;
            }
        }
        other => return Err(Error::bug(format!("the WAL has no form for a column of type {other}"))),
    }
    Ok(())
}

/// Writes which rows are null; whether values follow.
fn put_nulls(column: &dyn Array, out: &mut Vec<u8>) -> bool {
    match column.nulls() {
        Some(nulls) if nulls.null_count() == column.len() && !column.is_empty() => out.push(NULLS_ALL),
        Some(nulls) if nulls.null_count() > 0 => {
            out.push(NULLS_SOME);
            put_bits(nulls.inner(), out);
            return true;
        }
        _ => {
            out.push(NULLS_NONE);
            return true;
        }
    }
    false
}

fn put_fixed<const N: usize, T: Copy>(values: &[T], write: fn(T) -> [u8; N], out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + values.len() * N, 0);
    let (slots, _) = out[from..].as_chunks_mut::<N>();
    for (slot, value) in slots.iter_mut().zip(values) {
        *slot = write(*value);
    }
}

fn put_bits(bits: &BooleanBuffer, out: &mut Vec<u8>) {
    out.extend_from_slice(&bits.sliced()[..bits.len().div_ceil(8)]);
}

/// Writes the length of each value; where the values begin and how many bytes or rows they are.
fn put_lengths(offsets: &[i32], out: &mut Vec<u8>) -> (usize, usize) {
    let at = |offset: i32| usize::try_from(offset).unwrap_or(0);
    for pair in offsets.windows(2) {
        put_number(at(pair[1]) - at(pair[0]), out);
    }
    let from = offsets.first().map_or(0, |first| at(*first));
    (from, offsets.last().map_or(0, |last| at(*last)) - from)
}

fn put_bytes(offsets: &[i32], data: &[u8], out: &mut Vec<u8>) {
    let (from, length) = put_lengths(offsets, out);
    out.extend_from_slice(&data[from..from + length]);
}

/// Reads a column of `rows` rows; the caller has checked that `rows` is not more than the bytes of the record.
pub(super) fn decode(cursor: &mut Cursor<'_>, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    let nulls = match cursor.byte()? {
        NULLS_NONE => None,
        NULLS_SOME => Some(NullBuffer::new(cursor.bits(rows)?)),
        NULLS_ALL => return Ok(new_null_array(data_type, rows)),
        _ => return Err(Error::corrupt("a WAL record holds a column with an unknown mark for nulls")),
    };
    Ok(match data_type {
        DataType::Int64 => {
            Arc::new(Int64Array::try_new(cursor.fixed(rows, i64::from_le_bytes)?, nulls).map_err(damaged)?)
        }
        DataType::Int32 => {
            Arc::new(Int32Array::try_new(cursor.fixed(rows, i32::from_le_bytes)?, nulls).map_err(damaged)?)
        }
        DataType::Float64 => {
            Arc::new(Float64Array::try_new(cursor.fixed(rows, f64::from_le_bytes)?, nulls).map_err(damaged)?)
        }
        DataType::Boolean => Arc::new(BooleanArray::new(cursor.bits(rows)?, nulls)),
        DataType::Utf8 => {
            let (offsets, bytes) = cursor.offsets(rows)?;
            let data = Buffer::from(cursor.take(bytes)?);
            Arc::new(StringArray::try_new(offsets, data, nulls).map_err(damaged)?)
        }
        DataType::Binary => {
            let (offsets, bytes) = cursor.offsets(rows)?;
            let data = Buffer::from(cursor.take(bytes)?);
            Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(damaged)?)
        }
        DataType::List(item) => {
            let (offsets, length) = cursor.offsets(rows)?;
            let values = decode(cursor, item.data_type(), length)?;
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls).map_err(damaged)?)
        }
        DataType::Map(entry, ordered) => decode_map(cursor, entry, *ordered, rows, nulls)?,
        DataType::Struct(fields) => Arc::new(decode_struct(cursor, fields, rows, nulls)?),
        other => return Err(Error::bug(format!("the WAL has no form for a column of type {other}"))),
    })
}

fn decode_map(
    cursor: &mut Cursor<'_>,
    entry: &Arc<Field>,
    ordered: bool,
    rows: usize,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let DataType::Struct(fields) = entry.data_type() else {
        return Err(Error::bug("the entries of a map are no struct"));
    };
    let (offsets, length) = cursor.offsets(rows)?;
    let entries = decode_struct(cursor, fields, length, None)?;
    Ok(Arc::new(MapArray::try_new(Arc::clone(entry), offsets, entries, nulls, ordered).map_err(damaged)?))
}

fn decode_struct(
    cursor: &mut Cursor<'_>,
    fields: &Fields,
    rows: usize,
    nulls: Option<NullBuffer>,
) -> Result<StructArray> {
    let children: Result<Vec<ArrayRef>> = fields.iter().map(|field| decode(cursor, field.data_type(), rows)).collect();
    StructArray::try_new(fields.clone(), children?, nulls).map_err(damaged)
}
