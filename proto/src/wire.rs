//! Protobuf read where it lies: fields of a message as slices of the body.
//!
//! Owns: varints, lengths, wire types. Does not own: what a field means.
//!
//! Invariants
//! 1. Every slice lies inside its message; a length beyond the end is an error.
//! 2. No recursion: a caller walks as deep as its own message types go. Groups are an error.

use crate::error::{Error, Result};

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes of a string, bytes or message field.
    pub(crate) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_type()),
        }
    }

    /// A varint as it is.
    pub(crate) fn unsigned(self) -> Result<u64> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(wrong_type()),
        }
    }

    /// A varint as a signed number (`int64`).
    pub(crate) fn signed(self) -> Result<i64> {
        self.unsigned().map(|value| i64::from_ne_bytes(value.to_ne_bytes()))
    }

    /// A varint as `int32`, `uint32` or an enum: the low half, as the encoding defines it.
    pub(crate) fn low32(self) -> Result<u32> {
        self.unsigned().map(low32)
    }

    /// A varint as `sint32`.
    pub(crate) fn zigzag32(self) -> Result<i32> {
        self.unsigned().map(zigzag32)
    }

    /// A `double`.
    pub(crate) fn double(self) -> Result<f64> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(wrong_type()),
        }
    }

    /// A repeated `double`, packed or one by one.
    pub(crate) fn doubles(self, out: &mut Vec<f64>) -> Result<()> {
        match self {
            Self::Fixed64(bits) => out.push(f64::from_bits(bits)),
            Self::Bytes(packed) => {
                let (values, rest) = packed.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(fault("a packed list of doubles is not a multiple of 8 bytes long"));
                }
                out.extend(values.iter().map(|bytes| f64::from_le_bytes(*bytes)));
            }
            _ => return Err(wrong_type()),
        }
        Ok(())
    }

    /// A repeated varint, packed or one by one.
    pub(crate) fn varints(self, mut each: impl FnMut(u64)) -> Result<()> {
        match self {
            Self::Varint(value) => each(value),
            Self::Bytes(packed) => {
                let mut values = Fields::new(packed);
                while !values.rest.is_empty() {
                    each(values.varint()?);
                }
            }
            _ => return Err(wrong_type()),
        }
        Ok(())
    }
}

/// The low half of a varint.
pub(crate) fn low32(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

/// `sint32` from its varint.
pub(crate) fn zigzag32(value: u64) -> i32 {
    let value = low32(value);
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// `sint64` from its varint.
pub(crate) fn zigzag64(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// The fields of one message, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Bytes after the last field that was read.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next field's number and value.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| fault("a field has no valid number"))?;
        let value = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| beyond_the_end())?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(fault("a field has an unknown wire type")),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64> {
        if let Some((first, rest)) = self.rest.split_first()
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                // The tenth byte holds the last bit.
                if i == 9 && *byte > 1 {
                    return Err(fault("a number has more than 64 bits"));
                }
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(fault("a number does not end"))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(beyond_the_end)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(beyond_the_end)?;
        self.rest = rest;
        Ok(*taken)
    }
}

#[cold]
fn wrong_type() -> Error {
    fault("a field has the wrong wire type")
}

#[cold]
fn beyond_the_end() -> Error {
    fault("a length is beyond the end")
}

#[cold]
fn fault(what: &str) -> Error {
    Error::malformed(format!("the body is not a valid protobuf message: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        // 1: varint 300, 2: "ab", 3: fixed32 1, 4: fixed64 2, as the protobuf encoding defines them.
        let message = [8, 0xac, 2, 18, 2, b'a', b'b', 29, 1, 0, 0, 0, 33, 2, 0, 0, 0, 0, 0, 0, 0];
        let mut fields = Fields::new(&message);
        let mut all = Vec::new();
        while let Some(field) = fields.next().unwrap() {
            all.push(field);
        }
        let expected =
            [(1, Field::Varint(300)), (2, Field::Bytes(b"ab")), (3, Field::Fixed32(1)), (4, Field::Fixed64(2))];
        assert_eq!(all, expected);
    }

    #[test]
    fn damage_is_an_error() {
        let endless = [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        let too_wide = [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
        for damaged in [&[8][..], &[18, 5, 1], &[0, 1], &[11], &[29, 1], &endless, &too_wide] {
            assert!(Fields::new(damaged).next().is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn zigzag_alternates() {
        for (wire, value) in [(0, 0), (1, -1), (2, 1), (3, -2), (u64::from(u32::MAX), i32::MIN)] {
            assert_eq!((zigzag32(wire), wire), (value, wire));
        }
        assert_eq!((zigzag64(u64::MAX), zigzag64(u64::MAX - 1)), (i64::MIN, i64::MAX));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut fields = Fields::new(&bytes);
            while let Ok(Some((_, field))) = fields.next() {
                let _ = field.varints(|_| {});
                let _ = field.doubles(&mut Vec::new());
            }
        }
    }
}
