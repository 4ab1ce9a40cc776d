//! Tercet: metrics, logs and traces in one process, as open tables on object storage.
//!
//! Owns: arguments → configuration → run, and errors → exit codes, one sentence each. Does not own: anything that
//! happens after the configuration is read (`server`).

mod app;
mod cli;
mod config;
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

/// Allocates and frees from many threads at once with little lost memory, which the head's growth depends on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a run that failed.
const EXIT_FAILURE: u8 = 1;
/// Exit code of arguments or a configuration that cannot be used, or name a place that is not there.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; there is nobody left to tell then.
            let _ = writeln!(std::io::stderr(), "tercet: {error}");
            ExitCode::from(if error.usage { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}
