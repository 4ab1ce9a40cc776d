//! Go's formatting: `print`, `println`, `printf`.
//!
//! Owns: verbs, flags, widths. Invariant: no width makes a text longer than [`WIDTH_MAX`].

use super::value::{Val, float_text};

/// The widest padding.
const WIDTH_MAX: usize = 10_000;

/// Operands side by side, with a space between two that are no strings.
pub fn print(values: &[Val]) -> String {
    let mut out = String::new();
    for (i, value) in values.iter().enumerate() {
        let text = |value: Option<&Val>| matches!(value, Some(Val::Text(_)));
        if i > 0 && !text(Some(value)) && !text(values.get(i - 1)) {
            out.push(' ');
        }
        value.print(&mut out);
    }
    out
}

/// Operands with spaces between, and a newline.
pub fn println(values: &[Val]) -> String {
    let texts: Vec<String> = values.iter().map(Val::text).collect();
    format!("{}\n", texts.join(" "))
}

#[derive(Default)]
struct Directive {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats as Go's `Sprintf`.
pub fn printf(format: &str, values: &[Val]) -> String {
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (directive, verb, after) = directive(rest, values, &mut next);
        rest = after;
        let Some(verb) = verb else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        match values.get(next) {
            None => out.push_str(&format!("%!{verb}(MISSING)")),
            Some(value) => {
                next += 1;
                let body = formatted(&directive, verb, value);
                pad(&mut out, &directive, &body, verb);
            }
        }
    }
    out.push_str(rest);
    if next < values.len() {
        let extra: Vec<String> =
            values[next..].iter().map(|value| format!("{}={}", value.kind(), value.text())).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn directive<'f>(format: &'f str, values: &[Val], next: &mut usize) -> (Directive, Option<char>, &'f str) {
    let mut directive = Directive::default();
    let mut rest = format;
    while let Some(c) = rest.chars().next() {
        match c {
            '-' => directive.minus = true,
            '+' => directive.plus = true,
            '#' => directive.sharp = true,
            ' ' => directive.space = true,
            '0' => directive.zero = true,
            _ => break,
        }
        rest = &rest[1..];
    }
    let mut number = |rest: &mut &'f str| -> Option<usize> {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            let given = values.get(*next).map(super::numbers::to_int);
            *next += 1;
            return given.and_then(|n| usize::try_from(n).ok()).map(|n| n.min(WIDTH_MAX));
        }
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, after) = rest.split_at(length);
        *rest = after;
        if digits.is_empty() { None } else { Some(digits.parse().unwrap_or(WIDTH_MAX).min(WIDTH_MAX)) }
    };
    directive.width = number(&mut rest);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        directive.precision = Some(number(&mut rest).unwrap_or(0));
    }
    let verb = rest.chars().next();
    (directive, verb, verb.map_or(rest, |verb| &rest[verb.len_utf8()..]))
}

fn formatted(directive: &Directive, verb: char, value: &Val) -> String {
    let wrong = || format!("%!{verb}({}={})", value.kind(), value.text());
    match (verb, value) {
        ('v', Val::Nil) => "<nil>".to_owned(),
        ('v' | 's', Val::Text(text)) => clipped(directive, text),
        ('v', Val::Float(x)) => signed(directive, float_text(*x)),
        ('v' | 'd', Val::Int(n)) => signed(directive, n.to_string()),
        ('v', _) | ('s', Val::Time(_)) | ('t', Val::Bool(_)) => value.text(),
        ('q', Val::Text(text)) => crate::logql::quote(&clipped(directive, text)),
        ('x', Val::Text(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Val::Text(text)) => text.bytes().map(|b| format!("{b:02X}")).collect(),
        ('x' | 'X' | 'o' | 'b', Val::Int(n)) => {
            let size = n.unsigned_abs();
            let digits = match verb {
                'x' => format!("{size:x}"),
                'X' => format!("{size:X}"),
                'o' => format!("{size:o}"),
                _ => format!("{size:b}"),
            };
            let prefix = if directive.sharp && matches!(verb, 'x' | 'X') { "0x" } else { "" };
            format!("{}{prefix}{digits}", if *n < 0 { "-" } else { "" })
        }
        ('c', Val::Int(n)) => u32::try_from(*n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string(),
        ('f' | 'F', Val::Float(x)) => signed(
            directive,
            if x.is_finite() { format!("{x:.*}", directive.precision.unwrap_or(6)) } else { float_text(*x) },
        ),
        ('e', Val::Float(x)) => signed(directive, exponential(*x, directive.precision.unwrap_or(6))),
        ('g', Val::Float(x)) => signed(directive, float_text(*x)),
        _ => wrong(),
    }
}

fn clipped(directive: &Directive, text: &str) -> String {
    match directive.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    }
}

fn signed(directive: &Directive, text: String) -> String {
    match text.starts_with(['-', '+']) {
        false if directive.plus => format!("+{text}"),
        false if directive.space => format!(" {text}"),
        _ => text,
    }
}

fn exponential(x: f64, precision: usize) -> String {
    let written = format!("{x:.precision$e}");
    match written.split_once('e') {
        Some((digits, exponent)) => {
            let exponent: i32 = exponent.parse().unwrap_or(0);
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        None => written,
    }
}

fn pad(out: &mut String, directive: &Directive, body: &str, verb: char) {
    let missing = directive.width.unwrap_or(0).saturating_sub(body.chars().count());
    if directive.minus {
        out.push_str(body);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if directive.zero && !matches!(verb, 'v' | 'q' | 't') {
        let (sign, digits) = match body.strip_prefix(['-', '+']) {
            Some(digits) => (&body[..1], digits),
            None => ("", body),
        };
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(body);
    }
}
