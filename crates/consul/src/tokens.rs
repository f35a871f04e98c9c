//! Login tokens: which task one is for, by what its login wrote on it. Of each token only that is read: never its
//! secret.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::api::{Api, Listed};
use super::client::{TOO_LARGE_TOKEN, Taken, UNREADABLE_TOKEN};
use super::errors::{self, Call};
use super::handle::{Handle, is_uuid};
use super::objects::nullable;
use super::parts::{Found, Parts, Place};
use ecs_mesh_control_plane::http::{Method, StreamTransport, TooLarge, segment};
use ecs_mesh_control_plane::left_out::Pass;
use ecs_mesh_control_plane::{MeshError, Nameless, Owner, Registration, Sighting};
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_core::intent::Marks;
use ecs_mesh_model::{ClusterArn, OperatorId, TaskArn, TaskId, Timestamp, shared};

/// The auth method that tasks log in by, unless others are declared.
pub const DEFAULT_METHOD: &str = "iam-ecs-service-token";
/// The auth method by which the manual set-up gets the tokens of Consul's clients, unless another is declared.
pub const DEFAULT_CLIENT_METHOD: &str = "iam-ecs-client-token";

/// How the description of each token of a login begins.
const LOGIN: &str = "token created via login";
const CLUSTER: &str = "consul.hashicorp.com/cluster";
const TASK: &str = "consul.hashicorp.com/task-id";

/// So many tokens that name no task are named.
const EXAMPLES: usize = 3;

const NEEDS_TO_LIST: &str = "acl = \"read\"";

/// What is read of a token. There is no field for its secret.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Token {
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
enum Login {
    /// A task's.
    Of(TaskArn),
    /// Of another method's login, or of none.
    Foreign,
    /// Of such a login, but it does not say for which task: nobody removes it.
    Unplaced(Unplaced),
}

/// Why a login's token names no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unplaced {
    /// It was logged in without saying, or somebody wrote another description.
    NoMetadata,
    /// What it says cannot be read.
    Malformed,
}

impl Unplaced {
    const ALL: [Self; 2] = [Self::NoMetadata, Self::Malformed];

    fn label(self) -> &'static str {
        match self {
            Self::NoMetadata => "no_metadata",
            Self::Malformed => "malformed",
        }
    }
}

impl Token {
    /// Consul takes names of auth methods that differ in case alone for one.
    fn login(&self, method: &str) -> Login {
        if !method.eq_ignore_ascii_case(&self.auth_method) {
            return Login::Foreign;
        }
        let Some(metadata) = self.description.strip_prefix(LOGIN) else {
            return Login::Unplaced(Unplaced::NoMetadata);
        };
        let Some(metadata) = metadata.strip_prefix(": ") else {
            return Login::Unplaced(Unplaced::NoMetadata);
        };
        let Ok(metadata) = serde_json::from_str::<BTreeMap<String, Value>>(metadata) else {
            return Login::Unplaced(Unplaced::Malformed);
        };
        let cluster = metadata.get(CLUSTER).map(|text| ClusterArn::parse(text.as_str().unwrap_or_default()));
        let task = metadata.get(TASK).map(|text| TaskId::parse(text.as_str().unwrap_or_default()));
        match (cluster, task) {
            (Some(Ok(cluster)), Some(Ok(task))) => Login::Of(cluster.task(task)),
            (None, None) => Login::Unplaced(Unplaced::NoMetadata),
            _ => Login::Unplaced(Unplaced::Malformed),
        }
    }

    fn registration(self, task: Option<&TaskArn>, taken: &Taken) -> Registration {
        let handle = Handle::Token { accessor: self.accessor, namespace: self.namespace };
        Registration {
            id: handle.in_mesh(taken.mesh.clone()),
            owner: owner(task, &taken.operator),
            service: self.service_identities.first().map(|identity| shared(&identity.service_name)),
            created_at: Timestamp::parse(&self.create_time),
            drained: None,
            normal: Value::Null,
            stored: json!({"AuthMethod": self.auth_method, "CreateTime": self.create_time}),
        }
    }
}

/// A task's own evidence makes it this operator's to clean up, as the binding says.
pub(super) fn owner(task: Option<&TaskArn>, operator: &OperatorId) -> Owner {
    task.map_or(Owner::Foreign, |task| Owner::Marked(Marks::of(operator, task)))
}

impl<T: StreamTransport> Api<T> {
    /// All tokens of logins, in one pass: `each` is given the task that the token names, if any, and makes a registration
    /// of the token if it wants to. Each namespace is a part. Counts those that name no task, and tells of them unless a
    /// part failed.
    pub(super) async fn tokens(
        &self,
        taken: &Taken,
        operation: &'static str,
        left_out: &mut Pass,
        parts: &mut Parts,
        each: &mut (dyn FnMut(Option<&TaskArn>, Token) + Send),
    ) -> usize {
        let methods = taken.methods.load_full();
        let mut unplaced: BTreeMap<Unplaced, (usize, Vec<Arc<str>>)> =
            Unplaced::ALL.iter().map(|why| (*why, Default::default())).collect();
        let failures = parts.failures();
        for namespace in self.scope.namespaces() {
            let list = async {
                for method in methods.iter() {
                    let mut skip = |why| {
                        taken.observer.skipped(operation);
                        left_out.note("", why);
                    };
                    let mut take = |item: Result<&[u8], TooLarge>| {
                        let Ok(item) = item else { return skip(TOO_LARGE_TOKEN) };
                        match serde_json::from_slice::<Token>(item) {
                            Ok(token) if is_uuid(&token.accessor) => match token.login(method) {
                                Login::Of(task) => each(Some(&task), token),
                                Login::Foreign => {}
                                Login::Unplaced(why) => {
                                    let (count, examples) = unplaced.entry(why).or_default();
                                    *count += 1;
                                    if examples.len() < EXAMPLES {
                                        examples.push(Arc::clone(&token.accessor));
                                    }
                                    each(None, token);
                                }
                            },
                            _ => skip(UNREADABLE_TOKEN),
                        }
                    };
                    let path = self.scope.tokens_path(namespace.as_deref(), method);
                    let call = Call { method: Method::Get, path: &path, needs: NEEDS_TO_LIST };
                    let _: Vec<()> = self.list(&call, Listed::Whole, &mut take).await?;
                }
                Ok(())
            };
            parts.ask(Place::Tokens { namespace: namespace.clone() }, list).await;
        }
        let mut of_no_task = 0;
        if parts.failures() == failures {
            let mut nameless = Vec::new();
            for (why, (count, examples)) in unplaced {
                taken.observer.unplaced(why.label(), count);
                of_no_task += count;
                if count > 0 {
                    nameless.push(Nameless { reason: why.label(), count, examples });
                }
            }
            taken.nameless.store(Arc::new(nameless));
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
    fn path<T: StreamTransport>(&self, api: &Api<T>) -> String {
        let path = format!("/v1/acl/token/{}", segment(&self.accessor));
        api.scope.path_in(self.namespace.as_deref(), &path, &[])
    }

    fn handle(&self) -> Handle {
        Handle::Token { accessor: Arc::clone(&self.accessor), namespace: self.namespace.clone() }
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
    api: &Api<T>,
    taken: &Taken,
    tokens: &Batcher<TokensOfTasks<T>>,
    key: &TokenKey,
) -> Result<Option<Registration>, MeshError> {
    let token: Option<Token> = api.get_unconfirmed(&key.path(api), NEEDS_TO_LIST).await?;
    let Some(token) = token else { return look_up_listed(api, tokens, key).await };
    let methods = taken.methods.load();
    let task = methods.iter().find_map(|method| match token.login(method) {
        Login::Of(task) => Some(task),
        Login::Foreign | Login::Unplaced(_) => None,
    });
    Ok(Some(token.registration(task.as_ref(), taken)))
}

/// Removes a token; `false` when it was not there. No more than `at_once` allows are removed at a time.
pub(super) async fn remove<T: StreamTransport + 'static>(
    api: &Api<T>,
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
        return Err(errors::found_again(&Call { method: Method::Delete, path: &path, needs }));
    }
    Ok(false)
}

/// One token by a list, after an answer that it is not there. A server that does not know our own token gives that
/// answer for every token, and checks of our token before and after it prove nothing about it, since each may have come
/// from another server. But no server gives such a token a list.
async fn look_up_listed<T: StreamTransport + 'static>(
    api: &Api<T>,
    tokens: &Batcher<TokensOfTasks<T>>,
    key: &TokenKey,
) -> Result<Option<Registration>, MeshError> {
    let found = tokens.ask((), WantedToken::One(key.clone())).await.map_err(errors::of_batch)?;
    if let Some(registration) = found.registrations.into_iter().next() {
        return Ok(Some(registration));
    }
    let id = key.handle().in_mesh(api.scope.mesh());
    let failed = found.failed.into_iter().find(|failed| failed.part.holds(&id));
    failed.map_or(Ok(None), |failed| Err(failed.error))
}

/// The tokens of many tasks, and many tokens by their accessors, by one pass over the list.
pub(super) struct TokensOfTasks<T> {
    pub(super) api: Arc<Api<T>>,
    pub(super) taken: Arc<Taken>,
}

#[async_trait]
impl<T: StreamTransport + 'static> BatchCall for TokensOfTasks<T> {
    type Group = ();
    type Request = WantedToken;
    type Response = Found;
    type Error = MeshError;

    async fn call(
        &self,
        _all: &(),
        wanted: Vec<WantedToken>,
    ) -> Result<BTreeMap<WantedToken, Found>, MeshError> {
        let mut found: BTreeMap<WantedToken, Found> =
            wanted.into_iter().map(|wanted| (wanted, Found::default())).collect();
        let mut take = |task: Option<&TaskArn>, token: Token| {
            let key = TokenKey { accessor: Arc::clone(&token.accessor), namespace: token.namespace.clone() };
            let registration = token.registration(task, &self.taken);
            if let Some(found) = task.and_then(|task| found.get_mut(&WantedToken::OfTask(task.clone()))) {
                found.registrations.push(registration.clone());
            }
            if let Some(found) = found.get_mut(&WantedToken::One(key)) {
                found.registrations.push(registration);
            }
        };
        // What is left out is told of when all is listed.
        let (mut left_out, mut parts) = (Pass::default(), Parts::default());
        self.api.tokens(&self.taken, "find", &mut left_out, &mut parts, &mut take).await;
        let failed = parts.end()?;
        found.values_mut().for_each(|found| found.failed.clone_from(&failed));
        Ok(found)
    }
}

/// Hands over all tokens of these clusters' tasks, of the parts that could be listed.
pub(super) async fn of_clusters<T: StreamTransport>(
    api: &Api<T>,
    taken: &Taken,
    clusters: &BTreeSet<ClusterArn>,
    left_out: &mut Pass,
    parts: &mut Parts,
    take: &mut (dyn FnMut(Sighting) + Send),
) {
    let mut read = |task: Option<&TaskArn>, token: Token| {
        if task.is_some_and(|task| clusters.contains(task.cluster())) {
            take(Sighting::from(&token.registration(task, taken)));
        }
    };
    api.tokens(taken, "owned", left_out, parts, &mut read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/anchor";
    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn login(description: &str, method: &str) -> Login {
        let token = json!({
            "AccessorID": "4fa6e11c-21d1-3462-a316-99515e5544f7", "SecretID": "s", "AuthMethod": method,
            "Description": description,
        });
        serde_json::from_value::<Token>(token).unwrap().login(DEFAULT_METHOD)
    }

    #[test]
    fn a_logins_token_is_placed_by_its_metadata() {
        let task = ClusterArn::parse(ARN).unwrap().task(TaskId::parse(ID).unwrap());
        for metadata in [
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID}),
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID, "pod": "x"}),
        ] {
            let found = login(&format!("token created via login: {metadata}"), DEFAULT_METHOD);
            assert_eq!(found, Login::Of(task.clone()));
        }
    }

    #[test]
    fn a_token_of_another_method_or_of_none_is_foreign_whatever_it_says() {
        let description = format!(
            "token created via login: {}",
            json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": ID})
        );
        for method in ["", "kubernetes", "iam-ecs-client-token"] {
            assert_eq!(login(&description, method), Login::Foreign, "{method}");
        }
    }

    #[test]
    fn a_methods_name_counts_in_whatever_case_consul_keeps_it() {
        let none = Login::Unplaced(Unplaced::NoMetadata);
        assert_eq!(login(LOGIN, "IAM-ecs-Service-Token"), none);
    }

    #[test]
    fn a_token_that_names_no_task_is_told_apart_by_why() {
        let with = |metadata: Value| format!("token created via login: {metadata}");
        for (description, why) in [
            ("token created via login".to_owned(), Unplaced::NoMetadata),
            ("edited".to_owned(), Unplaced::NoMetadata),
            (String::new(), Unplaced::NoMetadata),
            (with(json!({"pod": "x"})), Unplaced::NoMetadata),
            (with(json!({"consul.hashicorp.com/cluster": ARN})), Unplaced::Malformed),
            (
                with(json!({"consul.hashicorp.com/cluster": "prod", "consul.hashicorp.com/task-id": ID})),
                Unplaced::Malformed,
            ),
            (
                with(json!({"consul.hashicorp.com/cluster": ARN, "consul.hashicorp.com/task-id": 7})),
                Unplaced::Malformed,
            ),
            (with(json!([ARN, ID])), Unplaced::Malformed),
            ("token created via login: {".to_owned(), Unplaced::Malformed),
        ] {
            assert_eq!(login(&description, DEFAULT_METHOD), Login::Unplaced(why), "{description}");
        }
    }
}
