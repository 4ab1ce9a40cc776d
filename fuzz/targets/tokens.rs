//! The token filter sidecar: whatever decodes answers any probe with rows of its block, in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use storage::Table;
use storage::index::tokens::{Probe, TokenFilter};
use storage::scan::Conjunct;

fuzz_target!(|bytes: &[u8]| {
    let Ok(filter) = TokenFilter::decode(bytes.to_vec().into()) else { return };
    let texts = [Conjunct::Contains { column: "line", text: "deadline exceeded".into() }];
    let values = [Conjunct::TextIn { column: "severity", texts: ["info".into()].into() }];
    for tests in [&texts, &values] {
        let probe = Probe::new(Table::Logs, tests).expect("filters can say something of it");
        let mut end = 0;
        for range in filter.candidates(&probe) {
            assert!(end <= range.start && range.start < range.end && range.end <= filter.rows());
            end = range.end;
        }
    }
});
