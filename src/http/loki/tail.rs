//! `tail`: what a log query finds, first what is stored, then what arrives, over a WebSocket.
//!
//! Owns: the frames, their pace, how a tail ends. Does not own: who is listening (`tails`), the query.
//!
//! Invariants
//! 1. Listening begins before what is stored is read: no entry falls between. One that is in both is sent once.
//! 2. A query that cannot be tailed is refused before the connection is upgraded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use query::logql::{self, Direction, Limits, Params as QueryParams, Stream, Value};
use storage::model::tenant::Tenant;
use storage::scan::memory::MemoryScan;
use storage::{Batch, Engine};
use tokio::time::Instant;

use super::encode::{self, Frame};
use super::params;
use super::query::flags;
use crate::app::{Phase, SharedApp};
use crate::http::error::{LokiError, TextError};
use crate::http::params::{Params, TenantId};
use crate::tails::{TAILS_MAX, Tail};

/// How often the client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a client may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The longest life of a tail.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// The longest delay that a client may ask for, in seconds.
const DELAY_MAX_S: usize = 5;
/// Batches that are answered by one frame.
const FRAME_BATCHES_MAX: usize = 16;

/// One tail.
struct Session {
    app: SharedApp,
    engine: Arc<Engine>,
    tenant: Tenant,
    query: String,
    limits: Limits,
    frame: Frame,
    delay: Duration,
    tail: Tail,
    /// What was sent of the stored entries.
    seen: HashSet<(i64, String)>,
}

/// `/loki/api/v1/tail`
pub async fn tail(
    State(app): State<SharedApp>,
    TenantId(tenant): TenantId,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, LokiError> {
    let params = Params::parse(uri.query().unwrap_or(""));
    let query = params.get("query").to_owned();
    if !logql::is_log_query(&query)? {
        return Err(TextError::bad_request("only log queries can be tailed: a metric query has no entries").into());
    }
    let now = app.now_ns();
    let limit = params::limit(&params)?;
    let entries_max = app.config.loki.max_entries_limit_per_query;
    let delay = match params.get("delay_for") {
        "" | "0" => 0,
        _ => params::count(&params, "delay_for", 0)?,
    };
    if delay > DELAY_MAX_S {
        return Err(TextError::bad_request(format!("delay_for can't be greater than {DELAY_MAX_S}")).into());
    }
    let stored = QueryParams {
        start_ns: params::bounds(&params, now)?.0,
        end_ns: now.saturating_add(1),
        step_ns: 0,
        interval_ns: 0,
        limit: limit.min(entries_max),
        direction: Direction::Backward,
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let engine = app.engine()?;
    let Some(tail) = app.tails.listen(&tenant) else {
        let text =
            format!("max concurrent tail requests limit exceeded, count > limit ({} > {TAILS_MAX})", TAILS_MAX + 1);
        return Err(TextError::bad_request(text).into());
    };
    let frame = Frame { flags: flags(&headers), seconds: 0.0, bytes_max: app.queries.answer_bytes_max() };
    let session = Session {
        app: Arc::clone(&app),
        engine,
        tenant,
        query,
        limits: Limits { entries_max: usize::MAX, ..Limits::default() },
        frame,
        delay: Duration::from_secs(delay as u64),
        tail,
        seen: HashSet::new(),
    };
    Ok(upgrade.on_upgrade(move |socket| session.run(socket, stored)))
}

impl Session {
    async fn run(mut self, mut socket: WebSocket, stored: QueryParams) {
        let closed = match self.serve(&mut socket, stored).await {
            // The client left.
            Ok(None) => return,
            Ok(Some(reason)) => CloseFrame { code: close_code::NORMAL, reason: reason.into() },
            Err(error) => CloseFrame { code: close_code::ERROR, reason: shortened(&error.message).into() },
        };
        // Whoever left before does not read why.
        let _ = socket.send(Message::Close(Some(closed))).await;
    }

    /// Sends frames until the client leaves (`None`) or the tail ends for the reason given.
    async fn serve(&mut self, socket: &mut WebSocket, stored: QueryParams) -> query::Result<Option<&'static str>> {
        let begun = Instant::now();
        let found = self.stored(stored).await?;
        if !found.is_empty() && !self.send(socket, &found, 0).await? {
            return Ok(None);
        }
        let mut heard = Instant::now();
        let mut ping = tokio::time::interval(PING_EVERY);
        loop {
            tokio::select! {
                batch = self.tail.next() => {
                    let Some(batch) = batch else { return Ok(Some("no more entries arrive")) };
                    let (found, dropped) = self.arrived(batch).await?;
                    if (!found.is_empty() || dropped > 0) && !self.send(socket, &found, dropped).await? {
                        return Ok(None);
                    }
                }
                message = socket.recv() => match message {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return Ok(None),
                    Some(Ok(_)) => heard = Instant::now(),
                },
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX || socket.send(Message::Ping(Default::default())).await.is_err() {
                        return Ok(None);
                    }
                    if begun.elapsed() > LIFE_MAX {
                        return Ok(Some("a tail lives for an hour at most: ask again"));
                    }
                    if self.app.phase() == Phase::Stopping {
                        return Ok(Some("Tercet is stopping"));
                    }
                }
            }
        }
    }

    /// The newest stored entries, oldest first.
    async fn stored(&mut self, asked: QueryParams) -> query::Result<Vec<Stream>> {
        let (text, limits) = (self.query.clone(), self.limits.clone());
        let work = move |engine: Arc<Engine>, context| async move {
            logql::range(&*engine, &text, &asked, &limits, &context).await
        };
        let timeout = self.app.config.loki.timeout.0;
        let answer = self.app.queries.run(Arc::clone(&self.engine), self.tenant.clone(), timeout, work).await?;
        let Value::Streams(mut streams) = answer.value else { return Ok(Vec::new()) };
        for stream in &mut streams {
            stream.entries.reverse();
            self.seen.extend(stream.entries.iter().map(|entry| (entry.ts_ns, entry.line.clone())));
        }
        Ok(streams)
    }

    /// What the query finds in `first` and in what arrives until the delay is over, and how many entries were dropped.
    async fn arrived(&mut self, first: Batch) -> query::Result<(Vec<Stream>, u64)> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let mut batches = vec![first];
        while let Some(batch) = self.tail.next_waiting() {
            batches.push(batch);
            if batches.len() >= FRAME_BATCHES_MAX {
                break;
            }
        }
        let rows = batches.iter().map(Batch::rows).sum::<usize>();
        let asked = QueryParams {
            start_ns: i64::MIN,
            end_ns: i64::MAX,
            step_ns: 0,
            interval_ns: 0,
            limit: rows,
            direction: Direction::Forward,
        };
        let (text, limits) = (self.query.clone(), self.limits.clone());
        let work = move |_: Arc<Engine>, context| async move {
            logql::range(&MemoryScan::new(batches), &text, &asked, &limits, &context).await
        };
        let timeout = self.app.config.loki.timeout.0;
        let answer = self.app.queries.run(Arc::clone(&self.engine), self.tenant.clone(), timeout, work).await?;
        let Value::Streams(mut streams) = answer.value else { return Ok((Vec::new(), 0)) };
        if !self.seen.is_empty() {
            for stream in &mut streams {
                stream.entries.retain(|entry| !self.seen.remove(&(entry.ts_ns, entry.line.clone())));
            }
            streams.retain(|stream| !stream.entries.is_empty());
        }
        Ok((streams, self.tail.take_dropped()))
    }

    /// Whether the client took the frame.
    async fn send(&self, socket: &mut WebSocket, streams: &[Stream], dropped: u64) -> query::Result<bool> {
        let json = encode::tail(streams, dropped, self.app.now_ns(), &self.frame)?;
        Ok(socket.send(Message::Text(json.finish().into())).await.is_ok())
    }
}

/// As much of `text` as a close frame holds.
fn shortened(text: &str) -> String {
    const REASON_BYTES_MAX: usize = 120;
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
