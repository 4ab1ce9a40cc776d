//! Finds what the tests need beside the binary: Python with the client packages, Debian's Prometheus, the corpora.
//!
//! Whatever is missing fails a test under `CI=true`; elsewhere the test says that it skips.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `None`, said aloud, where something is missing; a failure under `CI=true`.
fn missing<T>(what: &str) -> Option<T> {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} is missing, and CI must have it");
    eprintln!("skipped: {what} is missing; the README's install line brings it");
    None
}

/// Python with the packages of `tests/clients/requirements.txt`.
pub fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let path = target.join("clients/bin/python");
    if path.exists() { Some(path) } else { missing("target/clients (Python with the client packages)") }
}

/// A program on the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.exists());
    found.or_else(|| missing(&format!("`{name}`")))
}

/// The folder of contracts and recorded answers beside the repository.
pub fn shared() -> Option<PathBuf> {
    let path = root().parent()?.join("shared");
    if path.is_dir() { Some(path) } else { missing("the folder of recorded answers beside the checkout") }
}

/// Runs a client of `tests/clients` and returns the JSON it printed: its own record of what it sent.
pub fn run_client(python: &Path, script: &str, arguments: &[&str]) -> Value {
    let output = Command::new(python)
        .arg(root().join("tests/clients").join(script))
        .args(arguments)
        .env("NO_PROXY", "*")
        .output()
        .expect("Python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?} failed:\n{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{script}: {e}\n{errors}"))
}
