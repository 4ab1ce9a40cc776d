//! Starts the real binary and talks to it.
//!
//! Owns: the process, its ports, its temporary folder. A server is killed when it is dropped.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::gcs::{BUCKET, Gcs};

/// How long a server may take until it is ready or gone; generous, since the test machine is shared.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the tables of a test lie.
pub enum Store {
    /// In the folder given as `--data`.
    Folder,
    /// In a bucket of a server that speaks Google's protocol, under this prefix.
    Gcs(Arc<Gcs>, &'static str),
}

impl Store {
    /// A bucket of its own.
    pub fn gcs() -> Self {
        Self::Gcs(Arc::new(Gcs::start()), "e2e/a b")
    }

    /// As `--store` takes it; `None` for the default.
    fn url(&self) -> Option<String> {
        match self {
            Self::Folder => None,
            Self::Gcs(_, prefix) => Some(format!("gs://{BUCKET}/{prefix}")),
        }
    }

    /// The options with which a server uses it.
    pub fn options(&self) -> Vec<String> {
        let Self::Gcs(gcs, _) = self else { return Vec::new() };
        let url = self.url().unwrap_or_default();
        vec!["--store".to_owned(), url, format!("TERCET_STORAGE_GCS_ENDPOINT={}", gcs.endpoint())]
    }
}

/// A running Tercet.
pub struct Server {
    child: Child,
    /// Where everything but OTLP's own ports is served.
    pub http: SocketAddr,
    /// OTLP over gRPC.
    pub grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp: SocketAddr,
    data: Arc<TempDir>,
    options: Vec<String>,
    client: reqwest::Client,
    store: Arc<Store>,
}

impl Server {
    /// Starts on an empty folder; nothing is too old for it.
    pub async fn start() -> Self {
        Self::start_on(Store::Folder).await
    }

    /// Starts on an empty folder with its tables in `store`; nothing is too old for it.
    pub async fn start_on(store: Store) -> Self {
        Self::start_on_with(store, &["--retention", "0"]).await
    }

    /// Starts on an empty folder with these options; those of the form `NAME=…` become variables.
    pub async fn start_with(options: &[&str]) -> Self {
        Self::start_on_with(Store::Folder, options).await
    }

    /// [`Server::start_with`] with its tables in `store`.
    pub async fn start_on_with(store: Store, options: &[&str]) -> Self {
        let data = Arc::new(TempDir::new().expect("a temporary folder"));
        let options = options.iter().map(|s| (*s).to_owned()).chain(store.options()).collect();
        let mut server = Self::start_in(data, options).await;
        server.store = Arc::new(store);
        server
    }

    /// Starts on this folder with these options.
    pub async fn start_in(data: Arc<TempDir>, options: Vec<String>) -> Self {
        for _ in 0..3 {
            if let Some(server) = Self::try_start(&data, &options).await {
                return server;
            }
        }
        panic!("the server did not get ready in three tries; its log is above");
    }

    async fn try_start(data: &Arc<TempDir>, options: &[String]) -> Option<Self> {
        let mut server = Self::spawn(data, options);
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if server.child.try_wait().expect("its state").is_some() {
                return None;
            }
            if let Ok(answer) = server.client.get(server.url("/-/ready")).send().await
                && answer.status().is_success()
            {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// A process that has only just begun.
    fn spawn(data: &Arc<TempDir>, options: &[String]) -> Self {
        let [http, grpc, otlp] = free_ports();
        // Long runs may test another build than the one that lies there now.
        let binary = std::env::var_os("TERCET_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tercet").into());
        let mut command = Command::new(binary);
        forget_variables(&mut command);
        let child = command
            .arg("serve")
            .args(["--data".as_ref(), data.path().as_os_str()])
            .args(["--http", &http.to_string(), "--otlp-grpc", &grpc.to_string(), "--otlp-http", &otlp.to_string()])
            .args(options.iter().filter(|option| variable(option).is_none()))
            .envs(options.iter().filter_map(|option| variable(option)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (data, options, store) = (Arc::clone(data), options.to_vec(), Arc::new(Store::Folder));
        Self { child, http, grpc, otlp, data, options, client, store }
    }

    /// `http://…` of a path on the main port.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// The folder given as `--data`.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// GET: status and body.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> (u16, String) {
        let url = format!("{}{}", self.url(path), query_string(query));
        let answer = self.client.get(url).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    /// GET: JSON of a success.
    pub async fn json(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let (status, body) = self.get(path, query).await;
        assert_eq!(status, 200, "{path} {query:?}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// POST: status and body.
    pub async fn post(&self, url: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> (u16, String) {
        let mut request = self.client.post(url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.unwrap_or_default())
    }

    /// All heads into committed files.
    pub async fn flush(&self) {
        let (status, body) = self.post(&self.url("/-/flush"), &[], "").await;
        assert!((200..300).contains(&status), "flush: {status} {body}");
    }

    /// kill -9, then the same folder again.
    pub async fn kill_and_restart(self) -> Self {
        self.kill_and_restart_after(Vec::new()).await
    }

    /// kill -9, then the same folder again: first by processes that are killed after `lives`, then by one that stays.
    pub async fn kill_and_restart_after(mut self, lives: Vec<Duration>) -> Self {
        self.kill();
        for life in lives {
            let mut started = Self::spawn(&self.data, &self.options);
            tokio::time::sleep(life).await;
            started.kill();
        }
        self.start_again().await
    }

    /// The same folder, store and options once more.
    async fn start_again(&self) -> Self {
        let mut server = Self::start_in(Arc::clone(&self.data), self.options.clone()).await;
        server.store = Arc::clone(&self.store);
        server
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// SIGTERM, which must end in success, then the same folder again.
    pub async fn stop_and_restart(mut self) -> Self {
        let status = self.stop();
        assert!(status.success(), "SIGTERM ended in {status}");
        self.start_again().await
    }

    /// Sends the signal of this name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let (script, pid) = (format!("kill -{name} \"$0\""), self.child.id().to_string());
        let sent = Command::new("sh").args(["-c", &script, &pid]).status().expect("a shell");
        assert!(sent.success());
    }

    /// SIGTERM; waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not stop within {PATIENCE:?} after SIGTERM");
    }

    /// A second process that only reads this one's store.
    pub async fn reader(&self) -> Self {
        let mut options: Vec<String> = ["--retention", "0", "--read-only"].map(str::to_owned).to_vec();
        match *self.store {
            Store::Folder => options.extend(["--store".to_owned(), self.data().join("store").display().to_string()]),
            Store::Gcs(..) => options.extend(self.store.options()),
        }
        let data = Arc::new(TempDir::new().expect("a temporary folder"));
        let mut reader = Self::start_in(data, options).await;
        reader.store = Arc::clone(&self.store);
        reader
    }

    /// The bucket, for a server that was started on one.
    pub fn gcs(&self) -> &Gcs {
        match &*self.store {
            Store::Gcs(gcs, _) => gcs,
            Store::Folder => panic!("this server's tables lie in a folder"),
        }
    }

    /// The value of one of its own metrics, summed over all lines that hold each of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics", &[]).await;
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let wanted = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Name and value of an option of the form `NAME=…`, which becomes a variable.
fn variable(option: &str) -> Option<(&str, &str)> {
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    option.split_once('=').filter(|(name, _)| name.bytes().all(plain))
}

/// Hides the variables that are meant for the tests: to the server they are unknown settings.
pub fn forget_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERCET_")) {
        command.env_remove(name);
    }
}

/// Three ports that were free a moment ago.
pub fn free_ports() -> [SocketAddr; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address"))
}

/// `?a=b&c=d`, percent-encoded; "" for no pairs.
pub fn query_string(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    let joined: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
    if joined.is_empty() { String::new() } else { format!("?{}", joined.join("&")) }
}
