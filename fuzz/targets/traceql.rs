//! TraceQL: whatever parses prints as text that parses to an equal tree; what passes the check can be planned.
#![no_main]

use libfuzzer_sys::fuzz_target;
use query::traceql::{check, eval, parser, plan};

fuzz_target!(|text: &str| {
    let _ = eval::completion::filter_of(text);
    let _ = parser::parse_reference(text);
    let Ok(query) = parser::parse(text) else { return };
    let printed = query.to_string();
    assert_eq!(parser::parse(&printed).expect("what was printed parses"), query, "{printed}");
    if check::check(&query).is_ok() {
        let _ = plan::plan(&query);
    }
});
