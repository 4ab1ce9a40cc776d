//! Tercet: metrics, logs and traces in one process, as open tables on object storage.
//!
//! Owns: arguments → configuration → run, and errors → exit codes, one sentence each. Does not own: anything that
//! happens after the configuration is read (`server`).

mod allocator;
mod app;
mod cli;
mod config;
mod connections;
mod generated;
mod grpc;
mod http;
mod ingest;
mod inspect;
mod queries;
mod server;
mod tails;
mod telemetry;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

/// Exit code of a run that failed.
const EXIT_FAILURE: u8 = 1;
/// Exit code of arguments or a configuration that cannot be used, or name a place that is not there.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    allocator::configure();
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nobody left to tell then.
            let _ = writeln!(std::io::stderr(), "tercet: {error}");
            ExitCode::from(if error.usage { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}
