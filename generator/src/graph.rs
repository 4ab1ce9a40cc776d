//! The service graph: pairs the two sides of a call by their span ids and counts calls between services.
//!
//! Owns: sides that wait for the other, the edges found. Format: Tempo's processor `service-graphs`.
//!
//! Invariant: a side waits at most [`Settings::wait`] (to the next collection), and at most [`Settings::edges_max`]
//! wait at once.

use std::collections::VecDeque;
use std::sync::LazyLock;

use hashbrown::HashMap;
use storage::error::Result;
use storage::model::span::{SpanId, TraceId};
use storage::model::time::TimestampNs;

use crate::histogram::{Bounds, Latency};
use crate::{Counts, Life, Observed, Output, Settings, nanoseconds, plain};

const REQUESTS: &str = "traces_service_graph_request_total";
const FAILED: &str = "traces_service_graph_request_failed_total";
const SERVER: &str = "traces_service_graph_request_server_seconds";
const CLIENT: &str = "traces_service_graph_request_client_seconds";

/// 0.1 s to 12.8 s.
static BOUNDS: LazyLock<Bounds> = LazyLock::new(|| Bounds::doubling(0.1, 8));

/// Attributes that name a database, in the order in which they are asked.
const DATABASE: [&str; 4] = ["db.namespace", "db.name", "db.system", "db.system.name"];
/// Attributes that name the other side of a client's call.
const PEER: [&str; 3] = ["peer.service", "db.name", "db.system"];
/// Who calls a root that says no more.
const USER: &str = "user";

/// What lies between two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Connection {
    Direct,
    Messaging,
    Database,
    Virtual,
}

impl Connection {
    fn label(self) -> &'static str {
        match self {
            Self::Direct => "",
            Self::Messaging => "messaging_system",
            Self::Database => "database",
            Self::Virtual => "virtual_node",
        }
    }
}

/// One side of a call.
#[derive(Debug)]
struct Side {
    is_client: bool,
    service: String,
    seconds: f64,
    failed: bool,
    messaging: bool,
    /// Whom it names as the other side, should that never come.
    other: Option<String>,
    trace: TraceId,
    end_ns: i64,
    since_ns: i64,
}

/// Trace and span id of the client's side.
type Pairing = (TraceId, SpanId);

#[derive(Debug)]
struct Edge {
    requests: u64,
    failed: u64,
    server: Latency,
    client: Latency,
    seen_ns: i64,
    new: bool,
}

/// What a finished call adds to its edge.
struct Request<'a> {
    client: &'a str,
    server: &'a str,
    connection: Connection,
    failed: bool,
    client_seconds: Option<f64>,
    server_seconds: Option<f64>,
    trace: TraceId,
    end_ns: i64,
    now: TimestampNs,
}

/// All edges and all sides that wait.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    waiting: HashMap<Pairing, Side, ahash::RandomState>,
    /// In the order in which they began to wait; those that were paired are skipped.
    order: VecDeque<(Pairing, i64)>,
    edges: HashMap<(String, String, Connection), Edge, ahash::RandomState>,
}

impl Graph {
    pub(crate) fn observe(&mut self, span: &Observed<'_>, settings: &Settings, counts: &mut Counts) {
        let columns = span.columns;
        let kind = columns.kind.value(span.row);
        // Server, client, producer, consumer.
        if !(2..=5).contains(&kind) || span.service().is_empty() {
            return;
        }
        let is_client = kind == 3 || kind == 4;
        let ids: Option<(TraceId, SpanId)> = (|| {
            let trace = columns.trace_id.value(span.row).try_into().ok()?;
            let own = columns.span_id.value(span.row).try_into().ok()?;
            let root = arrow::array::Array::is_null(columns.parent_span_id, span.row);
            Some(match (is_client, root) {
                (true, _) | (false, true) => (trace, own),
                (false, false) => (trace, columns.parent_span_id.value(span.row).try_into().ok()?),
            })
        })();
        let Some(pairing) = ids else { return };
        let end_ns = columns.start_ns.value(span.row).saturating_add(columns.duration_ns.value(span.row).max(0));
        if kind == 3
            && let Some(database) = DATABASE.iter().find_map(|key| span.attribute(key))
        {
            let server = server_of_database(span).unwrap_or_else(|| plain(database));
            let seconds = span.seconds();
            let request = Request {
                client: span.service(),
                server: &server,
                connection: Connection::Database,
                failed: span.failed(),
                client_seconds: Some(seconds),
                server_seconds: Some(seconds),
                trace: pairing.0,
                end_ns,
                now: span.now,
            };
            self.add(&request, settings, counts);
            return;
        }
        let root = arrow::array::Array::is_null(columns.parent_span_id, span.row);
        let named = |keys: &[&str]| keys.iter().find_map(|key| span.attribute(key)).map(plain);
        let other = match (is_client, root) {
            (true, _) => named(&PEER),
            (false, true) => Some(named(&PEER[..1]).unwrap_or_else(|| USER.to_owned())),
            (false, false) => None,
        };
        let side = Side {
            is_client,
            service: span.service().to_owned(),
            seconds: span.seconds(),
            failed: span.failed(),
            messaging: kind >= 4,
            other,
            trace: pairing.0,
            end_ns,
            since_ns: span.now.0,
        };
        self.pair(pairing, side, span.now, settings, counts);
    }

    fn pair(&mut self, pairing: Pairing, side: Side, now: TimestampNs, settings: &Settings, counts: &mut Counts) {
        match self.waiting.get(&pairing) {
            Some(waiting) if waiting.is_client != side.is_client => {}
            // The same side again, as a sender's retry has it: the first stays.
            Some(_) => return,
            None if self.waiting.len() >= settings.edges_max => {
                counts.edges_dropped += 1;
                return;
            }
            None => {
                self.order.push_back((pairing, side.since_ns));
                self.waiting.insert(pairing, side);
                return;
            }
        }
        let Some(waiting) = self.waiting.remove(&pairing) else { return };
        let (client, server) = if side.is_client { (&side, &waiting) } else { (&waiting, &side) };
        let request = Request {
            client: &client.service,
            server: &server.service,
            connection: if client.messaging || server.messaging { Connection::Messaging } else { Connection::Direct },
            failed: client.failed || server.failed,
            client_seconds: Some(client.seconds),
            server_seconds: Some(server.seconds),
            trace: client.trace,
            end_ns: client.end_ns,
            now,
        };
        self.add(&request, settings, counts);
    }

    /// Ends the waiting of sides that have waited too long.
    pub(crate) fn expire(&mut self, now: TimestampNs, settings: &Settings, counts: &mut Counts) {
        let before = now.0.saturating_sub(nanoseconds(settings.wait));
        while let Some((pairing, since)) = self.order.front().copied().filter(|(_, since)| *since <= before) {
            self.order.pop_front();
            // One that was paired and came again later stands in the queue again.
            let Some(side) = self.waiting.get(&pairing).filter(|side| side.since_ns == since) else { continue };
            let Some(other) = side.other.clone() else {
                self.waiting.remove(&pairing);
                counts.edges_expired += 1;
                continue;
            };
            let Some(side) = self.waiting.remove(&pairing) else { continue };
            let (client, server) = if side.is_client { (&side.service, &other) } else { (&other, &side.service) };
            let request = Request {
                client,
                server,
                connection: Connection::Virtual,
                failed: side.failed,
                client_seconds: side.is_client.then_some(side.seconds),
                server_seconds: (!side.is_client).then_some(side.seconds),
                trace: side.trace,
                end_ns: side.end_ns,
                now,
            };
            self.add(&request, settings, counts);
        }
    }

    fn add(&mut self, request: &Request<'_>, settings: &Settings, counts: &mut Counts) {
        let key = (request.client.to_owned(), request.server.to_owned(), request.connection);
        if self.edges.len() >= settings.series_max && !self.edges.contains_key(&key) {
            counts.over_limit += 1;
            return;
        }
        let new = || Edge {
            requests: 0,
            failed: 0,
            server: Latency::new(&BOUNDS),
            client: Latency::new(&BOUNDS),
            seen_ns: 0,
            new: true,
        };
        let edge = self.edges.entry(key).or_insert_with(new);
        edge.requests += 1;
        edge.failed += u64::from(request.failed);
        edge.seen_ns = request.now.0;
        let native = settings.histograms.native();
        for (latency, seconds) in
            [(&mut edge.server, request.server_seconds), (&mut edge.client, request.client_seconds)]
        {
            if let Some(seconds) = seconds {
                latency.observe(&BOUNDS, native, seconds, Some(request.trace), request.end_ns);
            }
        }
    }

    pub(crate) fn collect(&mut self, out: &mut Output, settings: &Settings, idle_before: i64) -> Result<()> {
        if self.edges.is_empty() {
            return Ok(());
        }
        out.describe(REQUESTS, "counter", "", "Requests between two services.");
        out.describe(FAILED, "counter", "", "Requests between two services that failed.");
        out.describe(SERVER, "histogram", "seconds", "Duration of a request as its server saw it.");
        out.describe(CLIENT, "histogram", "seconds", "Duration of a request as its client saw it.");
        for ((client, server, connection), edge) in &mut self.edges {
            let labels: [(&str, &str); 3] =
                [("client", client), ("server", server), ("connection_type", connection.label())];
            let life = match (edge.seen_ns < idle_before, edge.new) {
                (true, _) => Life::Gone,
                (false, true) => Life::New,
                (false, false) => Life::Going,
            };
            edge.new = false;
            out.counter(&labels, REQUESTS, edge.requests as f64, life);
            out.counter(&labels, FAILED, edge.failed as f64, life);
            edge.server.collect(out, &BOUNDS, SERVER, &labels, life, &settings.exemplar_label)?;
            edge.client.collect(out, &BOUNDS, CLIENT, &labels, life, &settings.exemplar_label)?;
        }
        self.edges.retain(|_, edge| edge.seen_ns >= idle_before);
        Ok(())
    }
}

/// Whom a call to a database names as its server: a service, an address, or nothing.
fn server_of_database(span: &Observed<'_>) -> Option<String> {
    if let Some(name) = span.attribute("peer.service").or_else(|| span.attribute("server.address")) {
        return Some(plain(name));
    }
    let address = plain(span.attribute("network.peer.address")?);
    Some(match span.attribute("network.peer.port") {
        Some(port) => format!("{address}:{}", plain(port)),
        None => address,
    })
}
