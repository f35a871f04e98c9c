//! A store of tokens that fails before or after the effect, lists late, and in which the operator is killed.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};
use ecs_mesh_aws::token_store::{EntryDescription, EntryPage, EntryTags, NewEntry, TokenStore};
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::oracle::TokenOracle;
use tokio::time::sleep;

use super::super::aws::error;
use super::super::env::SimEnv;
use super::super::faults::SimFault;

/// How long a list may lack a name that was created.
const LIST_LAG: Duration = Duration::from_mins(5);

/// Names of a page.
const PAGE: usize = 3;

/// The path of the binding's tokens.
pub(super) const PATH: &str = "/mesh";

struct StoredToken {
    tags: EntryTags,
    text: String,
    created: Timestamp,
}

pub(super) struct SimTokenStore {
    env: Arc<SimEnv>,
    entries: Mutex<BTreeMap<String, StoredToken>>,
    pub(super) oracle: Mutex<TokenOracle>,
    /// The operator is to be killed: a call of it never returns.
    kill: AtomicBool,
}

/// The workload of an entry.
fn workload(name: &str) -> &str {
    name.strip_prefix(PATH).and_then(|rest| rest.split('/').nth(2)).unwrap_or(name)
}

impl SimTokenStore {
    pub(super) fn new(env: Arc<SimEnv>, oracle: TokenOracle) -> Self {
        let (entries, oracle) = (Mutex::default(), Mutex::new(oracle));
        Self { env, entries, oracle, kill: AtomicBool::new(false) }
    }

    /// Whether the operator is to be killed now.
    pub(super) fn takes_kill(&self) -> bool {
        self.kill.swap(false, Ordering::Relaxed)
    }

    async fn begin(&self, operation: &'static str, name: &str) -> Result<(), AwsError> {
        let faults = &self.env.faults;
        sleep(faults.latency()).await;
        self.env.record(|| format!("store {operation} {name}"));
        if faults.aws_is_down(self.env.now()) {
            return Err(error(AwsErrorKind::Unavailable, operation));
        }
        if faults.fires(SimFault::StoreThrottled, 0.04) {
            return Err(error(AwsErrorKind::Throttled, operation));
        }
        if faults.fires(SimFault::StoreDenied, 0.02) {
            return Err(error(AwsErrorKind::Denied, operation));
        }
        Ok(())
    }

    /// A page of a list, which may lack the names of the last minutes.
    async fn page(&self, prefix: &str, next: Option<String>) -> Result<EntryPage, AwsError> {
        self.begin("list", "").await?;
        let (now, lags) = (self.env.now(), self.env.faults.happens(0.3));
        let entries = self.entries.lock().unwrap();
        let mut names: Vec<String> = Vec::new();
        for (name, entry) in entries.iter().filter(|(name, _)| name.starts_with(prefix)) {
            if lags && entry.created.age_at(now) < LIST_LAG {
                self.env.faults.count(SimFault::StoreListLag);
            } else if next.as_ref().is_none_or(|last| name > last) && names.len() < PAGE {
                names.push(name.clone());
            }
        }
        Ok(EntryPage { next: names.get(PAGE - 1).cloned(), names })
    }

    /// A write: the effect, and then an answer, an error, or the end of the operator.
    async fn write(
        &self,
        operation: &'static str,
        name: &str,
        effect: impl FnOnce(&mut BTreeMap<String, StoredToken>, Timestamp) + Send,
    ) -> Result<(), AwsError> {
        self.env.must_hold_the_lease(&format_args!("{operation} {name}"));
        self.begin(operation, name).await?;
        {
            let mut entries = self.entries.lock().unwrap();
            let now = self.env.now();
            effect(&mut entries, now);
            let text = entries.get(name).map(|entry| &*entry.text);
            self.oracle.lock().unwrap().record_stored(workload(name), text, now);
        }
        if self.env.faults.fires(SimFault::KilledWhileStoring, 0.04) {
            self.kill.store(true, Ordering::Relaxed);
            pending::<()>().await;
        }
        sleep(self.env.faults.latency()).await;
        if self.env.faults.fires(SimFault::StoreLostAnswer, 0.05) {
            return Err(error(AwsErrorKind::Unavailable, operation));
        }
        Ok(())
    }
}

#[async_trait]
impl TokenStore for SimTokenStore {
    async fn list(&self, path: &str, next: Option<String>) -> Result<EntryPage, AwsError> {
        self.page(&format!("{path}/"), next).await
    }

    /// Draws nothing, so that older seeds keep their lives. A find is counted, and changes no token.
    async fn list_tagged(&self, key: &str, value: &str, _: Option<String>) -> Result<EntryPage, AwsError> {
        if self.env.faults.aws_is_down(self.env.now()) {
            return Err(error(AwsErrorKind::Unavailable, "list_tagged"));
        }
        let entries = self.entries.lock().unwrap();
        let tagged = entries.iter().filter(|(_, entry)| entry.tags.get(key).is_some_and(|tag| tag == value));
        Ok(EntryPage { names: tagged.map(|(name, _)| name.clone()).collect(), next: None })
    }

    async fn describe(&self, name: &str) -> Result<Option<EntryDescription>, AwsError> {
        self.begin("describe", name).await?;
        let entries = self.entries.lock().unwrap();
        let described =
            |entry: &StoredToken| EntryDescription { tags: entry.tags.clone(), is_deleting: false };
        Ok(entries.get(name).map(described))
    }

    async fn create(&self, entry: NewEntry<'_>) -> Result<(), AwsError> {
        if self.entries.lock().unwrap().contains_key(entry.name) {
            self.begin("create", entry.name).await?;
            return Err(error(AwsErrorKind::Invalid, "create"));
        }
        let (tags, text) = (entry.tags.clone(), entry.text.to_owned());
        self.write("create", entry.name, |entries, created| {
            entries.insert(entry.name.to_owned(), StoredToken { tags, text, created });
        })
        .await
    }

    async fn put(&self, name: &str, _kms_key: Option<&str>, text: &str) -> Result<(), AwsError> {
        self.write("put", name, |entries, _| {
            entries.entry(name.to_owned()).and_modify(|entry| text.clone_into(&mut entry.text));
        })
        .await
    }

    async fn set_tags(&self, name: &str, tags: &EntryTags) -> Result<(), AwsError> {
        self.write("set_tags", name, |entries, _| {
            entries.entry(name.to_owned()).and_modify(|entry| entry.tags.extend(tags.clone()));
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), AwsError> {
        self.write("remove", name, |entries, _| drop(entries.remove(name))).await
    }
}
