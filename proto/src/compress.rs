//! Content encodings: request bodies unpacked under a limit.
//!
//! Invariants
//! 1. Never more than `limit_bytes` (plus one buffer) are allocated, whatever the body declares.
//! 2. A body that ends early is an error, not a short result.

use std::io::Read;

use bytes::Bytes;

use crate::error::{Error, Result};

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// Snappy's block format, not its frames.
    Snappy,
    /// RFC 1952; several members may follow each other.
    Gzip,
    /// RFC 1951, or RFC 1950 with its zlib header.
    Deflate,
    /// Zstandard frames.
    Zstd,
}

impl Encoding {
    /// From a `Content-Encoding` header, in any case; `None` for an unknown one. Empty means identity.
    pub fn from_header(value: &str) -> Option<Self> {
        const NAMES: [(&str, Encoding); 6] = [
            ("", Encoding::Identity),
            ("identity", Encoding::Identity),
            ("snappy", Encoding::Snappy),
            ("gzip", Encoding::Gzip),
            ("deflate", Encoding::Deflate),
            ("zstd", Encoding::Zstd),
        ];
        let value = value.trim();
        NAMES.iter().find_map(|(name, encoding)| name.eq_ignore_ascii_case(value).then_some(*encoding))
    }

    /// The name in headers and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// Unpacks `body`. More than `limit_bytes` is [`crate::Kind::TooLarge`], damage is [`crate::Kind::Malformed`].
pub fn decompress(encoding: Encoding, body: Bytes, limit_bytes: usize) -> Result<Bytes> {
    match encoding {
        Encoding::Identity if body.len() > limit_bytes => Err(too_large(encoding, limit_bytes)),
        Encoding::Identity => Ok(body),
        Encoding::Snappy => snappy(&body, limit_bytes),
        Encoding::Gzip => read_all(encoding, flate2::read::MultiGzDecoder::new(&body[..]), body.len(), limit_bytes),
        Encoding::Deflate => deflate(&body, limit_bytes),
        Encoding::Zstd => zstd_frames(&body, limit_bytes),
    }
}

fn too_large(encoding: Encoding, limit_bytes: usize) -> Error {
    Error::too_large(format!("the {} body is larger than {limit_bytes} bytes when unpacked", encoding.name()))
}

fn damaged(encoding: Encoding, reason: impl std::fmt::Display) -> Error {
    Error::malformed(format!("the body is not valid {}: {reason}", encoding.name()))
}

/// The declared length is checked before anything of that size is allocated.
fn snappy(body: &[u8], limit_bytes: usize) -> Result<Bytes> {
    if body.is_empty() {
        return Err(damaged(Encoding::Snappy, "it is empty"));
    }
    let declared = snap::raw::decompress_len(body).map_err(|e| damaged(Encoding::Snappy, e))?;
    if declared > limit_bytes {
        return Err(too_large(Encoding::Snappy, limit_bytes));
    }
    // No snappy element of one byte and more yields above 64 bytes: a longer declaration is a lie.
    if declared > body.len().saturating_mul(64) {
        return Err(damaged(Encoding::Snappy, "it declares more bytes than it can hold"));
    }
    let unpacked = snap::raw::Decoder::new().decompress_vec(body).map_err(|e| damaged(Encoding::Snappy, e))?;
    Ok(unpacked.into())
}

/// HTTP means RFC 1950 by `deflate`, Loki and others send RFC 1951: the header of the former tells them apart.
fn deflate(body: &[u8], limit_bytes: usize) -> Result<Bytes> {
    if has_zlib_header(body) {
        return read_all(Encoding::Deflate, flate2::read::ZlibDecoder::new(body), body.len(), limit_bytes);
    }
    read_all(Encoding::Deflate, flate2::read::DeflateDecoder::new(body), body.len(), limit_bytes)
}

/// Whether `body` begins as RFC 1950 says: method 8 and a check of 31. Read as RFC 1951 such a start would be a stored
/// block with bits set where encoders write zeros.
fn has_zlib_header(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31),
        _ => false,
    }
}

fn zstd_frames(body: &[u8], limit_bytes: usize) -> Result<Bytes> {
    if body.is_empty() {
        return Err(damaged(Encoding::Zstd, "it is empty"));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(|e| damaged(Encoding::Zstd, e))?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(|e| damaged(Encoding::Zstd, e))?;
    read_all(Encoding::Zstd, decoder, body.len(), limit_bytes)
}

/// A frame may ask for a window of at most 8 MiB (RFC 8878 recommends that receivers support this much).
const WINDOW_LOG_MAX: u32 = 23;

fn read_all(encoding: Encoding, reader: impl Read, packed_bytes: usize, limit_bytes: usize) -> Result<Bytes> {
    let mut unpacked = Vec::with_capacity(packed_bytes.saturating_mul(4).min(limit_bytes));
    let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    reader.take(limit.saturating_add(1)).read_to_end(&mut unpacked).map_err(|e| damaged(encoding, e))?;
    if unpacked.len() > limit_bytes {
        return Err(too_large(encoding, limit_bytes));
    }
    Ok(unpacked.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::Kind;

    const ALL: [Encoding; 5] =
        [Encoding::Identity, Encoding::Snappy, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];

    fn pack(encoding: Encoding, plain: &[u8]) -> Bytes {
        let level = flate2::Compression::default();
        match encoding {
            Encoding::Identity => plain.to_vec(),
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
            Encoding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(plain, 0).unwrap(),
        }
        .into()
    }

    #[test]
    fn deflate_may_have_a_zlib_header() {
        for level in [0, 1, 6, 9] {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
            encoder.write_all(b"hello hello hello").unwrap();
            let packed = encoder.finish().unwrap();
            assert_eq!(decompress(Encoding::Deflate, packed.into(), 100).unwrap(), "hello hello hello");
        }
    }

    #[test]
    fn a_body_at_the_limit_passes_and_one_byte_more_does_not() {
        let plain = vec![7; 100_000];
        for encoding in ALL {
            let packed = pack(encoding, &plain);
            assert_eq!(decompress(encoding, packed.clone(), 100_000).unwrap(), plain, "{encoding:?}");
            assert_eq!(decompress(encoding, packed, 99_999).unwrap_err().kind(), Kind::TooLarge, "{encoding:?}");
        }
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        let plain: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        for encoding in &ALL[1..] {
            let packed = pack(*encoding, &plain);
            for length in [0, 1, packed.len() / 2, packed.len() - 1] {
                let error = decompress(*encoding, packed.slice(..length), 1 << 20).unwrap_err();
                assert_eq!(error.kind(), Kind::Malformed, "{encoding:?} {length}");
            }
        }
    }

    #[test]
    fn a_snappy_bomb_is_refused_before_it_is_unpacked() {
        // Declares 4 GiB - 1 and holds nothing.
        let bomb = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert_eq!(decompress(Encoding::Snappy, bomb.clone(), 1 << 25).unwrap_err().kind(), Kind::TooLarge);
        assert_eq!(decompress(Encoding::Snappy, bomb, usize::MAX).unwrap_err().kind(), Kind::Malformed);
    }

    #[test]
    fn headers_name_encodings() {
        assert_eq!(Encoding::from_header(" GZIP "), Some(Encoding::Gzip));
        assert_eq!(Encoding::from_header(""), Some(Encoding::Identity));
        assert_eq!(Encoding::from_header("br"), None);
        assert!(ALL.iter().all(|encoding| Encoding::from_header(encoding.name()) == Some(*encoding)));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(plain in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for encoding in ALL {
                prop_assert_eq!(&decompress(encoding, pack(encoding, &plain), 4096).unwrap()[..], &plain[..]);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for encoding in ALL {
                let _ = decompress(encoding, Bytes::from(bytes.clone()), 1 << 16);
            }
        }
    }
}
