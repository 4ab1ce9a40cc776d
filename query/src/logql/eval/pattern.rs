//! Patterns: literals and captures, for the line filters `|>` `!>` and for the parser `pattern`.
//!
//! Owns: their syntax, and the two ways of matching, which differ in their anchors.

use memchr::memmem::Finder;

/// A part of a pattern.
#[derive(Clone, Debug)]
enum Part {
    Literal(Box<Finder<'static>>),
    /// `None` is `<_>`.
    Capture(Option<String>),
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// For a line filter: no named capture.
    pub fn for_filter(text: &str) -> Result<Self, String> {
        let pattern = Self::parse(text)?;
        if pattern.names().next().is_some() {
            return Err("named captures are not allowed".to_owned());
        }
        Ok(pattern)
    }

    /// For the parser: at least one named capture, each name once.
    pub fn for_parser(text: &str) -> Result<Self, String> {
        let pattern = Self::parse(text)?;
        let names: Vec<&str> = pattern.names().collect();
        if names.is_empty() {
            return Err("at least one capture is required".to_owned());
        }
        if let Some((_, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(format!("duplicate capture name ({name})"));
        }
        Ok(pattern)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some((name, after)) = capture(rest) {
                if literal.is_empty() && matches!(parts.last(), Some(Part::Capture(_))) {
                    return Err(format!("found consecutive capture '<{name}>'"));
                }
                push_literal(&mut parts, &mut literal);
                parts.push(Part::Capture((name != "_").then(|| name.to_owned())));
                rest = after;
            } else {
                literal.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        push_literal(&mut parts, &mut literal);
        Ok(Self { parts })
    }

    /// The names of its captures, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Capture(name) => name.as_deref(),
            Part::Literal(_) => None,
        })
    }

    /// Whether a line filter keeps `line`: literals in order, each capture at least one byte, the end anchored.
    pub fn matches(&self, line: &str) -> bool {
        let Some(last) = self.parts.last() else { return line.is_empty() };
        if line.is_empty() {
            return false;
        }
        let bytes = line.as_bytes();
        let mut at = 0;
        for (i, part) in self.parts.iter().enumerate() {
            let Part::Literal(finder) = part else { continue };
            match finder.find(&bytes[at..]) {
                Some(0) if i > 0 => return false,
                Some(found) => at += found + finder.needle().len(),
                None => return false,
            }
        }
        match last {
            Part::Literal(_) => at == bytes.len(),
            Part::Capture(_) => at < bytes.len(),
        }
    }

    /// Gives each named capture of `line` to `put`. A literal at the start must begin the line; a capture whose
    /// literal is missing takes the rest.
    pub fn captures<'l>(&self, line: &'l str, mut put: impl FnMut(&str, &'l str)) {
        let mut parts = self.parts.as_slice();
        let mut rest = line;
        if let Some(Part::Literal(finder)) = parts.first() {
            let Some(after) = rest.as_bytes().strip_prefix(finder.needle()) else { return };
            rest = &rest[rest.len() - after.len()..];
            parts = &parts[1..];
        }
        if line.is_empty() {
            return;
        }
        while let [Part::Capture(name), after @ ..] = parts {
            let found = match after.first() {
                Some(Part::Literal(finder)) => finder.find(rest.as_bytes()).map(|at| (at, at + finder.needle().len())),
                _ => None,
            };
            let (value, next) = match found {
                Some((end, next)) => (&rest[..end], Some(&rest[next..])),
                None => (rest, None),
            };
            if let Some(name) = name {
                put(name, value);
            }
            match next {
                Some(next) => rest = next,
                None => return,
            }
            parts = &after[1..];
        }
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Literal(Box::new(Finder::new(literal.as_bytes()).into_owned())));
        literal.clear();
    }
}

/// `<name>` at the start of `text`, and what follows it.
fn capture(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('<')?;
    let length = inside.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let name = &inside[..length];
    let after = inside[length..].strip_prefix('>')?;
    (!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())).then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_search_literals_in_order() {
        for (pattern, line, expected) in [
            ("", "", true),
            ("", "a", false),
            ("<_>", "a", true),
            ("<_>", "", false),
            ("foo", "a foo", true),
            ("foo", "a foo b", false),
            ("foo <_>", "a foo b", true),
            ("foo <_>", "a foo ", false),
            ("<_>foo", "foo", false),
            ("<_>foo", "xfoo", true),
            ("<_>foo<_>", "xfooy", true),
            ("<_>foo<_>", "xfoo", false),
            ("a<_>b<_>c", "a1b2c", true),
            ("a<_>b<_>c", "ab2c", false),
        ] {
            assert_eq!(Pattern::for_filter(pattern).unwrap().matches(line), expected, "{pattern} on {line:?}");
        }
        assert!(Pattern::for_filter("<a>").is_err());
        assert!(Pattern::for_filter("<_><_>").is_err());
    }

    #[test]
    fn parsers_capture_between_literals() {
        let check = |pattern: &str, line: &str, expected: &[(&str, &str)]| {
            let mut got = Vec::new();
            Pattern::for_parser(pattern).unwrap().captures(line, |name, value| got.push((name.to_owned(), value)));
            let got: Vec<(&str, &str)> = got.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            assert_eq!(got, expected, "{pattern} on {line}");
        };
        check("<ip> - <user>", "1.2.3.4 - bob", &[("ip", "1.2.3.4"), ("user", "bob")]);
        check("<ip> nomatch <x>", "1.2.3.4 - bob", &[("ip", "1.2.3.4 - bob")]);
        check("nomatch <x>", "1.2.3.4", &[]);
        check("a=<a> b=<b>", "a= b=", &[("a", ""), ("b", "")]);
        check("[<_>] <m>", "[x] y z", &[("m", "y z")]);
    }

    #[test]
    fn parser_patterns_are_checked() {
        for bad in ["", "abc", "<_>", "<a><b>", "<a> <a>"] {
            assert!(Pattern::for_parser(bad).is_err(), "{bad}");
        }
    }
}
