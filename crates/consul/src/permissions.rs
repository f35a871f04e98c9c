//! What our own token may do, in the servers' own judgement: they are asked, and nothing is tried.
//!
//! The call is the one that Consul's own UI asks before it shows a button. Every release that is looked after has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::api::ConsulApi;
use super::errors::{self, ConsulCall};
use super::scope::{ALL_NAMESPACES, HOME_NAMESPACE};
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};

/// The servers judge no more at once.
const MAX_CHECKS_PER_CALL: usize = 64;

/// A right to write. What is only read is shown by reading it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclPermission {
    /// Tokens, policies, roles, auth methods and binding rules.
    Acls,
    /// What all tokens of a namespace get. (Enterprise.)
    Operator,
    /// Services of any name.
    Services,
    /// Services of this name.
    Service(Arc<str>),
    /// The node of this name.
    Node(Arc<str>),
    /// All nodes whose names begin so.
    Nodes(Arc<str>),
}

/// The rights that were asked for, and whether the token has each.
pub type AclPermissions = BTreeMap<AclPermission, bool>;

impl AclPermission {
    fn resource(&self) -> &'static str {
        match self {
            Self::Acls => "acl",
            Self::Operator => "operator",
            Self::Services | Self::Service(_) => "service",
            Self::Node(_) | Self::Nodes(_) => "node",
        }
    }

    /// Of what all names begin with, and that alone, only a rule over all of them decides.
    fn segment(&self) -> Option<&str> {
        match self {
            Self::Acls | Self::Operator => None,
            Self::Services => Some(""),
            Self::Service(name) | Self::Node(name) | Self::Nodes(name) => Some(name),
        }
    }

    /// Enterprise keeps ACLs and services in namespaces, and the rest in partitions.
    fn is_within_a_namespace(&self) -> bool {
        matches!(self, Self::Acls | Self::Services | Self::Service(_))
    }
}

/// The rule that gives it, as it is written in a policy.
/// As it is written in a policy. Names are quoted, since others choose them and a person pastes it.
impl fmt::Display for AclPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acls => f.write_str("acl = \"write\""),
            Self::Operator => f.write_str("operator = \"write\""),
            Self::Services => f.write_str("service_prefix \"\" { policy = \"write\" }"),
            Self::Service(name) => write!(f, "service {name:?} {{ policy = \"write\" }}"),
            Self::Node(name) => write!(f, "node {name:?} {{ policy = \"write\" }}"),
            Self::Nodes(prefix) => write!(f, "node_prefix {prefix:?} {{ policy = \"write\" }}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AuthorizeResult {
    resource: String,
    allow: bool,
}

impl<T: StreamTransport> ConsulApi<T> {
    /// Which of these rights our own token has; in Enterprise, whether it has each in every namespace that is given.
    pub(super) async fn rights(&self, wanted: &BTreeSet<AclPermission>) -> Result<AclPermissions, MeshError> {
        let questions: Vec<(&AclPermission, Value)> = wanted
            .iter()
            .flat_map(|right| self.questions(right).into_iter().map(move |one| (right, one)))
            .collect();
        let mut rights: AclPermissions = wanted.iter().map(|right| (right.clone(), true)).collect();
        for questions in questions.chunks(MAX_CHECKS_PER_CALL) {
            for ((right, _), allowed) in questions.iter().zip(self.judged(questions).await?) {
                if !allowed {
                    rights.insert((*right).clone(), false);
                }
            }
        }
        Ok(rights)
    }

    fn questions(&self, right: &AclPermission) -> Vec<Value> {
        let mut question = json!({"Resource": right.resource(), "Access": "write"});
        if let Some(segment) = right.segment() {
            question["Segment"] = segment.into();
        }
        // The open-source edition refuses a question that has these.
        if let Some(partition) = self.scope.partition() {
            question["Partition"] = partition.into();
        }
        let namespaces = if right.is_within_a_namespace() { self.scope.namespaces() } else { vec![None] };
        let in_namespace = |namespace: Option<Arc<str>>| {
            let mut question = question.clone();
            if let Some(name) = namespace {
                // Of all namespaces one can be asked for.
                question["Namespace"] = if *name == *ALL_NAMESPACES { HOME_NAMESPACE } else { &*name }.into();
            }
            question
        };
        namespaces.into_iter().map(in_namespace).collect()
    }

    async fn judged(&self, questions: &[(&AclPermission, Value)]) -> Result<Vec<bool>, MeshError> {
        let path = self.scope.datacenter_path("/v1/internal/acl/authorize");
        let call = ConsulCall { method: HttpMethod::Post, path: &path, needs: "no right at all" };
        let body: Value = questions.iter().map(|(_, question)| question.clone()).collect();
        let reply = self.send(&call, Some(body.to_string().into_bytes())).await?;
        let judged: Vec<AuthorizeResult> = call.read(&reply)?;
        let are_those_asked = judged.len() == questions.len()
            && judged.iter().zip(questions).all(|(one, (right, _))| one.resource == right.resource());
        if !are_those_asked {
            let message = format!("{call}: the answer is about other rights than were asked for");
            return Err(errors::error(MeshErrorKind::UnexpectedResponse, message));
        }
        Ok(judged.into_iter().map(|one| one.allow).collect())
    }
}
