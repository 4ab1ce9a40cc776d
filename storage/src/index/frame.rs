//! What all sidecars have in common: magic, version, body, checksum.
//!
//! Owns: the frame and the reading of fields. Does not own: what a body means.
//!
//! Invariants
//! 1. A frame is little endian and ends with the CRC-32C of all bytes before.
//! 2. Whoever reads fields meets errors, not panics, and never reserves memory for more than there are bytes.

use bytes::Bytes;

use crate::error::{Error, Result};

/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 4;

/// Which sidecar a frame holds.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// For errors: `the directory`.
    pub(super) name: &'static str,
    pub(super) magic: [u8; 4],
    pub(super) version: u32,
}

impl Form {
    /// An empty frame with room for `body_bytes`.
    pub(super) fn start(self, body_bytes: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + body_bytes + CHECKSUM_BYTES);
        out.extend_from_slice(&self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out
    }

    /// Damage, named.
    pub(super) fn damaged(self, what: &str) -> Error {
        Error::corrupt(format!("{} is damaged: {what}", self.name))
    }

    /// The fields of bytes that came out of a frame.
    pub(super) fn inner(self, bytes: &[u8]) -> Fields<'_> {
        Fields { form: self, rest: bytes, at: 0 }
    }

    /// The fields behind magic and version, once the checksum holds.
    pub(super) fn open(self, bytes: &[u8]) -> Result<Fields<'_>> {
        let body_len = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| self.damaged("it is cut"))?;
        let (body, checksum) = bytes.split_at(body_len);
        let mut fields = Fields { form: self, rest: body, at: 0 };
        let (magic, version) = (fields.bytes(4)?, fields.u32()?);
        if magic != self.magic || version != self.version {
            return Err(self.damaged("magic or version is unknown"));
        }
        if crc32c::crc32c(body).to_le_bytes() != checksum {
            return Err(self.damaged("the checksum differs"));
        }
        Ok(fields)
    }
}

/// Adds the checksum.
pub(super) fn seal(mut out: Vec<u8>) -> Bytes {
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.into()
}

/// What is left of a body.
pub(super) struct Fields<'a> {
    form: Form,
    rest: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or_else(|| self.form.damaged("it is cut"))?;
        self.rest = tail;
        self.at += count;
        Ok(head)
    }

    /// The next `count` values of `width` bytes.
    pub(super) fn table(&mut self, count: u64, width: usize) -> Result<&'a [u8]> {
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(width));
        self.bytes(bytes.ok_or_else(|| self.form.damaged("its length does not fit its count"))?)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32_of(self.bytes(4)?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64_of(self.bytes(8)?))
    }

    /// A text behind its length.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        let count = self.u32()?;
        let bytes = self.table(u64::from(count), 1)?;
        std::str::from_utf8(bytes).map_err(|_| self.form.damaged("a text is not UTF-8"))
    }

    /// Where in the frame the next field stands.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.form.damaged("its length does not fit its count")) }
    }
}

/// A text with its length in front.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Four bytes as a number.
pub(super) fn u32_of(bytes: &[u8]) -> u32 {
    bytes.try_into().map(u32::from_le_bytes).unwrap_or(0)
}

/// Eight bytes as a number.
pub(super) fn u64_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map(u64::from_le_bytes).unwrap_or(0)
}
