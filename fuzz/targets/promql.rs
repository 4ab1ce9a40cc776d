//! PromQL: whatever parses prints as text that parses to the same print.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(printed) = query::promql::format_query(text) {
        let again = query::promql::format_query(&printed).expect("what was printed parses");
        assert_eq!(printed, again);
        let _ = query::promql::parse_tree(text);
    }
    let _ = query::promql::parse_selector(text);
});
