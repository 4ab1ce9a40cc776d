//! Records: one append as bytes, and the frame around it.
//!
//! Owns: frame, checksum, sequence number, and the payload (tenant, new identities, facts). Does not own: columns
//! (`columns`), files (`segment`), which identities a segment already defined (`writer`).
//! Format: `docs/formats/wal.md`.
//!
//! Invariants
//! 1. [`decode`] and [`find`] never panic, whatever the bytes.
//! 2. A frame that [`find`] returns is whole: its checksum covers length, sequence number and payload.

use arrow::array::RecordBatch;

use super::columns::{self, Cursor, put_number};
use crate::error::{Error, Result};
use crate::model::batch::Batch;
use crate::model::identity::Identity;
use crate::model::labels::Labels;
use crate::model::tenant::Tenant;
use crate::signal::Table;

/// Begins each frame, so that whole records can be found behind damage. `0xFF` never occurs in UTF-8 text.
pub const MARKER: [u8; 4] = [0xff, b'T', b'w', 0xfe];
/// Marker, length, checksum, sequence number.
pub const FRAME_BYTES: usize = 4 + 4 + 4 + 8;
/// The largest payload: a bound for what a reader takes into memory at once.
pub const RECORD_BYTES_MAX: usize = 256 << 20;
/// The only kind of payload so far.
const KIND_APPEND: u8 = 1;

/// Tables by their number in a record, counted from one. On disk: never reorder.
const TABLE_NUMBERS: [Table; 9] = [
    Table::Series,
    Table::Samples,
    Table::Histograms,
    Table::Exemplars,
    Table::MetricMetadata,
    Table::Streams,
    Table::Logs,
    Table::Resources,
    Table::Spans,
];

/// One append, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Whose data it is.
    pub tenant: Tenant,
    /// The identities that the segment did not define before.
    pub identities: Vec<Identity>,
    /// Rows by table.
    pub facts: Vec<(Table, RecordBatch)>,
}

/// A whole frame in the bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it begins.
    pub from: usize,
    /// Where the next one begins.
    pub to: usize,
    /// Its sequence number.
    pub sequence: u64,
    /// What [`decode`] reads.
    pub payload: &'a [u8],
}

/// The facts of `batch` as they stand at the end of a payload; done by the caller of an append, beside the writer.
pub fn encode_facts(batch: &Batch) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(64 + batch.rows() * 32);
    put_number(batch.facts.len(), &mut out);
    for (table, rows) in &batch.facts {
        let number = TABLE_NUMBERS.iter().position(|t| t == table).and_then(|i| u8::try_from(i + 1).ok());
        out.push(number.ok_or_else(|| Error::bug(format!("table `{}` has no number in the WAL", table.name())))?);
        put_number(rows.num_rows(), &mut out);
        for column in rows.columns() {
            columns::encode(column, &mut out)?;
        }
    }
    if out.len() > RECORD_BYTES_MAX / 2 {
        return Err(Error::limit(format!(
            "a request of {} bytes of rows is over the WAL's limit of {} bytes: send smaller ones",
            out.len(),
            RECORD_BYTES_MAX / 2
        )));
    }
    Ok(out)
}

/// Appends a frame with the record of `facts` to `out`; on an error `out` is as before.
pub fn push<'a>(
    out: &mut Vec<u8>,
    sequence: u64,
    tenant: &Tenant,
    identities: impl ExactSizeIterator<Item = &'a Labels>,
    facts: &[u8],
) -> Result<()> {
    let from = out.len();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.push(KIND_APPEND);
    put_text(tenant.as_str(), out);
    put_number(identities.len(), out);
    for labels in identities {
        put_text(labels.as_encoded(), out);
    }
    out.extend_from_slice(facts);
    let bytes = out.len() - from - FRAME_BYTES;
    let Some(length) = u32::try_from(bytes).ok().filter(|_| bytes <= RECORD_BYTES_MAX) else {
        out.truncate(from);
        return Err(Error::limit(format!(
            "a request of {bytes} bytes is over the WAL's limit of {RECORD_BYTES_MAX} bytes: send smaller ones"
        )));
    };
    let checksum = checksum(length, &out[from + 12..]);
    out[from + 4..from + 8].copy_from_slice(&length.to_le_bytes());
    out[from + 8..from + 12].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_number(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn checksum(length: u32, sequence_and_payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), sequence_and_payload)
}

/// The whole frame that begins at `from`, if one does.
pub fn frame_at(bytes: &[u8], from: usize) -> Option<Frame<'_>> {
    let rest = bytes.get(from..)?;
    let (head, rest) = rest.split_at_checked(12)?;
    let field = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let length = field(4)?;
    let payload_bytes = usize::try_from(length).ok().filter(|n| *n <= RECORD_BYTES_MAX)?;
    let covered = rest.get(..payload_bytes.checked_add(8)?)?;
    if head[..4] != MARKER || field(8)? != checksum(length, covered) {
        return None;
    }
    let (sequence, payload) = covered.split_first_chunk::<8>()?;
    Some(Frame { from, to: from + FRAME_BYTES + payload_bytes, sequence: u64::from_le_bytes(*sequence), payload })
}

/// The first whole frame that begins at or after `from`.
pub fn find(bytes: &[u8], from: usize) -> Option<Frame<'_>> {
    if let Some(frame) = frame_at(bytes, from) {
        return Some(frame);
    }
    let rest = bytes.get(from..)?;
    memchr::memmem::find_iter(rest, &MARKER).find_map(|at| frame_at(bytes, from + at))
}

/// Reads a payload.
pub fn decode(payload: &[u8]) -> Result<Record> {
    let mut cursor = Cursor::new(payload);
    if cursor.byte()? != KIND_APPEND {
        return Err(Error::corrupt("a WAL record is of an unknown kind"));
    }
    let tenant = Tenant::new(take_text(&mut cursor)?)
        .map_err(|cause| Error::corrupt("a WAL record names no valid tenant").with_source(cause))?;
    let mut identities = Vec::new();
    for _ in 0..cursor.count()? {
        let labels = Labels::from_encoded(take_text(&mut cursor)?)
            .ok_or_else(|| Error::corrupt("a WAL record holds labels that are not sorted or not whole"))?;
        identities.push(Identity::from(labels));
    }
    let mut facts: Vec<(Table, RecordBatch)> = Vec::new();
    for _ in 0..cursor.count()? {
        let number = usize::from(cursor.byte()?);
        let table = number.checked_sub(1).and_then(|i| TABLE_NUMBERS.get(i)).copied();
        let table = table.ok_or_else(|| Error::corrupt(format!("a WAL record names an unknown table {number}")))?;
        if facts.iter().any(|(other, _)| other.signal() != table.signal() || *other == table) {
            return Err(Error::corrupt("a WAL record mixes signals or names a table twice"));
        }
        let rows = cursor.count()?;
        let schema = (table.spec().schema)();
        let columns: Result<Vec<_>> =
            schema.fields().iter().map(|field| columns::decode(&mut cursor, field.data_type(), rows)).collect();
        let rows = RecordBatch::try_new(schema, columns?)
            .map_err(|cause| Error::corrupt("a WAL record does not fit its table").with_source(cause))?;
        facts.push((table, rows));
    }
    if !cursor.is_empty() {
        return Err(Error::corrupt("a WAL record is longer than its contents say"));
    }
    Ok(Record { tenant, identities, facts })
}

fn take_text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let length = cursor.number()?;
    std::str::from_utf8(cursor.take(length)?)
        .map_err(|cause| Error::corrupt("a WAL record holds text that is no UTF-8").with_source(cause))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wal::tests::{any_batch, logs, metrics, traces};

    fn round_trip(batch: &Batch) -> Record {
        let facts = encode_facts(batch).expect("encodes");
        let mut bytes = b"before".to_vec();
        let labels = batch.identities.iter().map(|identity| &identity.labels);
        push(&mut bytes, 7, &Tenant::single(), labels, &facts).expect("fits");
        let frame = frame_at(&bytes, 6).expect("is whole");
        assert_eq!((frame.from, frame.to, frame.sequence), (6, bytes.len(), 7));
        decode(frame.payload).expect("decodes")
    }

    #[test]
    fn records_of_all_signals_read_back() {
        for batch in [metrics(3), logs(3), traces(3)] {
            let record = round_trip(&batch);
            assert_eq!(record.facts, batch.facts);
            assert_eq!(record.identities, batch.identities);
        }
    }

    #[test]
    fn slices_of_batches_read_back() {
        for batch in [metrics(9), logs(9), traces(9)] {
            let facts: Vec<_> =
                batch.facts.iter().map(|(table, rows)| (*table, rows.slice(2, rows.num_rows() - 3))).collect();
            let sliced = Batch { facts, ..batch };
            assert_eq!(round_trip(&sliced).facts, sliced.facts);
        }
    }

    #[test]
    fn the_frame_is_pinned_because_it_is_on_disk() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, &Tenant::single(), std::iter::empty(), &[0]).expect("fits");
        // Marker, length 11, CRC-32C of length, sequence and payload (computed with Python), sequence 1, kind 1,
        // the tenant's length and name, no identities, no tables.
        let expected =
            [b"\xffTw\xfe\x0b\0\0\0".as_slice(), &PINNED_CRC.to_le_bytes(), b"\x01\0\0\0\0\0\0\0\x01\x07default\0\0"];
        assert_eq!(bytes, expected.concat());
    }

    const PINNED_CRC: u32 = 0xa22be0cb;

    #[test]
    fn payloads_that_lie_about_their_length_are_refused() {
        let facts = encode_facts(&logs(2)).expect("encodes");
        let mut bytes = Vec::new();
        push(&mut bytes, 1, &Tenant::single(), std::iter::empty(), &facts).expect("fits");
        let payload = &bytes[FRAME_BYTES..];
        for end in 0..payload.len() {
            assert!(decode(&payload[..end]).is_err(), "cut at {end}");
        }
        assert!(decode(&[payload, &[0]].concat()).is_err(), "one byte more");
        // A count of rows that no bytes stand for must not be believed.
        let huge = [KIND_APPEND, 1, b'a', 0, 1, 2, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(decode(&huge).is_err());
    }

    proptest! {
        #[test]
        fn every_batch_reads_back(batch in any_batch()) {
            let record = round_trip(&batch);
            prop_assert_eq!(record.facts, batch.facts);
            prop_assert_eq!(record.identities, batch.identities);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&payload);
            let _ = find(&payload, 0);
        }

        #[test]
        fn changed_payloads_do_not_make_the_decoder_panic(
            batch in any_batch(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let facts = encode_facts(&batch).expect("encodes");
            let mut bytes = Vec::new();
            let labels = batch.identities.iter().map(|identity| &identity.labels);
            push(&mut bytes, 1, &Tenant::single(), labels, &facts).expect("fits");
            let payload = &mut bytes[FRAME_BYTES..];
            for (at, byte) in changes {
                payload[at.index(payload.len())] = byte;
            }
            let _ = decode(payload);
        }
    }
}
