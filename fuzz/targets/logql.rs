//! LogQL: whatever parses prints as text that parses to the same print.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A constant that folds to no number has no literal in the language, in Loki neither.
    let folds_to_none = |printed: &String| printed.contains("NaN") || printed.contains("Inf");
    if let Ok(printed) = query::logql::format_query(text)
        && !folds_to_none(&printed)
    {
        let again = query::logql::format_query(&printed).expect("what was printed parses");
        assert_eq!(printed, again);
    }
    let _ = query::logql::parse_selector(text);
});
