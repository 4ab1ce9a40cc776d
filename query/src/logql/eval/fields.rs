//! Detected fields: which names the newest entries of a query carry, of which type, and from which parser.
//!
//! Owns: reading each line by JSON or else logfmt, types, distinct values. Does not own: which entries are looked at
//! (the log query before it).
//!
//! Invariant: labels of the stream are no fields; one that a line repeats has the suffix of a clash.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::labels::{ERROR, ERROR_DETAILS, LabelSet, Needs};
use super::parsers::{Parser, json_paths};
use crate::logql::units::{parse_bytes, parse_duration};
use crate::logql::{Entry, Stream};

/// What a field's values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Whole numbers.
    Int,
    /// Numbers.
    Float,
    /// `true` and `false`.
    Boolean,
    /// `1.5s`
    Duration,
    /// `5KB`
    Bytes,
    /// Anything else.
    String,
}

impl FieldType {
    /// As the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
            Self::String => "string",
        }
    }

    /// The first that fits.
    fn of(value: &str) -> Self {
        if value.parse::<i64>().is_ok() {
            Self::Int
        } else if value.parse::<f64>().is_ok() {
            Self::Float
        } else if matches!(value, "true" | "false" | "TRUE" | "FALSE" | "True" | "False" | "t" | "f" | "T" | "F") {
            Self::Boolean
        } else if parse_duration(value).is_some() {
            Self::Duration
        } else if parse_bytes(value).is_some() {
            Self::Bytes
        } else {
            Self::String
        }
    }
}

/// One detected field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name as a label.
    pub name: String,
    /// The type of the value that came last.
    pub kind: FieldType,
    /// Distinct values.
    pub values: BTreeSet<String>,
    /// `json`, `logfmt`; none for structured metadata.
    pub parsers: BTreeSet<&'static str>,
    /// The keys that lead to it in a JSON line.
    pub json_path: Vec<String>,
}

/// The fields of `streams`, by name; at most `fields_max`, those met first.
pub fn detect(streams: &[Stream], fields_max: usize) -> Vec<Field> {
    let mut fields = Fields { by_name: BTreeMap::new(), fields_max };
    for stream in streams {
        for entry in &stream.entries {
            for (name, value) in &entry.structured_metadata {
                fields.add(name, value, None);
            }
            let of_entry = |name: &String| {
                [&entry.structured_metadata, &entry.parsed].iter().any(|l| l.iter().any(|p| p.0 == *name))
            };
            let labels: Vec<(String, String)> =
                stream.labels.iter().filter(|(name, _)| !of_entry(name)).cloned().collect();
            fields.read_line(entry, &labels);
        }
    }
    fields.by_name.into_values().collect()
}

struct Fields {
    by_name: BTreeMap<String, Field>,
    fields_max: usize,
}

impl Fields {
    /// What the query's own parsers found, and what JSON or else logfmt finds in the line.
    fn read_line(&mut self, entry: &Entry, stream: &[(String, String)]) {
        let mut labels = LabelSet::new(stream, &Needs::All);
        let line = Cow::Borrowed(entry.line.as_str());
        let mut parser = Some("json");
        Parser::Json.run(&line, &mut labels);
        if labels.has_error() {
            labels.reset(stream);
            Parser::logfmt(false, false, &[]).run(&line, &mut labels);
            parser = (!labels.has_error()).then_some("logfmt");
        }
        let failure = |name: &str| name == ERROR || name == ERROR_DETAILS;
        for (name, value) in entry.parsed.iter().filter(|(name, _)| !failure(name)) {
            self.add(name, value, parser);
        }
        let Some(parser) = parser else { return };
        let own = |name: &str| stream.iter().any(|(other, _)| other == name);
        for (name, value, _) in labels.iter().filter(|(name, ..)| !failure(name) && !own(name)) {
            self.add(name, value, Some(parser));
        }
        if parser == "json" {
            json_paths(&entry.line, &mut |name, path| {
                let suffixed;
                let name = match own(name) {
                    true => {
                        suffixed = format!("{name}{}", super::labels::DUPLICATE_SUFFIX);
                        &suffixed
                    }
                    false => name,
                };
                if let Some(field) = self.by_name.get_mut(name).filter(|field| field.json_path.is_empty()) {
                    field.json_path = path.to_vec();
                }
            });
        }
    }

    fn add(&mut self, name: &str, value: &str, parser: Option<&'static str>) {
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= self.fields_max {
                return;
            }
            let field = Field {
                name: name.to_owned(),
                kind: FieldType::String,
                values: BTreeSet::new(),
                parsers: BTreeSet::new(),
                json_path: Vec::new(),
            };
            self.by_name.insert(name.to_owned(), field);
        }
        if let Some(field) = self.by_name.get_mut(name) {
            field.kind = FieldType::of(value);
            field.parsers.extend(parser);
            if !field.values.contains(value) {
                field.values.insert(value.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn types_are_the_first_that_fits() {
        for (value, expected) in [
            ("12", FieldType::Int),
            ("1.5", FieldType::Float),
            ("true", FieldType::Boolean),
            ("1.5s", FieldType::Duration),
            ("5KB", FieldType::Bytes),
            ("5 apples", FieldType::String),
            ("", FieldType::String),
        ] {
            assert_eq!(FieldType::of(value), expected, "{value}");
        }
    }

    #[test]
    fn lines_are_read_by_json_or_else_logfmt() {
        let entry = |line: &str| Entry {
            ts_ns: 0,
            line: line.to_owned(),
            structured_metadata: vec![pair("pod", "p")],
            parsed: Vec::new(),
        };
        let stream = Stream {
            labels: vec![pair("app", "a"), pair("pod", "p")],
            entries: vec![
                entry(r#"{"user":{"geo.country":"DE"},"app":"x","n":1}"#),
                entry("n=2 took=3ms"),
                entry("free text"),
            ],
        };
        let found = detect(std::slice::from_ref(&stream), 100);
        let short: Vec<(&str, &str, Vec<&str>, String, usize)> = found
            .iter()
            .map(|f| {
                let parsers = f.parsers.iter().copied().collect();
                (f.name.as_str(), f.kind.name(), parsers, f.json_path.join("/"), f.values.len())
            })
            .collect();
        assert_eq!(
            short,
            [
                ("app_extracted", "string", vec!["json"], "app".to_owned(), 1),
                ("n", "int", vec!["json", "logfmt"], "n".to_owned(), 2),
                ("pod", "string", vec![], String::new(), 1),
                ("took", "duration", vec!["logfmt"], String::new(), 1),
                ("user_geo_country", "string", vec!["json"], "user/geo.country".to_owned(), 1),
            ]
        );
        assert_eq!(detect(&[stream], 2).len(), 2, "the number of fields is bounded");
    }
}
