//! The level of a log entry: where it stands, and how it is spelt.
//!
//! Owns: the rules of level detection. Does not own: when they apply (`loki_push`, `otlp::logs`).
//!
//! Invariants
//! 1. Nothing here allocates.
//! 2. Any line is read in one pass forward per rule, without recursion deeper than [`JSON_DEPTH_MAX`].

use std::borrow::Cow;

use storage::model::labels::Labels;

/// Structured metadata that holds the answer.
pub const DETECTED_LEVEL: &str = "detected_level";
/// Structured metadata that holds OpenTelemetry's number.
pub const SEVERITY_NUMBER: &str = "severity_number";
/// The answer when there is none.
pub const UNKNOWN: &str = "unknown";

/// Names that hold a level, the first that is there counts.
pub const LEVEL_FIELDS: [&str; 14] = [
    "level",
    "LEVEL",
    "Level",
    "log.level",
    "severity",
    "SEVERITY",
    "Severity",
    "SeverityText",
    "lvl",
    "LVL",
    "Lvl",
    "severity_text",
    "Severity_Text",
    "SEVERITY_TEXT",
];

/// Objects of a JSON line that are entered, the line itself counted.
const JSON_DEPTH_MAX: u32 = 2;

/// Spellings of a value and the level they mean.
const VALUES: [(&str, &str); 14] = [
    ("trace", "trace"),
    ("trc", "trace"),
    ("debug", "debug"),
    ("dbg", "debug"),
    ("info", "info"),
    ("inf", "info"),
    ("information", "info"),
    ("warn", "warn"),
    ("wrn", "warn"),
    ("warning", "warn"),
    ("error", "error"),
    ("err", "error"),
    ("critical", "critical"),
    ("fatal", "fatal"),
];

/// Words that are searched for in running text and the level they mean.
const WORDS: [(&str, &str); 9] = [
    ("trace", "trace"),
    ("debug", "debug"),
    ("fatal", "fatal"),
    ("critical", "critical"),
    ("error", "error"),
    ("err", "error"),
    ("warning", "warn"),
    ("warn", "warn"),
    ("info", "info"),
];

/// The level that `word` spells, in any case.
pub fn normalise(word: &str) -> Option<&'static str> {
    lookup(&VALUES, word.as_bytes())
}

fn lookup(words: &[(&str, &'static str)], word: &[u8]) -> Option<&'static str> {
    words.iter().find(|(spelling, _)| word.eq_ignore_ascii_case(spelling.as_bytes())).map(|(_, level)| *level)
}

/// The level a stream's labels give to all its entries: normalised, or as it stands when the word is unknown.
pub fn of_labels(labels: &Labels) -> Option<Cow<'static, str>> {
    let value = LEVEL_FIELDS.iter().find_map(|name| labels.get(name))?;
    Some(normalise(value).map_or_else(|| Cow::Owned(value.to_owned()), Cow::Borrowed))
}

/// The level of one entry: of its own metadata, of its stream (see [`of_labels`]), or of its line.
pub fn detect<'a>(stream: Option<&'a str>, metadata: &'a [(Cow<'a, str>, Cow<'a, str>)], line: &str) -> &'a str {
    let get = |wanted: &str| {
        let found = metadata.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
    };
    if let Some(given) = get(DETECTED_LEVEL) {
        return normalise(given).unwrap_or(given);
    }
    if let Some(level) = stream {
        return level;
    }
    if metadata.is_empty() {
        return in_line(line);
    }
    if let Some(value) = LEVEL_FIELDS.iter().find_map(|name| get(name)) {
        return normalise(value).unwrap_or(value);
    }
    match get(SEVERITY_NUMBER) {
        Some(number) => of_severity_number(number),
        None => in_line(line),
    }
}

/// The level of OpenTelemetry's severity number.
pub fn of_severity_number(text: &str) -> &'static str {
    match text.parse::<i64>() {
        Ok(1..=4) => "trace",
        Ok(5..=8) => "debug",
        Ok(9..=12) => "info",
        Ok(13..=16) => "warn",
        Ok(17..=20) => "error",
        Ok(21..=24) => "fatal",
        _ => UNKNOWN,
    }
}

/// The level that the text of a line gives.
pub fn in_line(line: &str) -> &'static str {
    let trimmed = line.trim();
    let value = if trimmed.starts_with('{') && trimmed.ends_with('}') {
        in_json(trimmed.as_bytes())
    } else if memchr::memchr(b'=', line.as_bytes()).is_some() {
        in_logfmt(line.as_bytes())
    } else {
        None
    };
    value.and_then(|word| lookup(&VALUES, word)).unwrap_or_else(|| in_words(line.as_bytes()))
}

/// Searches running text: the earliest word between the right neighbours.
fn in_words(line: &[u8]) -> &'static str {
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        let begins = byte.is_ascii_alphabetic()
            && at.checked_sub(1).and_then(|before| line.get(before)).is_none_or(|before| opens(*before));
        if !begins {
            at += 1;
            continue;
        }
        let rest = &line[at..];
        let length = rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
        let ends = rest.get(length).is_none_or(|after| opens(*after) || closes(*after));
        if ends && let Some(level) = lookup(&WORDS, &rest[..length]) {
            return level;
        }
        at += length;
    }
    UNKNOWN
}

fn opens(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'[' | b'(' | b'{' | b'"' | b'\'' | b'=' | b'|')
}

fn closes(byte: u8) -> bool {
    matches!(byte, b']' | b')' | b'}' | b':' | b',' | b'!')
}

/// The value of the key of [`LEVEL_FIELDS`] that ranks first. Reading stops at the first fault.
fn in_logfmt(line: &[u8]) -> Option<&[u8]> {
    let mut best: Option<(usize, &[u8])> = None;
    let mut rest = line;
    while let Some((key, value, after)) = logfmt_pair(rest) {
        rest = after;
        let rank = LEVEL_FIELDS.iter().position(|field| key.eq_ignore_ascii_case(field.as_bytes()));
        if let Some(rank) = rank
            && best.is_none_or(|(known, _)| rank < known)
        {
            best = Some((rank, value));
            if rank == 0 {
                break;
            }
        }
    }
    best.map(|(_, value)| value)
}

/// The next `key`, `key=` or `key=value`, and what follows; `None` at the end and at a fault.
fn logfmt_pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let start = text.iter().position(|b| *b > b' ')?;
    let text = &text[start..];
    let end = text.iter().position(|b| *b <= b' ' || *b == b'=' || *b == b'"').unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    match rest.first() {
        Some(b'"') => return None,
        Some(b'=') if key.is_empty() => return None,
        Some(b'=') => {}
        _ => return Some((key, &[], rest)),
    }
    let rest = &rest[1..];
    if rest.first() == Some(&b'"') {
        let length = string_length(rest)?;
        return Some((key, &rest[1..length - 1], &rest[length..]));
    }
    let end = rest.iter().position(|b| *b <= b' ' || *b == b'=' || *b == b'"').unwrap_or(rest.len());
    let (value, rest) = rest.split_at(end);
    match rest.first() {
        Some(b'=' | b'"') => None,
        _ => Some((key, value, rest)),
    }
}

/// The first string value of a key of [`LEVEL_FIELDS`], in the order of the document.
fn in_json(line: &[u8]) -> Option<&[u8]> {
    match json_object(line, 1) {
        Json::Found(value) => Some(value),
        Json::Ended(_) | Json::Broken => None,
    }
}

enum Json<'a> {
    Found(&'a [u8]),
    /// Not there; what follows the object.
    Ended(&'a [u8]),
    Broken,
}

fn json_object(text: &[u8], depth: u32) -> Json<'_> {
    let mut rest = skip_space(&text[1..]);
    loop {
        match rest.first() {
            Some(b'}') => return Json::Ended(&rest[1..]),
            Some(b'"') => {}
            _ => return Json::Broken,
        }
        let Some(key_length) = string_length(rest) else { return Json::Broken };
        let key = &rest[1..key_length - 1];
        rest = skip_space(&rest[key_length..]);
        if rest.first() != Some(&b':') {
            return Json::Broken;
        }
        rest = skip_space(&rest[1..]);
        let after = match rest.first() {
            Some(b'"') => {
                let Some(length) = string_length(rest) else { return Json::Broken };
                if LEVEL_FIELDS.iter().any(|field| field.as_bytes() == key) {
                    return Json::Found(&rest[1..length - 1]);
                }
                Some(&rest[length..])
            }
            Some(b'{') if depth < JSON_DEPTH_MAX => match json_object(rest, depth + 1) {
                Json::Ended(after) => Some(after),
                other => return other,
            },
            Some(b'{' | b'[') => skip_nested(rest),
            Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                let end = rest.iter().position(|b| matches!(b, b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r'));
                end.map(|end| &rest[end..])
            }
            _ => None,
        };
        let Some(after) = after else { return Json::Broken };
        rest = skip_space(after);
        match rest.first() {
            Some(b',') => rest = skip_space(&rest[1..]),
            Some(b'}') => {}
            _ => return Json::Broken,
        }
    }
}

fn skip_space(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(text.len());
    &text[end..]
}

/// Bytes of the quoted string that `text` begins with, both quotes included.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// What follows the object or array that `text` begins with.
fn skip_nested(text: &[u8]) -> Option<&[u8]> {
    let mut open = 0usize;
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => at += string_length(&text[at..])?,
            b'{' | b'[' => {
                open += 1;
                at += 1;
            }
            b'}' | b']' => {
                open -= 1;
                at += 1;
                if open == 0 {
                    return Some(&text[at..]);
                }
            }
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(cases: &[(&str, &str)]) {
        for (line, level) in cases {
            assert_eq!(in_line(line), *level, "{line:?}");
        }
    }

    #[test]
    fn values_of_json_keys_count() {
        check(&[
            (r#"{"lvl":"err","m":"e"}"#, "error"),
            (r#" {"Severity" : "CRITICAL"} "#, "critical"),
            (r#"{"a":{"level":"fatal"}}"#, "fatal"),
            (r#"{"a":{"x":[1,{"level":"info"}],"b":{"level":"inf"}},"level":"dbg"}"#, "debug"),
            (r#"{"severity":"warn","level":"error"}"#, "warn"),
            (r#"{"level":30}"#, "unknown"),
            (r#"{"level":30,"msg":"an error"}"#, "error"),
            (r#"{"LeVeL":"wrn"}"#, "unknown"),
            (r#"{"level":"wrn","broken}"#, "warn"),
            (r#"{"x":"\"level\":","lvl":"trc"}"#, "trace"),
            (r#"{"n":-1.5e3,"t":true,"z":null,"level":"information"}"#, "info"),
            ("{}", "unknown"),
            ("{nonsense warn}", "warn"),
        ]);
    }

    #[test]
    fn values_of_logfmt_keys_count_by_rank() {
        check(&[
            ("level=TRC a", "trace"),
            ("lvl=dbg b", "debug"),
            ("severity=Information c", "info"),
            ("severity=info level=error", "error"),
            ("level=error severity=info", "error"),
            ("LEVEL=WRN d", "warn"),
            (r#"level="warn" quoted"#, "warn"),
            ("level=custom thing", "unknown"),
            ("level=custom error", "error"),
            ("level=", "unknown"),
            ("loglevel=error", "error"),
            ("a==b level=dbg", "unknown"),
            (r#"a="unterminated level=dbg"#, "unknown"),
            ("=", "unknown"),
        ]);
    }

    #[test]
    fn words_count_between_the_right_neighbours() {
        check(&[
            ("[ERROR] boxed", "error"),
            ("warning: careful", "warn"),
            ("noterror here", "unknown"),
            ("misc:error here", "unknown"),
            ("an error and a warning", "error"),
            ("info then fatal", "info"),
            ("debug|piped", "debug"),
            ("trace(1)", "trace"),
            ("error.dot", "unknown"),
            ("5 errors", "unknown"),
            ("WRN short", "unknown"),
            ("critical!", "critical"),
            ("\"error\"", "error"),
            ("error,comma", "error"),
            ("x\nfatal", "fatal"),
            ("", "unknown"),
            ("é error", "error"),
            ("éerror", "unknown"),
            ("error\r", "unknown"),
        ]);
    }

    #[test]
    fn metadata_and_labels_come_before_the_line() {
        let pair = |name: &'static str, value: &'static str| (Cow::Borrowed(name), Cow::Borrowed(value));
        let labels = Labels::from_pairs([("lvl", "DBG"), ("app", "x")]);
        assert_eq!(of_labels(&labels).as_deref(), Some("debug"));
        assert_eq!(of_labels(&Labels::from_pairs([("level", "loud")])).as_deref(), Some("loud"));
        assert_eq!(detect(Some("debug"), &[pair("detected_level", "WRN")], "error"), "warn");
        assert_eq!(detect(Some("debug"), &[pair("level", "warn")], "error"), "debug");
        assert_eq!(
            detect(None, &[pair("severity_text", "custom-text"), pair("severity_number", "17")], "info"),
            "custom-text"
        );
        assert_eq!(detect(None, &[pair("severity_number", "17")], "info"), "error");
        assert_eq!(detect(None, &[pair("severity_number", "25")], "info"), "unknown");
        assert_eq!(detect(None, &[pair("other", "x")], "info"), "info");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[{}\"\\\\=:,\\[\\] a-z\\PC]{0,60}") {
            in_line(&line);
        }

        #[test]
        fn no_damaged_json_panics(cut in 0usize..60, from in 0usize..8) {
            let line = r#"{"a":{"level":["x",{"y":"\"z"}]},"b":1,"lvl":"é"}"#;
            if let Some(part) = line.get(from..cut.max(from).min(line.len())) {
                in_line(&format!("{{{part}}}"));
            }
        }
    }
}
