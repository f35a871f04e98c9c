//! The client: sends requests at a constant rate, whatever becomes of earlier ones, and reports each.

use std::error::Error as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::network::Namespace;
use crate::process::OwnedProcess;

/// Time after which a request counts as failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest part of an error response that is reported.
const LONGEST_BODY: usize = 120;

/// A request, as the client's process reports it.
#[derive(Debug, Serialize, Deserialize)]
struct ReportedRequest {
    micros: u64,
    /// Why it failed.
    failure: Option<String>,
}

/// A request with its time.
#[derive(Clone, Debug)]
pub(crate) struct SentRequest {
    pub at: Instant,
    pub latency: Duration,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// Sends `rate` requests a second until the process is killed.
///
/// # Errors
/// Describes the failure.
pub(crate) fn run(url: &str, rate: u32) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("starting the client: {error}"))?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
        let client = client.map_err(|error| error.to_string())?;
        let (give, mut take) = mpsc::unbounded_channel();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        // A request that is due is sent late rather than not at all.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let (request, give) = (client.get(url), give.clone());
                    tokio::spawn(async move { drop(give.send(send(request).await)) });
                }
                Some(reported) = take.recv() => report(&reported)?,
            }
        }
    })
}

async fn send(request: reqwest::RequestBuilder) -> ReportedRequest {
    let started = Instant::now();
    let failure = match request.send().await {
        Ok(response) if response.status() == reqwest::StatusCode::OK => {
            response.bytes().await.err().map(|error| describe(&error))
        }
        Ok(response) => {
            let status = response.status().as_u16();
            let body: String =
                response.text().await.unwrap_or_default().trim().chars().take(LONGEST_BODY).collect();
            Some(format!("{status}: {body}"))
        }
        Err(error) => Some(describe(&error)),
    };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    ReportedRequest { micros, failure }
}

/// The innermost cause of an error, which names no address or port and so is the same for all requests.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no response within {} s", TIMEOUT.as_secs());
    }
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

fn report(reported: &ReportedRequest) -> Result<(), String> {
    let line = serde_json::to_string(reported).map_err(|error| error.to_string())?;
    writeln!(std::io::stdout().lock(), "{line}").map_err(|error| error.to_string())
}

/// A running client and the requests that it has reported.
pub(crate) struct LoadClient {
    process: OwnedProcess,
    requests: Arc<Mutex<Vec<SentRequest>>>,
}

impl LoadClient {
    /// Starts this program as the client in a namespace.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start(namespace: &Namespace, url: &str, rate: u32, log: &Path) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = namespace.command(&own);
        command.args(["client", "--url", url, "--rate", &rate.to_string()]).stdout(Stdio::piped());
        let mut process = OwnedProcess::start(&mut command, log)?;
        let lines = process.take_stdout().ok_or("the client has no standard output")?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let reported = Arc::clone(&requests);
        // Ends with the client's process.
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let Ok(request) = serde_json::from_str::<ReportedRequest>(&line) else { continue };
                let latency = Duration::from_micros(request.micros);
                let at = Instant::now().checked_sub(latency).unwrap_or_else(Instant::now);
                let sent = SentRequest { at, latency, failure: request.failure };
                reported.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            }
        });
        Ok(Self { process, requests })
    }

    /// The requests that were sent from `from` on and before `until`.
    pub(crate) fn between(&self, from: Instant, until: Instant) -> Vec<SentRequest> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().filter(|sent| sent.at >= from && sent.at < until).cloned().collect()
    }

    /// Fails if the client has exited.
    ///
    /// # Errors
    /// Names the client.
    pub(crate) fn must_run(&mut self) -> Result<(), String> {
        self.process.must_run("the client")
    }
}
