//! A local folder as an object store whose writes survive a power cut.
//!
//! Owns: puts: bytes go to a staged file, are fsynced, and only then get their name; then the folders up to the
//! root are fsynced. The library's local backend never fsyncs, so a crash could leave a log entry that is named
//! but empty. A multipart upload writes its parts into the staged file as they come. Does not own: reads, lists and
//! deletes, which it takes from that backend.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// Tries to find a free name for a staged file; more than this many are never in flight.
const STAGED_NAMES_MAX: u64 = 10_000;

/// No write takes longer than this; an older staged file is a leftover.
const STAGED_AGE_MAX: Duration = Duration::from_secs(6 * 3600);

/// The next number to try for a staged file's name. The backend hides files named `<name>#<digits>`.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// Makes the entries of a folder durable.
type SyncFolder = dyn Fn(&FilePath) -> std::io::Result<()> + Send + Sync;

#[derive(Clone)]
pub(super) struct DurableFolder {
    inner: Arc<LocalFileSystem>,
    root: PathBuf,
    sync: Arc<SyncFolder>,
}

impl DurableFolder {
    pub(super) fn new(root: &FilePath) -> Result<Self> {
        let inner = Arc::new(LocalFileSystem::new_with_prefix(root)?);
        let root = root.canonicalize().map_err(failed)?;
        Ok(Self { inner, root, sync: Arc::new(sync_folder) })
    }

    async fn write(&self, location: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let path = self.inner.path_to_filesystem(location)?;
        let folder = self.clone();
        tokio::task::spawn_blocking(move || folder.write_durably(&path, &payload, &mode)).await?
    }

    /// Of a create that finds the object there, the folders are synced too: the one that made it may have failed to.
    fn write_durably(&self, path: &FilePath, payload: &PutPayload, mode: &PutMode) -> Result<PutResult> {
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let (mut file, staged) = stage(path)?;
        let written = payload.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
        drop(file);
        let named = written.and_then(|()| match mode {
            PutMode::Create => std::fs::hard_link(&staged, path),
            _ => std::fs::rename(&staged, path),
        });
        if named.is_err() || matches!(mode, PutMode::Create) {
            // Leftovers cost space only: they are invisible to listings.
            let _ = std::fs::remove_file(&staged);
        }
        match named {
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                self.sync_folders(folder)?;
                return Err(Error::AlreadyExists { path: path.display().to_string(), source: source.into() });
            }
            other => other.map_err(failed)?,
        }
        self.sync_folders(folder)?;
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Removes staged files that a process left when it was killed. Listings do not show them, so nothing else would.
    /// Those of running writers are younger; one that is not only fails that write.
    pub(super) fn sweep(&self) -> std::io::Result<u64> {
        let mut removed = 0;
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let old = meta.modified()?.elapsed().is_ok_and(|age| age > STAGED_AGE_MAX);
                if old && is_staged(&entry.file_name().to_string_lossy()) {
                    std::fs::remove_file(entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Makes the names of `folder` and of all folders above it, up to the root, durable.
    fn sync_folders(&self, folder: &FilePath) -> Result<()> {
        let mut folder = Some(folder);
        while let Some(path) = folder {
            (self.sync)(path).map_err(failed)?;
            let above = path.parent().filter(|parent| parent.starts_with(&self.root));
            folder = if path == self.root { None } else { above };
        }
        Ok(())
    }
}

/// Whether a file of this name is one that [`stage`] made.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn failed(source: std::io::Error) -> Error {
    Error::Generic { store: "DurableFolder", source: source.into() }
}

fn stage(path: &FilePath) -> Result<(File, PathBuf)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for _ in 0..STAGED_NAMES_MAX {
        let staged = path.with_file_name(format!("{name}#{}", STAGED.fetch_add(1, Ordering::Relaxed)));
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Err(failed(std::io::Error::other(format!("no free name for a staged file beside `{}`", path.display()))))
}

fn sync_folder(folder: &FilePath) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

impl std::fmt::Debug for DurableFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableFolder").field("root", &self.root).finish_non_exhaustive()
    }
}

impl std::fmt::Display for DurableFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DurableFolder({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableFolder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match opts.mode {
            PutMode::Update(_) => self.inner.put_opts(location, payload, opts).await,
            mode => self.write(location, payload, mode).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let folder = self.clone();
        let start = move || {
            std::fs::create_dir_all(path.parent().unwrap_or(&folder.root)).map_err(failed)?;
            let (file, staged) = stage(&path)?;
            Ok(Upload { folder, path, file: Arc::new(file), staged: Some(staged), end: 0 })
        };
        let started: Result<Upload> = tokio::task::spawn_blocking(start).await?;
        Ok(Box::new(started?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A multipart upload: the parts stand one after the other in a staged file, which gets its name at the end.
#[derive(Debug)]
struct Upload {
    folder: DurableFolder,
    path: PathBuf,
    file: Arc<File>,
    /// `None` once it has its name.
    staged: Option<PathBuf>,
    /// Bytes of the parts so far.
    end: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, mut at) = (Arc::clone(&self.file), self.end);
        self.end += data.content_length() as u64;
        let write = move || {
            for part in &data {
                file.write_all_at(part, at).map_err(failed)?;
                at += part.len() as u64;
            }
            Ok(())
        };
        Box::pin(async move { tokio::task::spawn_blocking(write).await? })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Some(staged) = self.staged.clone() else { return Err(failed(std::io::Error::other("ended before"))) };
        let (folder, path, file) = (self.folder.clone(), self.path.clone(), Arc::clone(&self.file));
        let name = move || {
            file.sync_all().map_err(failed)?;
            std::fs::rename(&staged, &path).map_err(failed)?;
            folder.sync_folders(path.parent().unwrap_or(&folder.root))
        };
        let named: Result<()> = tokio::task::spawn_blocking(name).await?;
        named?;
        self.staged = None;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        match self.staged.take() {
            Some(staged) => tokio::fs::remove_file(staged).await.map_err(failed),
            None => Ok(()),
        }
    }
}

impl Drop for Upload {
    /// What is left of a crash or a failure costs space only: it is invisible to listings.
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            let _ = std::fs::remove_file(staged);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::Store;
    use super::*;

    #[tokio::test]
    async fn what_a_killed_process_was_writing_is_swept_and_nothing_else() {
        let root = tempfile::tempdir().expect("a folder");
        let store = Store::open(&root.path().display().to_string(), &Default::default()).expect("opens");
        store.put(&Path::from("t/date=2026-01-01/a.parquet"), Bytes::from_static(b"1")).await.expect("writes");
        let day = root.path().join("t/date=2026-01-01");
        let old = ["a.parquet#0", "b.parquet#17", "c#x", "d#"];
        for name in old.iter().chain(&["e.parquet#3"]) {
            std::fs::write(day.join(name), b"half").expect("writes");
        }
        let yesterday = std::fs::metadata(&day).expect("is there").modified().expect("has one") - 4 * STAGED_AGE_MAX;
        for name in old.iter().chain(&["a.parquet"]) {
            let file = OpenOptions::new().write(true).open(day.join(name)).expect("opens");
            file.set_modified(yesterday).expect("sets");
        }
        assert_eq!(store.sweep().await.expect("sweeps"), 2);
        let mut left: Vec<String> = std::fs::read_dir(&day)
            .expect("lists")
            .map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["a.parquet", "c#x", "d#", "e.parquet#3"], "an object, foreign files, and one being written");
        assert_eq!(store.sweep().await.expect("sweeps"), 0);
    }

    #[tokio::test]
    async fn a_create_is_no_success_before_its_folders_are_synced() {
        let root = tempfile::tempdir().expect("a folder");
        let left = Arc::new(AtomicUsize::new(2));
        let failures = Arc::clone(&left);
        let sync = move |folder: &FilePath| match failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
        {
            Ok(_) => Err(std::io::Error::other("the disk is sick")),
            Err(_) => sync_folder(folder),
        };
        let folder = DurableFolder { sync: Arc::new(sync), ..DurableFolder::new(root.path()).expect("opens") };
        let store = Store::over(Arc::new(folder), "folder");
        let path = Path::from("log/0.json");
        let create = || store.objects().put_opts(&path, PutPayload::from_static(b"ours"), PutMode::Create.into());
        create().await.expect_err("the name may be lost in a power cut");
        assert_eq!(left.load(Ordering::SeqCst), 0);
        create().await.expect("the object is ours, and its name is durable now");
        left.store(1, Ordering::SeqCst);
        create().await.expect("a single failure is mended at once");
        assert_eq!(left.load(Ordering::SeqCst), 0);
    }
}
