//! Where a request goes, and with which methods.

/// The kinds of ACL objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acl {
    Token,
    Policy,
    Role,
    Method,
    Rule,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Leader,
    Peers,
    AgentSelf,
    AgentVersion,
    Bootstrap,
    Login,
    Logout,
    OwnToken,
    Authorize,
    CloneToken(String),
    List(Acl),
    Create(Acl),
    Item(Acl, String),
    Named(Acl, String),
    Register,
    Deregister,
    Datacenters,
    Nodes,
    Services,
    Instances(String),
    Node(String),
    NodeServices(String),
    HealthOfService(String),
    HealthOfNode(String),
    Transaction,
    CreateSession,
    DestroySession(String),
    RenewSession(String),
    Session(String),
    Sessions,
    SessionsOf(String),
    Key(String),
}

type Methods = &'static [&'static str];

const GET: Methods = &["GET"];
const PUT: Methods = &["PUT"];
const POST: Methods = &["POST"];
const ITEM: Methods = &["GET", "PUT", "DELETE"];

const EXACT: &[(&str, Route, Methods)] = &[
    ("/v1/status/leader", Route::Leader, GET),
    ("/v1/status/peers", Route::Peers, GET),
    ("/v1/agent/self", Route::AgentSelf, GET),
    ("/v1/agent/version", Route::AgentVersion, GET),
    ("/v1/acl/bootstrap", Route::Bootstrap, PUT),
    ("/v1/acl/login", Route::Login, POST),
    ("/v1/acl/logout", Route::Logout, POST),
    ("/v1/acl/token/self", Route::OwnToken, GET),
    ("/v1/internal/acl/authorize", Route::Authorize, POST),
    ("/v1/acl/tokens", Route::List(Acl::Token), GET),
    ("/v1/acl/policies", Route::List(Acl::Policy), GET),
    ("/v1/acl/roles", Route::List(Acl::Role), GET),
    ("/v1/acl/auth-methods", Route::List(Acl::Method), GET),
    ("/v1/acl/binding-rules", Route::List(Acl::Rule), GET),
    ("/v1/acl/token", Route::Create(Acl::Token), PUT),
    ("/v1/acl/policy", Route::Create(Acl::Policy), PUT),
    ("/v1/acl/role", Route::Create(Acl::Role), PUT),
    ("/v1/acl/auth-method", Route::Create(Acl::Method), PUT),
    ("/v1/acl/binding-rule", Route::Create(Acl::Rule), PUT),
    ("/v1/catalog/register", Route::Register, PUT),
    ("/v1/catalog/deregister", Route::Deregister, PUT),
    ("/v1/catalog/datacenters", Route::Datacenters, GET),
    ("/v1/catalog/nodes", Route::Nodes, GET),
    ("/v1/catalog/services", Route::Services, GET),
    ("/v1/txn", Route::Transaction, PUT),
    ("/v1/session/create", Route::CreateSession, PUT),
    ("/v1/session/list", Route::Sessions, GET),
];

type Named = fn(String) -> Route;

/// The longer of two prefixes comes first.
const PREFIXES: &[(&str, Named, Methods)] = &[
    ("/v1/acl/policy/name/", |name| Route::Named(Acl::Policy, name), GET),
    ("/v1/acl/role/name/", |name| Route::Named(Acl::Role, name), GET),
    ("/v1/acl/token/", |id| Route::Item(Acl::Token, id), ITEM),
    ("/v1/acl/policy/", |id| Route::Item(Acl::Policy, id), ITEM),
    ("/v1/acl/role/", |id| Route::Item(Acl::Role, id), ITEM),
    ("/v1/acl/auth-method/", |name| Route::Item(Acl::Method, name), ITEM),
    ("/v1/acl/binding-rule/", |id| Route::Item(Acl::Rule, id), ITEM),
    ("/v1/catalog/service/", Route::Instances, GET),
    ("/v1/catalog/node/", Route::Node, GET),
    ("/v1/catalog/node-services/", Route::NodeServices, GET),
    ("/v1/health/service/", Route::HealthOfService, GET),
    ("/v1/health/node/", Route::HealthOfNode, GET),
    ("/v1/session/destroy/", Route::DestroySession, PUT),
    ("/v1/session/renew/", Route::RenewSession, PUT),
    ("/v1/session/info/", Route::Session, GET),
    ("/v1/session/node/", Route::SessionsOf, GET),
    ("/v1/kv/", Route::Key, ITEM),
];

/// The route of a decoded path, and the methods that it takes.
pub(super) fn of(path: &str) -> Option<(Route, Methods)> {
    if let Some((_, route, methods)) = EXACT.iter().find(|(known, ..)| *known == path) {
        return Some((route.clone(), methods));
    }
    if let Some(id) = path.strip_prefix("/v1/acl/token/").and_then(|rest| rest.strip_suffix("/clone")) {
        return Some((Route::CloneToken(id.to_owned()), PUT));
    }
    PREFIXES.iter().find_map(|(prefix, named, methods)| {
        path.strip_prefix(prefix).map(|rest| (named(rest.to_owned()), *methods))
    })
}

impl Route {
    pub(super) fn is_acl(&self) -> bool {
        matches!(
            self,
            Self::Bootstrap
                | Self::Login
                | Self::Logout
                | Self::OwnToken
                | Self::Authorize
                | Self::CloneToken(_)
                | Self::List(_)
                | Self::Create(_)
                | Self::Item(..)
                | Self::Named(..)
        )
    }

    /// Whether a read here has an index, and so shows one even when it fails.
    pub(super) fn has_index(&self) -> bool {
        !matches!(self, Self::Leader | Self::Peers | Self::AgentSelf | Self::AgentVersion | Self::Datacenters)
    }
}
