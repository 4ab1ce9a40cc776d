//! The command line: `serve` (may be left out), `inspect`, `verify`, `check-config`, `config`, `version`.
//!
//! Owns: names of flags and commands, and what the short commands print. Does not own: what the settings mean
//! (`config`), the server, the reports of `inspect` and `verify`.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use storage::store::{Store, StoreOptions};

use crate::config::{self, Config};
use crate::{inspect, server, verify};

/// Metrics, logs and traces in one process: takes OTLP, Prometheus remote write and Loki push, answers the query APIs
/// of Prometheus, Loki and Tempo, and keeps everything as Delta tables on object storage or a local disk.
#[derive(Parser)]
#[command(name = "tercet", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server. This is what happens without a command, too.
    Serve(Flags),
    /// Prints what is in the write-ahead log, a table, a file or an index. Changes nothing; a server may be running.
    #[command(subcommand)]
    Inspect(inspect::What),
    /// Checks tables and write-ahead log against their checksums and counts. Changes nothing; a server may be running.
    #[command(after_help = verify::EXIT_CODES)]
    Verify(Place),
    /// Reads the configuration as `serve` would, says whether it can be used, and stops.
    CheckConfig(Flags),
    /// Prints the configuration as `serve` would use it, as YAML with an explanation of each key.
    Config(Flags),
    /// Prints the version.
    Version,
}

/// Each flag is also a key of the configuration file and a `TERCET_…` variable; a flag wins over a variable, a variable
/// over the file.
#[derive(Args, Default)]
struct Flags {
    /// Folder of the write-ahead log and the caches.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where the tables are: a path, or a gs://, s3://, az:// or memory:// URL. Default: a folder inside --data.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Address of the HTTP port that serves everything.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Address of OTLP over gRPC, or `off`.
    #[arg(long, value_name = "ADDR")]
    otlp_grpc: Option<String>,
    /// Address of OTLP over HTTP, or `off`.
    #[arg(long, value_name = "ADDR")]
    otlp_http: Option<String>,
    /// Configuration file (YAML). Its keys are listed by `tercet config`.
    #[arg(long, value_name = "FILE", env = "TERCET_CONFIG")]
    config: Option<PathBuf>,
    /// How long metrics, logs and traces are kept, such as 30d; 0 keeps everything.
    #[arg(long, value_name = "DURATION")]
    retention: Option<String>,
    /// Only reads the tables of another process: takes no data, writes nothing.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    read_only: Option<String>,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as `info,storage=debug`.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl Flags {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("data", &self.data),
            ("store", &self.store),
            ("http", &self.http),
            ("otlp_grpc", &self.otlp_grpc),
            ("otlp_http", &self.otlp_http),
            ("retention", &self.retention),
            ("read_only", &self.read_only),
            ("log", &self.log),
        ];
        given.into_iter().filter_map(|(key, value)| value.clone().map(|value| (key, value))).collect()
    }

    fn load(&self) -> Result<Config, Failure> {
        let variables = config::Environment::of_process();
        config::load(self.config.as_deref(), &variables, &self.settings()).map_err(Failure::usage)
    }
}

/// Where a store is, for the commands that look into it.
#[derive(Args)]
pub struct Place {
    /// Folder of the write-ahead log and, unless --store says otherwise, of the tables.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where the tables are: a path, or a gs://, s3:// or az:// URL. Default: a folder inside --data.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Configuration file (YAML), for its `data` and `store`.
    #[arg(long, value_name = "FILE", env = "TERCET_CONFIG")]
    config: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

impl Place {
    /// The configuration, of which `data` and the store's URL are used.
    pub fn load(&self) -> Result<Config, Failure> {
        let flags = Flags {
            data: self.data.clone(),
            store: self.store.clone(),
            config: self.config.clone(),
            ..Flags::default()
        };
        flags.load()
    }

    /// The store, which must be there.
    pub fn open_store(&self) -> Result<Arc<Store>, Failure> {
        let url = self.load()?.store_url();
        let store = Store::open_existing(&url, &StoreOptions::default()).map_err(|error| {
            Failure::usage(format!("{error}; name the store with --store, or the server's data folder with --data"))
        })?;
        Ok(Arc::new(store))
    }
}

/// Why the process ends with an exit code other than 0: one sentence.
#[derive(Debug)]
pub struct Failure {
    /// Whether arguments or configuration are at fault.
    pub usage: bool,
    message: String,
}

impl Failure {
    /// Arguments, configuration or the place they name are at fault.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { usage: true, message: message.to_string() }
    }

    /// The run failed.
    pub fn run(message: impl fmt::Display) -> Self {
        Self { usage: false, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Reads the arguments and does what they ask.
pub fn run() -> Result<(), Failure> {
    let cli = Cli::parse();
    match cli.command {
        None => server::run(cli.flags.load()?),
        Some(Command::Serve(flags)) => server::run(flags.load()?),
        Some(Command::Inspect(what)) => inspect::run(&what),
        Some(Command::Verify(place)) => verify::run(&place),
        Some(Command::CheckConfig(flags)) => {
            let config = flags.load()?;
            say(&format!("The configuration can be used: tables in {}, HTTP on {}.", config.store_url(), config.http))
        }
        Some(Command::Config(flags)) => say(flags.load()?.to_yaml().trim_end()),
        Some(Command::Version) => say(&format!("tercet {}", env!("CARGO_PKG_VERSION"))),
    }
}

/// Prints a line for the user on standard output.
pub fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| Failure::run(format!("standard output: {e}")))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn serve_may_be_left_out() {
        Cli::command().debug_assert();
        let bare = Cli::try_parse_from(["tercet", "--http", "127.0.0.1:1", "--read-only"]).expect("parses");
        assert_eq!(bare.flags.settings(), [("http", "127.0.0.1:1".to_owned()), ("read_only", "true".to_owned())]);
        let named = Cli::try_parse_from(["tercet", "serve", "--data", "x", "--retention", "0"]).expect("parses");
        let Some(Command::Serve(flags)) = named.command else { panic!("not serve") };
        assert_eq!(flags.settings(), [("data", "x".to_owned()), ("retention", "0".to_owned())]);
    }
}
