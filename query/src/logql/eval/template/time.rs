//! Times by Go's layouts: `2006-01-02T15:04:05Z07:00` shows how, not what.
//!
//! Owns: formatting and reading in UTC; offsets are understood when read, names of zones are not.

use chrono::{DateTime, Datelike, NaiveDate, Timelike};

/// Go's zero time, 0001-01-01 00:00:00 UTC, in nanoseconds since the epoch.
pub const ZERO: i128 = -62_135_596_800 * NS;

const NS: i128 = 1_000_000_000;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The parts of a layout, longest first where one begins another.
const PARTS: [(&str, Part); 32] = [
    ("January", Part::MonthLong),
    ("Jan", Part::MonthShort),
    ("Monday", Part::DayLong),
    ("Mon", Part::DayShort),
    ("MST", Part::ZoneName),
    ("002", Part::YearDay),
    ("01", Part::Month2),
    ("02", Part::Day2),
    ("03", Part::Hour12Two),
    ("04", Part::Minute2),
    ("05", Part::Second2),
    ("06", Part::Year2),
    ("2006", Part::Year4),
    ("_2", Part::DaySpace),
    ("15", Part::Hour24),
    ("1", Part::Month1),
    ("2", Part::Day1),
    ("3", Part::Hour12),
    ("4", Part::Minute1),
    ("5", Part::Second1),
    ("PM", Part::PmUpper),
    ("pm", Part::PmLower),
    ("Z07:00:00", Part::OffsetZ),
    ("Z07:00", Part::OffsetZ),
    ("Z0700", Part::OffsetZ),
    ("Z07", Part::OffsetZ),
    ("-07:00:00", Part::OffsetColon),
    ("-07:00", Part::OffsetColon),
    ("-0700", Part::Offset),
    ("-07", Part::OffsetHour),
    (".000", Part::Fraction),
    (".999", Part::Fraction),
];

#[derive(Clone, Copy, PartialEq)]
enum Part {
    MonthLong,
    MonthShort,
    Month2,
    Month1,
    DayLong,
    DayShort,
    Day2,
    DaySpace,
    Day1,
    YearDay,
    Year4,
    Year2,
    Hour24,
    Hour12,
    Hour12Two,
    Minute2,
    Minute1,
    Second2,
    Second1,
    PmUpper,
    PmLower,
    ZoneName,
    OffsetZ,
    OffsetColon,
    Offset,
    OffsetHour,
    Fraction,
}

/// The next part of a layout: the text before it, the part as written, what follows.
fn next_part(layout: &str) -> Option<(&str, Part, &str, &str)> {
    for (at, _) in layout.char_indices() {
        let rest = &layout[at..];
        // A fraction: a dot or comma and a run of equal 0 or 9 that no digit follows.
        if rest.starts_with(['.', ',']) {
            let digit = rest.as_bytes().get(1).copied().unwrap_or(0);
            let run = rest.bytes().skip(1).take_while(|b| *b == digit).count();
            let ends = !rest.as_bytes().get(1 + run).is_some_and(u8::is_ascii_digit);
            if matches!(digit, b'0' | b'9') && ends {
                return Some((&layout[..at], Part::Fraction, &rest[..=run], &rest[1 + run..]));
            }
            continue;
        }
        let found = PARTS.iter().find(|(text, part)| *part != Part::Fraction && rest.starts_with(text));
        if let Some((text, part)) = found {
            return Some((&layout[..at], *part, &rest[..text.len()], &rest[text.len()..]));
        }
    }
    None
}

fn utc(ns: i128) -> DateTime<chrono::Utc> {
    let seconds = i64::try_from(ns.div_euclid(NS)).unwrap_or(0);
    let nanos = u32::try_from(ns.rem_euclid(NS)).unwrap_or(0);
    DateTime::from_timestamp(seconds, nanos).unwrap_or_default()
}

/// As Go prints a time: `2026-01-05 00:11:42.9145 +0000 UTC`.
pub fn text(ns: i128) -> String {
    format(ns, "2006-01-02 15:04:05.999999999 -0700 MST")
}

/// By a layout, in UTC.
pub fn format(ns: i128, layout: &str) -> String {
    let time = utc(ns);
    let mut out = String::with_capacity(layout.len() + 8);
    let mut rest = layout;
    while let Some((before, part, written, after)) = next_part(rest) {
        out.push_str(before);
        push_part(&mut out, part, written, &time);
        rest = after;
    }
    out.push_str(rest);
    out
}

fn push_part(out: &mut String, part: Part, written: &str, time: &DateTime<chrono::Utc>) {
    let name = |list: &[&'static str], at: u32| list.get(at as usize).copied().unwrap_or("");
    let month = name(&MONTHS, time.month0());
    let day = name(&DAYS, time.weekday().num_days_from_sunday());
    let hour12 = if time.hour().is_multiple_of(12) { 12 } else { time.hour() % 12 };
    let text = match part {
        Part::MonthLong => month.to_owned(),
        Part::MonthShort => month.get(..3).unwrap_or("").to_owned(),
        Part::Month2 => format!("{:02}", time.month()),
        Part::Month1 => time.month().to_string(),
        Part::DayLong => day.to_owned(),
        Part::DayShort => day.get(..3).unwrap_or("").to_owned(),
        Part::Day2 => format!("{:02}", time.day()),
        Part::DaySpace => format!("{:2}", time.day()),
        Part::Day1 => time.day().to_string(),
        Part::YearDay => format!("{:03}", time.ordinal()),
        Part::Year4 => format!("{:04}", time.year()),
        Part::Year2 => format!("{:02}", time.year().rem_euclid(100)),
        Part::Hour24 => format!("{:02}", time.hour()),
        Part::Hour12 => hour12.to_string(),
        Part::Hour12Two => format!("{hour12:02}"),
        Part::Minute2 => format!("{:02}", time.minute()),
        Part::Minute1 => time.minute().to_string(),
        Part::Second2 => format!("{:02}", time.second()),
        Part::Second1 => time.second().to_string(),
        Part::PmUpper => if time.hour() >= 12 { "PM" } else { "AM" }.to_owned(),
        Part::PmLower => if time.hour() >= 12 { "pm" } else { "am" }.to_owned(),
        Part::ZoneName => "UTC".to_owned(),
        Part::OffsetZ => "Z".to_owned(),
        Part::OffsetColon => "+00:00".to_owned(),
        Part::Offset => "+0000".to_owned(),
        Part::OffsetHour => "+00".to_owned(),
        Part::Fraction => fraction(written, time.nanosecond()),
    };
    out.push_str(&text);
}

/// `.000` keeps its zeros, `.999` drops them.
fn fraction(written: &str, nanos: u32) -> String {
    let digits = format!("{nanos:09}");
    let kept = digits.get(..(written.len() - 1).min(9)).unwrap_or(&digits);
    let kept = if written.ends_with('9') { kept.trim_end_matches('0') } else { kept };
    if kept.is_empty() { String::new() } else { format!("{}{kept}", &written[..1]) }
}

/// What was read so far.
struct Reading {
    year: i32,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    nanos: u32,
    pm: Option<bool>,
    offset_seconds: i64,
}

/// Reads a time by a layout; `None` if the text does not fit.
pub fn parse(text: &str, layout: &str) -> Option<i128> {
    let mut reading =
        Reading { year: 0, month: 1, day: 1, hour: 0, minute: 0, second: 0, nanos: 0, pm: None, offset_seconds: 0 };
    let (mut layout, mut text) = (layout, text);
    while let Some((before, part, _, after)) = next_part(layout) {
        text = text.strip_prefix(before)?;
        text = read_part(&mut reading, part, text)?;
        // A fraction that the layout does not name is read behind seconds.
        let seconds = matches!(part, Part::Second1 | Part::Second2);
        if seconds && !matches!(next_part(after), Some(("", Part::Fraction, ..))) && text.starts_with('.') {
            text = read_fraction(&mut reading, text)?;
        }
        layout = after;
    }
    if layout != text {
        return None;
    }
    let hour = match reading.pm {
        Some(true) if reading.hour < 12 => reading.hour + 12,
        Some(false) if reading.hour == 12 => 0,
        _ => reading.hour,
    };
    let date = NaiveDate::from_ymd_opt(reading.year, reading.month, reading.day)?;
    let time = date.and_hms_nano_opt(hour, reading.minute, reading.second, reading.nanos)?.and_utc();
    let seconds = i128::from(time.timestamp()) - i128::from(reading.offset_seconds);
    Some(seconds * NS + i128::from(time.timestamp_subsec_nanos()))
}

fn read_part<'t>(reading: &mut Reading, part: Part, text: &'t str) -> Option<&'t str> {
    let named = |list: &[&str], short: bool| -> Option<(u32, &'t str)> {
        list.iter().zip(0..).find_map(|(name, at)| {
            let name = if short { name.get(..3)? } else { name };
            let head = text.get(..name.len())?;
            head.eq_ignore_ascii_case(name).then(|| (at, &text[name.len()..]))
        })
    };
    let (value, rest) = match part {
        Part::MonthLong | Part::MonthShort => {
            let (at, rest) = named(&MONTHS, part == Part::MonthShort)?;
            (at + 1, rest)
        }
        Part::DayLong | Part::DayShort => named(&DAYS, part == Part::DayShort)?,
        Part::Year4 => digits(text, 4, 4)?,
        Part::YearDay => digits(text, 3, 3)?,
        Part::Month1 | Part::Day1 | Part::Hour12 | Part::Minute1 | Part::Second1 => digits(text, 1, 2)?,
        Part::DaySpace => digits(text.trim_start(), 1, 2)?,
        Part::PmUpper | Part::PmLower => {
            let head = text.get(..2)?.to_ascii_uppercase();
            reading.pm = Some(match head.as_str() {
                "PM" => true,
                "AM" => false,
                _ => return None,
            });
            return text.get(2..);
        }
        Part::ZoneName => {
            let length = text.bytes().take_while(u8::is_ascii_uppercase).count();
            return if length < 3 { None } else { text.get(length..) };
        }
        Part::OffsetZ | Part::OffsetColon | Part::Offset | Part::OffsetHour => return read_offset(reading, text),
        Part::Fraction => return if text.starts_with(['.', ',']) { read_fraction(reading, text) } else { Some(text) },
        _ => digits(text, 2, 2)?,
    };
    match part {
        Part::MonthLong | Part::MonthShort | Part::Month1 | Part::Month2 => reading.month = value,
        Part::Day1 | Part::Day2 | Part::DaySpace => reading.day = value,
        Part::Year4 => reading.year = i32::try_from(value).ok()?,
        Part::Year2 => reading.year = i32::try_from(value).ok()? + if value >= 69 { 1900 } else { 2000 },
        Part::Hour24 | Part::Hour12 | Part::Hour12Two => reading.hour = value,
        Part::Minute1 | Part::Minute2 => reading.minute = value,
        Part::Second1 | Part::Second2 => reading.second = value,
        _ => {}
    }
    Some(rest)
}

fn digits(text: &str, least: usize, most: usize) -> Option<(u32, &str)> {
    let length = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if length < least {
        return None;
    }
    Some((text[..length].parse().ok()?, &text[length..]))
}

fn read_fraction<'t>(reading: &mut Reading, text: &'t str) -> Option<&'t str> {
    let inside = text.get(1..)?;
    let length = inside.bytes().take_while(u8::is_ascii_digit).count();
    if length == 0 {
        return None;
    }
    let nine = format!("{:0<9}", &inside[..length.min(9)]);
    reading.nanos = nine.parse().ok()?;
    Some(&inside[length..])
}

/// `Z`, `+01:00`, `+0100` or `+01`.
fn read_offset<'t>(reading: &mut Reading, text: &'t str) -> Option<&'t str> {
    if let Some(rest) = text.strip_prefix('Z') {
        return Some(rest);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = digits(text.get(1..)?, 2, 2)?;
    let (minutes, rest) = match digits(rest.strip_prefix(':').unwrap_or(rest), 2, 2) {
        Some(read) => read,
        None => (0, rest),
    };
    reading.offset_seconds = sign * i64::from(hours * 3600 + minutes * 60);
    Some(rest)
}
