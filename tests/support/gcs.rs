//! A server that speaks the XML API of Google Cloud Storage as far as its documents say and our client uses: objects with
//! generations, preconditions, ranges, multipart uploads, paged listings; and a metadata server that gives out tokens.
//! It fails on purpose, by a script or by a seeded chance, and counts requests by the classes of the price list.
//!
//! Owns: what lies in its one bucket, in memory. Runs on a thread of its own, so that a test that blocks does not stop it;
//! ends when it is dropped. Known differences: no rate limits, no checksums, no access control but one token.

// Each of the test binaries that include this file uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The bucket.
pub const BUCKET: &str = "tercet-test";
/// What an object or a part may be at most here.
const BODY_BYTES_MAX: usize = 1 << 30;
/// The least that a part other than the last must have.
const PART_BYTES_MIN: usize = 5 << 20;
/// Entries of a page of a listing unless a test wants less.
const PAGE_MAX: usize = 1000;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It has no effect; the answer is this status, with this `Retry-After`.
    Status(u16, Option<u32>),
    /// The connection breaks before the request has an effect.
    LoseRequest,
    /// The request has its effect, then the connection breaks.
    LoseResponse,
    /// The request has its effect, then the answer comes this much later.
    AnswerLate(Duration),
    /// The answer breaks off in the middle of its body.
    HalfBody,
}

/// A fault for some requests.
#[derive(Clone, Debug)]
struct Rule {
    method: Option<Method>,
    path_contains: String,
    fault: Fault,
    times: usize,
}

/// Faults by chance: each of the given ones strikes one request in `1/probability`.
struct Weather {
    random: StdRng,
    faults: Vec<(f64, Fault)>,
}

/// Requests by the classes of the price list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Class A: writes (PUT, POST) and listings.
    pub class_a: u64,
    /// Class B: reads of objects and of their metadata.
    pub class_b: u64,
    /// Free: deletions.
    pub free: u64,
    /// Of class A, the listings.
    pub lists: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    generation: u64,
    written: SystemTime,
}

impl Object {
    fn etag(&self) -> String {
        format!("\"{:016x}\"", self.generation)
    }
}

#[derive(Default)]
struct Upload {
    key: String,
    parts: BTreeMap<u32, (String, Bytes)>,
}

struct Inner {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    next: u64,
    page_max: usize,
    down: bool,
    rules: Vec<Rule>,
    weather: Option<Weather>,
    counts: Counts,
    log: Vec<String>,
    token: Option<String>,
    tokens_given: u64,
    skew: Duration,
}

/// A running server.
pub struct Gcs {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gcs {
    /// Starts on a free port.
    pub fn start() -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            next: 1_700_000_000_000_000,
            page_max: PAGE_MAX,
            down: false,
            rules: Vec::new(),
            weather: None,
            counts: Counts::default(),
            log: Vec::new(),
            token: None,
            tokens_given: 0,
            skew: Duration::ZERO,
        };
        let inner = Arc::new(Mutex::new(inner));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("its address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let router = axum::Router::new().fallback(handle).with_state(Arc::clone(&inner));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = FrailListener(TcpListener::from_std(listener).expect("listens"));
                let service = router.into_make_service_with_connect_info::<Link>();
                tokio::select! {
                    _ = axum::serve(listener, service) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, inner, stop: Some(stop) }
    }

    /// `http://…`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// While down, each request is answered 503.
    pub fn set_down(&self, down: bool) {
        locked(&self.inner).down = down;
    }

    /// The next `times` requests of `method` (any without) on a path that contains `path` meet `fault`.
    pub fn inject(&self, method: Option<&str>, path: &str, fault: Fault, times: usize) {
        let method = method.map(|name| name.parse().expect("a method"));
        locked(&self.inner).rules.push(Rule { method, path_contains: path.to_owned(), fault, times });
    }

    /// From here on each request meets each fault with its probability; repeatable with the same seed and order.
    pub fn set_weather(&self, seed: u64, faults: &[(f64, Fault)]) {
        let weather = Weather { random: StdRng::seed_from_u64(seed), faults: faults.to_vec() };
        locked(&self.inner).weather = Some(weather);
    }

    /// No faults by chance any more, and no scripted ones.
    pub fn clear_weather(&self) {
        let mut inner = locked(&self.inner);
        inner.weather = None;
        inner.rules.clear();
    }

    /// Requests so far, those for tokens left out.
    pub fn counts(&self) -> Counts {
        locked(&self.inner).counts
    }

    /// Starts the counts and the log again.
    pub fn forget_counts(&self) {
        let mut inner = locked(&self.inner);
        inner.counts = Counts::default();
        inner.log.clear();
    }

    /// Method and target of each request so far.
    pub fn log(&self) -> Vec<String> {
        locked(&self.inner).log.clone()
    }

    /// The names of all objects.
    pub fn objects(&self) -> Vec<String> {
        locked(&self.inner).objects.keys().cloned().collect()
    }

    /// Multipart uploads that were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        locked(&self.inner).uploads.len()
    }

    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        locked(&self.inner).objects.values().map(|object| object.bytes.len() as u64).sum()
    }

    /// Listings come in pages of so many.
    pub fn set_page_max(&self, page_max: usize) {
        locked(&self.inner).page_max = page_max;
    }

    /// The server's clock goes so much behind.
    pub fn set_skew(&self, skew: Duration) {
        locked(&self.inner).skew = skew;
    }

    /// From here on each request must carry this token, which the metadata server at this same address gives out.
    pub fn require_token(&self, token: &str) {
        locked(&self.inner).token = Some(token.to_owned());
    }

    /// How often the metadata server was asked for a token.
    pub fn tokens_given(&self) -> u64 {
        locked(&self.inner).tokens_given
    }
}

impl Drop for Gcs {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// A connection's remaining bytes to send before it breaks.
#[derive(Clone)]
struct Link(Arc<AtomicI64>);

impl Link {
    fn break_after(&self, bytes: i64) {
        self.0.store(bytes, Ordering::SeqCst);
    }
}

struct FrailListener(TcpListener);

struct FrailStream {
    stream: TcpStream,
    left: Arc<AtomicI64>,
}

impl Listener for FrailListener {
    type Io = FrailStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (FrailStream, SocketAddr) {
        loop {
            if let Ok((stream, address)) = self.0.accept().await {
                let _ = stream.set_nodelay(true);
                return (FrailStream { stream, left: Arc::new(AtomicI64::new(i64::MAX)) }, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, FrailListener>> for Link {
    fn connect_info(stream: IncomingStream<'_, FrailListener>) -> Self {
        Self(Arc::clone(&stream.io().left))
    }
}

impl AsyncRead for FrailStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

impl AsyncWrite for FrailStream {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let left = self.left.load(Ordering::SeqCst);
        if left <= 0 {
            return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
        }
        let bytes = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let written = Pin::new(&mut self.stream).poll_write(task, bytes);
        if let (Poll::Ready(Ok(written)), true) = (&written, left < i64::MAX) {
            self.left.fetch_sub(i64::try_from(*written).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

/// A request as the operations need it.
struct Asked {
    method: Method,
    bucket: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

async fn handle(
    State(inner): State<Arc<Mutex<Inner>>>,
    ConnectInfo(link): ConnectInfo<Link>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return error(StatusCode::BAD_REQUEST, "IncompleteBody");
    };
    let path = parts.uri.path().trim_start_matches('/');
    if path.starts_with("computeMetadata/") {
        return metadata(&mut locked(&inner), path, &parts.headers);
    }
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query = parts.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v)));
    let asked = Asked {
        method: parts.method,
        bucket: decode(bucket),
        key: decode(key),
        query: query.collect(),
        headers: parts.headers,
        body,
    };
    let fault = {
        let mut inner = locked(&inner);
        inner.count(&asked);
        inner.log.push(format!("{} {}", asked.method, decode(&parts.uri.to_string())));
        inner.fault(&asked)
    };
    match fault {
        Some(Fault::Status(status, retry_after)) => {
            let status = StatusCode::from_u16(status).expect("a status");
            let mut response = error(status, if status == 429 { "SlowDown" } else { "InternalError" });
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            response
        }
        Some(Fault::LoseRequest) => {
            link.break_after(0);
            Response::default()
        }
        Some(Fault::LoseResponse) => {
            let response = locked(&inner).answer(asked);
            link.break_after(0);
            response
        }
        Some(Fault::AnswerLate(delay)) => {
            let response = locked(&inner).answer(asked);
            tokio::time::sleep(delay).await;
            response
        }
        Some(Fault::HalfBody) => {
            let response = locked(&inner).answer(asked);
            let length = response.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
            // The head of an answer has fewer bytes than this.
            const HEAD_BYTES: i64 = 512;
            link.break_after(HEAD_BYTES.min(length.unwrap_or(0) / 2 + 64) + length.unwrap_or(0) / 2);
            response
        }
        None => locked(&inner).answer(asked),
    }
}

impl Inner {
    fn count(&mut self, asked: &Asked) {
        let listing = asked.key.is_empty();
        match asked.method {
            Method::GET if listing => {
                self.counts.class_a += 1;
                self.counts.lists += 1;
            }
            Method::GET | Method::HEAD => self.counts.class_b += 1,
            Method::DELETE => self.counts.free += 1,
            _ => self.counts.class_a += 1,
        }
    }

    fn fault(&mut self, asked: &Asked) -> Option<Fault> {
        if self.down {
            return Some(Fault::Status(503, None));
        }
        let path = format!("{}?{}", asked.key, asked.query.keys().cloned().collect::<Vec<_>>().join("&"));
        let strikes = |rule: &&mut Rule| {
            rule.times > 0
                && rule.method.as_ref().is_none_or(|method| *method == asked.method)
                && path.contains(&rule.path_contains)
        };
        if let Some(rule) = self.rules.iter_mut().find(strikes) {
            rule.times -= 1;
            return Some(rule.fault);
        }
        let weather = self.weather.as_mut()?;
        let mut drawn: f64 = weather.random.random();
        weather.faults.iter().find_map(|(probability, fault)| {
            drawn -= probability;
            (drawn < 0.0).then_some(*fault)
        })
    }

    fn answer(&mut self, asked: Asked) -> Response {
        if let Some(token) = &self.token {
            let given = asked.headers.get("authorization").and_then(|value| value.to_str().ok());
            if given != Some(&format!("Bearer {token}")) {
                return error(StatusCode::UNAUTHORIZED, "AuthenticationRequired");
            }
        }
        if asked.bucket != BUCKET {
            return error(StatusCode::NOT_FOUND, "NoSuchBucket");
        }
        let has = |name: &str| asked.query.contains_key(name);
        match asked.method {
            Method::GET if asked.key.is_empty() => self.list(&asked),
            Method::PUT if has("uploadId") => self.put_part(asked),
            Method::PUT if asked.headers.contains_key("x-goog-copy-source") => self.copy(&asked),
            Method::PUT => self.put(&asked),
            Method::POST if has("uploads") => self.begin_upload(asked),
            Method::POST if has("uploadId") => self.complete_upload(&asked),
            Method::DELETE if has("uploadId") => match self.uploads.remove(&asked.query["uploadId"]) {
                Some(_) => empty(StatusCode::NO_CONTENT),
                None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            Method::DELETE => match self.objects.remove(&asked.key) {
                Some(_) => empty(StatusCode::NO_CONTENT),
                None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
            Method::GET | Method::HEAD => self.get(&asked),
            _ => error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Generation 0 stands for an object that is not there.
    fn precondition_fails(&self, asked: &Asked) -> bool {
        let wanted =
            asked.headers.get("x-goog-if-generation-match").and_then(|value| value.to_str().ok()?.parse().ok());
        let there = self.objects.get(&asked.key).map_or(0, |object| object.generation);
        wanted.is_some_and(|wanted: u64| wanted != there)
    }

    fn store(&mut self, key: &str, bytes: Bytes) -> Object {
        let object = Object { bytes, generation: self.number(), written: SystemTime::now() - self.skew };
        self.objects.insert(key.to_owned(), object.clone());
        object
    }

    fn put(&mut self, asked: &Asked) -> Response {
        if self.precondition_fails(asked) {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let object = self.store(&asked.key, asked.body.clone());
        written(&object, Body::empty())
    }

    fn copy(&mut self, asked: &Asked) -> Response {
        let source = asked.headers["x-goog-copy-source"].to_str().map(decode).unwrap_or_default();
        let source = source.trim_start_matches('/').strip_prefix(&format!("{BUCKET}/")).unwrap_or_default();
        let Some(bytes) = self.objects.get(source).map(|object| object.bytes.clone()) else {
            return error(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        if self.precondition_fails(asked) {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let object = self.store(&asked.key, bytes);
        let text = format!("<CopyObjectResult><ETag>{}</ETag></CopyObjectResult>", object.etag());
        written(&object, text.into())
    }

    fn begin_upload(&mut self, asked: Asked) -> Response {
        let id = format!("upload-{}", self.number());
        let text = format!(
            "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
            escaped(&asked.key)
        );
        self.uploads.insert(id, Upload { key: asked.key, parts: BTreeMap::new() });
        xml(text)
    }

    fn put_part(&mut self, asked: Asked) -> Response {
        let etag = format!("\"part-{}\"", self.number());
        let number = asked.query.get("partNumber").and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|number| (1..=10_000).contains(number)) else {
            return error(StatusCode::BAD_REQUEST, "InvalidArgument");
        };
        match self.uploads.get_mut(&asked.query["uploadId"]).filter(|upload| upload.key == asked.key) {
            Some(upload) => {
                upload.parts.insert(number, (etag.clone(), asked.body));
                let response = Response::builder().header("etag", etag).header("content-length", 0);
                response.body(Body::empty()).expect("an answer")
            }
            None => error(StatusCode::NOT_FOUND, "NoSuchUpload"),
        }
    }

    fn complete_upload(&mut self, asked: &Asked) -> Response {
        let id = &asked.query["uploadId"];
        let Some(upload) = self.uploads.get(id).filter(|upload| upload.key == asked.key) else {
            return error(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let text = String::from_utf8_lossy(&asked.body).replace("&quot;", "\"");
        let mut wanted: Vec<(u32, String)> = Vec::new();
        for part in text.split("<Part>").skip(1) {
            let field = |name: &str| part.split(&format!("<{name}>")).nth(1)?.split('<').next().map(str::to_owned);
            let number = field("PartNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
            wanted.push((number, field("ETag").unwrap_or_default()));
        }
        if wanted.is_empty() {
            return error(StatusCode::BAD_REQUEST, "MalformedCompleteMultipartUploadRequest");
        }
        if wanted.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return error(StatusCode::BAD_REQUEST, "InvalidPartOrder");
        }
        let mut bytes = Vec::new();
        for (place, (number, etag)) in wanted.iter().enumerate() {
            match upload.parts.get(number) {
                Some((known, part)) if known == etag => {
                    if part.len() < PART_BYTES_MIN && place + 1 < wanted.len() {
                        return error(StatusCode::BAD_REQUEST, "EntityTooSmall");
                    }
                    bytes.extend_from_slice(part);
                }
                _ => return error(StatusCode::BAD_REQUEST, "InvalidPart"),
            }
        }
        self.uploads.remove(id);
        let object = self.store(&asked.key, bytes.into());
        let text = format!(
            "<CompleteMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{}</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
            escaped(&asked.key),
            escaped(&object.etag())
        );
        written(&object, text.into())
    }

    fn get(&self, asked: &Asked) -> Response {
        let Some(object) = self.objects.get(&asked.key) else {
            return error(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        if asked.query.get("generation").is_some_and(|wanted| *wanted != object.generation.to_string()) {
            return error(StatusCode::NOT_FOUND, "NoSuchKey");
        }
        let header = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
        if header("if-match").is_some_and(|wanted| wanted != object.etag()) {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        if header("if-none-match").is_some_and(|wanted| wanted == object.etag()) {
            return empty(StatusCode::NOT_MODIFIED);
        }
        let size = object.bytes.len();
        let mut response = Response::builder()
            .header("etag", object.etag())
            .header("x-goog-generation", object.generation)
            .header("last-modified", chrono::DateTime::<chrono::Utc>::from(object.written).to_rfc2822());
        let mut range = 0..size;
        if let Some(text) = header("range") {
            let Some(wanted) = text.strip_prefix("bytes=").and_then(|text| part_of(text, size)) else {
                return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
            };
            range = wanted;
            let said = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            response = response.status(StatusCode::PARTIAL_CONTENT).header("content-range", said);
        }
        let body = object.bytes.slice(range);
        response = response.header("content-length", body.len());
        let body = if asked.method == Method::HEAD { Body::empty() } else { body.into() };
        response.body(body).expect("an answer")
    }

    fn list(&self, asked: &Asked) -> Response {
        let text = |name: &str| asked.query.get(name).cloned().unwrap_or_default();
        let (prefix, delimiter) = (text("prefix"), text("delimiter"));
        let after = text("start-after").max(text("continuation-token"));
        let max = text("max-keys").parse().unwrap_or(self.page_max).min(self.page_max);
        let mut out = String::new();
        let (mut entries, mut last, mut more, mut folders) = (0, String::new(), false, Vec::<String>::new());
        for (key, object) in &self.objects {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let folder = match delimiter.as_str() {
                "" => None,
                delimiter => rest.find(delimiter).map(|at| format!("{prefix}{}", &rest[..at + delimiter.len()])),
            };
            // What stands in a folder that was listed on an earlier page is not listed again.
            if *key <= after || folder.as_ref().is_some_and(|folder| after.starts_with(folder.as_str())) {
                continue;
            }
            if folder.as_ref().is_some_and(|folder| folders.last() == Some(folder)) {
                last.clone_from(key);
                continue;
            }
            if entries == max {
                more = true;
                break;
            }
            entries += 1;
            last.clone_from(key);
            match folder {
                Some(folder) => folders.push(folder),
                None => {
                    let _ = write!(
                        out,
                        "<Contents><Key>{}</Key><Generation>{}</Generation><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                        escaped(key),
                        object.generation,
                        chrono::DateTime::<chrono::Utc>::from(object.written).to_rfc3339(),
                        escaped(&object.etag()),
                        object.bytes.len()
                    );
                }
            }
        }
        for folder in folders {
            let _ = write!(out, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escaped(&folder));
        }
        let token = if more {
            format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(&last))
        } else {
            String::new()
        };
        xml(format!(
            "<ListBucketResult><Name>{BUCKET}</Name><Prefix>{}</Prefix><IsTruncated>{more}</IsTruncated>{token}{out}</ListBucketResult>",
            escaped(&prefix)
        ))
    }
}

/// What a byte range asks of `size` bytes; `None` if it lies outside.
fn part_of(text: &str, size: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = text.split_once('-')?;
    let range = match (first, last) {
        ("", length) => size.saturating_sub(length.parse().ok()?)..size,
        (first, "") => first.parse().ok()?..size,
        (first, last) => first.parse().ok()?..last.parse::<usize>().ok()?.saturating_add(1).min(size),
    };
    (range.start < range.end).then_some(range)
}

fn metadata(inner: &mut Inner, path: &str, headers: &HeaderMap) -> Response {
    if headers.get("metadata-flavor").and_then(|value| value.to_str().ok()) != Some("Google") {
        return empty(StatusCode::FORBIDDEN);
    }
    match (&inner.token, path) {
        (Some(token), "computeMetadata/v1/instance/service-accounts/default/token") => {
            inner.tokens_given += 1;
            let text = format!(r#"{{"access_token":"{token}","expires_in":3599,"token_type":"Bearer"}}"#);
            Response::builder().header("content-type", "application/json").body(text.into()).expect("an answer")
        }
        _ => empty(StatusCode::NOT_FOUND),
    }
}

fn written(object: &Object, body: Body) -> Response {
    let response = Response::builder().header("etag", object.etag()).header("x-goog-generation", object.generation);
    response.body(body).expect("an answer")
}

fn xml(text: String) -> Response {
    let text = format!("<?xml version='1.0' encoding='UTF-8'?>{text}");
    Response::builder().header("content-type", "application/xml").body(text.into()).expect("an answer")
}

fn empty(status: StatusCode) -> Response {
    Response::builder().status(status).body(Body::empty()).expect("an answer")
}

fn error(status: StatusCode, code: &str) -> Response {
    let mut response = xml(format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"));
    *response.status_mut() = status;
    response
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Percent-decoded; `+` is a blank in queries, and object names of ours have none.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
