//! What the engine relies on, as one suite that every kind of store must pass: memory, a folder, Google Cloud Storage by a
//! server in this process, S3 by moto. And the library's known traps, so that an upgrade that mends one is noticed.

use std::io::{Read, Write};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use object_store::{CopyMode, Error as StoreError, GetOptions, GetRange, ObjectMeta, PutMode};

use super::gcs::{BUCKET, Fault, Gcs};
use super::*;

/// Short enough for a test that waits for the end of all tries.
const PATIENCE: Patience = Patience { request: Duration::from_secs(5), total: Duration::from_secs(20) };

fn over_gcs(gcs: &Gcs, prefix: &str) -> Store {
    let options = StoreOptions { gcs_endpoint: Some(gcs.endpoint()), patience: PATIENCE, ..StoreOptions::default() };
    Store::open(&format!("gs://{BUCKET}/{prefix}"), &options).expect("opens")
}

/// The whole suite.
async fn check(store: &Store) {
    creates(store).await;
    ranges(store).await;
    listings(store).await;
    large_objects(store).await;
    deletions(store).await;
}

async fn create(store: &Store, path: &Path, bytes: Vec<u8>) -> object_store::Result<()> {
    store.objects().put_opts(path, PutPayload::from(bytes), PutMode::Create.into()).await.map(|_| ())
}

async fn creates(store: &Store) {
    let path = Path::from("create/_delta_log/00000000000000000000.json");
    // Of many that create at once exactly one wins, and the object is the winner's.
    let tries = (0..8_u8).map(|n| create(store, &path, vec![n; 100]));
    let results = futures::future::join_all(tries).await;
    let winners: Vec<usize> = (0..8).filter(|n| results[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for lost in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(matches!(lost, StoreError::AlreadyExists { .. }), "{lost}");
    }
    let winner = u8::try_from(winners[0]).expect("small");
    assert_eq!(store.get(&path).await.expect("reads"), Some(vec![winner; 100].into()));
    create(store, &path, vec![winner; 100]).await.expect("the same bytes are our own");
    // Over whatever is there.
    for bytes in [&b"first"[..], b"second, longer", b""] {
        store.put(&path, Bytes::copy_from_slice(bytes)).await.expect("writes");
        assert_eq!(store.get(&path).await.expect("reads").as_deref(), Some(bytes));
    }
}

async fn ranges(store: &Store) {
    let path = Path::from("ranges/date=2026-01-05/a b+c%d#e.parquet");
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    store.put(&path, bytes.clone().into()).await.expect("writes");
    let objects = store.objects();
    let head = objects.head(&path).await.expect("is there");
    assert_eq!((head.size, &head.location), (400_000, &path));
    assert_eq!(objects.get_range(&path, 7..19).await.expect("reads"), bytes[7..19]);
    let wanted = [0..4, 399_990..400_000, 200_000..200_001, 10..20];
    let read = objects.get_ranges(&path, &wanted).await.expect("reads");
    for (range, read) in wanted.iter().zip(read) {
        assert_eq!(read, bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    for (range, expected) in [
        (GetRange::Suffix(5), 399_995..400_000),
        (GetRange::Offset(399_999), 399_999..400_000),
        (GetRange::Bounded(399_998..500_000), 399_998..400_000),
    ] {
        let options = GetOptions { range: Some(range.clone()), ..GetOptions::default() };
        let read = objects.get_opts(&path, options).await.expect("reads").bytes().await.expect("reads");
        assert_eq!(read, bytes[expected], "{range:?}");
    }
    let missing = Path::from("ranges/missing");
    for error in [
        objects.get(&missing).await.err(),
        objects.get_range(&missing, 0..1).await.err(),
        objects.head(&missing).await.err(),
    ] {
        assert!(matches!(error, Some(StoreError::NotFound { .. })), "{error:?}");
    }
    assert_eq!(store.get(&missing).await.expect("no failure"), None);
}

async fn listings(store: &Store) {
    let names = [3, 10, 1, 7, 2, 5, 9, 4].map(|n| format!("list/t/_delta_log/{n:020}.json"));
    let others = ["list/t/date=1/a", "list/t/date=1/b", "list/t/date=2/a", "list/tt/x", "list/u"];
    for name in names.iter().map(String::as_str).chain(others) {
        store.put(&Path::from(name), Bytes::from_static(b"1")).await.expect("writes");
    }
    let objects = store.objects();
    let names_of = |all: Vec<ObjectMeta>| all.into_iter().map(|meta| meta.location.to_string()).collect::<Vec<_>>();
    let mut sorted = names.to_vec();
    sorted.sort();
    let log = Path::from("list/t/_delta_log");
    let all: Vec<ObjectMeta> = objects.list(Some(&log)).try_collect().await.expect("lists");
    assert!(all.iter().all(|meta| meta.size == 1));
    assert_eq!(names_of(all), sorted);
    for (offset, left) in [(sorted[2].as_str(), &sorted[3..]), ("list/t/_delta_log/x", &[][..]), ("a", &sorted[..])] {
        let list = objects.list_with_offset(Some(&log), &Path::from(offset));
        assert_eq!(names_of(list.try_collect().await.expect("lists")), left, "after {offset}");
    }
    let folder = objects.list_with_delimiter(Some(&Path::from("list/t"))).await.expect("lists");
    let folders: Vec<&str> = folder.common_prefixes.iter().map(AsRef::as_ref).collect();
    assert_eq!(folders, ["list/t/_delta_log", "list/t/date=1", "list/t/date=2"]);
    assert_eq!(folder.objects, []);
    // A prefix is a whole name: `list/t` does not stand for `list/tt`.
    let under: Vec<ObjectMeta> = objects.list(Some(&Path::from("list/t"))).try_collect().await.expect("lists");
    assert_eq!(under.len(), names.len() + 3);
    let none: Vec<ObjectMeta> = objects.list(Some(&Path::from("nothing"))).try_collect().await.expect("lists");
    assert_eq!(none, []);
}

fn large(length: usize) -> Bytes {
    (0..length / 8)
        .flat_map(|n| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect::<Vec<_>>()
        .into()
}

async fn large_objects(store: &Store) {
    let path = Path::from("large/block.parquet");
    let bytes = large(WHOLE_BYTES_MAX + 1024);
    store.put(&path, bytes.clone()).await.expect("writes");
    assert_eq!(store.get(&path).await.expect("reads"), Some(bytes));
    // What is not completed was never there.
    let path = Path::from("large/aborted");
    let mut upload = store.objects().put_multipart(&path).await.expect("begins");
    upload.put_part("abc".into()).await.expect("takes a part");
    assert_eq!(store.get(&path).await.expect("reads"), None);
    upload.abort().await.expect("aborts");
    assert_eq!(store.get(&path).await.expect("reads"), None);
}

async fn deletions(store: &Store) {
    let paths: Vec<Path> = (0..20).map(|n| Path::from(format!("delete/{n}"))).collect();
    for path in &paths[..19] {
        store.put(path, Bytes::from_static(b"1")).await.expect("writes");
    }
    store.delete(&paths[0]).await.expect("deletes");
    store.delete(&paths[0]).await.expect("deletes again");
    let stream = futures::stream::iter(paths.clone().into_iter().map(Ok)).boxed();
    let deleted: Vec<Path> = store.objects().delete_stream(stream).try_collect().await.expect("deletes all");
    assert_eq!(deleted, paths, "also those that were not there");
    let left: Vec<ObjectMeta> = store.objects().list(Some(&Path::from("delete"))).try_collect().await.expect("lists");
    assert_eq!(left, []);
}

#[tokio::test]
async fn memory() {
    check(&Store::open("memory://", &StoreOptions::default()).expect("opens")).await;
}

#[tokio::test]
async fn a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    check(&Store::open(&folder.path().display().to_string(), &StoreOptions::default()).expect("opens")).await;
}

#[tokio::test]
async fn google_cloud_storage() {
    let gcs = Gcs::start();
    for (prefix, page_max) in [("", 1000), ("a/b c", 3)] {
        gcs.set_page_max(page_max);
        check(&over_gcs(&gcs, prefix)).await;
    }
    assert_eq!(gcs.open_uploads(), 0);
}

/// The suite once more, while one request in five fails in one of the ways that requests fail.
#[tokio::test]
async fn google_cloud_storage_in_bad_weather() {
    let seed = std::env::var("TERCET_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("TERCET_TEST_SEED={seed}");
    let gcs = Gcs::start();
    gcs.set_page_max(3);
    gcs.set_skew(Duration::from_secs(10 * 365 * 86_400));
    gcs.set_weather(
        seed,
        &[
            (0.04, Fault::Status(503, None)),
            (0.04, Fault::Status(429, Some(0))),
            (0.04, Fault::LoseRequest),
            (0.04, Fault::LoseResponse),
            (0.04, Fault::HalfBody),
        ],
    );
    let store = over_gcs(&gcs, "prefix");
    check(&store).await;
    let retried =
        store.calls().counts().into_iter().filter(|line| line.outcome == Outcome::Retried).map(|line| line.count);
    assert!(retried.sum::<u64>() > 10, "the weather was not bad at all");
    // Each request is one that we counted, and the other way round.
    let counts = gcs.counts();
    assert_eq!(
        counts.class_a + counts.class_b + counts.free,
        store.calls().counts().iter().map(|line| line.count).sum::<u64>()
    );
}

#[tokio::test]
async fn a_part_that_fails_is_sent_again_alone() {
    let gcs = Gcs::start();
    let store = over_gcs(&gcs, "");
    let (path, bytes) = (Path::from("t/block.parquet"), large(3 * PART_BYTES));
    gcs.inject(Some("PUT"), "partNumber", Fault::Status(503, None), 1);
    gcs.inject(Some("PUT"), "partNumber", Fault::LoseResponse, 1);
    store.put(&path, bytes.clone()).await.expect("writes");
    // Begin, three parts, two of them once more, complete.
    assert_eq!(gcs.counts().class_a, 7, "{:?}", gcs.log());
    assert_eq!(store.get(&path).await.expect("reads"), Some(bytes.clone()));
    // A completion whose answer is lost finds no upload the second time.
    let path = Path::from("t/second.parquet");
    gcs.inject(Some("POST"), "second.parquet?uploadId", Fault::LoseResponse, 1);
    store.put(&path, bytes.clone()).await.expect("writes");
    assert_eq!(store.get(&path).await.expect("reads"), Some(bytes.clone()));
    // A failure that does not pass leaves neither an object nor parts, which would cost money.
    let path = Path::from("t/third.parquet");
    gcs.inject(Some("POST"), "third.parquet?uploadId", Fault::Status(400, None), 1);
    assert_eq!(store.put(&path, bytes).await.expect_err("fails").kind(), Kind::Unavailable);
    assert_eq!((store.get(&path).await.expect("reads"), gcs.open_uploads()), (None, 0));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_unavailable_after_the_deadline() {
    let gcs = Gcs::start();
    let patience = Patience { request: Duration::from_millis(100), total: Duration::from_millis(400) };
    let options = StoreOptions { gcs_endpoint: Some(gcs.endpoint()), patience, ..StoreOptions::default() };
    let store = Store::open(&format!("gs://{BUCKET}"), &options).expect("opens");
    let path = Path::from("x");
    gcs.inject(None, "", Fault::AnswerLate(Duration::from_secs(600)), usize::MAX);
    let begun = Instant::now();
    let failed = store.put(&path, Bytes::from_static(b"1")).await.expect_err("fails");
    assert_eq!(failed.kind(), Kind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(10));
    gcs.clear_weather();
    gcs.set_down(true);
    assert_eq!(store.get(&path).await.expect_err("fails").kind(), Kind::Unavailable);
    gcs.set_down(false);
    // It had landed each time.
    assert_eq!(store.get(&path).await.expect("reads"), Some(Bytes::from_static(b"1")));
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_recognised() {
    let gcs = Gcs::start();
    let store = over_gcs(&gcs, "");
    for (n, fault) in [Fault::LoseResponse, Fault::LoseRequest, Fault::Status(503, None)].into_iter().enumerate() {
        let path = Path::from(format!("log/{n}.json"));
        gcs.inject(Some("PUT"), "log/", fault, 2);
        create(&store, &path, vec![1]).await.expect("is our own");
        let lost = create(&store, &path, vec![2]).await.expect_err("another's is there");
        assert!(matches!(lost, StoreError::AlreadyExists { .. }), "{lost}");
    }
}

/// The library's two modes of copy are swapped, so nothing is ever copied. When this fails, the library is mended.
#[tokio::test]
async fn known_trap_copies_on_google_cloud_storage() {
    let gcs = Gcs::start();
    let objects = bare(&gcs, false);
    let (from, to) = (Path::from("from"), Path::from("to"));
    objects.put(&from, "from".into()).await.expect("writes");
    objects.put(&to, "to".into()).await.expect("writes");
    let copied = objects.copy(&from, &to).await.expect_err("should overwrite");
    assert!(matches!(copied, StoreError::AlreadyExists { .. }), "{copied}");
    objects.copy_if_not_exists(&from, &to).await.expect("should refuse");
    assert_eq!(objects.get(&to).await.expect("reads").bytes().await.expect("reads"), "from");
    let ours = over_gcs(&gcs, "");
    for mode in [CopyMode::Overwrite, CopyMode::Create] {
        let options = object_store::CopyOptions::default().with_mode(mode);
        let refused = ours.objects().copy_opts(&from, &to, options).await.expect_err("is never done");
        assert!(matches!(refused, StoreError::NotSupported { .. }), "{refused}");
    }
}

/// The library's switch for "no credentials" leaves out writes: they ask for a token all the same. When this fails, an
/// endpoint without credentials can be opened by that switch.
#[tokio::test]
async fn known_trap_writes_ask_for_credentials_that_are_switched_off() {
    let gcs = Gcs::start();
    let objects = bare(&gcs, true);
    let missing = objects.get(&Path::from("x")).await.expect_err("is not there");
    assert!(matches!(missing, StoreError::NotFound { .. }), "reads ask for none: {missing}");
    objects.put(&Path::from("x"), "1".into()).await.expect_err("the token cannot be had");
    assert_eq!(gcs.objects(), [""; 0]);
}

/// The library's own client without our wrapper.
fn bare(gcs: &Gcs, skip_signature: bool) -> object_store::gcp::GoogleCloudStorage {
    let builder = object_store::gcp::GoogleCloudStorageBuilder::new()
        .with_bucket_name(BUCKET)
        .with_base_url(&gcs.endpoint())
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true));
    let builder = match skip_signature {
        // A key that cannot sign: whoever wants a token fails at once instead of asking a metadata server.
        true => builder.with_skip_signature(true).with_credentials(Arc::new(NoToken)),
        false => builder.with_credentials(Arc::new(object_store::StaticCredentialProvider::new(
            object_store::gcp::GcpCredential { bearer: String::new() },
        ))),
    };
    builder.build().expect("builds")
}

#[derive(Debug)]
struct NoToken;

#[async_trait::async_trait]
impl object_store::CredentialProvider for NoToken {
    type Credential = object_store::gcp::GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<Self::Credential>> {
        Err(StoreError::Generic { store: "NoToken", source: "no token is given out".into() })
    }
}

#[test]
fn credentials_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key.json");
    let open = || {
        let options = StoreOptions { gcs_credentials: Some(file.clone()), ..StoreOptions::default() };
        Store::open("gs://bucket", &options).map(|_| ()).expect_err("cannot be used")
    };
    let missing = open().to_string();
    assert!(missing.contains("key.json") && missing.contains("storage.gcs_credentials"), "{missing}");
    std::fs::write(&file, "no json").expect("writes");
    assert!(open().to_string().contains("is not JSON"));
    std::fs::write(&file, r#"{"type":"external_account"}"#).expect("writes");
    let other = open().to_string();
    assert!(other.contains("external_account") && other.contains("workload identity"), "{other}");
    std::fs::write(&file, r#"{"type":"service_account"}"#).expect("writes");
    let incomplete = open().to_string();
    assert!(incomplete.contains("private_key") || incomplete.contains("client_email"), "{incomplete}");
    let azure =
        Store::open("az://container", &StoreOptions::default()).map(|_| ()).expect_err("no account").to_string();
    assert!(azure.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{azure}");
}

/// The suite on the store that `TERCET_TEST_STORE` names; the tests below run it with an emulator's variables set, which a
/// process cannot do for itself.
#[tokio::test]
#[ignore = "needs a store: run by the tests of the emulators"]
async fn the_store_that_the_environment_names() {
    let url = std::env::var("TERCET_TEST_STORE").expect("TERCET_TEST_STORE names a store");
    let options = StoreOptions { patience: PATIENCE, ..StoreOptions::default() };
    check(&Store::open(&url, &options).expect("opens")).await;
}

/// An emulator that is killed when dropped.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Emulator {
    /// Starts `program` and waits until something listens on `port`.
    fn start(program: &FilePath, arguments: &[&str], port: u16) -> Self {
        let child = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let emulator = Self(child.expect("starts"));
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} does not listen", program.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        emulator
    }
}

/// What the tests need beside Rust lies in the target folder, where the README's install line puts it.
fn installed(name: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let path = target.join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "target/{name} is missing, and CI must have it");
    eprintln!("skipped: target/{name} is missing; the README's install line brings it");
    None
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Runs the suite in a process of its own with these variables.
fn check_with(variables: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["store::contract::the_store_that_the_environment_names", "--exact", "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .output()
        .expect("starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn s3_by_moto() {
    let Some(moto) = installed("clients/bin/moto_server") else { return };
    let port = free_port();
    let _moto = Emulator::start(&moto, &["-p", &port.to_string()], port);
    let mut connection = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let request =
        format!("PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("asks");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    check_with(&[
        ("TERCET_TEST_STORE", &format!("s3://{BUCKET}/a/b")),
        ("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "any"),
        ("AWS_SECRET_ACCESS_KEY", "any"),
    ]);
}
