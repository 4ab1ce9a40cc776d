//! Debian's Prometheus scrapes itself and the node exporter and writes to us for a minute; then our answers to PromQL
//! are compared with its own, sample by sample and query by query.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::clients::program;
use super::journey::survive;
use super::server::{Server, Store, free_ports, query_string};

/// How long Prometheus writes to us.
const WRITES: Duration = Duration::from_secs(60);

/// Queries whose answers must be equal. Debian's Prometheus is a 2.x: its windows are closed on the left, ours open, as
/// in 3.x. The test evaluates at times at which no sample lies on a window's border, where both agree.
const QUERIES: &[&str] = &[
    "up",
    "count({__name__!=\"\"})",
    "count by (job) ({__name__!=\"\"})",
    "sum by (job) (up)",
    "node_cpu_seconds_total{mode!=\"idle\", cpu=~\"0|1\"}",
    "sum by (mode) (rate(node_cpu_seconds_total[30s]))",
    "100 - avg by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[30s])) * 100",
    "increase(prometheus_tsdb_head_samples_appended_total[20s])",
    "rate(prometheus_http_requests_total[30s])",
    "avg_over_time(node_load1[20s])",
    "max_over_time(go_goroutines[20s])",
    "min_over_time(process_resident_memory_bytes[20s])",
    "sum_over_time(up[20s])",
    "count_over_time(go_memstats_alloc_bytes[20s])",
    "quantile_over_time(0.9, go_memstats_alloc_bytes[30s])",
    "stddev_over_time(go_memstats_alloc_bytes[30s])",
    "last_over_time(node_memory_MemFree_bytes[20s])",
    "node_memory_MemFree_bytes / node_memory_MemTotal_bytes",
    "node_memory_MemTotal_bytes - ignoring(__name__) node_memory_MemFree_bytes",
    "go_goroutines offset 10s",
    "go_goroutines > 5",
    "go_goroutines > bool 5",
    "node_filesystem_avail_bytes / on(device, mountpoint, fstype, instance, job) node_filesystem_size_bytes",
    "node_network_receive_bytes_total * on(instance) group_left(nodename) node_uname_info",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[30s])))",
    "histogram_quantile(0.5, prometheus_http_request_duration_seconds_bucket)",
    "topk(3, go_memstats_alloc_bytes)",
    "count without (cpu, mode) (node_cpu_seconds_total)",
    "stdvar by (job) (go_memstats_mspan_inuse_bytes)",
    "max(node_time_seconds) - min(node_boot_time_seconds)",
    "sum(node_cpu_seconds_total) by (mode) > 0 and sum(node_cpu_seconds_total{mode=\"user\"}) by (mode)",
    "up or go_goroutines",
    "up unless go_goroutines",
];

#[tokio::test]
async fn debians_prometheus_writes_to_us_and_agrees_with_our_answers() {
    write_and_survive(Store::Folder).await;
}

#[tokio::test]
async fn debians_prometheus_writes_to_us_and_agrees_with_our_answers_from_a_bucket() {
    write_and_survive(Store::gcs()).await;
}

async fn write_and_survive(store: Store) {
    let (Some(prometheus), Some(exporter)) = (program("prometheus"), program("prometheus-node-exporter")) else {
        return;
    };
    let server = Server::start_on(store).await;
    let mut peer = Peer::start(&prometheus, &exporter, &server).await;
    tokio::time::sleep(WRITES).await;
    let at_ms = peer.quiet_time().await;
    wait_until_written(&server, at_ms).await;
    let expected = peer.answers(at_ms).await;
    peer.stop();
    assert!(expected.samples.len() > 500, "only {} series were scraped", expected.samples.len());
    survive(server, |server, stop| {
        let expected = expected.clone();
        async move {
            expected.check(&server, at_ms, stop).await;
            server
        }
    })
    .await;
}

/// Prometheus with its exporter.
struct Peer {
    children: Vec<Child>,
    url: String,
    client: reqwest::Client,
    _data: TempDir,
}

impl Peer {
    async fn start(prometheus: &Path, exporter: &Path, server: &Server) -> Self {
        let [web, node, _] = free_ports();
        let data = TempDir::new().expect("a folder");
        let config = format!(
            "global:\n  scrape_interval: 2s\nremote_write:\n- url: {}\n  send_exemplars: true\n  queue_config: {{batch_send_deadline: 1s}}\n  \
             metadata_config: {{send_interval: 2s}}\nscrape_configs:\n- job_name: prometheus\n  static_configs: [{{targets: ['{web}']}}]\n\
             - job_name: node\n  static_configs: [{{targets: ['{node}']}}]\n",
            server.url("/api/v1/write")
        );
        let file = data.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("written");
        let node_exporter = Command::new(exporter)
            .arg(format!("--web.listen-address={node}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the exporter starts");
        let main = Command::new(prometheus)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={web}"))
            .args(["--enable-feature=exemplar-storage", "--log.level=warn"])
            .stdout(Stdio::null())
            .spawn()
            .expect("Prometheus starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let peer = Self { children: vec![node_exporter, main], url: format!("http://{web}"), client, _data: data };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if let Ok(answer) = peer.client.get(format!("{}/-/ready", peer.url)).send().await
                && answer.status().is_success()
            {
                return peer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("Prometheus did not get ready");
    }

    async fn query(&self, query: &str, at_ms: i64) -> Value {
        let time = seconds(at_ms);
        let url = format!("{}/api/v1/query{}", self.url, query_string(&[("query", query), ("time", &time)]));
        let body = self.client.get(url).send().await.expect("an answer").text().await.expect("a body");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].clone()
    }

    /// A time a few seconds ago at which no sample lies on the border of a window: all windows and offsets are
    /// multiples of the scrape interval, so a border is hit only at a target's own offset within it.
    async fn quiet_time(&self) -> i64 {
        let newest = self.query("timestamp(up)", now_ms()).await;
        let stamps: Vec<i64> = newest
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|row| row["value"][1].as_str()?.parse::<f64>().ok())
            .map(|s| (s * 1000.0).round() as i64)
            .collect();
        let base = stamps.iter().min().expect("two targets") - 2_000;
        let clear = |at: i64| stamps.iter().all(|s| ((at - s).rem_euclid(2_000) - 1_000).abs() < 900);
        (base..base + 2_000).find(|at| clear(*at)).expect("two targets leave room in two seconds")
    }

    async fn answers(&self, at_ms: i64) -> Answers {
        let samples = samples_of(&self.query("{job=~\".+\"}[40s]", at_ms).await);
        let mut queries = Vec::new();
        for query in QUERIES {
            queries.push((*query, rows_of(&self.query(query, at_ms).await)));
        }
        Answers { samples, queries }
    }

    fn stop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What Prometheus says of itself.
#[derive(Clone)]
struct Answers {
    samples: BTreeMap<String, Vec<(String, String)>>,
    queries: Vec<(&'static str, BTreeMap<String, String>)>,
}

impl Answers {
    async fn check(&self, server: &Server, at_ms: i64, stop: &str) {
        let time = seconds(at_ms);
        let ask = async |query: &str| {
            let answer = server.json("/api/v1/query", &[("query", query), ("time", &time)]).await;
            answer["data"]["result"].clone()
        };
        let ours = samples_of(&ask("{job=~\".+\"}[40s]").await);
        assert_eq!(ours.len(), self.samples.len(), "{stop}: number of series");
        for (series, samples) in &self.samples {
            assert_eq!(ours.get(series), Some(samples), "{stop}: {series}");
        }
        for (query, expected) in &self.queries {
            let ours = rows_of(&ask(query).await);
            let keys = |rows: &BTreeMap<String, String>| rows.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&ours), keys(expected), "{stop}: {query}");
            for (labels, value) in expected {
                assert!(close(&ours[labels], value), "{stop}: {query} {labels}: {} instead of {value}", ours[labels]);
            }
        }
        let metadata = server.json("/api/v1/metadata", &[("metric", "node_cpu_seconds_total")]).await;
        assert_eq!(metadata["data"]["node_cpu_seconds_total"][0]["type"], "counter", "{stop}");
    }
}

/// Equal, or equal but for the last digits: the two sum in different orders.
fn close(a: &str, b: &str) -> bool {
    let (Ok(x), Ok(y)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    a == b || (x - y).abs() <= 1e-9 * x.abs().max(y.abs())
}

fn samples_of(result: &Value) -> BTreeMap<String, Vec<(String, String)>> {
    let rows = result.as_array().expect("a list").iter();
    let samples = |row: &Value| {
        let list = row["values"].as_array().expect("a list").iter();
        list.map(|pair| (pair[0].to_string(), pair[1].as_str().expect("a text").to_owned())).collect()
    };
    rows.map(|row| (row["metric"].to_string(), samples(row))).collect()
}

fn rows_of(result: &Value) -> BTreeMap<String, String> {
    let rows = result.as_array().expect("a list").iter();
    rows.map(|row| (row["metric"].to_string(), row["value"][1].as_str().expect("a text").to_owned())).collect()
}

async fn wait_until_written(server: &Server, at_ms: i64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let answer = server.json("/api/v1/query", &[("query", "min(timestamp(up))")]).await;
        let newest = answer["data"]["result"][0]["value"][1].as_str().and_then(|s| s.parse::<f64>().ok());
        if newest.is_some_and(|s| (s * 1000.0) as i64 > at_ms + 4_000) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("what Prometheus scraped did not arrive within a minute");
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("fits")
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}
