//! Replays what was recorded from the original, where the recordings are at hand.

use std::path::PathBuf;

use serde_json::Value;

use crate::promql::{format_query, parse, parse_tree, print};

/// The folder of recordings: beside the checkout, or where `TERCET_CONFORMANCE` says. In CI it must be there.
pub(super) fn conformance() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let folder = std::env::var_os("TERCET_CONFORMANCE").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    eprintln!("skipped: {} is missing", folder.display());
    None
}

/// All recorded exchanges of the metrics API.
pub(super) fn exchanges() -> Vec<Value> {
    let Some(folder) = conformance() else { return Vec::new() };
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder.join("metrics"))
        .expect("the folder of recordings")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("corpus-")))
        .collect();
    names.sort();
    let texts: Vec<String> = names.iter().map(|path| std::fs::read_to_string(path).expect("reads")).collect();
    texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(super) fn param<'a>(exchange: &'a Value, name: &str) -> Option<&'a str> {
    let params = exchange["request"]["params"].as_array()?;
    params.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str())
}

fn is_query(exchange: &Value) -> bool {
    let path = exchange["request"]["path"].as_str().unwrap_or("");
    path.ends_with("/query") || path.ends_with("/query_range")
}

#[test]
fn every_recorded_query_parses_and_prints_itself() {
    for exchange in exchanges() {
        let Some(query) = param(&exchange, "query") else { continue };
        let ok = exchange["expect"]["body"]["status"] == "success";
        let evaluated = exchange["expect"]["status"] == 422;
        if !is_query(&exchange) || !(ok || evaluated) {
            continue;
        }
        let ast = parse(query).unwrap_or_else(|e| panic!("{query}: {e}"));
        let printed = print(&ast);
        let again = parse(&printed).unwrap_or_else(|e| panic!("{query} printed as {printed}: {e}"));
        assert_eq!(print(&again), printed);
    }
}

#[test]
fn recorded_parse_errors_come_word_for_word() {
    let mut failures = Vec::new();
    let mut seen = 0;
    for exchange in exchanges() {
        let expected = exchange["expect"]["body"]["error"].as_str().unwrap_or("");
        let Some(at) = expected.find("parse error: ") else { continue };
        let Some(query) = param(&exchange, "query") else { continue };
        seen += 1;
        let found = match parse(query) {
            Ok(_) => "no error".to_owned(),
            Err(error) => error.message,
        };
        // The compiler of regular expressions is another one; its words differ.
        let same = if expected.contains("error parsing regexp") {
            found.contains("parse error: ") && expected[..at].ends_with(&found[..found.find("parse").unwrap_or(0)])
        } else {
            expected.ends_with(&found) && !found.is_empty()
        };
        if !same {
            failures.push(format!("{query}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(failures.is_empty(), "{} of {seen}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn recorded_formats_and_trees_come_out_equal() {
    for exchange in exchanges() {
        let path = exchange["request"]["path"].as_str().unwrap_or("");
        let Some(query) = param(&exchange, "query") else { continue };
        let expected = &exchange["expect"]["body"];
        if expected["status"] != "success" {
            continue;
        }
        if path.ends_with("/format_query") {
            assert_eq!(format_query(query).expect(query), expected["data"].as_str().unwrap_or(""), "{query}");
        } else if path.ends_with("/parse_query") {
            assert_eq!(parse_tree(query).expect(query), expected["data"], "{query}");
        }
    }
}
