//! Routes of the HTTP API and their methods.

/// Kinds of ACL objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acl {
    Token,
    Policy,
    Role,
    Method,
    Rule,
}

/// Route of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConsulRoute {
    Leader,
    AgentSelf,
    AgentVersion,
    Login,
    Logout,
    OwnToken,
    Authorize,
    List(Acl),
    Create(Acl),
    Item(Acl, String),
    Named(Acl, String),
    Register,
    Deregister,
    Datacenters,
    Nodes,
    Services,
    Node(String),
    NodeServices(String),
    HealthOfService(String),
    HealthOfNode(String),
    Transaction,
    CreateSession,
    DestroySession(String),
    RenewSession(String),
    Key(String),
}

type Methods = &'static [&'static str];

const GET: Methods = &["GET"];
const PUT: Methods = &["PUT"];
const POST: Methods = &["POST"];
const ITEM: Methods = &["GET", "PUT", "DELETE"];

const EXACT: &[(&str, ConsulRoute, Methods)] = &[
    ("/v1/status/leader", ConsulRoute::Leader, GET),
    ("/v1/agent/self", ConsulRoute::AgentSelf, GET),
    ("/v1/agent/version", ConsulRoute::AgentVersion, GET),
    ("/v1/acl/login", ConsulRoute::Login, POST),
    ("/v1/acl/logout", ConsulRoute::Logout, POST),
    ("/v1/acl/token/self", ConsulRoute::OwnToken, GET),
    ("/v1/internal/acl/authorize", ConsulRoute::Authorize, POST),
    ("/v1/acl/tokens", ConsulRoute::List(Acl::Token), GET),
    ("/v1/acl/policies", ConsulRoute::List(Acl::Policy), GET),
    ("/v1/acl/roles", ConsulRoute::List(Acl::Role), GET),
    ("/v1/acl/auth-methods", ConsulRoute::List(Acl::Method), GET),
    ("/v1/acl/binding-rules", ConsulRoute::List(Acl::Rule), GET),
    ("/v1/acl/token", ConsulRoute::Create(Acl::Token), PUT),
    ("/v1/acl/policy", ConsulRoute::Create(Acl::Policy), PUT),
    ("/v1/acl/role", ConsulRoute::Create(Acl::Role), PUT),
    ("/v1/acl/auth-method", ConsulRoute::Create(Acl::Method), PUT),
    ("/v1/acl/binding-rule", ConsulRoute::Create(Acl::Rule), PUT),
    ("/v1/catalog/register", ConsulRoute::Register, PUT),
    ("/v1/catalog/deregister", ConsulRoute::Deregister, PUT),
    ("/v1/catalog/datacenters", ConsulRoute::Datacenters, GET),
    ("/v1/catalog/nodes", ConsulRoute::Nodes, GET),
    ("/v1/catalog/services", ConsulRoute::Services, GET),
    ("/v1/txn", ConsulRoute::Transaction, PUT),
    ("/v1/session/create", ConsulRoute::CreateSession, PUT),
];

type NamedRoute = fn(String) -> ConsulRoute;

/// Prefixes, longer ones first.
const PREFIXES: &[(&str, NamedRoute, Methods)] = &[
    ("/v1/acl/policy/name/", |name| ConsulRoute::Named(Acl::Policy, name), GET),
    ("/v1/acl/role/name/", |name| ConsulRoute::Named(Acl::Role, name), GET),
    ("/v1/acl/token/", |id| ConsulRoute::Item(Acl::Token, id), ITEM),
    ("/v1/acl/policy/", |id| ConsulRoute::Item(Acl::Policy, id), ITEM),
    ("/v1/acl/role/", |id| ConsulRoute::Item(Acl::Role, id), ITEM),
    ("/v1/acl/auth-method/", |name| ConsulRoute::Item(Acl::Method, name), ITEM),
    ("/v1/acl/binding-rule/", |id| ConsulRoute::Item(Acl::Rule, id), ITEM),
    ("/v1/catalog/node/", ConsulRoute::Node, GET),
    ("/v1/catalog/node-services/", ConsulRoute::NodeServices, GET),
    ("/v1/health/service/", ConsulRoute::HealthOfService, GET),
    ("/v1/health/node/", ConsulRoute::HealthOfNode, GET),
    ("/v1/session/destroy/", ConsulRoute::DestroySession, PUT),
    ("/v1/session/renew/", ConsulRoute::RenewSession, PUT),
    ("/v1/kv/", ConsulRoute::Key, ITEM),
];

/// The route of a decoded path, with its methods.
pub(super) fn of(path: &str) -> Option<(ConsulRoute, Methods)> {
    if let Some((_, route, methods)) = EXACT.iter().find(|(known, ..)| *known == path) {
        return Some((route.clone(), methods));
    }
    PREFIXES.iter().find_map(|(prefix, named, methods)| {
        path.strip_prefix(prefix).map(|rest| (named(rest.to_owned()), *methods))
    })
}

impl ConsulRoute {
    pub(super) fn is_acl(&self) -> bool {
        matches!(
            self,
            Self::Login
                | Self::Logout
                | Self::OwnToken
                | Self::Authorize
                | Self::List(_)
                | Self::Create(_)
                | Self::Item(..)
                | Self::Named(..)
        )
    }

    /// Whether reads have an index, which they return even on errors.
    pub(super) fn has_index(&self) -> bool {
        !matches!(self, Self::Leader | Self::AgentSelf | Self::AgentVersion | Self::Datacenters)
    }
}
