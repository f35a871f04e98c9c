//! A real Prometheus scrapes a sandbox run, and promtool checks metrics and alert rules.
//!
//! `PROMETHEUS_BIN` names the directory of `prometheus` and `promtool`, which `test.sh` installs. Without it the tests
//! are skipped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::e2e::harness::{OperatorProcess, eventually};

/// The directory of the programs; without one, prints that the test is skipped.
fn programs(what: &str) -> Option<PathBuf> {
    let programs = std::env::var_os("PROMETHEUS_BIN").map(PathBuf::from);
    if programs.is_none() {
        println!("skipped: {what}: PROMETHEUS_BIN names no directory with prometheus and promtool");
    }
    programs
}

fn rules(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus")).join(name)
}

/// Runs promtool, expects success, and returns its output.
fn promtool(programs: &std::path::Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(programs.join("promtool"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
    text
}

#[test]
fn dashboard_queries_are_valid() {
    let Some(programs) = programs("the dashboard's queries") else { return };
    let rules: Vec<Value> = panel_queries()
        .iter()
        .enumerate()
        .map(|(number, (_, query))| serde_json::json!({"record": format!("panel:{number}"), "expr": query}))
        .collect();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("panels.yaml");
    // JSON is YAML.
    let text = serde_json::json!({"groups": [{"name": "panels", "rules": rules}]}).to_string();
    std::fs::write(&file, text).unwrap();
    promtool(&programs, &["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn alerts_fire_in_their_test_series() {
    let Some(programs) = programs("the alert rules") else { return };
    promtool(&programs, &["check", "rules", rules("rules.yaml").to_str().unwrap()], "");
    promtool(&programs, &["test", "rules", rules("tests.yaml").to_str().unwrap()], "");
}

#[test]
fn each_alert_has_a_test_and_a_runbook_section() {
    let text = std::fs::read_to_string(rules("rules.yaml")).unwrap();
    let tests = std::fs::read_to_string(rules("tests.yaml")).unwrap();
    let page = include_str!("../../docs/how-to/alerts.md");
    let headings: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### ")))
        .map(|heading| heading.to_lowercase().replace(' ', "-").replace(['\'', ',', '`'], ""))
        .collect();
    let alerts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not seen firing in tests.yaml");
        assert!(page.contains(&format!("`{alert}`")), "{alert} is not in alerts.md");
    }
    // Until a version is released it has no tag: its links lead to the branch.
    let version = env!("CARGO_PKG_VERSION");
    let unreleased = include_str!("../../CHANGELOG.md").contains(&format!("## [{version}] - unreleased"));
    let tag = if unreleased { "main".to_owned() } else { format!("v{version}") };
    let page = format!("runbook_url: {}/blob/{tag}/docs/how-to/alerts.md#", ecs_mesh_model::REPOSITORY);
    let links: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix(&page)).collect();
    assert_eq!(links.len(), alerts.len(), "each alert has {page}…");
    for link in links {
        assert!(
            headings.iter().any(|heading| heading == link),
            "alerts.md has no heading for #{link}: {headings:?}"
        );
    }
}

/// A running Prometheus, killed when dropped.
struct Prometheus {
    child: Child,
    url: String,
    http: reqwest::Client,
    log: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("log of prometheus:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Prometheus {
    fn start(programs: &std::path::Path, directory: &TempDir, target: &str) -> Self {
        let config = directory.path().join("prometheus.yaml");
        let text = format!(
            "global: {{scrape_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  - job_name: ecs-mesh-operator\n    \
             static_configs: [{{targets: [\"{target}\"]}}]\n",
            rules("rules.yaml").display()
        );
        std::fs::write(&config, text).unwrap();
        // The port is free and probably stays so until Prometheus binds it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = directory.path().join("prometheus.log");
        let child = Command::new(programs.join("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, url: format!("http://127.0.0.1:{port}"), http, log }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        serde_json::from_str(&answer.text().await.ok()?).ok()
    }

    /// The value of a query's only series.
    async fn value(&self, query: &str) -> Option<f64> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = self.get(&format!("/api/v1/query?query={query}")).await?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

/// Panels whose series the sandbox does not have: its tokens do not expire, and it has neither a `ConsulAuth` nor manifests in S3
/// or SSM.
const PANELS_WITHOUT_SERIES: [&str; 5] = [
    "Operator's token expires in",
    "First data plane token expires in",
    "ACL objects not as declared",
    "Time since the last read of a source",
    "Failed reads of sources",
];

/// The queries of the Grafana dashboard with their panels, with values for its variables.
fn panel_queries() -> Vec<(String, String)> {
    let text = include_str!("../../deploy/grafana/ecs-mesh-operator.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "15s");
            let query = query.replace("$job", ".*").replace("$control_plane", ".*");
            (panel["title"].as_str().unwrap().to_owned(), query)
        })
    });
    queries.collect()
}

async fn fetch(url: &str, accept: Option<&str>) -> (String, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.get(url);
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let answer = request.send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, answer.text().await.unwrap())
}

#[tokio::test]
async fn prometheus_scrapes_a_sandbox_run() {
    let Some(programs) = programs("a scrape by Prometheus") else { return };
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = TempDir::new().unwrap();
    let arguments = [
        "sandbox",
        "--duration",
        "10m",
        "--tasks",
        "20",
        "--metrics-address",
        "127.0.0.1:0",
        "--log",
        "info",
        "--log-format",
        "json",
    ];
    let sandbox = OperatorProcess::start(directory.path(), "sandbox", &BTreeMap::new(), &arguments);
    let line = sandbox.line(&[("level", "INFO"), ("address", "127.0.0.1:")]).await;
    let target = line["address"].as_str().unwrap().to_owned();
    let prometheus = Prometheus::start(&programs, &directory, &target);

    // Prometheus requests OpenMetrics and reports parse errors of each target.
    eventually("a target that is up without an error", || async {
        let targets = prometheus.get("/api/v1/targets").await?;
        let target = &targets["data"]["activeTargets"][0];
        (target["health"] == "up" && target["lastError"] == "").then_some(())
    })
    .await;
    eventually("a ready operator in Prometheus", || async {
        (prometheus.value("ecs_mesh_ready").await? > 0.5).then_some(())
    })
    .await;
    let query = "sum(ecs_mesh_owned_registrations)";
    eventually("as many registrations in Prometheus as at the control plane", || async {
        let stdout = sandbox.stdout();
        let kuma = stdout.split("Kuma ").nth(1)?.split(" at ").nth(1)?.split_whitespace().next()?;
        let mut ours = 0;
        for list in ["meshes/default/dataplanes", "zoneingresses", "zoneegresses"] {
            let (_, list) = fetch(&format!("{kuma}/{list}"), None).await;
            let list: Value = serde_json::from_str(&list).ok()?;
            let items = list["items"].as_array()?.iter();
            ours += items.filter(|item| item["labels"]["ecs-mesh.dev/operator"] == "sandbox").count();
        }
        let scraped = prometheus.value(query).await?;
        #[allow(clippy::cast_precision_loss)] // some tens
        (ours > 7 && (scraped - ours as f64).abs() < 0.5).then_some(())
    })
    .await;
    for (query, least) in [
        ("sum(ecs_mesh_event_to_write_seconds_count)", 1.0),
        ("sum(ecs_mesh_message_age_seconds_count)", 1.0),
        ("sum(ecs_mesh_aws_calls_total{operation=\"sqs:ReceiveMessage\",result=\"success\"})", 1.0),
        (
            "sum(ecs_mesh_control_plane_calls_total{control_plane!=\"\",operation=\"put\",result=\"success\"})",
            5.0,
        ),
        ("sum(controller_runtime_reconcile_total{result=\"success\"})", 1.0),
        ("sum(workqueue_adds_total)", 5.0),
        ("leader_election_master_status", 1.0),
        ("process_resident_memory_bytes", 1e6),
        ("time() - process_start_time_seconds", 0.0),
        ("ecs_mesh_last_sweep_timestamp_seconds", 1e9),
    ] {
        let what = format!("{query} of {least} at least");
        eventually(&what, || async { prometheus.value(query).await.filter(|value| *value >= least) }).await;
    }
    for (panel, query) in panel_queries() {
        if PANELS_WITHOUT_SERIES.contains(&&*panel) {
            assert!(prometheus.value(&query).await.is_none(), "{panel} has series: remove the exception");
            continue;
        }
        let what = format!("series of the panel {panel:?}: {query}");
        eventually(&what, || async { prometheus.value(&query).await }).await;
    }
    let alerts = prometheus.get("/api/v1/rules").await.unwrap();
    let broken: Vec<Value> = alerts["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .filter(|rule| rule["lastError"].as_str().is_some_and(|error| !error.is_empty()))
        .collect();
    assert_eq!(broken, Vec::<Value>::new());

    let url = format!("http://{target}/metrics");
    let (kind, text) = fetch(&url, None).await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert_eq!(promtool(&programs, &["check", "metrics"], &text).trim(), "");
    let (kind, text) = fetch(&url, Some("application/openmetrics-text;version=1.0.0")).await;
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0") && text.ends_with("# EOF\n"),
        "{kind}"
    );
    assert!(!sandbox.stderr().contains("panicked"));
}
