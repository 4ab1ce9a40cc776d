//! Holds the habits of the house: edges between crates, lengths of files and functions, module docs, forbidden calls,
//! equal shapes of the languages, and that the paths named in the docs exist.

use std::path::{Path, PathBuf};

use super::clients::root;

/// Longest file, tests aside.
const FILE_LINES_MAX: usize = 600;
/// Longest function.
const FUNCTION_LINES_MAX: usize = 70;

/// A source file of the product, as lines without its unit tests.
struct Source {
    path: String,
    lines: Vec<String>,
}

fn rust_files(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            out.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "storage/src", "query/src", "proto/src", "generator/src", "benches"] {
        rust_files(&root().join(folder), &mut paths);
    }
    let all: Vec<Source> = paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("readable");
            let name = path.strip_prefix(root()).expect("inside").display().to_string();
            Source { path: name, lines: text.lines().map(str::to_owned).collect() }
        })
        .collect();
    let tests: Vec<String> = all.iter().flat_map(|source| test_modules(&source.path, &source.lines)).collect();
    let of_tests =
        |path: &str| tests.iter().any(|test| path == format!("{test}.rs") || path.starts_with(&format!("{test}/")));
    all.into_iter()
        .filter(|source| !of_tests(&source.path))
        .map(|source| Source { lines: without_tests(source.lines), ..source })
        .collect()
}

/// The modules that a file declares for its tests (`#[cfg(test)] mod name;`), as paths without ending.
fn test_modules(path: &str, lines: &[String]) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or_default();
    let folder = match file {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    let declared = lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]");
    declared
        .filter_map(|pair| pair[1].trim().trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';'))
        .map(|name| format!("{folder}/{name}"))
        .collect()
}

/// Everything before `#[cfg(test)] mod … {`, which by habit ends a file.
fn without_tests(mut lines: Vec<String>) -> Vec<String> {
    let begins = |pair: &[String]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    let tests = lines.windows(2).position(begins);
    lines.truncate(tests.unwrap_or(lines.len()));
    lines
}

fn report(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n{}", faults.join("\n"));
}

#[test]
fn every_file_says_what_it_owns() {
    let faults: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.lines.first().is_some_and(|line| line.starts_with("//! ")))
        .map(|source| source.path)
        .collect();
    report("files that do not open with `//!`", &faults);
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.lines.len() > FILE_LINES_MAX {
            faults.push(format!("{}: {} lines of at most {FILE_LINES_MAX}", source.path, source.lines.len()));
        }
        for (line, name, length) in functions(&source.lines) {
            if length > FUNCTION_LINES_MAX {
                faults.push(format!(
                    "{}:{line}: `{name}` has {length} lines of at most {FUNCTION_LINES_MAX}",
                    source.path
                ));
            }
        }
    }
    report("too long", &faults);
}

/// Line, name and length of each function; rustfmt puts the closing brace at the indentation of `fn`.
fn functions(lines: &[String]) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let indentation = line.len() - line.trim_start().len();
        let mut words = line.split_whitespace().skip_while(|word| {
            matches!(*word, "pub" | "async" | "const" | "pub(crate)" | "pub(super)" | "unsafe")
                || word.starts_with("pub(in")
        });
        if words.next() != Some("fn") {
            continue;
        }
        let name: String =
            words.next().unwrap_or_default().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = format!("{}}}", " ".repeat(indentation));
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        if let Some(length) = lines[i..].iter().position(|line| *line == end) {
            found.push((i + 1, name, length + 1));
        }
    }
    found
}

/// Text that must not stand in the product, and the files that may hold it with the reason.
const FORBIDDEN: &[(&str, &[&str])] = &[
    // Compares a parser's own method of this name, not the one that panics.
    (".unwrap()", &["query/src/logql/parser/metric.rs"]),
    ("todo!(", &[]),
    ("unimplemented!(", &[]),
    ("dbg!(", &[]),
    // Output of the command line is what these files are for.
    ("println!(", &["src/main.rs", "src/cli.rs", "src/server.rs", "benches/"]),
    ("SystemTime::now", &["storage/src/clock.rs", "benches/"]),
    ("Utc::now", &[]),
    ("unsafe ", &[]),
];

#[test]
fn forbidden_calls_are_absent() {
    let mut faults = Vec::new();
    for source in sources() {
        for (i, line) in source.lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (text, allowed) in FORBIDDEN {
                // `eprintln!(` ends in `println!(` and is as bad.
                if code.contains(text) && !allowed.iter().any(|path| source.path.starts_with(path)) {
                    faults.push(format!("{}:{}: `{text}`", source.path, i + 1));
                }
            }
            if line.contains("TODO") && !line.contains("TODO(#") {
                faults.push(format!("{}:{}: a TODO without its issue", source.path, i + 1));
            }
        }
    }
    report("forbidden", &faults);
}

/// Who may use whom: crate folder, then words that must not stand in its `use` lines and manifest.
const EDGES: &[(&str, &[&str])] = &[
    ("storage", &["query", "proto", "axum", "tonic", "hyper", "prost", "opentelemetry_proto", "opentelemetry-proto"]),
    (
        "query",
        &["proto", "axum", "tonic", "hyper", "prost", "parquet", "object_store", "deltalake_core", "deltalake-core"],
    ),
    ("generator", &["query", "proto", "axum", "tonic", "hyper", "tokio", "parquet", "object_store", "deltalake_core"]),
    ("proto", &["query", "axum", "tonic", "hyper", "tokio", "parquet", "object_store", "arrow"]),
];

#[test]
fn arrows_between_crates_point_down() {
    let mut faults = Vec::new();
    for (name, forbidden) in EDGES {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
        for line in manifest.lines().take_while(|line| !line.starts_with("[dev-dependencies]")) {
            let dependency = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if forbidden.contains(&dependency) {
                faults.push(format!("{name}/Cargo.toml: {dependency}"));
            }
            if line.contains("version = \"") {
                faults.push(format!("{name}/Cargo.toml: a version outside the workspace table: {line}"));
            }
        }
        let sources = sources();
        let own = sources.iter().filter(|source| source.path.starts_with(&format!("{name}/")));
        for (path, line) in own.flat_map(|source| source.lines.iter().map(move |line| (&source.path, line))) {
            if forbidden.iter().any(|word| line.trim_start().starts_with(&format!("use {word}::"))) {
                faults.push(format!("{path}: {line}"));
            }
        }
    }
    for source in sources().iter().filter(|source| source.path.starts_with("proto/")) {
        let storage = source.lines.iter().filter(|line| line.contains("storage::"));
        let foreign =
            ["storage::engine", "storage::wal", "storage::head", "storage::table", "storage::scan", "storage::Scan"];
        faults.extend(
            storage
                .filter(|line| foreign.iter().any(|path| line.contains(path)))
                .map(|line| format!("{}: {line}", source.path)),
        );
    }
    report("arrows that do not point down", &faults);
}

#[test]
fn the_languages_have_one_shape() {
    let mut faults = Vec::new();
    for language in ["promql", "logql", "traceql"] {
        for part in ["mod", "lexer", "parser", "ast", "print", "check", "plan", "eval"] {
            let folder = root().join("query/src").join(language);
            if !folder.join(format!("{part}.rs")).exists() && !folder.join(part).is_dir() {
                faults.push(format!("query/src/{language}/{part}"));
            }
        }
    }
    report("parts that a language lacks", &faults);
}

#[test]
fn paths_named_in_the_docs_exist() {
    let mut faults = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root().join(name)).expect("a document");
        assert!(text.lines().count() <= 250, "{name} is longer than 250 lines");
        for quoted in text.split('`').skip(1).step_by(2) {
            let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            let folder = quoted.split('/').next().unwrap_or_default();
            let inside = [
                "src",
                "storage",
                "query",
                "proto",
                "generator",
                "ui",
                "deploy",
                "benches",
                "tests",
                "docs",
                "fuzz",
                ".ci",
            ];
            if plain && quoted.contains('/') && inside.contains(&folder) && !root().join(quoted).exists() {
                faults.push(format!("{name}: {quoted}"));
            }
        }
    }
    report("paths that do not exist", &faults);
}
