//! Segments: the files of a WAL, their names and headers.
//!
//! Owns: name, header, creation and removal of a file, the fsync of its folder. Does not own: records (`record`).
//! Format: `docs/formats/wal.md`.
//!
//! Invariants
//! 1. A segment counts as created once its header and its folder entry are on disk.
//! 2. `previous` is the last acknowledged sequence number before the segment: whatever an earlier file holds
//!    beyond it was never acknowledged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::signal::Signal;

/// Begins every segment.
pub const MAGIC: [u8; 8] = *b"TERCETWL";
/// The version this code writes and reads.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// Set when damage was cut out of the segment, so that gaps in it are known.
const FLAG_REPAIRED: u8 = 1;

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The signal of all its records.
    pub signal: Signal,
    /// Whether damage was cut out.
    pub repaired: bool,
    /// The sequence number of its first record, and its name.
    pub first: u64,
    /// See invariant 2; 0 if there was none or it is not known.
    pub previous: u64,
}

/// A segment that is written no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Its file.
    pub path: PathBuf,
    /// The sequence number of its last acknowledged record; `first - 1` if it has none.
    pub last: u64,
    /// Its size.
    pub bytes: u64,
}

impl Header {
    /// The bytes on disk.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = signal_number(self.signal);
        out[11] = if self.repaired { FLAG_REPAIRED } else { 0 };
        out[12..20].copy_from_slice(&self.first.to_le_bytes());
        out[20..28].copy_from_slice(&self.previous.to_le_bytes());
        let checksum = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the header at the beginning of `bytes`; `None` if it is not whole or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let long = |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let version = u16::from_le_bytes([header[8], header[9]]);
        let checksum = u32::from_le_bytes([header[28], header[29], header[30], header[31]]);
        let whole = header[..8] == MAGIC && version == VERSION && checksum == crc32c::crc32c(&header[..28]);
        let signal = Signal::ALL.into_iter().find(|signal| signal_number(*signal) == header[10])?;
        whole.then_some(Self {
            signal,
            repaired: header[11] & FLAG_REPAIRED != 0,
            first: long(12)?,
            previous: long(20)?,
        })
    }
}

/// The version of a whole header that this code cannot read.
pub fn foreign_version(bytes: &[u8]) -> Option<u16> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let version = u16::from_le_bytes([header[8], header[9]]);
    let checksum = u32::from_le_bytes([header[28], header[29], header[30], header[31]]);
    (header[..8] == MAGIC && version != VERSION && checksum == crc32c::crc32c(&header[..28])).then_some(version)
}

/// On disk: never change.
fn signal_number(signal: Signal) -> u8 {
    Signal::ALL.iter().zip(1..).find_map(|(s, number)| (*s == signal).then_some(number)).unwrap_or(0)
}

/// The file of the segment that begins with `first`.
pub fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.wal"))
}

/// All segments of `folder` as (first sequence number, file), ascending.
pub fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        if let Some(first) = name.strip_suffix(".wal").and_then(|digits| digits.parse().ok()) {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Creates `folder` and whatever is missing above it; the entries of all new ones are durable.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    create_folder_with(folder, &sync_folder)
}

fn create_folder_with(folder: &Path, sync: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    fs::create_dir_all(folder)?;
    for new in missing.iter().rev() {
        let above = new.parent().filter(|above| !above.as_os_str().is_empty());
        sync(above.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Makes the entries of `folder` durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes segments; the local disk, or one that fails on purpose.
pub trait Disk: Send + Sync {
    /// Creates `path` with `header` in it, durable with its folder entry.
    fn create(&self, path: &Path, header: &[u8]) -> io::Result<Box<dyn SegmentFile>>;
}

/// The open segment.
pub trait SegmentFile: Send {
    /// Appends `bytes`; on an error any part of them may be in the file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes all that was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `bytes`, durably.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path, header: &[u8]) -> io::Result<Box<dyn SegmentFile>> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(header)?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(Box::new(LocalFile(file)))
    }
}

struct LocalFile(File);

impl SegmentFile for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)?;
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_any_changed_byte_is_noticed() {
        let header = Header { signal: Signal::Traces, repaired: true, first: 7, previous: 6 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for at in 0..HEADER_BYTES {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(Header::decode(&changed), None, "byte {at}");
        }
    }

    #[test]
    fn segments_are_listed_by_number_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("creates");
        for name in ["00000000000000000010.wal", "00000000000000000009.wal", "00000000000000000009.wal.damaged", "x"] {
            fs::write(folder.path().join(name), []).expect("writes");
        }
        let found: Vec<u64> = list(folder.path()).expect("lists").into_iter().map(|(first, _)| first).collect();
        assert_eq!(found, [9, 10]);
        assert_eq!(path(folder.path(), 9).file_name().and_then(|n| n.to_str()), Some("00000000000000000009.wal"));
    }

    #[test]
    fn the_entries_of_all_new_folders_are_synced_and_a_failure_is_told() {
        let root = tempfile::tempdir().expect("creates");
        let synced = parking_lot::Mutex::new(Vec::new());
        let sync = |folder: &Path| {
            assert!(root.path().join("a/b/c").is_dir(), "what has no entry yet cannot be made durable");
            synced.lock().push(folder.to_owned());
            sync_folder(folder)
        };
        let folder = root.path().join("a/b/c");
        create_folder_with(&folder, &sync).expect("creates");
        // Where the entries of `a`, `b` and `c` are.
        assert_eq!(*synced.lock(), [root.path().to_owned(), root.path().join("a"), root.path().join("a/b")]);
        create_folder_with(&folder, &sync).expect("is there");
        assert_eq!(synced.lock().len(), 3, "nothing is new");
        let failing = |_: &Path| Err(io::Error::other("the disk is sick"));
        assert!(create_folder_with(&root.path().join("d"), &failing).is_err());
    }
}
