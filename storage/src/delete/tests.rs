//! Requests in the store: steps, readers, faults.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::model::tenant::Tenant;
use crate::model::time::{Day, NS_PER_S, TimestampNs};
use crate::signal::Table;
use crate::store::Store;
use crate::store::faulty::{Fault, FaultyStore, Operation};
use crate::table::{Block, Order};

const HOUR_NS: i64 = 3_600 * NS_PER_S;

fn request(app: &str) -> DeleteRequest {
    DeleteRequest {
        signal: Signal::Logs,
        selectors: vec![vec![Matcher::new("app", MatchOp::Equal, app).expect("valid")]],
        range: TimeRange::new(0, 100),
        tests: vec![RowTest {
            column: "line",
            negated: true,
            any: vec![Needle::Text("x".into()), Needle::regex("y+").expect("valid")],
        }],
        text: format!("{{app={app:?}}}"),
    }
}

fn block(path: &str) -> Arc<Block> {
    Arc::new(Block {
        path: path.into(),
        day: Day(0),
        rows: 1,
        bytes: 1,
        times: Some((0, 10)),
        written_ms: 0,
        checksum: None,
        order: Order::default(),
        level: 0,
    })
}

struct Bed {
    objects: Arc<FaultyStore>,
    store: Arc<Store>,
    clock: ManualClock,
}

impl Bed {
    fn new() -> Self {
        let objects = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
        let store = Arc::new(Store::over(Arc::clone(&objects) as Arc<dyn ObjectStore>, "memory://"));
        // The objects' own times are the system's.
        let clock = ManualClock::at(crate::clock::SystemClock.now());
        Self { objects, store, clock }
    }

    fn log(&self) -> DeleteLog {
        DeleteLog::new(Arc::clone(&self.store), Tenant::single(), Arc::new(self.clock.clone()))
    }

    fn pass(&self, ns: i64) {
        self.clock.set(TimestampNs(self.clock.now().0 + ns));
    }
}

async fn make(log: &DeleteLog, app: &str, blocks: &[&str]) -> Result<Arc<State>> {
    let blocks = vec![(Table::Logs, blocks.iter().map(|path| block(path)).collect::<Vec<_>>())];
    let (blocks, request) = (&blocks, request(app));
    let request = &request;
    log.step(|state| std::future::ready(state.with(request, blocks, app, 7).map(Some))).await
}

fn ids(state: &State) -> Vec<&str> {
    state.requests.iter().map(|kept| kept.deletion.id.as_str()).collect()
}

fn applying(state: &State, path: &str) -> Vec<String> {
    state.applying(Table::Logs, &block(path)).map(|kept| kept.deletion.id.clone()).collect()
}

#[tokio::test]
async fn requests_cover_the_blocks_of_their_moment_and_come_back_as_they_were() {
    let bed = Bed::new();
    let log = bed.log();
    make(&log, "a", &["1", "2"]).await.expect("makes");
    let state = make(&log, "b", &["2", "3"]).await.expect("makes");
    for state in [state, bed.log().state().await.expect("loads")] {
        assert_eq!(ids(&state), ["a", "b"]);
        assert_eq!(applying(&state, "1"), ["a", "b"], "it was there when b was made");
        assert_eq!(applying(&state, "3"), ["b"], "a was made before");
        assert_eq!(applying(&state, "4"), Vec::<String>::new());
        let kept = &state.requests[0].deletion;
        assert_eq!((kept.created_ns, kept.request.range, kept.done), (7, TimeRange::new(0, 100), false));
        assert_eq!(kept.request.selectors, request("a").selectors);
        let test = &kept.request.tests[0];
        assert!(test.passes("a") && !test.passes("ax") && !test.passes("ayy"));
    }
}

#[tokio::test]
async fn a_reader_finds_new_states_without_a_listing_and_lists_after_a_pause() {
    let bed = Bed::new();
    let (log, reader) = (bed.log(), bed.log());
    assert!(reader.state().await.expect("loads").is_new());
    let lists = bed.store.calls().lists();
    make(&log, "a", &["1"]).await.expect("makes");
    let listed_by_writer = bed.store.calls().lists() - lists;
    assert_eq!(listed_by_writer, 1, "to find the first state");
    reader.refresh(Duration::from_secs(5)).await.expect("refreshes");
    assert!(reader.state().await.expect("knows").is_new(), "young enough");
    bed.pass(5 * NS_PER_S);
    make(&log, "b", &["1"]).await.expect("makes");
    reader.refresh(Duration::from_secs(5)).await.expect("refreshes");
    assert_eq!(ids(&reader.state().await.expect("knows")), ["a", "b"]);
    assert_eq!(bed.store.calls().lists() - lists, 1);
    // Many steps later the states in between are gone.
    for app in ["c", "d", "e"] {
        make(&log, app, &["1"]).await.expect("makes");
    }
    bed.pass(25 * HOUR_NS);
    assert_eq!(log.clean().await.expect("cleans"), 4);
    assert_eq!(log.clean().await.expect("cleans"), 0);
    reader.refresh(Duration::from_secs(5)).await.expect("refreshes");
    assert_eq!(ids(&reader.state().await.expect("knows")), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn two_writers_lose_no_request() {
    let bed = Bed::new();
    let (one, two) = (bed.log(), bed.log());
    make(&one, "a", &["1"]).await.expect("makes");
    make(&two, "b", &["2"]).await.expect("makes");
    make(&one, "c", &["3"]).await.expect("makes");
    assert_eq!(ids(&bed.log().state().await.expect("loads")), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_request_that_failed_is_not_made_and_one_whose_answer_was_lost_is() {
    let bed = Bed::new();
    let log = bed.log();
    bed.objects.inject(Fault::fail(Operation::Put, "_deletes"));
    assert_eq!(make(&log, "a", &["1"]).await.expect_err("fails").kind(), crate::Kind::Unavailable);
    assert_eq!(ids(&log.state().await.expect("knows")), Vec::<&str>::new());
    bed.objects.inject(Fault::lose_response(Operation::Put, "_deletes"));
    make(&log, "b", &["1"]).await.expect("its own bytes are there");
    // Neither the answer nor the look at what is there come through: whether it landed is found out later.
    bed.objects.inject(Fault::lose_response(Operation::Put, "_deletes"));
    bed.objects.inject(Fault::fail(Operation::Get, "_deletes"));
    assert_eq!(make(&log, "c", &["1"]).await.expect_err("fails").kind(), crate::Kind::Unavailable);
    assert_eq!(ids(&log.state().await.expect("knows")), ["b", "c"]);
}

#[tokio::test]
async fn requests_are_done_when_their_blocks_are_gone_and_blocks_are_forgotten_later() {
    let bed = Bed::new();
    let log = bed.log();
    make(&log, "a", &["1", "2"]).await.expect("makes");
    let state = make(&log, "b", &["2"]).await.expect("makes");
    let done = |state: &State| state.requests.iter().map(|kept| kept.deletion.done).collect::<Vec<_>>();
    assert!(state.settled(|_, _| true, &[], 0, 0).is_none());
    let clean = [(Table::Logs, "1".to_owned())];
    // Only the first request is known to hide nothing of block 1.
    let looked_at = state.settled(|_, _| true, &clean, 1, 0).expect("changes");
    assert_eq!(
        (applying(&looked_at, "1"), applying(&looked_at, "2")),
        (vec!["b".to_owned()], vec!["a".into(), "b".into()])
    );
    let state = looked_at.settled(|_, path| path == "1", &[], 0, 0).expect("changes");
    assert_eq!(done(&state), [true, false], "block 2 is gone, block 1 still has b");
    assert_eq!(applying(&state, "2"), ["a", "b"], "a reader may hold an older snapshot");
    let state = state.settled(|_, path| path == "1", &clean, 2, 2 * HOUR_NS).expect("changes");
    assert_eq!(done(&state), [true, true]);
    assert_eq!(applying(&state, "2"), Vec::<String>::new());
    assert!(state.is_idle());
}

#[tokio::test]
async fn too_many_too_large_and_too_wide_requests_are_refused() {
    let mut state = State::default();
    for n in 0..PENDING_MAX {
        state = state.with(&request("a"), &[], &n.to_string(), 0).expect("fits");
    }
    assert_eq!(state.with(&request("a"), &[], "x", 0).expect_err("refused").kind(), crate::Kind::Limit);
    let all = DeleteRequest { selectors: vec![Vec::new()], ..request("a") };
    assert_eq!(all.check().expect_err("refused").kind(), crate::Kind::Invalid);
    let long = DeleteRequest { text: "x".repeat(REQUEST_BYTES_MAX), ..request("a") };
    assert_eq!(long.check().expect_err("refused").kind(), crate::Kind::Limit);
}
