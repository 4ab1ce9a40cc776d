//! Protobuf pushes: read where they lie, without a message tree.
//!
//! Owns: field numbers of the push messages. Does not own: snappy (`compress`), the text of labels (`labels`).

use std::borrow::Cow;

use hashbrown::HashMap;
use storage::model::time::{NS_PER_S, TimestampNs};

use super::accept::{Acceptor, Pairs, Stream};
use super::{Decoded, PushLimits, acceptor, labels, text};
use crate::error::{Error, Result};
use crate::wire::Fields;

/// Decodes a push request whose snappy block is already unpacked.
pub fn decode_protobuf(body: &[u8], limits: &PushLimits, now: TimestampNs) -> Result<Decoded> {
    let mut acceptor = acceptor(limits, now);
    // Agents send one stream many times in a request: its labels are parsed and checked once.
    let mut known: HashMap<&[u8], Stream, ahash::RandomState> = HashMap::default();
    let mut metadata = Pairs::new();
    let mut request = Fields::new(body);
    while let Some((number, value)) = request.next()? {
        if number == 1 {
            read_stream(value.bytes()?, &mut acceptor, &mut known, &mut metadata)?;
        }
    }
    acceptor.finish()
}

fn read_stream<'a>(
    message: &'a [u8],
    acceptor: &mut Acceptor<'_>,
    known: &mut HashMap<&'a [u8], Stream, ahash::RandomState>,
    metadata: &mut Pairs<'a>,
) -> Result<()> {
    acceptor.count_stream();
    // Labels may stand behind the entries: look for them first.
    let mut label_text: &[u8] = b"";
    let mut entries = 0usize;
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => label_text = value.bytes()?,
            2 => entries += 1,
            _ => {}
        }
    }
    if entries == 0 {
        return Ok(());
    }
    let stream = match known.entry(label_text) {
        hashbrown::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        hashbrown::hash_map::Entry::Vacant(entry) => {
            let readable = text::line(Cow::Borrowed(label_text));
            let pairs = labels::parse(&readable)?;
            entry.insert(acceptor.stream(pairs))
        }
    };
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        if number == 2 {
            read_entry(value.bytes()?, acceptor, stream, metadata)?;
        }
    }
    Ok(())
}

fn read_entry<'a>(
    message: &'a [u8],
    acceptor: &mut Acceptor<'_>,
    stream: &mut Stream,
    metadata: &mut Pairs<'a>,
) -> Result<()> {
    let mut ts = TimestampNs(0);
    let mut line: &[u8] = b"";
    metadata.clear();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => ts = read_time(value.bytes()?)?,
            2 => line = value.bytes()?,
            3 => metadata.push(read_pair(value.bytes()?)?),
            _ => {}
        }
    }
    acceptor.entry(stream, ts, &text::line(Cow::Borrowed(line)), metadata);
    Ok(())
}

fn read_time(message: &[u8]) -> Result<TimestampNs> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => seconds = value.signed()?,
            2 => nanos = value.signed()?,
            _ => {}
        }
    }
    seconds
        .checked_mul(NS_PER_S)
        .and_then(|ns| ns.checked_add(nanos))
        .map(TimestampNs)
        .ok_or_else(|| Error::malformed("the time of an entry does not fit 64 bits of nanoseconds"))
}

fn read_pair(message: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>)> {
    let (mut name, mut value): (&[u8], &[u8]) = (b"", b"");
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((text::line(Cow::Borrowed(name)), text::metadata_value(Cow::Borrowed(value))))
}
