//! Tests of writer and reader together: what was acknowledged comes back, whatever happened to the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::segment::{Disk, LocalDisk, SegmentFile};
use super::*;
use crate::budget::Share;
use crate::error::{Error, Kind, Result};
use crate::model::batch::{Batch, LogsBuilder, MetricsBuilder, TracesBuilder};
use crate::model::histogram::{BucketSpan, Histogram};
use crate::model::labels::Labels;
use crate::model::span::{Event, Link, Span};
use crate::model::tenant::Tenant;
use crate::model::time::{TimestampMs, TimestampNs};
use crate::model::value::Value;
use crate::signal::Signal;

pub(crate) fn metrics(n: i64) -> Batch {
    let mut builder = MetricsBuilder::new();
    for i in 0..n {
        let series = builder.series(Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())]));
        let start = (i % 2 == 0).then_some(TimestampMs(i));
        builder.sample(series, TimestampMs(1000 + i), i as f64 / 3.0, start);
        let histogram = Histogram {
            count: i as f64,
            positive_spans: vec![BucketSpan { offset: -1, length: 2 }],
            positive_buckets: vec![1.0, f64::NAN],
            ..Histogram::default()
        };
        builder.histogram(series, TimestampMs(2000 + i), histogram, start);
        builder.exemplar(series, TimestampMs(i), 0.5, [("trace_id", "x"), ("a", "b")].into_iter()).expect("fits");
        builder.metadata(&format!("m{i}"), "counter", "", "help");
    }
    builder.finish().expect("builds")
}

pub(crate) fn logs(n: i64) -> Batch {
    let mut builder = LogsBuilder::new();
    for i in 0..n {
        let stream = builder.stream(Labels::from_pairs([("app", &format!("a{}", i % 2))]));
        let metadata = [("detected_level", "info"), ("k", "v")].into_iter().take(usize::try_from(i % 3).unwrap_or(0));
        builder.entry(stream, TimestampNs(i), &format!("line {i} ü"), metadata).expect("fits");
    }
    builder.finish().expect("builds")
}

pub(crate) fn traces(n: i64) -> Batch {
    let mut builder = TracesBuilder::new();
    for i in 0..n {
        let resource = builder.resource(&[("service.name".to_owned(), Value::String(format!("s{}", i % 2)))]);
        let attributes = vec![("http.status".to_owned(), Value::Int(i))];
        let id = u8::try_from(i % 200).unwrap_or(0) + 1;
        let span = Span {
            trace_id: [id; 16],
            span_id: [id; 8],
            parent_span_id: (i % 2 == 0).then_some([9; 8]),
            start_ns: i,
            events: vec![
                Event { ts_ns: i, attributes: attributes.clone(), ..Event::default() };
                usize::try_from(i % 3).unwrap_or(0)
            ],
            links: vec![Link { trace_id: vec![1; 16], ..Link::default() }; usize::try_from(i % 2).unwrap_or(0)],
            attributes,
            ..Span::default()
        };
        builder.span(&resource, &span).expect("fits");
    }
    builder.finish().expect("builds")
}

pub(crate) fn any_batch() -> impl Strategy<Value = Batch> {
    let text = "\\PC{0,12}";
    let sample = ("[a-c]{1,3}", any::<i64>(), any::<u64>(), any::<Option<i64>>());
    let samples = proptest::collection::vec(sample, 1..20).prop_map(|rows| {
        let mut builder = MetricsBuilder::new();
        for (name, ts, bits, start) in rows {
            let series = builder.series(Labels::from_pairs([("__name__", name)]));
            builder.sample(series, TimestampMs(ts), f64::from_bits(bits), start.map(TimestampMs));
        }
        builder.finish().expect("builds")
    });
    let metadata = proptest::collection::vec(("[a-z]{1,9}", text), 0..4);
    let entry = (text, any::<i64>(), "\\PC{0,100}", metadata);
    let entries = proptest::collection::vec(entry, 1..20).prop_map(|rows| {
        let mut builder = LogsBuilder::new();
        for (app, ts, line, metadata) in rows {
            let stream = builder.stream(Labels::from_pairs([("app", app)]));
            let metadata = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            builder.entry(stream, TimestampNs(ts), &line, metadata).expect("fits");
        }
        builder.finish().expect("builds")
    });
    prop_oneof![samples, entries, (1..20i64).prop_map(traces), (1..9i64).prop_map(metrics)]
}

/// Keeps what was applied.
#[derive(Clone, Default)]
struct Applied(Arc<Mutex<Vec<(u64, Batch)>>>);

impl Apply for Applied {
    type Outcome = ();

    fn admit(&mut self, _tenant: &Tenant, _batch: &Batch) -> Result<()> {
        Ok(())
    }

    fn apply(&mut self, sequence: u64, _tenant: &Tenant, batch: Batch) -> Result<()> {
        self.0.lock().push((sequence, batch));
        Ok(())
    }
}

fn limits() -> Limits {
    Limits { wal_bytes: 1 << 30, segment_bytes: 1 << 20, queue: Share::root("memory.wal_queue", 16 << 20) }
}

fn open(folder: &Path, limits: Limits, disk: Arc<dyn Disk>) -> (Wal<Applied>, Vec<(u64, Record)>, Replayed) {
    let mut records = Vec::new();
    let replayed = replay(folder, Signal::Logs, |sequence, record| {
        records.push((sequence, record));
        Ok(())
    })
    .expect("replays");
    let found = Replayed { next: replayed.next.max(1), ..replayed.clone() };
    let wal = Wal::start(Signal::Logs, folder.to_owned(), limits, disk, found, Applied::default());
    (wal.expect("starts"), records, replayed)
}

fn read(folder: &Path) -> (Vec<(u64, Record)>, Replayed) {
    let mut records = Vec::new();
    let replayed = replay(folder, Signal::Logs, |sequence, record| {
        records.push((sequence, record));
        Ok(())
    });
    (records, replayed.expect("replays"))
}

/// What a survey hands out must be what a replay hands out afterwards, and nothing may have changed on disk.
fn survey_changes_nothing(folder: &Path) -> (Vec<(u64, Record)>, Replayed) {
    let files = || -> Vec<(PathBuf, Vec<u8>)> {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(folder).expect("lists").map(|entry| entry.expect("reads").path()).collect();
        names.sort();
        names.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("reads"))).collect()
    };
    let before = files();
    let mut records = Vec::new();
    let found = survey(folder, Signal::Logs, |_, frame, record| {
        records.push((frame.sequence, record));
        Ok(())
    });
    assert_eq!(files(), before);
    (records, found.expect("surveys"))
}

fn sequences(records: &[(u64, Record)]) -> Vec<u64> {
    records.iter().map(|(sequence, _)| *sequence).collect()
}

/// A folder with one segment of `n` records.
async fn one_segment(n: i64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("creates");
    let (wal, ..) = open(folder.path(), limits(), Arc::new(LocalDisk));
    for i in 1..=n {
        wal.append(&Tenant::single(), logs(i)).await.expect("appends");
    }
    wal.stop().await.expect("stops");
    let segments = segment::list(folder.path()).expect("lists");
    assert_eq!(segments.len(), 1);
    let path = segments[0].1.clone();
    (folder, path)
}

#[tokio::test]
async fn records_come_back_in_order_with_their_identities_once_per_segment() {
    let (folder, _) = one_segment(3).await;
    let (records, replayed) = read(folder.path());
    assert_eq!(sequences(&records), [1, 2, 3]);
    assert_eq!((replayed.next, replayed.damages, replayed.torn_bytes), (4, 0, 0));
    let identities: Vec<usize> = records.iter().map(|(_, record)| record.identities.len()).collect();
    assert_eq!(identities, [1, 1, 0], "each label set is written once");
    for (n, (_, record)) in (1..).zip(&records) {
        assert_eq!(record.facts, logs(n).facts);
    }
}

#[tokio::test]
async fn sequence_numbers_go_on_after_a_restart() {
    let (folder, _) = one_segment(2).await;
    let (wal, ..) = open(folder.path(), limits(), Arc::new(LocalDisk));
    assert_eq!(wal.append(&Tenant::single(), logs(1)).await.expect("appends").0, 3);
    drop(wal);
    let (records, replayed) = read(folder.path());
    assert_eq!(sequences(&records), [1, 2, 3]);
    assert_eq!(records[2].1.identities.len(), 1, "a new segment defines its identities again");
    assert_eq!(replayed.damages, 0);
}

#[tokio::test]
async fn a_log_cut_at_any_byte_gives_the_records_before_the_cut() {
    let (folder, path) = one_segment(3).await;
    let bytes = std::fs::read(&path).expect("reads");
    let (records, _) = read(folder.path());
    let mut ends = vec![segment::HEADER_BYTES];
    while let Some(frame) = record::frame_at(&bytes, ends[ends.len() - 1]) {
        ends.push(frame.to);
    }
    assert_eq!(ends.len(), 4);
    for cut in 0..bytes.len() {
        let folder = tempfile::tempdir().expect("creates");
        let copy = segment::path(folder.path(), 1);
        std::fs::write(&copy, &bytes[..cut]).expect("writes");
        let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
        let (surveyed, survey) = survey_changes_nothing(folder.path());
        let (found, replayed) = read(folder.path());
        assert_eq!((surveyed, survey.torn_bytes), (found.clone(), replayed.torn_bytes), "cut at {cut}");
        assert_eq!(found, records[..whole], "cut at {cut}");
        assert_eq!(replayed.damages, 0, "a torn tail is no damage, cut at {cut}");
        assert_eq!(replayed.next, u64::try_from(whole).expect("fits") + 1, "cut at {cut}");
        if cut % 8 != 0 {
            continue;
        }
        // What was cut is gone; the next record follows the last whole one.
        let (wal, ..) = open(folder.path(), limits(), Arc::new(LocalDisk));
        let (sequence, ()) = wal.append(&Tenant::single(), logs(9)).await.expect("appends");
        drop(wal);
        let (found, replayed) = read(folder.path());
        assert_eq!(found.len(), whole + 1, "cut at {cut}");
        assert_eq!((found[whole].0, replayed.damages), (sequence, 0), "cut at {cut}");
    }
}

#[tokio::test]
async fn a_flipped_bit_loses_one_record_at_most_and_is_reported() {
    let (folder, path) = one_segment(4).await;
    let bytes = std::fs::read(&path).expect("reads");
    let (records, _) = read(folder.path());
    for at in (0..bytes.len()).step_by(3) {
        let folder = tempfile::tempdir().expect("creates");
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        // A segment that is not the last one: nothing at its end can be excused as torn.
        std::fs::write(segment::path(folder.path(), 1), &damaged).expect("writes");
        let header = segment::Header { signal: Signal::Logs, repaired: false, first: 5, previous: 4 };
        std::fs::write(segment::path(folder.path(), 5), header.encode()).expect("writes");
        let (surveyed, survey) = survey_changes_nothing(folder.path());
        let (found, replayed) = read(folder.path());
        assert_eq!((&surveyed, survey.damages, survey.places.is_empty()), (&found, replayed.damages, false));
        assert!(replayed.damages > 0, "flipped at {at}");
        assert!(found.len() >= 3, "flipped at {at}: {:?}", sequences(&found));
        assert!(found.iter().all(|record| records.contains(record)), "flipped at {at}");
        let aside = segment::path(folder.path(), 1).with_extension("wal.damaged");
        assert_eq!(std::fs::read(aside).expect("is kept"), damaged);
        let (again, replayed) = read(folder.path());
        assert_eq!(again, found, "flipped at {at}");
        // The next segment's header still tells that a record is missing at the end.
        let lost_last = found.iter().all(|(sequence, _)| *sequence != 4);
        assert_eq!(replayed.damages, u64::from(lost_last), "flipped at {at}");
    }
}

#[tokio::test]
async fn a_missing_segment_is_reported() {
    let folder = tempfile::tempdir().expect("creates");
    let small = Limits { segment_bytes: 1, ..limits() };
    let (wal, ..) = open(folder.path(), small, Arc::new(LocalDisk));
    for i in 1..=3 {
        wal.append(&Tenant::single(), logs(i)).await.expect("appends");
    }
    drop(wal);
    assert_eq!(segment::list(folder.path()).expect("lists").len(), 3);
    std::fs::remove_file(segment::path(folder.path(), 2)).expect("removes");
    let (records, replayed) = read(folder.path());
    assert_eq!((sequences(&records), replayed.damages), (vec![1, 3], 1));
}

#[tokio::test]
async fn truncation_removes_whole_segments_and_keeps_the_number() {
    let folder = tempfile::tempdir().expect("creates");
    let small = Limits { segment_bytes: 1, ..limits() };
    let (wal, ..) = open(folder.path(), small, Arc::new(LocalDisk));
    for i in 1..=3 {
        wal.append(&Tenant::single(), logs(i)).await.expect("appends");
    }
    wal.truncate(2).expect("truncates");
    assert_eq!(sequences(&read(folder.path()).0), [3]);
    let last = wal.seal(|last| last).await.expect("seals");
    assert_eq!(last, 3);
    wal.truncate(last).expect("truncates");
    drop(wal);
    let (wal, records, _) = open(folder.path(), limits(), Arc::new(LocalDisk));
    assert!(records.is_empty());
    assert_eq!(wal.append(&Tenant::single(), logs(1)).await.expect("appends").0, 4);
}

#[tokio::test]
async fn truncation_spares_the_segment_that_a_restart_opens_again() {
    let folder = tempfile::tempdir().expect("creates");
    let (wal, ..) = open(folder.path(), limits(), Arc::new(LocalDisk));
    wal.append(&Tenant::single(), logs(1)).await.expect("appends");
    wal.seal(|last| last).await.expect("leaves an empty segment");
    drop(wal);
    let (wal, records, _) = open(folder.path(), limits(), Arc::new(LocalDisk));
    assert_eq!(sequences(&records), [1]);
    assert_eq!(wal.append(&Tenant::single(), logs(2)).await.expect("appends").0, 2);
    wal.truncate(1).expect("truncates");
    assert_eq!(sequences(&read(folder.path()).0), [2]);
    assert_eq!(wal.segments(), 1);
    let on_disk = std::fs::metadata(segment::path(folder.path(), 2)).expect("is there").len();
    assert_eq!(wal.counters().bytes.load(Ordering::Relaxed), on_disk);
}

/// A folder in a segment's place stands for a file that cannot be removed.
#[tokio::test]
async fn what_a_failed_truncation_removed_is_counted_off() {
    let folder = tempfile::tempdir().expect("creates");
    let (wal, ..) = open(folder.path(), Limits { segment_bytes: 1, ..limits() }, Arc::new(LocalDisk));
    for i in 1..=3 {
        wal.append(&Tenant::single(), logs(i)).await.expect("appends");
    }
    let second = segment::path(folder.path(), 2);
    let bytes = std::fs::read(&second).expect("reads");
    std::fs::remove_file(&second).expect("removes");
    std::fs::create_dir(&second).expect("creates");
    let refused = wal.truncate(3).expect_err("cannot remove it");
    assert_eq!(refused.kind(), Kind::Unavailable);
    std::fs::remove_dir(&second).expect("removes");
    std::fs::write(&second, &bytes).expect("writes");
    let on_disk = |n: u64| std::fs::metadata(segment::path(folder.path(), n)).expect("is there").len();
    assert_eq!(wal.counters().bytes.load(Ordering::Relaxed), on_disk(2) + on_disk(3));
    wal.truncate(3).expect("truncates");
    assert_eq!(wal.counters().bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_full_wal_is_busy_until_it_is_cut() {
    let folder = tempfile::tempdir().expect("creates");
    let (wal, ..) = open(folder.path(), Limits { wal_bytes: 1000, ..limits() }, Arc::new(LocalDisk));
    let mut accepted = 0u64;
    let refused = loop {
        match wal.append(&Tenant::single(), logs(3)).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(accepted > 1);
    let last = wal.seal(|last| last).await.expect("seals");
    assert_eq!(last, accepted);
    wal.truncate(last).expect("truncates");
    wal.append(&Tenant::single(), logs(3)).await.expect("has room again");
}

#[tokio::test]
async fn many_appends_share_an_fsync() {
    let folder = tempfile::tempdir().expect("creates");
    let slow = FaultyDisk { sync_ms: 5, ..FaultyDisk::default() };
    let (wal, ..) = open(folder.path(), limits(), Arc::new(slow));
    let tenant = Tenant::single();
    let appends = (0..200).map(|_| wal.append(&tenant, logs(2)));
    for result in futures::future::join_all(appends).await {
        result.expect("appends");
    }
    let fsyncs = wal.counters().fsyncs.load(Ordering::Relaxed);
    assert!(fsyncs < 50, "{fsyncs} fsyncs for 200 appends");
    drop(wal);
    assert_eq!(read(folder.path()).0.len(), 200);
}

/// A disk that fails when told so.
#[derive(Clone, Default)]
struct FaultyDisk {
    fail_create: Arc<AtomicBool>,
    fail_write: Arc<AtomicBool>,
    fail_sync: Arc<AtomicBool>,
    fail_cut: Arc<AtomicBool>,
    sync_ms: u64,
}

struct FaultyFile {
    disk: FaultyDisk,
    file: Box<dyn SegmentFile>,
}

fn fail(flag: &AtomicBool) -> io::Result<()> {
    if flag.load(Ordering::SeqCst) { Err(io::Error::other("on purpose")) } else { Ok(()) }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path, header: &[u8]) -> io::Result<Box<dyn SegmentFile>> {
        fail(&self.fail_create)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), file: LocalDisk.create(path, header)? }))
    }
}

impl SegmentFile for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.disk.fail_write.load(Ordering::SeqCst) {
            self.file.write(&bytes[..bytes.len() / 2])?;
        }
        fail(&self.disk.fail_write)?;
        self.file.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        std::thread::sleep(std::time::Duration::from_millis(self.disk.sync_ms));
        fail(&self.disk.fail_sync)?;
        self.file.sync()
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        fail(&self.disk.fail_cut)?;
        self.file.cut(bytes)
    }
}

#[tokio::test]
async fn a_failed_write_is_not_acknowledged_and_the_next_append_works() {
    for (failing, cut_fails) in [("create", false), ("write", false), ("write", true), ("sync", false), ("sync", true)]
    {
        let folder = tempfile::tempdir().expect("creates");
        let disk = FaultyDisk::default();
        let (wal, ..) = open(folder.path(), limits(), Arc::new(disk.clone()));
        let flag = match failing {
            "create" => &disk.fail_create,
            "write" => &disk.fail_write,
            _ => &disk.fail_sync,
        };
        if failing != "create" {
            wal.append(&Tenant::single(), logs(1)).await.expect("appends");
        }
        flag.store(true, Ordering::SeqCst);
        disk.fail_cut.store(cut_fails, Ordering::SeqCst);
        let refused = wal.append(&Tenant::single(), logs(2)).await.expect_err("fails");
        assert_eq!(refused.kind(), Kind::Unavailable, "{failing}");
        flag.store(false, Ordering::SeqCst);
        let (sequence, ()) = wal.append(&Tenant::single(), logs(3)).await.expect("appends");
        assert_eq!(wal.counters().errors.load(Ordering::Relaxed), 1);
        drop(wal);
        let (records, replayed) = read(folder.path());
        assert_eq!(replayed.damages, 0, "{failing} {cut_fails}");
        let rows: Vec<usize> = records.iter().map(|(_, record)| record.facts[0].1.num_rows()).collect();
        let expected: &[usize] = if failing == "create" { &[3] } else { &[1, 3] };
        assert_eq!(rows, expected, "{failing} {cut_fails}");
        assert_eq!(records[records.len() - 1].0, sequence);
    }
}

/// Another label set under an id that the segment already defined.
#[tokio::test]
async fn a_collision_of_identities_is_refused() {
    let folder = tempfile::tempdir().expect("creates");
    let (wal, ..) = open(folder.path(), limits(), Arc::new(LocalDisk));
    wal.append(&Tenant::single(), logs(1)).await.expect("appends");
    let mut other = logs(1);
    other.identities[0].labels = Labels::from_pairs([("app", "other")]);
    let refused: Error = wal.append(&Tenant::single(), other).await.expect_err("collides");
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(refused.to_string().contains("same 64-bit identity"), "{refused}");
}

#[tokio::test]
async fn a_later_version_is_left_alone() {
    let (folder, path) = one_segment(1).await;
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
    std::fs::write(&path, &bytes).expect("writes");
    let refused = replay(folder.path(), Signal::Logs, |_, _| Ok(())).expect_err("is of another version");
    assert!(refused.to_string().contains("has version 2, this program reads version 1"), "{refused}");
    assert_eq!(std::fs::read(&path).expect("reads"), bytes);
}
