//! The labels of a stream: as text in Prometheus' syntax, and what makes a set of them valid.
//!
//! Owns: the syntax `{name="value", …}` with Go's escapes. Does not own: limits on labels (`accept`).

use std::borrow::Cow;

use super::accept::Pairs;
use super::{labels_error, text};
use crate::error::Result;
use crate::names::is_label_name;

/// Reads `{name="value", …}`; a comma may stand at the end. Order and repetitions are kept.
pub(super) fn parse(text: &str) -> Result<Pairs<'_>> {
    parse_text(text).map_err(|fault| labels_error(&format!("{fault} in `{text}`")))
}

/// Names must be label names.
pub(super) fn check_names(pairs: &Pairs<'_>) -> Result<()> {
    match pairs.iter().find(|(name, _)| !is_label_name(name)) {
        Some((name, _)) => Err(labels_error(&format!("`{name}` is no label name"))),
        None => Ok(()),
    }
}

type Fault = &'static str;

fn parse_text(text: &str) -> Result<Pairs<'_>, Fault> {
    let mut rest = text.trim().strip_prefix('{').ok_or("no opening brace")?.trim_start();
    let mut pairs = Pairs::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return if after.is_empty() { Ok(pairs) } else { Err("text after the closing brace") };
        }
        let name_length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').ok_or("no closing brace")?;
        let (name, after) = rest.split_at(name_length);
        if !is_label_name(name) {
            return Err("no label name where one must stand");
        }
        let after = after.trim_start().strip_prefix('=').ok_or("no `=` after a label name")?.trim_start();
        let (value, after) = quoted(after)?;
        pairs.push((Cow::Borrowed(name), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => {}
            None => return Err("no `,` or `}` after a label value"),
        }
    }
}

/// The string that `text` begins with, and what follows.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), Fault> {
    let quote = text.bytes().next().filter(|b| matches!(b, b'"' | b'\'' | b'`')).ok_or("no string after `=`")?;
    let body = &text[1..];
    if quote == b'`' {
        let end = memchr::memchr(quote, body.as_bytes()).ok_or("a string without end")?;
        return Ok((Cow::Borrowed(&body[..end]), &body[end + 1..]));
    }
    let end = memchr::memchr2(quote, b'\\', body.as_bytes()).ok_or("a string without end")?;
    if body.as_bytes()[end] == quote {
        return Ok((Cow::Borrowed(&body[..end]), &body[end + 1..]));
    }
    let mut value = body.as_bytes()[..end].to_vec();
    let mut rest = &body[end..];
    loop {
        let byte = *rest.as_bytes().first().ok_or("a string without end")?;
        if byte == quote {
            return Ok((Cow::Owned(text::line(Cow::Owned(value)).into_owned()), &rest[1..]));
        }
        if byte == b'\\' {
            rest = escape(&rest[1..], quote, &mut value)?;
        } else {
            let plain = memchr::memchr2(quote, b'\\', rest.as_bytes()).ok_or("a string without end")?;
            value.extend_from_slice(&rest.as_bytes()[..plain]);
            rest = &rest[plain..];
        }
    }
}

/// Reads one escape behind its backslash, as Go defines them.
fn escape<'a>(text: &'a str, quote: u8, out: &mut Vec<u8>) -> Result<&'a str, Fault> {
    const FAULT: Fault = "an escape that Go does not know";
    let kind = *text.as_bytes().first().ok_or(FAULT)?;
    let simple = match kind {
        b'a' => Some(7),
        b'b' => Some(8),
        b'f' => Some(12),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(11),
        b'\\' => Some(b'\\'),
        other if other == quote => Some(quote),
        _ => None,
    };
    if let Some(byte) = simple {
        out.push(byte);
        return Ok(&text[1..]);
    }
    let (digits, radix, skip) = match kind {
        b'x' => (2, 16, 1),
        b'u' => (4, 16, 1),
        b'U' => (8, 16, 1),
        b'0'..=b'7' => (3, 8, 0),
        _ => return Err(FAULT),
    };
    let number = text.get(skip..skip + digits).ok_or(FAULT)?;
    if !number.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(FAULT);
    }
    let number_value = u32::from_str_radix(number, radix).map_err(|_| FAULT)?;
    if digits <= 3 {
        out.push(u8::try_from(number_value).map_err(|_| FAULT)?);
    } else {
        let c = char::from_u32(number_value).ok_or(FAULT)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(&text[skip + digits..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let pairs = parse(text).unwrap();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
        assert_eq!(pairs, expected, "{text}");
    }

    #[test]
    fn label_texts_are_read() {
        check("{}", &[]);
        check(r#"{app="x", env="y\n\"z\""}"#, &[("app", "x"), ("env", "y\n\"z\"")]);
        check(" { a = `raw \\n` , } ", &[("a", "raw \\n")]);
        check(r#"{a="\x41\101\u00e9\U0001F600\t\\",b='it\'s'}"#, &[("a", "AAé😀\t\\"), ("b", "it's")]);
        check(r#"{b="é",a="",b="2"}"#, &[("b", "é"), ("a", ""), ("b", "2")]);
        check(r#"{a="\xff"}"#, &[("a", "\u{fffd}")]);
    }

    #[test]
    fn faults_are_named() {
        for text in [
            "",
            "{",
            "app",
            r#"{a="b""#,
            r#"{a="b"} x"#,
            r#"{a=b}"#,
            r#"{a!="b"}"#,
            r#"{1a="b"}"#,
            r#"{a.b="c"}"#,
            r#"{a="\q"}"#,
            r#"{a="\'"}"#,
            r#"{a="\x4"}"#,
            r#"{a="\ud800"}"#,
            r#"{a="\400"}"#,
            r#"{a="b" c="d"}"#,
            r#"{,}"#,
            r#"{="b"}"#,
            r#"{a="\+41"}"#,
            r#"{a="\x+1"}"#,
            r#"{a="\"#,
            "{a=`",
            "{é=\"x\"}",
        ] {
            let message = parse(text).unwrap_err().message().to_owned();
            assert!(message.starts_with("couldn't parse labels: "), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\{?[a-z0-9=\"'`\\\\,\\} é\\PC]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_value_reads_back(value in "\\PC{0,20}") {
            let text = format!("{{a={}}}", serde_json::to_string(&value).unwrap());
            let pairs = parse(&text).unwrap();
            prop_assert_eq!(pairs[0].1.as_ref(), value.as_str());
        }
    }
}
