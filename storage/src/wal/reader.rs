//! Replay: the records of a WAL in their order, the torn tail cut, damage set aside.
//!
//! Owns: what is whole, what is torn, what is damaged. Does not own: which records are still needed
//! (`engine::recover`).
//!
//! Invariants
//! 1. Every whole acknowledged record is handed out once, in order of sequence numbers, also those behind damage.
//! 2. Bytes are only cut off a file if they lie behind its last whole record and the file is the last one; whatever
//!    else is not readable stays in a copy named `.damaged` and is counted.
//! 3. After a replay the folder reads the same again; records that are missing altogether are reported each time.
//! 4. [`survey`] hands out what [`replay`] would, and changes nothing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::record::{self, Frame, Record};
use super::segment::{self, Closed, HEADER_BYTES, Header};
use crate::error::{Error, Result};
use crate::signal::Signal;

/// What a replay found.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The segments that are left.
    pub closed: Vec<Closed>,
    /// The first sequence number to use; 0 if the folder was empty.
    pub next: u64,
    /// The last sequence number that was found; 0 if there was no record.
    pub last: u64,
    /// Records handed out.
    pub records: u64,
    /// Places where records are missing or unreadable.
    pub damages: u64,
    /// Where they are.
    pub places: Vec<Damage>,
    /// Bytes cut off the end: a record that was never acknowledged.
    pub torn_bytes: u64,
}

/// A place of a WAL where records are missing or unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: PathBuf,
    /// First byte.
    pub from: u64,
    /// The byte after the last; equal to `from` where something is missing.
    pub to: u64,
    /// What is wrong there.
    pub what: String,
}

/// The frames of one segment.
#[derive(Debug, Default, PartialEq)]
struct Frames<'a> {
    whole: Vec<Frame<'a>>,
    /// Unreadable stretches with a whole frame behind them.
    damages: Vec<(usize, usize)>,
    /// Where the unreadable end begins, if there is one.
    tail: Option<usize>,
}

/// Hands each record of `folder` to `each`, with its sequence number. An error of `each` ends the replay and leaves
/// the folder as it is.
pub fn replay(folder: &Path, signal: Signal, mut each: impl FnMut(u64, Record) -> Result<()>) -> Result<Replayed> {
    segment::create_folder(folder)?;
    // A process that ended before it synced may have left their entries.
    for above in folder.ancestors().skip(1).take(2).filter(|above| !above.as_os_str().is_empty()) {
        segment::sync_folder(above)?;
    }
    read(folder, Replay::new(signal, true, |_, frame, record| each(frame.sequence, record)))
}

/// Hands each record of `folder` to `each`, with its segment and its frame, and leaves the folder as it is: another
/// process may be writing there, and segments that it deletes meanwhile are left out. What a replay would cut or set
/// aside is only reported. A folder that does not exist holds nothing.
pub fn survey(
    folder: &Path,
    signal: Signal,
    each: impl FnMut(&Path, &Frame<'_>, Record) -> Result<()>,
) -> Result<Replayed> {
    if !folder.exists() {
        return Ok(Replayed::default());
    }
    read(folder, Replay::new(signal, false, each))
}

fn read<F>(folder: &Path, mut replay: Replay<F>) -> Result<Replayed>
where
    F: FnMut(&Path, &Frame<'_>, Record) -> Result<()>,
{
    let segments = segment::list(folder)?;
    for (i, (first, path)) in segments.iter().enumerate() {
        let following = segments.get(i + 1);
        let boundary = following.and_then(|(_, path)| read_header(path));
        let boundary = boundary.map(|header| header.previous).filter(|previous| *previous > 0);
        replay.segment(path, Position { first: *first, boundary, is_last: following.is_none() })?;
        replay.found.next = replay.found.next.max(*first).max(replay.last + 1);
    }
    replay.found.last = replay.last;
    Ok(replay.found)
}

#[derive(Clone, Copy)]
struct Position {
    first: u64,
    /// The last acknowledged number in it, as the next segment says.
    boundary: Option<u64>,
    is_last: bool,
}

fn read_header(path: &Path) -> Option<Header> {
    let mut bytes = [0; HEADER_BYTES];
    let mut file = fs::File::open(path).ok()?;
    std::io::Read::read_exact(&mut file, &mut bytes).ok()?;
    Header::decode(&bytes)
}

/// A replay on its way.
struct Replay<F> {
    signal: Signal,
    /// Whether torn and damaged files are put in order.
    repair: bool,
    /// The last sequence number so far; 0 when not known.
    last: u64,
    found: Replayed,
    each: F,
}

impl<F: FnMut(&Path, &Frame<'_>, Record) -> Result<()>> Replay<F> {
    fn new(signal: Signal, repair: bool, each: F) -> Self {
        Self { signal, repair, last: 0, found: Replayed::default(), each }
    }

    fn segment(&mut self, path: &Path, position: Position) -> Result<()> {
        let bytes = match fs::read(path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && !self.repair => {
                // A flush of the running process took it away.
                self.last = 0;
                return Ok(());
            }
            read => read?,
        };
        let header = Header::decode(&bytes);
        if header.is_none() && bytes.len() <= HEADER_BYTES && position.is_last {
            // The process ended while it created the file: no record was ever in it.
            return if self.repair { remove(path) } else { Ok(()) };
        }
        self.check_header(path, header, &bytes)?;
        let mut frames = frames(&bytes);
        let kept = self.hand_out(path, &mut frames, position, header.is_some_and(|header| header.repaired))?;
        let mut size = bytes.len();
        if let Some(tail) = frames.tail {
            let complete = position.boundary.is_some_and(|boundary| self.last >= boundary);
            if position.is_last {
                if self.repair {
                    cut(path, tail, bytes.len())?;
                }
                self.found.torn_bytes += u64::try_from(bytes.len() - tail).unwrap_or(0);
                size = tail;
            } else if !complete {
                frames.damages.push((tail, bytes.len()));
            }
        }
        let damages = frames.damages.len() + usize::from(header.is_none());
        if damages > 0 {
            self.found.damages += u64::try_from(damages).unwrap_or(u64::MAX);
            self.note(path, header, &frames);
            if self.repair {
                size = set_aside(path, self.signal, position.first, header, &bytes, &kept)?;
            }
        }
        let bytes = u64::try_from(size).unwrap_or(u64::MAX);
        let last = self.last.max(position.first.saturating_sub(1));
        self.found.closed.push(Closed { path: path.to_owned(), last, bytes });
        Ok(())
    }

    fn note(&mut self, segment: &Path, header: Option<Header>, frames: &Frames<'_>) {
        if header.is_none() {
            let what = "the header is not readable".to_owned();
            self.found.places.push(Damage { segment: segment.to_owned(), from: 0, to: HEADER_BYTES as u64, what });
        }
        let places = frames.damages.iter().map(|(from, to)| {
            let what = if from == to { "records are missing" } else { "no whole record that belongs here" };
            Damage { segment: segment.to_owned(), from: *from as u64, to: *to as u64, what: what.to_owned() }
        });
        self.found.places.extend(places);
    }

    fn check_header(&mut self, path: &Path, header: Option<Header>, bytes: &[u8]) -> Result<()> {
        let Some(header) = header else {
            return match segment::foreign_version(bytes) {
                Some(version) => Err(Error::corrupt(format!(
                    "the WAL segment {} has version {version}, this program reads version {}: run the program that wrote it",
                    path.display(),
                    segment::VERSION
                ))),
                None => Ok(()),
            };
        };
        if header.signal != self.signal {
            return Err(Error::corrupt(format!("the WAL segment {} belongs to another signal", path.display())));
        }
        if header.previous > self.last && self.last > 0 {
            let (from, to) = (self.last + 1, header.previous);
            tracing::error!(segment = %path.display(), from, to, "WAL records are missing");
            self.found.damages += 1;
            let what = format!("the records {from} to {to} are missing before it");
            self.found.places.push(Damage { segment: path.to_owned(), from: 0, to: 0, what });
        }
        Ok(())
    }

    /// Hands out the records of a segment; returns the frames that were whole and notes those that were not.
    fn hand_out<'a>(
        &mut self,
        path: &Path,
        frames: &mut Frames<'a>,
        position: Position,
        repaired: bool,
    ) -> Result<Vec<Frame<'a>>> {
        let mut kept = Vec::with_capacity(frames.whole.len());
        for frame in std::mem::take(&mut frames.whole) {
            if position.boundary.is_some_and(|boundary| frame.sequence > boundary) {
                // Left by a failed write; whoever sent it was told so.
                frames.tail = None;
                break;
            }
            if frame.sequence <= self.last {
                frames.damages.push((frame.from, frame.to));
                continue;
            }
            let behind_damage = frames.damages.iter().any(|(_, to)| *to == frame.from);
            if frame.sequence != self.last + 1 && !kept.is_empty() && !repaired && !behind_damage {
                frames.damages.push((frame.from, frame.from));
            }
            self.last = frame.sequence;
            match decode(&frame, self.signal) {
                Ok(record) => {
                    (self.each)(path, &frame, record)?;
                    self.found.records += 1;
                    kept.push(frame);
                }
                Err(error) => {
                    let sequence = frame.sequence;
                    tracing::error!(segment = %path.display(), sequence, %error, "a WAL record is damaged");
                    frames.damages.push((frame.from, frame.to));
                }
            }
        }
        Ok(kept)
    }
}

fn decode(frame: &Frame<'_>, signal: Signal) -> Result<Record> {
    let record = record::decode(frame.payload)?;
    match record.facts.iter().find(|(table, _)| table.signal() != signal) {
        Some((table, _)) => Err(Error::corrupt(format!("a WAL record holds rows of `{}`", table.name()))),
        None => Ok(record),
    }
}

/// The frames of a segment's bytes, damage stepped over.
fn frames(bytes: &[u8]) -> Frames<'_> {
    let mut frames = Frames::default();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        match record::find(bytes, at) {
            Some(frame) => {
                if frame.from > at {
                    frames.damages.push((at, frame.from));
                }
                at = frame.to;
                frames.whole.push(frame);
            }
            None => {
                frames.tail = Some(at);
                break;
            }
        }
    }
    frames
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path)?;
    if let Some(folder) = path.parent() {
        segment::sync_folder(folder)?;
    }
    Ok(())
}

fn cut(path: &Path, to: usize, from: usize) -> Result<()> {
    tracing::warn!(segment = %path.display(), bytes = from - to, "the torn tail of the WAL is cut; it was never acknowledged");
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(u64::try_from(to).unwrap_or(0))?;
    file.sync_all()?;
    Ok(())
}

/// Keeps a copy of a damaged segment and leaves the whole records in its place. Returns the size of what is left.
fn set_aside(
    path: &Path,
    signal: Signal,
    first: u64,
    header: Option<Header>,
    bytes: &[u8],
    kept: &[Frame<'_>],
) -> Result<usize> {
    let aside = aside_path(path);
    write_durably(&aside, &[bytes])?;
    let previous = header.map_or(0, |header| header.previous);
    let head = Header { signal, repaired: true, first, previous }.encode();
    let mut parts: Vec<&[u8]> = vec![&head];
    parts.extend(kept.iter().map(|frame| &bytes[frame.from..frame.to]));
    let fresh = path.with_extension("repaired");
    write_durably(&fresh, &parts)?;
    fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        segment::sync_folder(folder)?;
    }
    tracing::error!(
        segment = %path.display(), kept_aside = %aside.display(), whole_records = kept.len(),
        "a WAL segment is damaged: its whole records are replayed, the damaged file is kept"
    );
    Ok(parts.iter().map(|part| part.len()).sum())
}

/// A name that is free: an earlier damaged file is never overwritten.
fn aside_path(path: &Path) -> PathBuf {
    let mut aside = path.with_extension("wal.damaged");
    let mut n = 2;
    while aside.exists() {
        aside = path.with_extension(format!("wal.damaged.{n}"));
        n += 1;
    }
    aside
}

fn write_durably(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut file = fs::File::create(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    Ok(())
}
