//! The dictionary of a block: which keys its maps have, and which values its keys and texts.
//!
//! Owns: the columns that have one, the limits, the form in memory and on disk (`docs/formats/dictionary.md`). Does not
//! own: loading and rebuilding (`scan::distinct`).
//!
//! Invariants
//! 1. What is complete names exactly what the rows hold; what is not names some of it.
//! 2. A dictionary never takes more than its limits, whatever the rows hold.

use arrow::array::{Array, AsArray, Int64Array, MapArray, RecordBatch, StringArray, StructArray};
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::frame::{Form, put_text, seal};
use crate::error::{Error, Result};
use crate::signal::Table;

const FORM: Form = Form { name: "the dictionary", magic: *b"TDIC", version: 1 };
/// Values that are kept of a key; one with more identifies things rather than sorts them.
const VALUES_MAX: usize = 1_000;
/// Bytes of the values of a key.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Keys that are kept of a column.
const KEYS_MAX: usize = 4_096;
/// Bytes of the texts of a column. Counted by column, so that a dictionary does not depend on how rows are cut into
/// batches.
const COLUMN_BYTES_MAX: usize = 1 << 20;
/// Bytes of an encoded dictionary before compression, more than all columns can have.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Bytes of a text beside itself, in memory.
const TEXT_BYTES: usize = 48;
const ZSTD_LEVEL: i32 = 3;

type Texts = HashSet<Box<str>, ahash::RandomState>;

/// What a column is in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A text; null is no value.
    Text,
    /// A text; null is the empty one.
    TextOrEmpty,
    /// A long, as a decimal text; never null.
    Long,
    /// A map of texts.
    Map,
    /// A list of structs with a map `attributes`.
    Attributes,
    /// A list of structs with a text `name`.
    Names,
}

/// A column that has a dictionary.
#[derive(Debug)]
struct Column {
    /// As it is asked for.
    name: &'static str,
    /// In rows.
    stored: &'static str,
    shape: Shape,
}

const fn column(name: &'static str, stored: &'static str, shape: Shape) -> Column {
    Column { name, stored, shape }
}

const SPANS: [Column; 10] = [
    column("resource_id", "resource_id", Shape::Long),
    column("name", "name", Shape::Text),
    column("status_message", "status_message", Shape::TextOrEmpty),
    column("scope_name", "scope_name", Shape::TextOrEmpty),
    column("scope_version", "scope_version", Shape::TextOrEmpty),
    column("attributes", "attributes", Shape::Map),
    column("scope_attributes", "scope_attributes", Shape::Map),
    column("events", "events", Shape::Attributes),
    column("events.name", "events", Shape::Names),
    column("links", "links", Shape::Attributes),
];
const ENTRIES: [Column; 2] = [column("severity", "severity", Shape::Text), column("metadata", "metadata", Shape::Map)];

fn columns(table: Table) -> &'static [Column] {
    match table {
        Table::Spans => &SPANS,
        Table::Logs => &ENTRIES,
        _ => &[],
    }
}

/// Whether the blocks of `table` have dictionaries.
pub fn applies(table: Table) -> bool {
    !columns(table).is_empty()
}

/// The columns of rows that a dictionary is built from.
pub fn stored_columns(table: Table) -> impl Iterator<Item = &'static str> {
    columns(table).iter().map(|column| column.stored)
}

/// Whether dictionaries of `table` tell of `column`.
pub fn has(table: Table, column: &str) -> bool {
    columns(table).iter().any(|known| known.name == column)
}

/// The values of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Values {
    texts: Texts,
    bytes: usize,
    cut: bool,
}

/// The keys of one column; texts stand under the empty key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keys {
    keys: HashMap<Box<str>, Values, ahash::RandomState>,
    bytes: usize,
    cut: bool,
}

/// The dictionary of some rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    table: Table,
    rows: u64,
    /// In the order of [`columns`].
    columns: Vec<Keys>,
}

/// Texts of a dictionary, and whether these are all.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// In no order.
    pub texts: Vec<&'a str>,
    /// Whether no other is in the rows.
    pub complete: bool,
}

impl Dictionary {
    /// Of no rows.
    pub fn new(table: Table) -> Self {
        Self { table, rows: 0, columns: columns(table).iter().map(|_| Keys::default()).collect() }
    }

    /// Whose rows.
    pub fn table(&self) -> Table {
        self.table
    }

    /// In a line what it holds.
    pub fn summary(&self) -> String {
        let parts = columns(self.table).iter().zip(&self.columns).map(|(column, keys)| {
            let values: usize = keys.keys.values().map(|values| values.texts.len()).sum();
            let cut = keys.cut || keys.keys.values().any(|values| values.cut);
            format!("{}: {} keys, {values} values{}", column.name, keys.keys.len(), if cut { ", not all" } else { "" })
        });
        format!("{} rows of `{}`; {}", self.rows, self.table.name(), parts.collect::<Vec<_>>().join("; "))
    }

    /// Rows that were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes in memory, about.
    pub fn heap_bytes(&self) -> usize {
        self.columns.iter().map(|keys| keys.bytes).sum()
    }

    /// Adds rows that have the columns of [`stored_columns`].
    pub fn extend_from(&mut self, rows: &RecordBatch) -> Result<()> {
        self.rows += rows.num_rows() as u64;
        for (column, keys) in columns(self.table).iter().zip(&mut self.columns) {
            let lacks = || Error::bug(format!("rows lack the column `{}` of its type", column.stored));
            let array = rows.column_by_name(column.stored).ok_or_else(lacks)?;
            let mut into = Into(keys);
            match column.shape {
                Shape::Text => into.texts(array.as_string_opt().ok_or_else(lacks)?, false),
                Shape::TextOrEmpty => into.texts(array.as_string_opt().ok_or_else(lacks)?, true),
                Shape::Long => into.longs(array.as_primitive_opt().ok_or_else(lacks)?),
                Shape::Map => into.map(array.as_map_opt().ok_or_else(lacks)?),
                Shape::Attributes | Shape::Names => {
                    let list = array.as_list_opt::<i32>().ok_or_else(lacks)?;
                    let (Some(from), Some(to)) = (list.value_offsets().first(), list.value_offsets().last()) else {
                        continue;
                    };
                    let (from, to) = (usize::try_from(*from).unwrap_or(0), usize::try_from(*to).unwrap_or(0));
                    let items = list.values().slice(from, to.saturating_sub(from));
                    let items: &StructArray = items.as_struct_opt().ok_or_else(lacks)?;
                    let field = if column.shape == Shape::Names { "name" } else { "attributes" };
                    let field = items.column_by_name(field).ok_or_else(lacks)?;
                    match column.shape {
                        Shape::Names => into.texts(field.as_string_opt().ok_or_else(lacks)?, false),
                        _ => into.map(field.as_map_opt().ok_or_else(lacks)?),
                    }
                }
            }
        }
        Ok(())
    }

    fn column(&self, name: &str) -> Option<&Keys> {
        let at = columns(self.table).iter().position(|column| column.name == name)?;
        self.columns.get(at)
    }

    /// The keys of the map column `column`; nothing complete for a column without dictionary.
    pub fn keys(&self, column: &str) -> Found<'_> {
        let Some(keys) = self.column(column) else { return Found::default() };
        Found { texts: keys.keys.keys().map(AsRef::as_ref).collect(), complete: !keys.cut }
    }

    /// The values of `key` in the map column `column`, or of the text column `column` under the empty key.
    pub fn values(&self, column: &str, key: &str) -> Found<'_> {
        let Some(keys) = self.column(column) else { return Found::default() };
        match keys.keys.get(key) {
            Some(values) => Found { texts: values.texts.iter().map(AsRef::as_ref).collect(), complete: !values.cut },
            None => Found { texts: Vec::new(), complete: !keys.cut },
        }
    }

    /// The bytes of the sidecar.
    pub fn encode(&self) -> Result<Bytes> {
        let mut body = Vec::new();
        let count = |body: &mut Vec<u8>, n: usize| {
            body.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
        };
        count(&mut body, self.columns.len());
        for (column, keys) in columns(self.table).iter().zip(&self.columns) {
            put_text(&mut body, column.name);
            count(&mut body, usize::from(keys.cut));
            count(&mut body, keys.keys.len());
            let mut sorted: Vec<_> = keys.keys.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            for (key, values) in sorted {
                put_text(&mut body, key);
                count(&mut body, usize::from(values.cut));
                count(&mut body, values.texts.len());
                let mut texts: Vec<_> = values.texts.iter().collect();
                texts.sort_unstable();
                texts.into_iter().for_each(|text| put_text(&mut body, text));
            }
        }
        let packed = zstd::bulk::compress(&body, ZSTD_LEVEL);
        let packed = packed.map_err(|source| Error::bug("a dictionary cannot be compressed").with_source(source))?;
        let mut out = FORM.start(12 + packed.len());
        out.extend_from_slice(&self.rows.to_le_bytes());
        count(&mut out, body.len());
        out.extend_from_slice(&packed);
        Ok(seal(out))
    }

    /// Reads a sidecar; the error says what is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = FORM.open(bytes)?;
        let (rows, body_bytes) = (fields.u64()?, usize::try_from(fields.u32()?).unwrap_or(usize::MAX));
        if body_bytes > BODY_BYTES_MAX {
            return Err(FORM.damaged("its body is too long"));
        }
        let body = zstd::bulk::decompress(fields.rest(), body_bytes);
        let body = body.map_err(|_| FORM.damaged("its body does not unpack"))?;
        let mut fields = FORM.inner(&body);
        let count = fields.u32()? as usize;
        let table = [Table::Spans, Table::Logs].into_iter().find(|table| columns(*table).len() == count);
        let table = table.ok_or_else(|| FORM.damaged("it has other columns"))?;
        let mut dictionary = Self { rows, ..Self::new(table) };
        for (column, keys) in columns(table).iter().zip(&mut dictionary.columns) {
            if fields.text()? != column.name {
                return Err(FORM.damaged("it has other columns"));
            }
            keys.cut = fields.u32()? != 0;
            for _ in 0..fields.u32()? {
                let key = fields.text()?;
                keys.bytes += key.len() + 2 * TEXT_BYTES;
                let mut values = Values { cut: fields.u32()? != 0, ..Values::default() };
                for _ in 0..fields.u32()? {
                    let text = fields.text()?;
                    values.bytes += text.len() + TEXT_BYTES;
                    if !values.texts.insert(text.into()) {
                        return Err(FORM.damaged("a value comes twice"));
                    }
                }
                keys.bytes += values.bytes;
                if keys.keys.insert(key.into(), values).is_some() {
                    return Err(FORM.damaged("a key comes twice"));
                }
            }
        }
        fields.end()?;
        Ok(dictionary)
    }
}

/// The keys that are added to.
struct Into<'a>(&'a mut Keys);

impl Into<'_> {
    fn texts(&mut self, array: &StringArray, null_is_empty: bool) {
        let mut before = None;
        for text in array {
            let Some(text) = text.or(null_is_empty.then_some("")) else { continue };
            if before != Some(text) {
                self.add("", text);
                before = Some(text);
            }
        }
    }

    fn longs(&mut self, array: &Int64Array) {
        let mut met: HashSet<i64, ahash::RandomState> = HashSet::default();
        for value in array.values() {
            if met.insert(*value) {
                self.add("", &value.to_string());
            }
        }
    }

    fn map(&mut self, map: &MapArray) {
        let (Some(from), Some(to)) = (map.value_offsets().first(), map.value_offsets().last()) else { return };
        let (keys, values) = (map.keys().as_string::<i32>(), map.values().as_string::<i32>());
        for at in usize::try_from(*from).unwrap_or(0)..usize::try_from(*to).unwrap_or(0) {
            self.add(keys.value(at), if values.is_null(at) { "" } else { values.value(at) });
        }
    }

    fn add(&mut self, key: &str, text: &str) {
        let Keys { keys, bytes: total, cut } = &mut *self.0;
        if !keys.contains_key(key) {
            let bytes = key.len() + 2 * TEXT_BYTES;
            if keys.len() >= KEYS_MAX || *total + bytes > COLUMN_BYTES_MAX {
                *cut = true;
                return;
            }
            *total += bytes;
            keys.insert(key.into(), Values::default());
        }
        let Some(values) = keys.get_mut(key) else { return };
        if values.cut || values.texts.contains(text) {
            return;
        }
        let bytes = text.len() + TEXT_BYTES;
        let full = values.texts.len() >= VALUES_MAX || values.bytes + bytes > VALUE_BYTES_MAX;
        if full || *total + bytes > COLUMN_BYTES_MAX {
            values.cut = true;
            return;
        }
        values.bytes += bytes;
        *total += bytes;
        values.texts.insert(text.into());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::batch::{Batch, LogsBuilder};
    use crate::model::labels::Labels;
    use crate::model::time::TimestampNs;
    use crate::wal::tests::traces;

    fn rows(batch: Batch, table: Table) -> RecordBatch {
        batch.table(table).expect("rows").clone()
    }

    fn of(table: Table, batches: &[RecordBatch]) -> Dictionary {
        let mut dictionary = Dictionary::new(table);
        batches.iter().try_for_each(|rows| dictionary.extend_from(rows)).expect("builds");
        dictionary
    }

    fn logs(pairs: &[(&str, &str)]) -> RecordBatch {
        let mut builder = LogsBuilder::new();
        let stream = builder.stream(Labels::empty());
        for pair in pairs {
            builder.entry(stream, TimestampNs(1), "line", std::iter::once(*pair)).expect("fits");
        }
        let batch = builder.finish().expect("builds");
        batch.table(Table::Logs).cloned().unwrap_or_else(|| RecordBatch::new_empty((Table::Logs.spec().schema)()))
    }

    fn sorted(found: Found<'_>) -> (Vec<&str>, bool) {
        let mut texts = found.texts;
        texts.sort_unstable();
        (texts, found.complete)
    }

    #[test]
    fn keys_and_values_of_entries_and_spans() {
        let entries =
            of(Table::Logs, &[logs(&[("pod", "a"), ("detected_level", "info")]), logs(&[("pod", "b"), ("x", "")])]);
        assert_eq!(sorted(entries.keys("metadata")), (vec!["pod", "x"], true));
        assert_eq!(sorted(entries.values("metadata", "pod")), (vec!["a", "b"], true));
        assert_eq!(sorted(entries.values("metadata", "none")), (vec![], true));
        assert_eq!(sorted(entries.values("severity", "")), (vec!["info"], true));
        assert_eq!(sorted(entries.values("line", "")), (vec![], false), "not in dictionaries");
        let spans = rows(traces(40), Table::Spans);
        // A slice must not name what lies beside it.
        let spans = of(Table::Spans, &[spans.slice(3, 2), spans.slice(8, 1)]);
        assert_eq!(sorted(spans.keys("attributes")), (vec!["http.status"], true));
        assert_eq!(sorted(spans.values("attributes", "http.status")), (vec!["3", "4", "8"], true));
        assert_eq!(spans.rows(), 3);
    }

    #[test]
    fn limits_cut_and_say_so() {
        let texts: Vec<String> = (0..=VALUES_MAX).map(|n| n.to_string()).collect();
        let pairs: Vec<(&str, &str)> = texts.iter().map(|text| ("k", text.as_str())).collect();
        let full = of(Table::Logs, &[logs(&pairs[1..])]);
        assert!(full.values("metadata", "k").complete);
        let over = of(Table::Logs, &[logs(&pairs)]);
        assert!(!over.values("metadata", "k").complete);
        assert!(over.keys("metadata").complete, "the key is known");
        assert_eq!(over.values("metadata", "k").texts.len(), VALUES_MAX);
        let long = "x".repeat(VALUE_BYTES_MAX);
        assert!(!of(Table::Logs, &[logs(&[("k", &long)])]).values("metadata", "k").complete);
        let texts: Vec<String> = (0..=KEYS_MAX).map(|n| n.to_string()).collect();
        let pairs: Vec<(&str, &str)> = texts.iter().map(|text| (text.as_str(), "v")).collect();
        let many = of(Table::Logs, &[logs(&pairs)]);
        assert!(!many.keys("metadata").complete);
        assert!(!many.values("metadata", "unknown").complete, "it may be one of those cut");
        assert!(many.values("metadata", "17").complete);
        assert_eq!(Dictionary::decode(&many.encode().expect("encodes")).expect("decodes"), many);
    }

    #[test]
    fn tables_are_told_apart_and_summed_up() {
        for table in [Table::Logs, Table::Spans] {
            let read = Dictionary::decode(&of(table, &[]).encode().expect("encodes")).expect("decodes");
            assert_eq!(read.table(), table);
        }
        let entries = of(Table::Logs, &[logs(&[("pod", "a"), ("pod", "b"), ("x", "")])]);
        assert_eq!(entries.summary(), "3 rows of `logs`; severity: 0 keys, 0 values; metadata: 2 keys, 3 values");
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(pairs in proptest::collection::vec(("[ab]{0,2}", "[cdé]{0,3}"), 0..40)) {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let dictionary = of(Table::Logs, &[logs(&pairs)]);
            let read = Dictionary::decode(&dictionary.encode().expect("encodes")).expect("decodes");
            prop_assert_eq!(read, dictionary);
        }

        #[test]
        fn damage_is_found(at in 0_usize..4_000, bit in 0_u8..8, cut in 0_usize..4_000) {
            let mut bytes = of(Table::Spans, &[rows(traces(40), Table::Spans)]).encode().expect("encodes").to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Dictionary::decode(&bytes).is_err());
            bytes[at] ^= 1 << bit;
            bytes.truncate(cut % bytes.len());
            prop_assert!(Dictionary::decode(&bytes).is_err());
        }
    }
}
