//! TraceQL: whatever parses prints as text that parses to an equal tree, or nests deeper than a text may, since the
//! canonical form has parentheses that a text need not have; what passes the check can be planned.
#![no_main]

use libfuzzer_sys::fuzz_target;
use query::traceql::{check, eval, parser, plan};

fuzz_target!(|text: &str| {
    let _ = eval::completion::filter_of(text);
    let _ = parser::parse_reference(text);
    let Ok(query) = parser::parse(text) else { return };
    let printed = query.to_string();
    match parser::parse(&printed) {
        Ok(again) => assert_eq!(again, query, "{printed}"),
        Err(error) => assert!(error.to_string().contains(parser::TOO_DEEP), "{error}: {printed}"),
    }
    if check::check(&query).is_ok() {
        let _ = plan::plan(&query);
    }
});
