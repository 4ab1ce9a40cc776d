//! The data folder of one process: its lock and the writer's name.
//!
//! Owns: `lock` and `writer-id`. Does not own: the WAL beneath (`wal`).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;

use crate::clock::unique_id;
use crate::error::{Error, Kind, Result};
use crate::wal::segment::{create_folder, sync_folder};

/// The longest name of a writer.
const WRITER_BYTES_MAX: usize = 128;

/// Takes the folder for this process; held until the file is dropped or the process ends.
pub(super) fn lock(data_dir: &Path) -> Result<File> {
    create_folder(data_dir).map_err(|cause| {
        let text = format!("the data folder {} cannot be created", data_dir.display());
        Error::new(Kind::Unavailable, text).with_source(cause)
    })?;
    let path = data_dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|cause| {
        let text = format!("the lock file {} cannot be opened", path.display());
        Error::new(Kind::Unavailable, text).with_source(cause)
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            Kind::Fenced,
            format!(
                "the data folder {} is in use by another process: stop it, or give this one a folder of its own",
                data_dir.display()
            ),
        )),
        Err(TryLockError::Error(cause)) => {
            let text = format!("the data folder {} cannot be locked", data_dir.display());
            Err(Error::new(Kind::Unavailable, text).with_source(cause))
        }
    }
}

/// The name of this writer: the configured one, or a random one that stays with the folder.
pub(super) fn writer_id(data_dir: &Path, configured: Option<&str>) -> Result<String> {
    if let Some(name) = configured {
        return checked(name);
    }
    let path = data_dir.join("writer-id");
    match fs::read_to_string(&path) {
        Ok(text) => return checked(text.trim()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause.into()),
    }
    let name = unique_id().to_string();
    let fresh = data_dir.join("writer-id.new");
    let mut file = File::create(&fresh)?;
    file.write_all(name.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    sync_folder(data_dir)?;
    Ok(name)
}

fn checked(name: &str) -> Result<String> {
    let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
    if name.is_empty() || name.len() > WRITER_BYTES_MAX || !clean {
        return Err(Error::invalid(format!(
            "writer id {name:?} is not valid: use 1 to {WRITER_BYTES_MAX} of letters, digits and -_."
        )));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_process_at_a_time() {
        let folder = tempfile::tempdir().expect("creates");
        let held = lock(folder.path()).expect("is free");
        let refused = lock(folder.path()).expect_err("is taken");
        assert_eq!(refused.kind(), Kind::Fenced);
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        drop(held);
        lock(folder.path()).expect("is free again");
    }

    #[test]
    fn the_writers_name_stays_with_the_folder() {
        let folder = tempfile::tempdir().expect("creates");
        let name = writer_id(folder.path(), None).expect("makes one");
        assert_eq!(writer_id(folder.path(), None).expect("reads"), name);
        assert_eq!(writer_id(folder.path(), Some("pod-1")).expect("takes"), "pod-1");
        assert!(writer_id(folder.path(), Some("a/b")).is_err());
    }
}
