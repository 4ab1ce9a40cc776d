//! Connections of the listeners: how many there are at once, and how long one may be silent.
//!
//! Owns: the two limits of a connection. Does not own: limits of requests (`ingest`, `queries`).
//!
//! Invariants
//! 1. Never more than `connections_max` connections are open on one port; further ones wait in the system's queue.
//! 2. A connection on which no byte moved for `silence_max` is closed, and one that never sent any after
//!    [`FIRST_BYTE_MAX`]: clients that are gone, or only hold places, do not keep them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may be open without a byte from its client.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(30);

/// A listener with limits.
pub struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silence_max: Duration,
}

impl Bounded {
    /// Takes at most `connections_max` connections at once, each silent for at most `silence_max`.
    pub fn new(listener: TcpListener, connections_max: usize, silence_max: Duration) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { listener, places, silence_max }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed; without a place the connection would be unbounded, so there is none.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Answers are written in one piece; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let silence = Silence {
            max: self.silence_max,
            last: Instant::now(),
            heard: false,
            timer: Box::pin(sleep_until(Instant::now() + FIRST_BYTE_MAX.min(self.silence_max))),
        };
        (Connection { stream, silence, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection.
pub struct Connection {
    stream: TcpStream,
    silence: Silence,
    _place: Option<OwnedSemaphorePermit>,
}

struct Silence {
    max: Duration,
    /// When the last byte moved.
    last: Instant,
    /// Whether a byte was read.
    heard: bool,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn moved(&mut self, read: bool) {
        self.last = Instant::now();
        self.heard |= read;
    }

    /// Whether it has lasted too long; otherwise the task wakes when that may be so.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        while self.timer.as_mut().poll(context).is_ready() {
            let max = if self.heard { self.max } else { FIRST_BYTE_MAX.min(self.max) };
            let end = self.last + max;
            if end <= Instant::now() {
                return true;
            }
            self.timer.as_mut().reset(end);
        }
        false
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(done) => {
                if buffer.filled().len() > before {
                    this.silence.moved(true);
                }
                Poll::Ready(done)
            }
            Poll::Pending if this.silence.is_over(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.after_write(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.after_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl Connection {
    /// A client that does not read what it asked for is silent too.
    fn after_write(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(done) => {
                self.silence.moved(false);
                Poll::Ready(done)
            }
            Poll::Pending if self.silence.is_over(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn serve(connections_max: usize, silence_max: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has one");
        let router = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(async move { axum::serve(Bounded::new(listener, connections_max, silence_max), router).await });
        address
    }

    /// Asks once on an open connection; what comes back.
    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sends");
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.expect("reads");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_waits_until_another_ends() {
        let address = serve(1, Duration::from_secs(600)).await;
        let mut first = TcpStream::connect(address).await.expect("connects");
        assert!(ask(&mut first).await.ends_with("hello"));
        let mut second = TcpStream::connect(address).await.expect("the system takes it");
        let waiting = tokio::time::timeout(Duration::from_millis(100), ask(&mut second)).await;
        assert!(waiting.is_err(), "there is no place: {waiting:?}");
        drop(first);
        let mut answer = [0; 8];
        let read = tokio::time::timeout(Duration::from_secs(20), second.read_exact(&mut answer)).await;
        read.expect("there is one now").expect("reads");
        assert_eq!(&answer, b"HTTP/1.1");
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed_and_one_that_asks_is_not() {
        let address = serve(10, Duration::from_millis(300)).await;
        let mut silent = TcpStream::connect(address).await.expect("connects");
        silent.write_all(b"GET / HTTP/1.1\r\nHost:").await.expect("sends half of its headers");
        let mut busy = TcpStream::connect(address).await.expect("connects");
        let closed = tokio::spawn(async move { silent.read(&mut [0; 64]).await });
        while !closed.is_finished() {
            assert!(ask(&mut busy).await.ends_with("hello"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(matches!(closed.await.expect("ends"), Ok(0) | Err(_)), "closed without an answer");
    }
}
