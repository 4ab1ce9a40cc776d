//! HTTP requests to a bucket, tried again while the failure may pass.
//!
//! Owns: which answers are worth another try, the pauses between, the deadline of all tries together; counting each
//! request. Does not own: what a request says (the library), what it means that a create met an object (`watched`).
//!
//! Every request is tried again, also one that creates: whoever creates finds out afterwards whether the object is their
//! own. The library's own retries are off: they know neither deadline nor `Retry-After` and count nothing.
//!
//! Invariants
//! 1. All tries of a request together end by the deadline, but for the last try's own timeout.
//! 2. An answer is returned whole or not at all: a body that breaks off is a failed try.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
    ReqwestConnector,
};
use tokio::time::Instant;

use super::calls::{Calls, Operation, Outcome};
use crate::clock::Chance;

/// The pause before the second try; it doubles from try to try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause, whatever the store asks for.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A store that refuses at once is asked no more often than this.
const TRIES_MAX: u32 = 20;
/// The deadline of requests for credentials.
const TOKEN_TOTAL: Duration = Duration::from_secs(10);
/// What S3 says of a create that met another request to the same name; nothing is known of the object then.
const CONFLICT_THAT_PASSES: &[u8] = b"ConditionalRequestConflict";

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// One try: connecting, sending, waiting and receiving.
    pub request: Duration,
    /// All tries together.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(30), total: Duration::from_secs(60) }
    }
}

/// Makes clients whose requests are patient.
#[derive(Debug)]
pub(super) struct PatientConnector {
    pub(super) calls: Arc<Calls>,
    pub(super) chance: Arc<dyn Chance>,
    pub(super) total: Duration,
}

impl HttpConnector for PatientConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Patient {
            client: ReqwestConnector::default().connect(options)?,
            calls: Arc::clone(&self.calls),
            chance: Arc::clone(&self.chance),
            total: self.total,
        }))
    }
}

#[derive(Debug)]
struct Patient {
    client: HttpClient,
    calls: Arc<Calls>,
    chance: Arc<dyn Chance>,
    total: Duration,
}

/// What a try came to.
enum Tried {
    Final(Outcome, Result<HttpResponse, HttpError>),
    /// May pass; what the store asks to wait.
    MayPass(Option<Duration>, Result<HttpResponse, HttpError>),
}

impl Patient {
    async fn attempt(&self, request: HttpRequest, received: &mut usize) -> Tried {
        let whole = async {
            let (parts, body) = self.client.execute(request).await?.into_parts();
            let body = body.bytes().await?;
            Ok::<_, HttpError>((parts, body))
        };
        match whole.await {
            Ok((parts, body)) => {
                *received = body.len();
                let status = parts.status.as_u16();
                let asked = retry_after(&parts.headers);
                let conflict = status == 409 && contains(&body, CONFLICT_THAT_PASSES);
                let response = Ok(HttpResponse::from_parts(parts, body.into()));
                match status {
                    200..400 => Tried::Final(Outcome::Ok, response),
                    404 => Tried::Final(Outcome::NotFound, response),
                    409 if conflict => Tried::MayPass(asked, response),
                    409 | 412 => Tried::Final(Outcome::Exists, response),
                    408 | 429 | 500.. => Tried::MayPass(asked, response),
                    _ => Tried::Final(Outcome::Failed, response),
                }
            }
            Err(error) if may_pass(&error) => Tried::MayPass(None, Err(error)),
            Err(error) => Tried::Final(Outcome::Failed, Err(error)),
        }
    }

    /// The pause after the try `tries`, `elapsed` after the first began: half of it is certain, the other half is drawn.
    /// `None` where another try would be beyond the limits. Whoever gives out credentials lies near and answers soon.
    fn pause(&self, tries: u32, elapsed: Duration, asked: Option<Duration>, operation: Operation) -> Option<Duration> {
        let total = if operation == Operation::Token { self.total.min(TOKEN_TOTAL) } else { self.total };
        let doubled = PAUSE_MIN.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(PAUSE_MAX);
        let drawn = doubled.mul_f64(0.5 + self.chance.draw() / 2.0);
        let pause = asked.map_or(drawn, |asked| asked.min(PAUSE_MAX) + drawn / 2);
        (tries < TRIES_MAX && elapsed + pause < total).then_some(pause)
    }
}

#[async_trait]
impl HttpService for Patient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let operation = operation(&request);
        let started = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let call = self.calls.begin(operation);
            call.sent(request.body().content_length());
            let mut received = 0;
            let tried = self.attempt(copy(&request), &mut received).await;
            call.received(received);
            let (asked, result) = match tried {
                Tried::Final(outcome, result) => {
                    call.end(outcome);
                    return result;
                }
                Tried::MayPass(asked, result) => (asked, result),
            };
            let Some(pause) = self.pause(tries, started.elapsed(), asked, operation) else {
                call.end(Outcome::Failed);
                return result;
            };
            call.end(Outcome::Retried);
            tracing::debug!(method = %request.method(), path = request.uri().path(), tries, ?pause, "the store is asked again");
            tokio::time::sleep(pause).await;
        }
    }
}

/// A request can be sent again: its body lies in memory.
fn copy(request: &HttpRequest) -> HttpRequest {
    let mut copy = HttpRequest::new(HttpRequestBody::clone(request.body()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Whether a request that got no whole answer may get one later. A certificate that is refused stays refused.
fn may_pass(error: &HttpError) -> bool {
    match error.kind() {
        HttpErrorKind::Connect => !caused_by_certificate(error),
        HttpErrorKind::Request | HttpErrorKind::Timeout | HttpErrorKind::Interrupted => true,
        // A body that broke off is reported as one that could not be decoded.
        HttpErrorKind::Decode | HttpErrorKind::Unknown => true,
        _ => false,
    }
}

fn caused_by_certificate(error: &HttpError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.to_string().contains("invalid peer certificate") {
            return true;
        }
        cause = error.source();
    }
    false
}

fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(body, text).is_some()
}

/// What a request asks for, by method and query. Each cloud names listings differently; what asks for credentials goes to
/// other servers, under paths that no object of ours has.
fn operation(request: &HttpRequest) -> Operation {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let has = |wanted: &str| query.split('&').any(|pair| pair == wanted);
    let credentials = path.contains("/computeMetadata/")
        || path.starts_with("/latest/")
        || path.ends_with("/token")
        || query.contains("Action=AssumeRole");
    match *request.method() {
        _ if credentials => Operation::Token,
        http::Method::GET if has("list-type=2") || has("comp=list") => Operation::List,
        http::Method::GET => Operation::Get,
        http::Method::HEAD => Operation::Head,
        http::Method::DELETE => Operation::Delete,
        http::Method::POST if has("delete") || has("delete=") || has("comp=batch") => Operation::Delete,
        _ => Operation::Put,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::FixedChance;

    /// Answers each request with the next of a list of statuses, the last for ever; 0 is a lost connection.
    #[derive(Debug)]
    struct Scripted {
        statuses: Vec<(u16, &'static str)>,
        asked: Arc<AtomicU32>,
    }

    #[async_trait]
    impl HttpService for Scripted {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst) as usize;
            let (status, header) = self.statuses[asked.min(self.statuses.len() - 1)];
            if status == 0 {
                return Err(HttpError::new(HttpErrorKind::Interrupted, std::io::Error::other("lost")));
            }
            let mut response = HttpResponse::new(bytes::Bytes::from_static(b"body").into());
            *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
            if !header.is_empty() {
                response.headers_mut().insert("retry-after", header.parse().expect("a header"));
            }
            Ok(response)
        }
    }

    fn patient(statuses: &[(u16, &'static str)], chance: f64) -> (Patient, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        let patient = Patient {
            client: HttpClient::new(Scripted { statuses: statuses.to_vec(), asked: Arc::clone(&asked) }),
            calls: Arc::new(Calls::default()),
            chance: Arc::new(FixedChance(chance)),
            total: Duration::from_secs(60),
        };
        (patient, asked)
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
        let request = || HttpRequest::new(HttpRequestBody::empty());
        for status in [429, 408, 500, 502, 503, 504, 0] {
            let (patient, asked) = patient(&[(status, ""), (status, "0"), (200, "")], 0.0);
            let answer = patient.call(request()).await.expect("answers");
            assert_eq!((answer.status().as_u16(), asked.load(Ordering::SeqCst)), (200, 3), "{status}");
            let counts: Vec<_> = patient.calls.counts().iter().map(|line| (line.outcome, line.count)).collect();
            assert_eq!(counts, [(Outcome::Ok, 1), (Outcome::Retried, 2)]);
        }
        for status in [400, 401, 403, 404, 409, 412] {
            let (patient, asked) = patient(&[(status, ""), (200, "")], 0.0);
            let answer = patient.call(request()).await.expect("answers");
            assert_eq!((answer.status().as_u16(), asked.load(Ordering::SeqCst)), (status, 1));
        }
    }

    /// The pauses of a request that fails at once for ever.
    fn pauses(asked: Option<u64>, chance: f64, operation: Operation) -> Vec<Duration> {
        let (patient, _) = patient(&[(503, "")], chance);
        let mut pauses: Vec<Duration> = Vec::new();
        let asked = asked.map(Duration::from_secs);
        while let Some(pause) = patient.pause(pauses.len() as u32 + 1, pauses.iter().sum(), asked, operation) {
            pauses.push(pause);
        }
        pauses
    }

    #[test]
    fn all_tries_together_end_by_the_deadline() {
        for (operation, total) in [(Operation::Put, 60), (Operation::Token, 10)] {
            for (asked, chance) in [(None, 0.0), (None, 0.999), (Some(1), 0.5), (Some(86_400), 0.5), (Some(0), 0.5)] {
                let pauses = pauses(asked, chance, operation);
                assert!(pauses.iter().sum::<Duration>() < Duration::from_secs(total), "{pauses:?}");
                assert!(pauses.len() < TRIES_MAX as usize, "{pauses:?}");
            }
        }
    }

    #[test]
    fn pauses_double_differ_by_chance_and_heed_what_the_store_asks_for() {
        let first = |asked, chance| {
            pauses(asked, chance, Operation::Put)[..4].iter().map(Duration::as_millis).collect::<Vec<_>>()
        };
        assert_eq!(first(None, 0.0), [50, 100, 200, 400]);
        assert_eq!(first(None, 0.5), [75, 150, 300, 600]);
        assert_eq!(first(Some(3), 0.0), [3025, 3050, 3100, 3200]);
        assert_eq!(first(Some(86_400), 0.0)[0], 10_025, "a store cannot make us wait for a day");
    }

    #[test]
    fn requests_are_what_the_price_lists_call_them() {
        let kind = |method: &str, uri: &str| {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = method.parse().expect("a method");
            *request.uri_mut() = format!("http://host{uri}").parse().expect("a uri");
            operation(&request)
        };
        for (method, uri, expected) in [
            ("GET", "/bucket/object", Operation::Get),
            ("HEAD", "/bucket/object", Operation::Head),
            ("GET", "/bucket?list-type=2&prefix=a", Operation::List),
            ("GET", "/container?restype=container&comp=list", Operation::List),
            ("PUT", "/bucket/object?partNumber=1&uploadId=x", Operation::Put),
            ("POST", "/bucket/object?uploads=", Operation::Put),
            ("POST", "/bucket?delete=", Operation::Delete),
            ("DELETE", "/bucket/object", Operation::Delete),
            ("GET", "/computeMetadata/v1/instance/service-accounts/default/token?audience=x", Operation::Token),
            ("PUT", "/latest/api/token", Operation::Token),
            ("POST", "/token", Operation::Token),
        ] {
            assert_eq!(kind(method, uri), expected, "{method} {uri}");
        }
    }
}
