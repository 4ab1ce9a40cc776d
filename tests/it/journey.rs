//! The journey of every piece of data: written, killed, restarted, flushed, stopped, and read by a second process.
//! At each stop the same check runs: what was sent is there, each once.

use std::future::Future;

use super::server::Server;

/// Runs `check` on the server that took the data and at every later stop of the journey.
pub async fn survive<F, Fut>(server: Server, check: F)
where
    F: Fn(Server, &'static str) -> Fut,
    Fut: Future<Output = Server>,
{
    let server = check(server, "as written").await;
    let server = server.kill_and_restart().await;
    let server = check(server, "after kill -9").await;
    server.flush().await;
    let server = check(server, "after flush").await;
    let server = server.kill_and_restart().await;
    let server = check(server, "after flush and kill -9").await;
    let server = server.stop_and_restart().await;
    let server = check(server, "after SIGTERM").await;
    let reader = server.reader().await;
    check(reader, "from a second process that only reads the store").await;
}
