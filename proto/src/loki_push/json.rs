//! JSON pushes: read in one pass, strings borrowed from the body, straight into the batch.
//!
//! Owns: which shapes are taken. Does not own: limits (`accept`).
//!
//! Invariant: the depth of what is read is fixed by the format; whatever lies in unknown keys is skipped without
//! recursion.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use storage::model::time::TimestampNs;

use super::accept::{Acceptor, Pairs, Stream};
use super::{Decoded, PushLimits, acceptor, json_error, labels, text};
use crate::error::Result;

/// Decodes `{"streams":[{"stream":{…},"values":[["<ns>","line",{…}],…]},…]}`.
pub fn decode_json(body: &[u8], limits: &PushLimits, now: TimestampNs) -> Result<Decoded> {
    let mut sink = Sink { acceptor: acceptor(limits, now), metadata: Pairs::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Body(&mut sink).deserialize(&mut deserializer).map_err(|e| json_error(&e))?;
    deserializer.end().map_err(|e| json_error(&e))?;
    sink.acceptor.finish()
}

struct Sink<'l, 'de> {
    acceptor: Acceptor<'l>,
    /// One entry's structured metadata; kept for its memory.
    metadata: Pairs<'de>,
}

/// Reads a string as bytes: what is no UTF-8 gets a stand-in later instead of failing the request.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_owned()))
    }
}

/// Implements the seed: the shape is told from the first byte, and `null` stands for nothing.
macro_rules! shape {
    ($seed:ident) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_, '_, 'de> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    };
}

/// The body.
struct Body<'s, 'l, 'de>(&'s mut Sink<'l, 'de>);

shape!(Body);

impl<'de> Visitor<'de> for Body<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `streams`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Text)? {
            if key.as_ref() == b"streams" {
                map.next_value_seed(Streams(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The list of streams.
struct Streams<'s, 'l, 'de>(&'s mut Sink<'l, 'de>);

shape!(Streams);

impl<'de> Visitor<'de> for Streams<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of streams")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(OneStream(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// One stream with its entries.
struct OneStream<'s, 'l, 'de>(&'s mut Sink<'l, 'de>);

shape!(OneStream);

impl<'de> Visitor<'de> for OneStream<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stream: an object with `stream` and `values`")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let sink = self.0;
        sink.acceptor.count_stream();
        let mut stream: Option<Stream> = None;
        // Entries that come before the labels they belong to wait as text.
        let mut waiting: Vec<&'de RawValue> = Vec::new();
        while let Some(key) = map.next_key_seed(Text)? {
            match (key.as_ref(), &mut stream) {
                (b"stream", _) => stream = Some(read_labels(sink, map.next_value_seed(StreamLabels)?)?),
                (b"values", Some(stream)) => map.next_value_seed(Values { sink: &mut *sink, stream })?,
                (b"values", None) => waiting.push(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let mut stream = match stream {
            Some(stream) => stream,
            None => read_labels(sink, Pairs::new())?,
        };
        for raw in waiting {
            let mut deserializer = serde_json::Deserializer::from_str(raw.get());
            let values = Values { sink: &mut *sink, stream: &mut stream };
            values.deserialize(&mut deserializer).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

fn read_labels<E: serde::de::Error>(sink: &mut Sink<'_, '_>, mut pairs: Pairs<'_>) -> Result<Stream, E> {
    // In an object the last of equal keys counts.
    pairs.reverse();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.dedup_by(|earlier, last| earlier.0 == last.0);
    labels::check_names(&pairs).map_err(E::custom)?;
    Ok(sink.acceptor.stream(pairs))
}

/// The labels of a stream.
struct StreamLabels;

impl<'de> DeserializeSeed<'de> for StreamLabels {
    type Value = Pairs<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Pairs<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StreamLabels {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels: an object of strings")
    }

    fn visit_unit<E>(self) -> Result<Pairs<'de>, E> {
        Ok(Pairs::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
        let mut pairs = Pairs::new();
        while let Some(name) = map.next_key_seed(Text)? {
            pairs.push((text::line(name), text::line(map.next_value_seed(Text)?)));
        }
        Ok(pairs)
    }
}

/// The entries of a stream.
struct Values<'s, 'l, 'de> {
    sink: &'s mut Sink<'l, 'de>,
    stream: &'s mut Stream,
}

shape!(Values);

impl<'de> Visitor<'de> for Values<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(OneValue { sink: &mut *self.sink, stream: &mut *self.stream })?.is_some() {}
        Ok(())
    }
}

/// One entry: time, line, structured metadata. The line and the metadata may be missing.
struct OneValue<'s, 'l, 'de> {
    sink: &'s mut Sink<'l, 'de>,
    stream: &'s mut Stream,
}

shape!(OneValue);

impl<'de> Visitor<'de> for OneValue<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an entry: [\"<nanoseconds>\", \"line\"] or with an object of structured metadata")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let ts = seq.next_element_seed(Text)?.ok_or_else(|| A::Error::custom("an entry without a time"))?;
        let ts = std::str::from_utf8(&ts).ok().and_then(|ts| ts.parse::<i64>().ok());
        let ts = ts.ok_or_else(|| {
            A::Error::custom("the time of an entry is a string of nanoseconds since the epoch that fits 64 bits")
        })?;
        let line = seq.next_element_seed(Text)?.unwrap_or(Cow::Borrowed(b""));
        let metadata = &mut self.sink.metadata;
        metadata.clear();
        if seq.next_element_seed(Metadata(&mut *metadata))?.is_some() {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        let line = text::line(line);
        self.sink.acceptor.entry(self.stream, TimestampNs(ts), &line, metadata);
        Ok(())
    }
}

/// Structured metadata of one entry.
struct Metadata<'s, 'de>(&'s mut Pairs<'de>);

impl<'de> DeserializeSeed<'de> for Metadata<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("structured metadata: an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Text)? {
            self.0.push((text::line(name), text::metadata_value(map.next_value_seed(Text)?)));
        }
        Ok(())
    }
}
