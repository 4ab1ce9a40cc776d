//! Units of LogQL: durations, byte sizes, numbers as the API prints them.
//!
//! Owns: reading and writing of these texts. Does not own: where they may stand (`lexer`, `parser`).

const NS: f64 = 1.0;
const US: f64 = 1e3;
const MS: f64 = 1e6;
const S: f64 = 1e9;
const MINUTE: f64 = 60.0 * S;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;
const WEEK: f64 = 7.0 * DAY;
const YEAR: f64 = 365.0 * DAY;

/// Units that a query text may use.
const QUERY_UNITS: &[(&str, f64)] = &[
    ("ns", NS),
    ("us", US),
    ("µs", US),
    ("μs", US),
    ("ms", MS),
    ("s", S),
    ("m", MINUTE),
    ("h", HOUR),
    ("d", DAY),
    ("w", WEEK),
    ("y", YEAR),
];

/// How many of [`QUERY_UNITS`], from the first, a label value may use: Go's `time.ParseDuration` ends at hours.
const VALUE_UNITS: usize = 8;

/// Reads `5m`, `1h30m`, `1.5s`, `1d`, with an optional sign, as nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    duration_of(text, QUERY_UNITS)
}

/// Reads a label's value as Go's `time.ParseDuration` does: no unit above the hour, `0` needs none.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Some(0);
    }
    duration_of(text, &QUERY_UNITS[..VALUE_UNITS])
}

fn duration_of(text: &str, units: &[(&str, f64)]) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, tail) = tail.split_at(letters);
        let scale = units.iter().find_map(|(name, scale)| (*name == unit).then_some(*scale))?;
        total = total.checked_add(scaled(number, scale)?)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// `number` × `scale`, the whole part exactly.
fn scaled(number: &str, scale: f64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
    whole.checked_mul(scale as i128)?.checked_add((fraction * scale).round() as i128)
}

/// Writes nanoseconds as a query spells them: `5m`, `1h30m`, `1d`.
pub fn format_duration(ns: i64) -> String {
    if ns == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ns < 0 {
        out.push('-');
    }
    let mut rest = ns.unsigned_abs();
    let steps = [
        ("y", YEAR, true),
        ("w", WEEK, true),
        ("d", DAY, true),
        ("h", HOUR, false),
        ("m", MINUTE, false),
        ("s", S, false),
        ("ms", MS, false),
        ("us", US, false),
        ("ns", NS, false),
    ];
    for (unit, scale, whole_only) in steps {
        let scale = scale as u64;
        // As Prometheus prints: the calendar units stand only alone.
        if rest < scale || (whole_only && !rest.is_multiple_of(scale)) {
            continue;
        }
        out.push_str(&format!("{}{unit}", rest / scale));
        rest %= scale;
        if rest == 0 {
            break;
        }
    }
    out
}

/// Reads `5KB`, `5KiB`, `1.5 MB`, `42B` or `42` (case-insensitive) as bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.' || *b == b',').count();
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.replace(',', "").parse().ok()?;
    let unit = unit.trim().to_ascii_lowercase();
    let scale: f64 = match unit.as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "p" | "pb" => 1e15,
        "e" | "eb" => 1e18,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1_048_576.0,
        "gi" | "gib" => 1_073_741_824.0,
        "ti" | "tib" => 1_099_511_627_776.0,
        "pi" | "pib" => 1_125_899_906_842_624.0,
        "ei" | "eib" => 1_152_921_504_606_846_976.0,
        _ => return None,
    };
    let bytes = number * scale;
    (0.0..18_446_744_073_709_551_615.0).contains(&bytes).then_some(bytes as u64)
}

/// A size as the original understands it in a label filter: it rounds the literal to two digits (`30KiB` is 31 kB,
/// `3MiB` is 3.1 MB), because it prints and parses a query again before running it.
pub fn rounded_bytes(bytes: u64) -> u64 {
    if bytes < 10 {
        return bytes;
    }
    let exponent = (bytes as f64).log(1000.0).floor();
    let scale = 1000_f64.powf(exponent);
    let value = (bytes as f64 / scale * 10.0 + 0.5).floor() / 10.0;
    let value = if value < 10.0 { value } else { value.round_ties_even() };
    (value * scale).round() as u64
}

/// Writes bytes so that [`parse_bytes`] reads the same number.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 9] = [
        ("EB", 1_000_000_000_000_000_000),
        ("PB", 1_000_000_000_000_000),
        ("TB", 1_000_000_000_000),
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("KB", 1_000),
    ];
    let exact = UNITS.iter().find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale));
    match exact {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

/// The text of a sample's value: shortest decimal without exponent, `+Inf`, `-Inf`, `NaN`.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        let s = 1_000_000_000_i64;
        for (text, ns) in [
            ("5m", 300 * s),
            ("1h30m", 5400 * s),
            ("1.5s", 1_500_000_000),
            ("100ms", 100_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("1d", 86_400 * s),
            ("1w", 604_800 * s),
            ("1y", 31_536_000 * s),
            ("-5m", -300 * s),
            (".5s", 500_000_000),
        ] {
            assert_eq!(parse_duration(text), Some(ns), "{text}");
            let written = format_duration(ns);
            assert_eq!(parse_duration(&written), Some(ns), "{text} prints as {written}");
        }
        for text in ["", "5", "1h5", "m", "5 m", "1.2.3s", "999999999999y", "-"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_go_duration("1d"), None, "Go knows no days");
        assert_eq!(parse_go_duration("0"), Some(0));
        assert_eq!(format_duration(86_400 * s), "1d");
        assert_eq!(format_duration(90_000 * s), "25h");
    }

    #[test]
    fn bytes_are_read_and_written() {
        for (text, bytes) in
            [("5KB", 5000), ("5KiB", 5120), ("1.5MB", 1_500_000), ("42B", 42), ("12 KB", 12_000), ("4.2kB", 4200)]
        {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
            assert_eq!(parse_bytes(&format_bytes(bytes)), Some(bytes));
        }
        for text in ["", "KB", "5KB5", "-5KB", "1e3", "1.2.3B"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_rounded_to_two_digits() {
        for (bytes, rounded) in [
            (0, 0),
            (9, 9),
            (42, 42),
            (100, 100),
            (5_000, 5_000),
            (5_120, 5_100),
            (30_720, 31_000),
            (3_145_728, 3_100_000),
        ] {
            assert_eq!(rounded_bytes(bytes), rounded);
        }
    }

    #[test]
    fn floats_print_without_exponent() {
        for (value, text) in [
            (1.0 / 300.0, "0.0033333333333333335"),
            (1.0, "1"),
            (-0.0, "-0"),
            (1e21, "1000000000000000000000"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(format_float(value), text);
        }
    }
}
