//! Objects that are written while their bytes are made.
//!
//! Owns: the size of parts and how many are in memory. Does not own: who makes the bytes (`table::stream`).
//!
//! Invariants
//! 1. Of an object at most three parts are held, however large it becomes: one is filled, one waits, one is on its way.
//! 2. The object appears whole or not at all: bytes that end without [`Part::End`] are given up.

use std::io::Write;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::sync::mpsc;

use super::{Store, refused};
use crate::error::{Error, Kind, Result};

/// Bytes of a part. Clouds refuse less than 5 MiB and more than 10,000 parts of one object.
const PART_BYTES: usize = 8 << 20;

/// What comes of an object's bytes.
pub(crate) enum Part {
    /// The next bytes.
    Bytes(Bytes),
    /// There are no more.
    End,
}

/// Takes bytes on a thread that may block and hands them to [`Store::put_stream`].
pub(crate) struct PartSink {
    parts: mpsc::Sender<Part>,
    buffer: Vec<u8>,
    bytes: u64,
    checksum: u32,
}

impl PartSink {
    /// A sink and what [`Store::put_stream`] reads from.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Part>) {
        let (parts, receiver) = mpsc::channel(1);
        (Self { parts, buffer: Vec::new(), bytes: 0, checksum: 0 }, receiver)
    }

    /// Ends the object: its bytes and their CRC-32C.
    pub(crate) fn end(mut self) -> Result<(u64, u32)> {
        self.send().and_then(|()| self.give(Part::End)).map_err(|source| {
            Error::new(Kind::Unavailable, "an object could not be written to its end").with_source(source)
        })?;
        Ok((self.bytes, self.checksum))
    }

    fn send(&mut self) -> std::io::Result<()> {
        let part = std::mem::take(&mut self.buffer);
        if part.is_empty() { Ok(()) } else { self.give(Part::Bytes(part.into())) }
    }

    fn give(&self, part: Part) -> std::io::Result<()> {
        // Whoever does not listen any more has failed and says why.
        self.parts.blocking_send(part).map_err(|_| std::io::Error::other("the object is given up"))
    }
}

impl Write for PartSink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.bytes += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Writes an object whose bytes come as `parts`: in one call if there is one part, else in several. `false` if they
    /// ended too early, so that there is no object.
    pub(crate) async fn put_stream(&self, path: &Path, mut parts: mpsc::Receiver<Part>) -> Result<bool> {
        let first = match parts.recv().await {
            Some(Part::Bytes(first)) => first,
            Some(Part::End) => Bytes::new(),
            None => return Ok(false),
        };
        let mut next = if first.is_empty() { Some(Part::End) } else { parts.recv().await };
        match next {
            Some(Part::End) => return self.put(path, first).await.map(|()| true),
            None => return Ok(false),
            Some(Part::Bytes(_)) => {}
        }
        let failed = |source| refused("writing", path, source);
        let mut upload = self.objects().put_multipart(path).await.map_err(failed)?;
        let mut whole = false;
        let mut sent = upload.put_part(PutPayload::from_bytes(first)).await.map_err(failed);
        while sent.is_ok() {
            sent = match next {
                Some(Part::Bytes(bytes)) => upload.put_part(PutPayload::from_bytes(bytes)).await.map_err(failed),
                end => {
                    whole = end.is_some();
                    break;
                }
            };
            next = parts.recv().await;
        }
        if whole && sent.is_ok() {
            return upload.complete().await.map(|_| true).map_err(failed);
        }
        give_up(path, upload.as_mut()).await;
        sent.map(|()| false)
    }
}

/// A part that stays behind costs space until the bucket's own rules remove it.
async fn give_up(path: &Path, upload: &mut dyn MultipartUpload) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%path, %error, "an upload that failed could not be given up");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::store::StoreOptions;

    fn stores(folder: &tempfile::TempDir) -> [Store; 2] {
        let url = folder.path().display().to_string();
        [
            Store::over(Arc::new(InMemory::new()), "memory://"),
            Store::open(&url, &StoreOptions::default()).expect("opens"),
        ]
    }

    #[tokio::test]
    async fn small_and_large_objects_arrive_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        for store in stores(&folder) {
            for length in [0, 1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 7] {
                let content = b"tercet!".repeat(length / 7 + 1)[..length].to_vec();
                let (mut sink, parts) = PartSink::new();
                let written = content.clone();
                let write = tokio::task::spawn_blocking(move || {
                    written.chunks(1 << 20).for_each(|bytes| sink.write_all(bytes).expect("takes"));
                    sink.end().expect("ends")
                });
                let path = Path::from(format!("t/{length}"));
                assert!(store.put_stream(&path, parts).await.expect("writes"));
                assert_eq!(write.await.expect("runs"), (length as u64, crc32c::crc32c(&content)));
                assert_eq!(store.get(&path).await.expect("reads").expect("is there"), content);
            }
        }
        let left = std::fs::read_dir(folder.path().join("t")).expect("lists").count();
        assert_eq!(left, 5, "no staged file stays");
    }

    #[tokio::test]
    async fn bytes_without_an_end_leave_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for store in stores(&folder) {
            for length in [1, 2 * PART_BYTES + 1] {
                let (mut sink, parts) = PartSink::new();
                let write = tokio::task::spawn_blocking(move || sink.write_all(&vec![1; length]).expect("takes"));
                let path = Path::from("t/cut");
                assert!(!store.put_stream(&path, parts).await.expect("gives up"));
                write.await.expect("runs");
                assert_eq!(store.get(&path).await.expect("reads"), None);
            }
        }
        let left = std::fs::read_dir(folder.path().join("t")).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "no staged file stays");
    }
}
