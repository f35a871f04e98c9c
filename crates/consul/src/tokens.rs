//! Login tokens. A token belongs to the task that its login's metadata names. Secrets of tokens are never read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::api::{ConsulApi, ListLocation};
use super::context::{ClientContext, TOO_LARGE_TOKEN, UNREADABLE_TOKEN};
use super::errors::{self, ConsulCall};
use super::objects::nullable;
use super::resource_key::{ResourceKey, is_uuid};
use super::segments::{ConsulSegment, RegistrationsFound, SegmentResults};
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport, TooLarge, segment};
use ecs_mesh_control_plane::skipped_items::SkippedItems;
use ecs_mesh_control_plane::{
    MeshError, Registration, RegistrationOwner, RegistrationSummary, UnattributedTokenCount,
};
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_core::intent::OwnershipLabels;
use ecs_mesh_model::{ClusterArn, OperatorId, TaskArn, TaskId, Timestamp, intern};

/// The default auth method of tasks.
pub const DEFAULT_METHOD: &str = "iam-ecs-service-token";
/// The default auth method of Consul clients in the manual setup.
pub const DEFAULT_CLIENT_METHOD: &str = "iam-ecs-client-token";

/// The prefix of the description of each login token.
const LOGIN_DESCRIPTION_PREFIX: &str = "token created via login";
const CLUSTER: &str = "consul.hashicorp.com/cluster";
const TASK: &str = "consul.hashicorp.com/task-id";

/// The maximum number of unattributed tokens that are kept as examples.
const MAX_EXAMPLES: usize = 3;

const NEEDS_TO_LIST: &str = "acl = \"read\"";

/// The fields of a token that the client uses, without the secret.
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

/// The owner of a token.
#[derive(Debug, PartialEq, Eq)]
enum TokenOwner {
    /// The task that logged in.
    Task(TaskArn),
    /// The token comes from a login by another method, or from no login.
    Foreign,
    /// The login names no task, so the token is never removed.
    Unattributed(UnattributedReason),
}

/// The reason why a login token names no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnattributedReason {
    /// The login had no metadata, or a user has edited the description.
    NoMetadata,
    /// The metadata is unreadable.
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
    /// The owner of a token of this auth method. Consul ignores the case of auth method names.
    fn owner(&self, method: &str) -> TokenOwner {
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
        let key = ResourceKey::Token { accessor: self.accessor, namespace: self.namespace };
        Registration {
            id: key.in_mesh(context.mesh.clone()),
            owner: owner(task, &context.operator),
            cluster_name: None,
            service: self.service_identities.first().map(|identity| intern(&identity.service_name)),
            created_at: Timestamp::parse(&self.create_time),
            drained: None,
            ready: None,
            has_writer_mark: false,
            normal: Value::Null,
            stored: json!({"AuthMethod": self.auth_method, "CreateTime": self.create_time}),
        }
    }
}

/// A registration that its own metadata attributes to a task is owned by this operator, under the binding's policy.
pub(super) fn owner(task: Option<&TaskArn>, operator: &OperatorId) -> RegistrationOwner {
    task.map_or(RegistrationOwner::Foreign, |task| {
        RegistrationOwner::Owned(OwnershipLabels::of(operator, task))
    })
}

impl<T: StreamTransport> ConsulApi<T> {
    /// Lists all login tokens in one scan. `sink` receives each token with the task that it names. Each namespace is a
    /// segment. Returns the number of unattributed tokens, and reports it to the observer unless a segment failed.
    pub(super) async fn tokens(
        &self,
        context: &ClientContext,
        operation: &'static str,
        skipped: &mut SkippedItems,
        segments: &mut SegmentResults,
        sink: &mut (dyn FnMut(Option<&TaskArn>, LoginToken) + Send),
    ) -> usize {
        let methods = context.methods.load_full();
        let mut unattributed: BTreeMap<UnattributedReason, (usize, Vec<Arc<str>>)> =
            UnattributedReason::ALL.iter().map(|reason| (*reason, Default::default())).collect();
        let failures = segments.failures();
        for namespace in self.scope.namespaces() {
            let list = async {
                for method in methods.iter() {
                    let mut skip = |reason| {
                        context.observer.skipped(operation);
                        skipped.add("", reason);
                    };
                    let mut on_item = |item: Result<&[u8], TooLarge>| {
                        let Ok(item) = item else { return skip(TOO_LARGE_TOKEN) };
                        match serde_json::from_slice::<LoginToken>(item) {
                            Ok(token) if is_uuid(&token.accessor) => match token.owner(method) {
                                TokenOwner::Task(task) => sink(Some(&task), token),
                                TokenOwner::Foreign => {}
                                TokenOwner::Unattributed(reason) => {
                                    let (count, examples) = unattributed.entry(reason).or_default();
                                    *count += 1;
                                    if examples.len() < MAX_EXAMPLES {
                                        examples.push(Arc::clone(&token.accessor));
                                    }
                                    sink(None, token);
                                }
                            },
                            _ => skip(UNREADABLE_TOKEN),
                        }
                    };
                    let path = self.scope.tokens_path(namespace.as_deref(), method);
                    let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS_TO_LIST };
                    let _: Vec<()> = self.list(&call, ListLocation::Root, &mut on_item).await?;
                }
                Ok(())
            };
            segments.list(ConsulSegment::Tokens { namespace: namespace.clone() }, list).await;
        }
        let mut total = 0;
        if segments.failures() == failures {
            let mut unattributed_tokens = Vec::new();
            for (reason, (count, examples)) in unattributed {
                context.observer.unattributed_tokens(reason.label(), count);
                total += count;
                if count > 0 {
                    unattributed_tokens.push(UnattributedTokenCount {
                        reason: reason.label(),
                        count,
                        examples,
                    });
                }
            }
            context.unattributed_tokens.store(Arc::new(unattributed_tokens));
        }
        total
    }
}

/// The key of one token.
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

    fn resource_key(&self) -> ResourceKey {
        ResourceKey::Token { accessor: Arc::clone(&self.accessor), namespace: self.namespace.clone() }
    }
}

/// A query for tokens in the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TokenQuery {
    /// A task's tokens.
    OfTask(TaskArn),
    /// One token.
    One(TokenKey),
}

/// Reads the server's current copy of one token.
pub(super) async fn get<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    context: &ClientContext,
    tokens: &Batcher<TokensOfTasks<T>>,
    key: &TokenKey,
) -> Result<Option<Registration>, MeshError> {
    let token: Option<LoginToken> = api.get_unconfirmed(&key.path(api), NEEDS_TO_LIST).await?;
    let Some(token) = token else { return get_from_list(api, tokens, key).await };
    let methods = context.methods.load();
    let task = methods.iter().find_map(|method| match token.owner(method) {
        TokenOwner::Task(task) => Some(task),
        TokenOwner::Foreign | TokenOwner::Unattributed(_) => None,
    });
    Ok(Some(token.registration(task.as_ref(), context)))
}

/// Removes a token; `false` if it did not exist. `limit` bounds the concurrent removals.
pub(super) async fn remove<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    tokens: &Batcher<TokensOfTasks<T>>,
    limit: &Semaphore,
    key: &TokenKey,
) -> Result<bool, MeshError> {
    let (path, needs) = (key.path(api), "acl = \"write\"");
    {
        // The semaphore is never closed, so `ok` drops no error.
        let _permit = limit.acquire().await.ok();
        if api.delete_unconfirmed(&path, needs).await? {
            return Ok(true);
        }
    }
    if get_from_list(api, tokens, key).await?.is_some() {
        // The caller reads the token again and decides whether it may be removed.
        return Err(errors::found_again(&ConsulCall { method: HttpMethod::Delete, path: &path, needs }));
    }
    Ok(false)
}

/// Reads one token from a list, after a "not found". A server that does not know the own token responds "not found" for
/// every token. Checks of the own token before and after prove nothing, since another server may have answered them. But
/// no server returns a list to an unknown token.
async fn get_from_list<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    tokens: &Batcher<TokensOfTasks<T>>,
    key: &TokenKey,
) -> Result<Option<Registration>, MeshError> {
    let found = tokens.ask((), TokenQuery::One(key.clone())).await.map_err(errors::of_batch)?;
    if let Some(registration) = found.registrations.into_iter().next() {
        return Ok(Some(registration));
    }
    let id = key.resource_key().in_mesh(api.scope.mesh());
    let failed = found.failed.into_iter().find(|failed| failed.segment.contains(&id));
    failed.map_or(Ok(None), |failed| Err(failed.error))
}

/// Answers many queries for tokens with one scan.
pub(super) struct TokensOfTasks<T> {
    pub(super) api: Arc<ConsulApi<T>>,
    pub(super) context: Arc<ClientContext>,
}

#[async_trait]
impl<T: StreamTransport + 'static> BatchCall for TokensOfTasks<T> {
    type Group = ();
    type Request = TokenQuery;
    type Response = RegistrationsFound;
    type Error = MeshError;

    async fn call(
        &self,
        _all: &(),
        queries: Vec<TokenQuery>,
    ) -> Result<BTreeMap<TokenQuery, RegistrationsFound>, MeshError> {
        let mut found: BTreeMap<TokenQuery, RegistrationsFound> =
            queries.into_iter().map(|query| (query, RegistrationsFound::default())).collect();
        let mut sink = |task: Option<&TaskArn>, token: LoginToken| {
            let key = TokenKey { accessor: Arc::clone(&token.accessor), namespace: token.namespace.clone() };
            let registration = token.registration(task, &self.context);
            if let Some(found) = task.and_then(|task| found.get_mut(&TokenQuery::OfTask(task.clone()))) {
                found.registrations.push(registration.clone());
            }
            if let Some(found) = found.get_mut(&TokenQuery::One(key)) {
                found.registrations.push(registration);
            }
        };
        // Skipped tokens are logged by the complete list of a sweep.
        let (mut skipped, mut segments) = (SkippedItems::default(), SegmentResults::default());
        self.api.tokens(&self.context, "list_for_task", &mut skipped, &mut segments, &mut sink).await;
        let failed = segments.finish()?;
        found.values_mut().for_each(|found| found.failed.clone_from(&failed));
        Ok(found)
    }
}

/// Lists all tokens of these clusters' tasks in the segments that can be listed.
pub(super) async fn of_clusters<T: StreamTransport>(
    api: &ConsulApi<T>,
    context: &ClientContext,
    clusters: &BTreeSet<ClusterArn>,
    skipped: &mut SkippedItems,
    segments: &mut SegmentResults,
    sink: &mut (dyn FnMut(RegistrationSummary) + Send),
) {
    let mut read = |task: Option<&TaskArn>, token: LoginToken| {
        if task.is_some_and(|task| clusters.contains(task.cluster())) {
            sink(RegistrationSummary::from(&token.registration(task, context)));
        }
    };
    api.tokens(context, "list_owned", skipped, segments, &mut read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/anchor";
    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn owner_of(description: &str, method: &str) -> TokenOwner {
        let token = json!({
            "AccessorID": "4fa6e11c-21d1-3462-a316-99515e5544f7", "SecretID": "s", "AuthMethod": method,
            "Description": description,
        });
        serde_json::from_value::<LoginToken>(token).unwrap().owner(DEFAULT_METHOD)
    }

    #[test]
    fn login_token_belongs_to_the_task_in_its_metadata() {
        let task = ClusterArn::parse(ARN).unwrap().task(TaskId::parse(ID).unwrap());
        for metadata in [
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID}),
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID, "pod": "x"}),
        ] {
            let found = owner_of(&format!("token created via login: {metadata}"), DEFAULT_METHOD);
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
            assert_eq!(owner_of(&description, method), TokenOwner::Foreign, "{method}");
        }
    }

    #[test]
    fn auth_method_name_is_case_insensitive() {
        let none = TokenOwner::Unattributed(UnattributedReason::NoMetadata);
        assert_eq!(owner_of(LOGIN_DESCRIPTION_PREFIX, "IAM-ecs-Service-Token"), none);
    }

    #[test]
    fn unattributed_token_has_a_reason() {
        let with = |metadata: Value| format!("token created via login: {metadata}");
        for (description, reason) in [
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
            assert_eq!(
                owner_of(&description, DEFAULT_METHOD),
                TokenOwner::Unattributed(reason),
                "{description}"
            );
        }
    }
}
