//! What parses, what does not, and in which words.

use std::path::PathBuf;

use proptest::prelude::*;

use crate::logql::{check, parser, print};

fn message(text: &str) -> String {
    match parser::parse(text).and_then(check::check) {
        Ok(expr) => panic!("{text} parses as {expr}"),
        Err(error) => error.message,
    }
}

fn canonical(text: &str) -> String {
    let parse =
        |text: &str| parser::parse(text).and_then(check::check).unwrap_or_else(|error| panic!("{text}: {error}"));
    let once = parse(text);
    let printed = once.to_string();
    assert_eq!(parse(&printed).to_string(), printed, "printing is stable");
    let pretty = print::pretty(&once);
    assert_eq!(parse(&pretty).to_string(), printed, "the broken form means the same: {pretty}");
    printed
}

#[test]
fn errors_say_line_and_column() {
    for (text, expected) in [
        ("{app=\"x\"} |= ", "parse error at line 1, col 14: syntax error: unexpected $end, expecting STRING or ip"),
        (
            "{app=\"x\"} |= x",
            "parse error at line 1, col 14: syntax error: unexpected IDENTIFIER, expecting STRING or ip",
        ),
        ("{app=x}", "parse error at line 1, col 6: syntax error: unexpected IDENTIFIER, expecting STRING"),
        (
            "{app=\"x\" app=\"y\"}",
            "parse error at line 1, col 10: syntax error: unexpected IDENTIFIER, expecting } or ,",
        ),
        ("{app=\"x\",}", "parse error at line 1, col 10: syntax error: unexpected }, expecting IDENTIFIER"),
        ("{\n\"app\"=\"x\"}", "parse error at line 2, col 1: syntax error: unexpected STRING, expecting IDENTIFIER"),
        ("rate({app=\"x\"})", "parse error at line 1, col 15: syntax error: unexpected ), expecting RANGE"),
        ("sum({app=\"x\"})", "parse error at line 1, col 14: syntax error: unexpected ), expecting RANGE"),
        ("foo(rate({app=\"x\"}[5m]))", "parse error at line 1, col 1: syntax error: unexpected IDENTIFIER"),
        ("", "parse error at line 1, col 1: syntax error: unexpected $end"),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
}

#[test]
fn rules_between_nodes() {
    for (text, expected) in [
        ("avg_over_time({a=\"x\"}[5m])", "parse error : invalid aggregation avg_over_time without unwrap"),
        ("bytes_rate({a=\"x\"} | unwrap y [5m])", "parse error : invalid aggregation bytes_rate with unwrap"),
        ("count_over_time({a=\"x\"}[5m]) by (z)", "parse error : grouping not allowed for count_over_time aggregation"),
        ("topk(sum(rate({a=\"x\"}[5m])))", "parse error : parameter required for operation topk"),
        ("vector(1) and 2", "parse error : unexpected literal for right leg of logical/set binary operation (and): 2"),
        ("{a=\"x\"} or {b=\"y\"}", "parse error : unexpected type for left leg of binary operation (or): log query"),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
}

#[test]
fn precedence_and_folding() {
    for (text, expected) in [
        ("1+1", "2"),
        ("2 * 3 ^ 2", "18"),
        ("2 ^ 3 ^ 0", "2"),
        ("1 > 2", "0"),
        ("-3", "-3"),
        ("vector(1)", "vector(1.000000)"),
        ("vector(1) + vector(2) * vector(3)", "(vector(1.000000) + (vector(2.000000) * vector(3.000000)))"),
        ("vector(1) or vector(2) and vector(3)", "(vector(1.000000) or (vector(2.000000) and vector(3.000000)))"),
        ("vector(1) - vector(2) - vector(3)", "((vector(1.000000) - vector(2.000000)) - vector(3.000000))"),
        ("rate(({rate=\"x\"})[5m] offset -1m)", "rate({rate=\"x\"}[5m] offset -1m)"),
        ("rate({a=\"x\"}[5m] |= \"b\" | unwrap c)", "rate({a=\"x\"} |= \"b\" | unwrap c[5m])"),
        ("{a=\"x\"} | b=\"c\" d>5 or e<1KB", "{a=\"x\"} | ( ( b=\"c\" , d>5 ) or e<1KB )"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn nesting_is_bounded() {
    for text in [
        "(".repeat(100_000),
        format!("{{a=\"x\"}} | {}", "(".repeat(100_000)),
        format!("count_over_time({}", "(".repeat(100_000)),
        "sum(".repeat(100_000),
        "vector(1)+".repeat(20_000),
        "2^".repeat(20_000),
    ] {
        assert!(message(&text).starts_with("parse error"));
    }
    let many = vec!["b=\"c\""; 5000].join(" or ");
    parser::parse(&format!("{{a=\"x\"}} | {many}")).expect("a long chain is not deep");
}

/// The recorded queries, if they are at hand.
fn corpus() -> Vec<(String, String, u64)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance/logs");
    let Ok(files) = std::fs::read_dir(&folder) else {
        assert!(std::env::var("CI").is_err(), "the recorded corpora are missing at {}", folder.display());
        eprintln!("skipped: no corpora at {}", folder.display());
        return Vec::new();
    };
    let mut list = Vec::new();
    for file in files {
        let path = file.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
        if !name.starts_with("corpus-") || name == "corpus-push.jsonl" {
            continue;
        }
        for line in std::fs::read_to_string(&path).expect("readable").lines() {
            let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let status = case["expect"]["status"].as_u64().unwrap_or(0);
            if let Some(query) = case["request"]["params"]["query"].as_str() {
                list.push((case["id"].to_string(), query.to_owned(), status));
            }
        }
    }
    list
}

#[test]
fn every_recorded_query_prints_and_parses_back() {
    for (id, query, status) in corpus() {
        if status == 200 && !query.is_empty() && query != "{}" {
            eprintln!("{id}: {query}");
            canonical(&query);
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[ -~é\\n]{0,60}") {
        let _ = parser::parse(&text).and_then(check::check);
    }

    #[test]
    fn no_sequence_of_tokens_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "{", "}", "(", ")", "a", "=", "\"b\"", "|", "|=", "!=", "or", "and", "[5m]", "rate", "sum", "by", "5", "5m", "5KB",
        "unwrap", "json", "logfmt", "--strict", ",", "offset", "-", "on", "group_left", "ip", "vector", "topk", "==", "^",
        "label_format", "drop", "{a=\"b\"}", "bool", "quantile_over_time", "label_replace", "+", "decolorize",
    ]), 0..20)) {
        let text = words.join(" ");
        if let Ok(expr) = parser::parse(&text).and_then(check::check) {
            let printed = expr.to_string();
            let again = parser::parse(&printed).and_then(check::check).map(|expr| expr.to_string());
            prop_assert_eq!(again.ok(), Some(printed));
        }
    }
}
