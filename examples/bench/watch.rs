//! Looks on from the servers' side: when which event was handed out, and when the write that it led to arrived. So the
//! operator's own figures need not be trusted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ecs_mesh_sandbox::aws::{AwsFault, AwsFaults};
use ecs_mesh_sandbox::kuma::http::{KumaFault, KumaFaults};
use serde::Deserialize;
use serde_json::Value;

use crate::control::{Change, Latency, Picture};

/// Looks on.
#[derive(Debug)]
pub(crate) struct Watcher(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    mark: Instant,
    handed_out: u64,
    deleted: u64,
    last_deleted: Option<Instant>,
    tasks: HashMap<String, Life>,
    dataplanes: usize,
    /// The task of each Consul token, by accessor.
    tokens: HashMap<String, String>,
    services: usize,
    last_identity_gone: Option<Instant>,
    samples: BTreeMap<Change, Vec<Duration>>,
}

/// When each kind of news of a task was first handed out, and what was written of it.
#[derive(Debug, Default)]
struct Life {
    news: BTreeMap<Change, Instant>,
    written: bool,
    drained: bool,
}

/// As much of an event as tells what it must lead to.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    detail: Detail<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    task_arn: &'a str,
    last_status: &'a str,
    desired_status: &'a str,
}

/// How an event tells of a task's address.
const ADDRESS: &str = "privateIPv4Address";

impl Default for Watcher {
    fn default() -> Self {
        Self(Mutex::new(Seen {
            mark: Instant::now(),
            handed_out: 0,
            deleted: 0,
            last_deleted: None,
            tasks: HashMap::new(),
            dataplanes: 0,
            tokens: HashMap::new(),
            services: 0,
            last_identity_gone: None,
            samples: BTreeMap::new(),
        }))
    }
}

impl Watcher {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts begin anew; what is known of tasks stays.
    pub(crate) fn mark(&self) {
        let mut seen = self.lock();
        seen.mark = Instant::now();
        seen.handed_out = 0;
        seen.deleted = 0;
        seen.last_deleted = None;
        seen.last_identity_gone = None;
        seen.samples.clear();
    }

    /// What was seen since the mark.
    pub(crate) fn picture(&self) -> Picture {
        let seen = self.lock();
        Picture {
            elapsed: seen.mark.elapsed(),
            handed_out: seen.handed_out,
            deleted: seen.deleted,
            last_deleted: seen.last_deleted.map_or(Duration::ZERO, |at| at.duration_since(seen.mark)),
            dataplanes: seen.dataplanes,
            identities: seen.tokens.len() + seen.services,
            last_identity_gone: seen
                .last_identity_gone
                .map_or(Duration::ZERO, |at| at.duration_since(seen.mark)),
            latency: seen.samples.iter().map(|(change, all)| (*change, Latency::of(all.clone()))).collect(),
            ..Picture::default()
        }
    }
}

/// What happens at Consul.
impl Watcher {
    pub(crate) fn logged_in(&self, accessor: &str, task: &str) {
        self.lock().tokens.insert(accessor.to_owned(), task.to_owned());
    }

    pub(crate) fn registered(&self) {
        self.lock().services += 1;
    }

    pub(crate) fn token_gone(&self, accessor: &str, at: Instant) {
        let mut seen = self.lock();
        let Some(task) = seen.tokens.remove(accessor) else { return };
        seen.last_identity_gone = Some(at);
        let heard = seen.tasks.get(&task).and_then(|life| life.news.get(&Change::Remove)).copied();
        if let Some(heard) = heard.filter(|heard| *heard >= seen.mark) {
            seen.samples.entry(Change::Token).or_default().push(at.duration_since(heard));
        }
    }

    pub(crate) fn services_gone(&self, count: usize) {
        let mut seen = self.lock();
        seen.services = seen.services.saturating_sub(count);
        seen.last_identity_gone = Some(Instant::now());
    }
}

impl Seen {
    fn handed_out(&mut self, body: &str, at: Instant) {
        self.handed_out += 1;
        // Events of other kinds lead to no write.
        let Ok(Event { detail }) = serde_json::from_str(body) else { return };
        let news = match (detail.last_status, detail.desired_status) {
            ("STOPPED", _) => Change::Remove,
            (_, "STOPPED") => Change::Drain,
            _ if body.contains(ADDRESS) => Change::Create,
            _ => return,
        };
        let id = detail.task_arn.rsplit('/').next().unwrap_or_default();
        self.tasks.entry(id.to_owned()).or_default().news.entry(news).or_insert(at);
    }

    fn wrote(&mut self, method: &str, name: &str, at: Instant) {
        let life = self.tasks.entry(name.to_owned()).or_default();
        let change = match method {
            "DELETE" => Change::Remove,
            _ if life.written => Change::Drain,
            _ => Change::Create,
        };
        match change {
            Change::Create => self.dataplanes += 1,
            Change::Remove => self.dataplanes = self.dataplanes.saturating_sub(1),
            Change::Drain if life.drained => return,
            Change::Drain => life.drained = true,
            Change::Token => {}
        }
        life.written = true;
        // A sweep writes without an event; a write for an event from before the mark does not count.
        if let Some(heard) = life.news.get(&change).filter(|heard| **heard >= self.mark) {
            self.samples.entry(change).or_default().push(at.duration_since(*heard));
        }
    }
}

impl AwsFaults for Watcher {
    fn decide(&self, _service: &str, _operation: &str) -> AwsFault {
        AwsFault::None
    }

    fn answers(&self, _service: &str, operation: &str, answer: &Value) {
        let now = Instant::now();
        match operation {
            "ReceiveMessage" => {
                let mut seen = self.lock();
                for message in answer["Messages"].as_array().into_iter().flatten() {
                    seen.handed_out(message["Body"].as_str().unwrap_or_default(), now);
                }
            }
            "DeleteMessageBatch" => {
                let mut seen = self.lock();
                seen.deleted += answer["Successful"].as_array().map_or(0, Vec::len) as u64;
                seen.last_deleted = Some(now);
            }
            _ => {}
        }
    }
}

impl KumaFaults for Watcher {
    fn decide(&self, method: &str, path: &str) -> KumaFault {
        if matches!(method, "PUT" | "DELETE")
            && let Some((_, name)) = path.split_once("/dataplanes/")
        {
            self.lock().wrote(method, name, Instant::now());
        }
        KumaFault::None
    }
}

impl Latency {
    fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| {
            let index = samples.len().saturating_sub(1) * percent / 100;
            samples.get(index).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
        };
        Self { count: samples.len(), p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}
