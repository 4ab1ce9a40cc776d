//! Benches of the parts: parsers and decoders, writing, reading.
//!
//! ```text
//! cargo bench -p tercet-micro                                   measured, at the sizes below
//! cargo bench -p tercet-micro -- needle                         only those with this word
//! cargo test -p tercet-micro --benches                          each once, small: whether they run
//! ```
//!
//! Sizes are set by variables: `TERCET_BENCH_SERIES` (of 24 h at 15 s), `TERCET_BENCH_LINES`, `TERCET_BENCH_SPANS`. The first
//! line printed names the machine and the commit: results without them mean nothing.

mod bed;
mod parse;
mod read;
mod write;

use criterion::Criterion;

fn main() {
    println!("{}", bed::provenance());
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    parse::benches(&mut criterion);
    write::benches(&mut criterion);
    read::benches(&mut criterion);
    criterion.final_summary();
}
