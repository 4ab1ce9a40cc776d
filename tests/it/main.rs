//! End-to-end tests: the real binary on free ports and temporary folders, real clients, recorded corpora; and the
//! tidy test that holds the habits of the house. One test binary, since each further one links everything again.

mod bad_input;
mod clients;
mod command_line;
mod conformance;
mod crash;
mod deletes;
mod faults;
#[path = "../support/gcs.rs"]
mod gcs;
mod generated;
mod jaeger;
mod journey;
mod loki;
mod memory;
mod open_format;
mod opentelemetry;
mod oracle;
mod prometheus;
mod server;
mod stores;
mod tail;
mod tidy;
