//! What parsers read, with their faults.

use std::borrow::Cow;

use proptest::prelude::*;

use super::{JsonPath, Parser, unpack};
use crate::logql::ast::Extraction;
use crate::logql::eval::labels::{ERROR, ERROR_DETAILS, LabelSet, Needs};

fn read(parser: &Parser, line: &str) -> Vec<(String, String)> {
    let owned = {
        let mut labels = LabelSet::new(&[], &Needs::All);
        parser.run(&Cow::Owned(line.to_owned()), &mut labels);
        pairs(&labels)
    };
    let mut labels = LabelSet::new(&[], &Needs::All);
    parser.run(&Cow::Borrowed(line), &mut labels);
    let borrowed = pairs(&labels);
    assert_eq!(owned, borrowed, "a line of its own is read like a stored one");
    borrowed
}

fn pairs(labels: &LabelSet<'_>) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = labels
        .iter()
        .filter(|(name, ..)| *name != ERROR_DETAILS)
        .map(|(name, value, _)| (name.to_owned(), value.to_owned()))
        .collect();
    list.sort();
    list
}

fn check(parser: &Parser, line: &str, expected: &[(&str, &str)]) {
    let got = read(parser, line);
    let got: Vec<(&str, &str)> = got.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(got, expected, "{line}");
}

fn extractions(list: &[(&str, &str)]) -> Vec<Extraction> {
    list.iter().map(|(name, path)| Extraction { name: (*name).to_owned(), path: (*path).to_owned() }).collect()
}

#[test]
fn json_is_flattened() {
    let json = Parser::Json;
    check(&json, r#"{"a":{"b":{"c":{"d":5}}},"e":[{"f":1}]}"#, &[("a_b_c_d", "5")]);
    check(
        &json,
        r#"{"num":1e3,"big":12345678901234567890,"bool":true,"nul":null,"esc":"tab\tq\"u\u0041\ud83d\ude80"}"#,
        &[("big", "12345678901234567890"), ("bool", "true"), ("esc", "tab\tq\"uA🚀"), ("num", "1e3")],
    );
    check(
        &json,
        r#"{"":"x","1st":"digit","a b":"space","a.b":"dot","é":"acc"}"#,
        &[("_", "acc"), ("_1st", "digit"), ("a_b", "space")],
    );
    check(&json, r#"  {"s":""}  trailing"#, &[("s", "")]);
    check(&json, "{}", &[]);
}

#[test]
fn broken_json_keeps_what_came_before() {
    let json = Parser::Json;
    let error = (ERROR, "JSONParserErr");
    check(&json, r#"{"a":1,"b":"#, &[error, ("a", "1")]);
    check(&json, r#"{"a":"x" "b":2}"#, &[error, ("a", "x")]);
    for line in ["", "[1]", "\"s\"", "{", "{\"a\"", "{\"a\":nope}", "{a:1}"] {
        check(&json, line, &[error]);
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    check(&json, &deep, &[error]);
}

#[test]
fn json_paths_find_single_values() {
    let list = extractions(&[("d", "a.b[0].c"), ("m", "missing"), ("o", "a"), ("q", "[\"odd-key\"]")]);
    let parser = Parser::json(&list).unwrap();
    let line = r#"{"a":{"b":[{"c":"x\ty"}]},"odd-key":null}"#;
    check(&parser, line, &[("d", "x\ty"), ("m", ""), ("o", r#"{"b":[{"c":"x\ty"}]}"#), ("q", "")]);
    check(&parser, "42", &[(ERROR, "JSONParserErr")]);
    let two = Parser::json(&extractions(&[("a", "a"), ("b", "b")])).unwrap();
    check(&two, r#"{"a":"x" "b":2}"#, &[("a", "x"), ("b", "2")]);
    check(&two, r#"{"a":1,"b":"#, &[(ERROR, "JSONParserErr"), ("a", "1"), ("b", "")]);
    check(&two, "[1,2]", &[("a", ""), ("b", "")]);
    check(&two, "{'a':'b'}", &[("a", ""), ("b", "")]);
    check(&two, " {\"a\":1}", &[(ERROR, "JSONParserErr")]);
    for bad in ["", "b[", "b..", ".a", "a[x]", "a[\"x]", "a b", "[0", "a."] {
        assert!(JsonPath::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn logfmt_reads_pairs() {
    let plain = Parser::logfmt(false, false, &[]);
    check(&plain, r#"a=1 b="x \"y\" \u0041" c= d e=é a=2"#, &[("a", "1"), ("b", "x \"y\" A"), ("e", "é")]);
    check(&plain, r#"a=1 =x "q" b=2"#, &[("a", "1"), ("b", "2")]);
    check(&plain, "a=1 b=\"open", &[("a", "1")]);
    let keep = Parser::logfmt(false, true, &[]);
    check(&keep, "a=1 c= d", &[("a", "1"), ("c", ""), ("d", "")]);
    let strict = Parser::logfmt(true, false, &[]);
    check(&strict, "a=1 b=\"open", &[(ERROR, "LogfmtParserErr"), ("a", "1")]);
    let listed = Parser::logfmt(false, false, &extractions(&[("x", "a"), ("y", "nope")]));
    check(&listed, "a=1 b=2", &[("x", "1"), ("y", "")]);
}

#[test]
fn regexp_and_pattern_capture() {
    let regexp = Parser::regexp(r"(?P<method>\w+) (?P<path>\S+)(?P<rest> .*)?").unwrap();
    check(&regexp, "GET /x", &[("method", "GET"), ("path", "/x"), ("rest", "")]);
    check(&regexp, "", &[]);
    for bad in ["nogroup", "(x)", "(?P<a>x)(?P<a>y)", "("] {
        assert!(Parser::regexp(bad).is_err(), "{bad}");
    }
    check(&Parser::pattern("<ip> - <_> <rest>").unwrap(), "1.2.3.4 - bob x y", &[("ip", "1.2.3.4"), ("rest", "x y")]);
}

#[test]
fn unpack_swaps_the_line() {
    let run = |line: &str| {
        let mut labels = LabelSet::new(&[], &Needs::All);
        let entry = unpack(line, &mut labels);
        (entry, pairs(&labels))
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(run(r#"{"pod":"p","n":1,"_entry":"line"}"#), (Some("line".to_owned()), vec![pair("pod", "p")]));
    assert_eq!(run(r#"{"pod":"p"}"#), (None, vec![]));
    assert_eq!(run(""), (None, vec![]));
    assert_eq!(run("plain"), (None, vec![pair(ERROR, "JSONParserErr")]));
}

proptest! {
    #[test]
    fn no_line_panics(line in "[ -~é\\n]{0,60}", json in "[{}\\[\\]:,\"\\\\a1u ]{0,40}") {
        for parser in [
            Parser::Json,
            Parser::logfmt(true, true, &[]),
            Parser::logfmt(false, false, &extractions(&[("a", "a")])),
            Parser::json(&extractions(&[("a", "a.b[1]"), ("b", "[0]")])).unwrap(),
        ] {
            read(&parser, &line);
            read(&parser, &json);
        }
        let _ = JsonPath::parse(&json);
        let _ = unpack(&json, &mut LabelSet::new(&[], &Needs::All));
    }
}
