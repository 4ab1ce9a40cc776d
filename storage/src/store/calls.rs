//! Counts of what the store was asked for, by cause, operation and outcome.
//!
//! Owns: [`Calls`]. Does not own: who counts. For buckets each HTTP request counts (`patient`), retries, pages of listings
//! and parts of uploads included, since each is billed; for folders and memory each operation (`watched`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cause::{self, Cause};

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Writing an object, or a step of a multipart upload.
    Put,
    /// Reading an object or a range of it.
    Get,
    /// Asking for an object's size.
    Head,
    /// One page of a listing.
    List,
    /// Deleting objects.
    Delete,
    /// Asking for credentials: not of the store itself.
    Token,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Put, Self::Get, Self::Head, Self::List, Self::Delete, Self::Token];

    /// As it is labelled in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Token => "token",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As wished.
    Ok,
    /// There is no such object.
    NotFound,
    /// A condition did not hold: the object to be created exists.
    Exists,
    /// It failed, and was tried again.
    Retried,
    /// It failed for good.
    Failed,
    /// The caller went away.
    Canceled,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Ok, Self::NotFound, Self::Exists, Self::Retried, Self::Failed, Self::Canceled];

    /// As it is labelled in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

const CAUSES: usize = Cause::ALL.len();
const OPERATIONS: usize = Operation::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();

/// How often each operation was called; every number only grows.
#[derive(Debug, Default)]
pub struct Calls {
    ended: [[[AtomicU64; OUTCOMES]; OPERATIONS]; CAUSES],
    sent: [AtomicU64; CAUSES],
    received: [AtomicU64; CAUSES],
}

/// One line of [`Calls`]: how often `operation` ended with `outcome` because of `cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallCount {
    /// Why.
    pub cause: Cause,
    /// What.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Outcome,
    /// How often.
    pub count: u64,
}

impl Calls {
    /// A call begins; it counts when it ends or is dropped.
    pub(super) fn begin(self: &Arc<Self>, operation: Operation) -> Call {
        let cause = cause::current().unwrap_or(Cause::Other);
        Call { calls: Arc::clone(self), cause, operation, outcome: Outcome::Canceled }
    }

    /// All numbers that are not zero.
    pub fn counts(&self) -> Vec<CallCount> {
        let mut counts = Vec::new();
        for cause in Cause::ALL {
            for operation in Operation::ALL {
                for outcome in Outcome::ALL {
                    let count =
                        self.ended[cause as usize][operation as usize][outcome as usize].load(Ordering::Relaxed);
                    if count > 0 {
                        counts.push(CallCount { cause, operation, outcome, count });
                    }
                }
            }
        }
        counts
    }

    /// Bytes of bodies sent and received because of `cause`.
    pub fn bytes(&self, cause: Cause) -> (u64, u64) {
        (self.sent[cause as usize].load(Ordering::Relaxed), self.received[cause as usize].load(Ordering::Relaxed))
    }

    fn total(&self, operation: Operation) -> u64 {
        self.counts().iter().filter(|line| line.operation == operation).map(|line| line.count).sum()
    }

    /// Objects written, successfully or not.
    pub fn puts(&self) -> u64 {
        self.total(Operation::Put)
    }

    /// Reads of objects or of ranges of one, and questions for their size.
    pub fn gets(&self) -> u64 {
        self.total(Operation::Get) + self.total(Operation::Head)
    }

    /// Listings, page by page.
    pub fn lists(&self) -> u64 {
        self.total(Operation::List)
    }

    /// Deletions.
    pub fn deletes(&self) -> u64 {
        self.total(Operation::Delete)
    }
}

/// A call on its way.
pub(super) struct Call {
    calls: Arc<Calls>,
    cause: Cause,
    operation: Operation,
    outcome: Outcome,
}

impl Call {
    pub(super) fn sent(&self, bytes: usize) {
        self.calls.sent[self.cause as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.calls.received[self.cause as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.ended[self.cause as usize][self.operation as usize][self.outcome as usize]
            .fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_call_counts_once_also_when_its_caller_goes_away() {
        let calls = Arc::new(Calls::default());
        cause::because(Cause::Flush, async {
            let call = calls.begin(Operation::Put);
            call.sent(7);
            call.end(Outcome::Ok);
            drop(calls.begin(Operation::Put));
        })
        .await;
        let line = |outcome| CallCount { cause: Cause::Flush, operation: Operation::Put, outcome, count: 1 };
        assert_eq!(calls.counts(), [line(Outcome::Ok), line(Outcome::Canceled)]);
        assert_eq!((calls.bytes(Cause::Flush), calls.bytes(Cause::Other)), ((7, 0), (0, 0)));
    }

    #[test]
    fn numbers_are_places() {
        assert!(Operation::ALL.iter().enumerate().all(|(place, operation)| *operation as usize == place));
        assert!(Outcome::ALL.iter().enumerate().all(|(place, outcome)| *outcome as usize == place));
    }
}
