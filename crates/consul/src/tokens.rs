//! Login tokens: which task one is for, by what its login wrote on it. Of each token only that is read: never its
//! secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::api::{ConsulApi, ListLocation};
use super::client::{TOO_LARGE_TOKEN, ClientContext, UNREADABLE_TOKEN};
use super::errors::{self, ConsulCall};
use super::resource_key::{ResourceKey, is_uuid};
use super::objects::nullable;
use super::segments::{RegistrationsFound, SegmentResults, ConsulSegment};
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport, TooLarge, segment};
use ecs_mesh_control_plane::skipped_items::SkippedItems;
use ecs_mesh_control_plane::{MeshError, UnattributedTokenCount, RegistrationOwner, Registration, RegistrationSummary};
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_core::intent::OwnershipLabels;
use ecs_mesh_model::{ClusterArn, OperatorId, TaskArn, TaskId, Timestamp, intern};

/// The auth method that tasks log in by, unless others are declared.
pub const DEFAULT_METHOD: &str = "iam-ecs-service-token";
/// The auth method by which the manual set-up gets the tokens of Consul's clients, unless another is declared.
pub const DEFAULT_CLIENT_METHOD: &str = "iam-ecs-client-token";

/// How the description of each token of a login begins.
const LOGIN_DESCRIPTION_PREFIX: &str = "token created via login";
const CLUSTER: &str = "consul.hashicorp.com/cluster";
const TASK: &str = "consul.hashicorp.com/task-id";

/// So many tokens that name no task are named.
const MAX_EXAMPLES: usize = 3;

const NEEDS_TO_LIST: &str = "acl = \"read\"";

/// What is read of a token. There is no field for its secret.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LoginToken {
    #[serde(rename = "AccessorID")]
    accessor: Arc<str>,
    #[serde(default, deserialize_with = "nullable")]
    description: String,
    #[serde(default, deserialize_with = "nullable")]
    auth_method: String,
    #[serde(default, deserialize_with = "nullable")]
    create_time: String,
    #[serde(default, deserialize_with = "nullable")]
    service_identities: Vec<ServiceIdentity>,
    #[serde(default)]
    namespace: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceIdentity {
    service_name: String,
}

/// Whose a token is.
#[derive(Debug, PartialEq, Eq)]
enum TokenOwner {
    /// A task's.
    Task(TaskArn),
    /// Of another method's login, or of none.
    Foreign,
    /// Of such a login, but it does not say for which task: nobody removes it.
    Unattributed(UnattributedReason),
}

/// Why a login's token names no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnattributedReason {
    /// It was logged in without saying, or somebody wrote another description.
    NoMetadata,
    /// What it says cannot be read.
    Malformed,
}

impl UnattributedReason {
    const ALL: [Self; 2] = [Self::NoMetadata, Self::Malformed];

    fn label(self) -> &'static str {
        match self {
            Self::NoMetadata => "no_metadata",
            Self::Malformed => "malformed",
        }
    }
}

impl LoginToken {
    /// Consul takes names of auth methods that differ in case alone for one.
    fn login(&self, method: &str) -> TokenOwner {
        if !method.eq_ignore_ascii_case(&self.auth_method) {
            return TokenOwner::Foreign;
        }
        let Some(metadata) = self.description.strip_prefix(LOGIN_DESCRIPTION_PREFIX) else {
            return TokenOwner::Unattributed(UnattributedReason::NoMetadata);
        };
        let Some(metadata) = metadata.strip_prefix(": ") else {
            return TokenOwner::Unattributed(UnattributedReason::NoMetadata);
        };
        let Ok(metadata) = serde_json::from_str::<BTreeMap<String, Value>>(metadata) else {
            return TokenOwner::Unattributed(UnattributedReason::Malformed);
        };
        let cluster = metadata.get(CLUSTER).map(|text| ClusterArn::parse(text.as_str().unwrap_or_default()));
        let task = metadata.get(TASK).map(|text| TaskId::parse(text.as_str().unwrap_or_default()));
        match (cluster, task) {
            (Some(Ok(cluster)), Some(Ok(task))) => TokenOwner::Task(cluster.task(task)),
            (None, None) => TokenOwner::Unattributed(UnattributedReason::NoMetadata),
            _ => TokenOwner::Unattributed(UnattributedReason::Malformed),
        }
    }

    fn registration(self, task: Option<&TaskArn>, context: &ClientContext) -> Registration {
        let handle = ResourceKey::Token { accessor: self.accessor, namespace: self.namespace };
        Registration {
            id: handle.in_mesh(context.mesh.clone()),
            owner: owner(task, &context.operator),
            service: self.service_identities.first().map(|identity| intern(&identity.service_name)),
            created_at: Timestamp::parse(&self.create_time),
            drained: None,
            normal: Value::Null,
            stored: json!({"AuthMethod": self.auth_method, "CreateTime": self.create_time}),
        }
    }
}

/// A task's own evidence makes it this operator's to clean up, as the binding says.
pub(super) fn owner(task: Option<&TaskArn>, operator: &OperatorId) -> RegistrationOwner {
    task.map_or(RegistrationOwner::Foreign, |task| RegistrationOwner::Owned(OwnershipLabels::of(operator, task)))
}

impl<T: StreamTransport> ConsulApi<T> {
    /// All tokens of logins, in one pass: `each` is given the task that the token names, if any, and makes a registration
    /// of the token if it wants to. Each namespace is a part. Counts those that name no task, and tells of them unless a
    /// part failed.
    pub(super) async fn tokens(
        &self,
        context: &ClientContext,
        operation: &'static str,
        skipped_items: &mut SkippedItems,
        parts: &mut SegmentResults,
        each: &mut (dyn FnMut(Option<&TaskArn>, LoginToken) + Send),
    ) -> usize {
        let methods = context.methods.load_full();
        let mut unattributed: BTreeMap<UnattributedReason, (usize, Vec<Arc<str>>)> =
            UnattributedReason::ALL.iter().map(|why| (*why, Default::default())).collect();
        let failures = parts.failures();
        for namespace in self.scope.namespaces() {
            let list = async {
                for method in methods.iter() {
                    let mut skip = |why| {
                        context.observer.skipped(operation);
                        skipped_items.add("", why);
                    };
                    let mut take = |item: Result<&[u8], TooLarge>| {
                        let Ok(item) = item else { return skip(TOO_LARGE_TOKEN) };
                        match serde_json::from_slice::<LoginToken>(item) {
                            Ok(token) if is_uuid(&token.accessor) => match token.login(method) {
                                TokenOwner::Task(task) => each(Some(&task), token),
                                TokenOwner::Foreign => {}
                                TokenOwner::Unattributed(why) => {
                                    let (count, examples) = unattributed.entry(why).or_default();
                                    *count += 1;
                                    if examples.len() < MAX_EXAMPLES {
                                        examples.push(Arc::clone(&token.accessor));
                                    }
                                    each(None, token);
                                }
                            },
                            _ => skip(UNREADABLE_TOKEN),
                        }
                    };
                    let path = self.scope.tokens_path(namespace.as_deref(), method);
                    let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS_TO_LIST };
                    let _: Vec<()> = self.list(&call, ListLocation::Whole, &mut take).await?;
                }
                Ok(())
            };
            parts.list(ConsulSegment::Tokens { namespace: namespace.clone() }, list).await;
        }
        let mut of_no_task = 0;
        if parts.failures() == failures {
            let mut unattributed_tokens = Vec::new();
            for (why, (count, examples)) in unattributed {
                context.observer.unattributed_tokens(why.label(), count);
                of_no_task += count;
                if count > 0 {
                    unattributed_tokens.push(UnattributedTokenCount { reason: why.label(), count, examples });
                }
            }
            context.unattributed_tokens.store(Arc::new(unattributed_tokens));
        }
        of_no_task
    }
}

/// A token, as it is asked for by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TokenKey {
    pub(super) accessor: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
}

impl TokenKey {
    fn path<T: StreamTransport>(&self, api: &ConsulApi<T>) -> String {
        let path = format!("/v1/acl/token/{}", segment(&self.accessor));
        api.scope.path_in(self.namespace.as_deref(), &path, &[])
    }

    fn handle(&self) -> ResourceKey {
        ResourceKey::Token { accessor: Arc::clone(&self.accessor), namespace: self.namespace.clone() }
    }
}

/// One thing asked of the list of tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WantedToken {
    /// A task's tokens.
    OfTask(TaskArn),
    /// One token.
    One(TokenKey),
}

/// The server's current copy of one token.
pub(super) async fn look_up<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    context: &ClientContext,
    tokens: &Batcher<TokensOfTasks<T>>,
    key: &TokenKey,
) -> Result<Option<Registration>, MeshError> {
    let token: Option<LoginToken> = api.get_unconfirmed(&key.path(api), NEEDS_TO_LIST).await?;
    let Some(token) = token else { return look_up_listed(api, tokens, key).await };
    let methods = context.methods.load();
    let task = methods.iter().find_map(|method| match token.login(method) {
        TokenOwner::Task(task) => Some(task),
        TokenOwner::Foreign | TokenOwner::Unattributed(_) => None,
    });
    Ok(Some(token.registration(task.as_ref(), context)))
}

/// Removes a token; `false` when it was not there. No more than `at_once` allows are removed at a time.
pub(super) async fn remove<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    tokens: &Batcher<TokensOfTasks<T>>,
    at_once: &Semaphore,
    key: &TokenKey,
) -> Result<bool, MeshError> {
    let (path, needs) = (key.path(api), "acl = \"write\"");
    {
        // It is never closed.
        let _turn = at_once.acquire().await.ok();
        if api.delete_unconfirmed(&path, needs).await? {
            return Ok(true);
        }
    }
    if look_up_listed(api, tokens, key).await?.is_some() {
        // Whether it may be removed is for the caller to look at again.
        return Err(errors::found_again(&ConsulCall { method: HttpMethod::Delete, path: &path, needs }));
    }
    Ok(false)
}

/// One token by a list, after an answer that it is not there. A server that does not know our own token gives that
/// answer for every token, and checks of our token before and after it prove nothing about it, since each may have come
/// from another server. But no server gives such a token a list.
async fn look_up_listed<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    tokens: &Batcher<TokensOfTasks<T>>,
    key: &TokenKey,
) -> Result<Option<Registration>, MeshError> {
    let found = tokens.ask((), WantedToken::One(key.clone())).await.map_err(errors::of_batch)?;
    if let Some(registration) = found.registrations.into_iter().next() {
        return Ok(Some(registration));
    }
    let id = key.handle().in_mesh(api.scope.mesh());
    let failed = found.failed.into_iter().find(|failed| failed.segment.contains(&id));
    failed.map_or(Ok(None), |failed| Err(failed.error))
}

/// The tokens of many tasks, and many tokens by their accessors, by one pass over the list.
pub(super) struct TokensOfTasks<T> {
    pub(super) api: Arc<ConsulApi<T>>,
    pub(super) context: Arc<ClientContext>,
}

#[async_trait]
impl<T: StreamTransport + 'static> BatchCall for TokensOfTasks<T> {
    type Group = ();
    type Request = WantedToken;
    type Response = RegistrationsFound;
    type Error = MeshError;

    async fn call(
        &self,
        _all: &(),
        wanted: Vec<WantedToken>,
    ) -> Result<BTreeMap<WantedToken, RegistrationsFound>, MeshError> {
        let mut found: BTreeMap<WantedToken, RegistrationsFound> =
            wanted.into_iter().map(|wanted| (wanted, RegistrationsFound::default())).collect();
        let mut take = |task: Option<&TaskArn>, token: LoginToken| {
            let key = TokenKey { accessor: Arc::clone(&token.accessor), namespace: token.namespace.clone() };
            let registration = token.registration(task, &self.context);
            if let Some(found) = task.and_then(|task| found.get_mut(&WantedToken::OfTask(task.clone()))) {
                found.registrations.push(registration.clone());
            }
            if let Some(found) = found.get_mut(&WantedToken::One(key)) {
                found.registrations.push(registration);
            }
        };
        // What is left out is told of when all is listed.
        let (mut skipped_items, mut parts) = (SkippedItems::default(), SegmentResults::default());
        self.api.tokens(&self.context, "list_for_task", &mut skipped_items, &mut parts, &mut take).await;
        let failed = parts.finish()?;
        found.values_mut().for_each(|found| found.failed.clone_from(&failed));
        Ok(found)
    }
}

/// Hands over all tokens of these clusters' tasks, of the parts that could be listed.
pub(super) async fn of_clusters<T: StreamTransport>(
    api: &ConsulApi<T>,
    context: &ClientContext,
    clusters: &BTreeSet<ClusterArn>,
    skipped_items: &mut SkippedItems,
    parts: &mut SegmentResults,
    take: &mut (dyn FnMut(RegistrationSummary) + Send),
) {
    let mut read = |task: Option<&TaskArn>, token: LoginToken| {
        if task.is_some_and(|task| clusters.contains(task.cluster())) {
            take(RegistrationSummary::from(&token.registration(task, context)));
        }
    };
    api.tokens(context, "list_owned", skipped_items, parts, &mut read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/anchor";
    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn login(description: &str, method: &str) -> TokenOwner {
        let token = json!({
            "AccessorID": "4fa6e11c-21d1-3462-a316-99515e5544f7", "SecretID": "s", "AuthMethod": method,
            "Description": description,
        });
        serde_json::from_value::<LoginToken>(token).unwrap().login(DEFAULT_METHOD)
    }

    #[test]
    fn a_logins_token_is_placed_by_its_metadata() {
        let task = ClusterArn::parse(ARN).unwrap().task(TaskId::parse(ID).unwrap());
        for metadata in [
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID}),
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID, "pod": "x"}),
        ] {
            let found = login(&format!("token created via login: {metadata}"), DEFAULT_METHOD);
            assert_eq!(found, TokenOwner::Task(task.clone()));
        }
    }

    #[test]
    fn token_of_other_auth_method_is_foreign() {
        let description = format!(
            "token created via login: {}",
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID})
        );
        for method in ["", "kubernetes", "iam-ecs-client-token"] {
            assert_eq!(login(&description, method), TokenOwner::Foreign, "{method}");
        }
    }

    #[test]
    fn a_methods_name_counts_in_whatever_case_consul_keeps_it() {
        let none = TokenOwner::Unattributed(UnattributedReason::NoMetadata);
        assert_eq!(login(LOGIN_DESCRIPTION_PREFIX, "IAM-ecs-Service-Token"), none);
    }

    #[test]
    fn a_token_that_names_no_task_is_told_apart_by_why() {
        let with = |metadata: Value| format!("token created via login: {metadata}");
        for (description, why) in [
            ("token created via login".to_owned(), UnattributedReason::NoMetadata),
            ("edited".to_owned(), UnattributedReason::NoMetadata),
            (String::new(), UnattributedReason::NoMetadata),
            (with(json!({"pod": "x"})), UnattributedReason::NoMetadata),
            (with(json!({"consul.hashicorp.com/cluster": ARN})), UnattributedReason::Malformed),
            (
                with(json!({"consul.hashicorp.com/cluster": "prod", "consul.hashicorp.com/task-id": ID})),
                UnattributedReason::Malformed,
            ),
            (
                with(json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": 7})),
                UnattributedReason::Malformed,
            ),
            (with(json!([ARN, ID])), UnattributedReason::Malformed),
            ("token created via login: {".to_owned(), UnattributedReason::Malformed),
        ] {
            assert_eq!(login(&description, DEFAULT_METHOD), TokenOwner::Unattributed(why), "{description}");
        }
    }
}
