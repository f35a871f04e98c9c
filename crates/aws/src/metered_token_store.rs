//! A store of tokens, called below its quotas: a rate for reads, one for stored tokens, and one for all other writes.
//!
//! The quotas are those of the account and Region, so one instance serves all control planes, in order of arrival: none waits
//! for more than one call of each other. A throttled call has changed nothing; it is repeated after a pause.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_controller::{TokenBucket, WriteObstacle, WritePermit};

use crate::aws::{AwsError, AwsErrorKind};
use crate::token_store::{EntryDescription, EntryPage, TokenStore};

/// Pause after a throttling response. The quota is shared by the whole account.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);
/// Attempts of a call that is throttled.
const MAX_ATTEMPTS: u32 = 5;
/// The most pages of one list: 10,000 parameters, as many as an account has by default.
const MAX_PAGES: usize = 200;

/// Calls a second.
#[derive(Clone, Copy, Debug)]
pub struct TokenStoreRates {
    /// Lists and descriptions.
    pub reads: f64,
    /// Stored tokens.
    pub puts: f64,
    /// Tags and removals.
    pub changes: f64,
}

impl TokenStoreRates {
    /// A fifth of the quotas of writes: 50 a second for each group of operations. `ListSecrets` has 100 a second,
    /// `DescribeSecret` 40,000.
    ///
    /// Source: <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>.
    pub const SECRETS_MANAGER: Self = Self { reads: 20.0, puts: 10.0, changes: 10.0 };

    /// Two thirds of the quota of `PutParameter`, 3 a second by default. AWS publishes no quotas of the other operations.
    ///
    /// Source: <https://docs.aws.amazon.com/general/latest/gr/ssm.html>.
    pub const PARAMETER_STORE: Self = Self { reads: 5.0, puts: 2.0, changes: 5.0 };
}

/// A write, by the rate that it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreWrite {
    /// A stored token.
    Put,
    /// Tags or a removal.
    Change,
}

/// A store with its rates. Clones share them.
#[derive(Clone)]
pub struct MeteredTokenStore {
    store: Arc<dyn TokenStore>,
    reads: TokenBucket,
    puts: TokenBucket,
    changes: TokenBucket,
}

impl MeteredTokenStore {
    /// The store, with saved calls of one second each.
    pub fn new(store: Arc<dyn TokenStore>, rates: TokenStoreRates) -> Self {
        // Rates are small.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bucket = |rate: f64| TokenBucket::new(rate, rate as u32);
        let TokenStoreRates { reads, puts, changes } = rates;
        Self { store, reads: bucket(reads), puts: bucket(puts), changes: bucket(changes) }
    }

    /// Lists the names below a path.
    ///
    /// # Errors
    /// If a page cannot be read, or the list does not end.
    pub async fn list(&self, path: &str) -> Result<BTreeSet<String>, AwsError> {
        self.all_pages(path, |next| self.store.list(path, next)).await
    }

    /// Lists the names of all entries with this tag, wherever they are.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn list_tagged(&self, key: &str, value: &str) -> Result<BTreeSet<String>, AwsError> {
        self.all_pages(key, |next| self.store.list_tagged(key, value, next)).await
    }

    async fn all_pages<F: Future<Output = Result<EntryPage, AwsError>> + Send>(
        &self,
        subject: &str,
        list: impl Fn(Option<String>) -> F + Send + Sync,
    ) -> Result<BTreeSet<String>, AwsError> {
        let (mut names, mut next) = (BTreeSet::new(), None);
        for _ in 0..MAX_PAGES {
            let page: Result<EntryPage, AwsError> =
                metered(&self.reads, || async { Ok(list(next.clone()).await) }).await;
            let page = page?;
            names.extend(page.names);
            next = page.next;
            if next.is_none() {
                return Ok(names);
            }
        }
        Err(AwsError {
            kind: AwsErrorKind::Invalid,
            operation: "list",
            resource: subject.to_owned(),
            code: "response".to_owned(),
            message: "the list does not end".to_owned(),
            hint: "",
        })
    }

    /// The description of an entry; `None` if there is none.
    ///
    /// # Errors
    /// As the store.
    pub async fn describe(&self, name: &str) -> Result<Option<EntryDescription>, AwsError> {
        metered(&self.reads, || async { Ok(self.store.describe(name).await) }).await
    }

    /// Makes a call that changes the store, within the lease's term: a permit is requested right before each attempt, after the
    /// wait for the rate.
    ///
    /// # Errors
    /// As `permit` or the store.
    pub async fn write<'s, E, F>(
        &'s self,
        write: StoreWrite,
        permit: impl Fn() -> Result<WritePermit, WriteObstacle> + Send + Sync,
        call: impl Fn(&'s dyn TokenStore) -> F + Send + Sync,
    ) -> Result<(), E>
    where
        E: From<AwsError> + From<WriteObstacle>,
        F: Future<Output = Result<(), AwsError>> + Send,
    {
        let bucket = match write {
            StoreWrite::Put => &self.puts,
            StoreWrite::Change => &self.changes,
        };
        metered(bucket, || async {
            // If the write is dropped at the end of the term, the next leader reads whether it took effect.
            let written = permit()?.run(call(self.store.as_ref())).await;
            written.ok_or_else(|| WriteObstacle::LeaseEnds.into())
        })
        .await
    }
}

async fn metered<R, E: From<AwsError>, F: Future<Output = Result<Result<R, AwsError>, E>>>(
    bucket: &TokenBucket,
    call: impl Fn() -> F,
) -> Result<R, E> {
    let mut attempt = 1;
    loop {
        bucket.acquire(1).await;
        match call().await? {
            Err(error) if error.kind == AwsErrorKind::Throttled => {
                bucket.penalize(THROTTLE_PAUSE * attempt);
                if attempt == MAX_ATTEMPTS {
                    return Err(error.into());
                }
                attempt += 1;
            }
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ecs_mesh_controller::AlwaysHeld;
    use tokio::time::Instant;

    use super::*;
    use crate::fakes::FakeTokenStore;
    use crate::token_store::{EntryTags, NewEntry};

    fn metered_fake() -> (Arc<FakeTokenStore>, MeteredTokenStore) {
        let fake = Arc::new(FakeTokenStore::default());
        let store = MeteredTokenStore::new(Arc::clone(&fake) as _, TokenStoreRates::PARAMETER_STORE);
        (fake, store)
    }

    #[derive(Debug)]
    enum WriteError {
        Store,
        Obstructed(WriteObstacle),
    }

    impl From<AwsError> for WriteError {
        fn from(_: AwsError) -> Self {
            Self::Store
        }
    }

    impl From<WriteObstacle> for WriteError {
        fn from(obstacle: WriteObstacle) -> Self {
            Self::Obstructed(obstacle)
        }
    }

    fn permit() -> Result<WritePermit, WriteObstacle> {
        WritePermit::request(&AlwaysHeld, Duration::from_secs(1))
    }

    async fn create(store: &MeteredTokenStore, name: &str) -> Result<(), WriteError> {
        let entry = NewEntry { name, kms_key: None, tags: &EntryTags::new(), text: "t" };
        store.write(StoreWrite::Put, permit, |store| store.create(entry)).await
    }

    #[tokio::test(start_paused = true)]
    async fn parameters_are_put_at_the_rate_and_in_turn() {
        let (fake, store) = metered_fake();
        let began = Instant::now();
        // Two control planes at the same time.
        let of = |side: &'static str| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    create(&store, &format!("/{side}/{n:03}")).await.unwrap();
                }
            })
        };
        let both = [of("a"), of("b")];
        tokio::time::sleep(Duration::from_millis(20_100)).await;
        let names: Vec<String> = fake.entries.lock().unwrap().keys().cloned().collect();
        let of_a = names.iter().filter(|name| name.starts_with("/a/")).count();
        // The first to come has the saved calls.
        assert_eq!((names.len(), of_a), (42, 22));
        for side in both {
            side.await.unwrap();
        }
        assert_eq!(began.elapsed().as_secs(), 99);
        assert_eq!(store.list("/a").await.unwrap().len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_call_is_repeated_after_a_pause() {
        let (fake, store) = metered_fake();
        *fake.throttled.lock().unwrap() = 3;
        let began = Instant::now();
        create(&store, "/a/1").await.unwrap();
        // Three pauses; only after the first is a call saved.
        assert_eq!(began.elapsed().as_millis(), 1_000 + 2_500 + 3_500);
        // A lease that is lost meanwhile ends the attempts.
        *fake.throttled.lock().unwrap() = 1;
        let requests = AtomicUsize::new(0);
        let once = || match requests.fetch_add(1, Ordering::Relaxed) {
            0 => permit(),
            _ => Err(WriteObstacle::NotLeader),
        };
        let removed = store.write(StoreWrite::Change, once, |store| store.remove("/a/1")).await;
        assert!(matches!(removed, Err(WriteError::Obstructed(WriteObstacle::NotLeader))), "{removed:?}");
        assert!(fake.entries.lock().unwrap().contains_key("/a/1"));
        // It does not go on for good.
        *fake.throttled.lock().unwrap() = usize::MAX;
        assert_eq!(store.describe("/a/1").await.unwrap_err().kind, AwsErrorKind::Throttled);
    }
}
