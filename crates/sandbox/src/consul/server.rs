//! The server as a value, without I/O and without a clock.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::acl::AclStore;
use super::bearer::{AwsAnswer, SignedCall};
use super::catalog::Catalog;
use super::ids::Ids;
use super::journal::ConsulJournalEntry;
use super::message::{ConsulConfig, ConsulRequest, ConsulRequestTarget, ConsulResponse, TEXT};
use super::permissions::{AccessLevel, Resource};
use super::response::{self, ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::route::{self, Acl, ConsulRoute};
use super::sessions::Locks;
use super::tokens::{StoredToken, TokenSummary};

pub(super) const VERSION: &str = "1.21.4";
/// The server's node, for which `/v1/agent/self` requires `agent:read`.
pub(super) const NODE_NAME: &str = "server-1";

/// A Consul server in memory.
///
/// Every method that changes something takes the time as a parameter, so that a run can be replayed.
pub struct ConsulServer {
    pub(super) config: ConsulConfig,
    pub(super) acl: AclStore,
    pub(super) catalog: Catalog,
    pub(super) locks: Locks,
    pub(super) ids: Ids,
    pub(super) node_id: String,
    pub(super) journal: Vec<ConsulJournalEntry>,
    index: u64,
}

impl fmt::Debug for ConsulServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulServer")
            .field("tokens", &self.acl.tokens.len())
            .field("nodes", &self.catalog.nodes.len())
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Context of a request for the handlers.
pub(super) struct RequestContext<'a> {
    pub(super) now: Timestamp,
    pub(super) request: &'a ConsulRequest,
    pub(super) target: &'a ConsulRequestTarget,
    pub(super) secret: Option<&'a str>,
}

impl ConsulServer {
    /// A server with only the built-in objects.
    pub fn new(config: ConsulConfig, now: Timestamp) -> Self {
        let mut ids = Ids::new(config.seed);
        let mut server = Self {
            node_id: ids.uuid(),
            config,
            acl: AclStore::default(),
            catalog: Catalog::default(),
            locks: Locks::default(),
            ids,
            journal: Vec::new(),
            index: 3,
        };
        server.create_builtin_policies();
        server.create_builtin_tokens(now);
        server.register_own_node();
        server
    }

    /// Advances the server to `now` and handles a request. Logins fail, since they need
    /// [`login_with`](Self::login_with).
    pub fn handle(&mut self, now: Timestamp, request: &ConsulRequest) -> ConsulResponse {
        self.handle_with(now, request, &[])
    }

    /// Handles a request. `aws` sends a login's signed requests.
    pub fn login_with(
        &mut self,
        now: Timestamp,
        request: &ConsulRequest,
        aws: &mut dyn FnMut(&SignedCall) -> Result<AwsAnswer, String>,
    ) -> ConsulResponse {
        self.tick(now);
        let answers: Vec<_> = self.signed_calls(request).iter().map(aws).collect();
        self.handle_with(now, request, &answers)
    }

    /// Handles a request with AWS's responses to its [`signed_calls`](Self::signed_calls).
    pub fn handle_with(
        &mut self,
        now: Timestamp,
        request: &ConsulRequest,
        answers: &[Result<AwsAnswer, String>],
    ) -> ConsulResponse {
        self.tick(now);
        let Some(target) = ConsulRequestTarget::parse(&request.path_and_query) else {
            return ConsulResponse::new(400, TEXT, b"the path is not decodable".to_vec());
        };
        let Some((route, methods)) = route::of(&target.path) else {
            return ConsulResponse::new(404, TEXT, b"this path is not an endpoint of the API".to_vec());
        };
        let call = RequestContext { now, request, target: &target, secret: request.token.as_deref() };
        let mut outcome = if methods.contains(&request.method.as_str()) {
            self.admitted(&call, &route).and_then(|()| self.answer(&call, &route, answers))
        } else {
            Err(ConsulErrorResponse::method(&request.method, methods))
        };
        if request.method == "GET" && route.has_index() && !matches!(route, ConsulRoute::Key(_)) {
            outcome = outcome.map_err(ConsulErrorResponse::queried);
        }
        response::response(&self.config, outcome)
    }

    /// Expires tokens and sessions that are due by `now`.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some((until, secret)) = self.acl.expiring.first() {
            if *until > now {
                break;
            }
            let secret = secret.clone();
            let index = self.commit();
            self.acl.remove_token(&secret, index);
        }
        self.expire_sessions(now);
    }

    /// Time of the next change by [`tick`](Self::tick).
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let token = self.acl.expiring.first().map(|(until, _)| *until);
        token.into_iter().chain(self.next_session_end()).min()
    }

    /// The index of the last change.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub(super) fn connections_per_client(&self) -> usize {
        self.config.connections_per_client
    }

    /// All tokens, without secrets.
    pub fn tokens(&self) -> impl Iterator<Item = Value> {
        self.acl.tokens.values().map(|token| token.shown(&self.acl, false))
    }

    /// The services of a node by id, in their response form.
    pub fn services(&self, node: &str) -> BTreeMap<String, Value> {
        let services = self.catalog.nodes.get(node).into_iter().flat_map(|node| &node.services);
        services.map(|(id, service)| (id.clone(), service.shown())).collect()
    }

    /// The tokens, without what only their response form has.
    pub fn token_summaries(&self) -> impl Iterator<Item = TokenSummary<'_>> {
        self.acl.tokens.values().map(StoredToken::summary)
    }

    /// `CreateIndex` of the token with this accessor.
    pub fn token_created(&self, accessor: &str) -> Option<u64> {
        self.acl.token(accessor).map(|token| token.created)
    }

    /// `Meta` of each service of a node, by the service's id.
    pub fn service_meta(&self, node: &str) -> impl Iterator<Item = (&str, &Value)> {
        let services = self.catalog.nodes.get(node).into_iter().flat_map(|node| &node.services);
        services.map(|(id, service)| (id.as_str(), service.field("Meta")))
    }

    /// `CreateIndex` of a service.
    pub fn service_created(&self, node: &str, id: &str) -> Option<u64> {
        Some(self.catalog.nodes.get(node)?.services.get(id)?.created)
    }

    /// The names of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.catalog.nodes.keys().map(String::as_str)
    }

    /// Increments the index for a change and returns it.
    pub(super) fn commit(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    /// Checks that the request is for this datacenter, which is the default.
    pub(super) fn check_datacenter(&self, datacenter: &str) -> Result<(), ConsulErrorResponse> {
        if datacenter.is_empty() || datacenter == self.config.datacenter {
            return Ok(());
        }
        Err(ConsulErrorResponse::invalid(format!("no path to the datacenter {datacenter:?}")))
    }

    fn admitted(&self, call: &RequestContext<'_>, route: &ConsulRoute) -> Result<(), ConsulErrorResponse> {
        if route.is_acl() && !self.config.acls_enabled {
            return Err(ConsulErrorResponse::acls_disabled());
        }
        let parameter = ["ns", "partition"].into_iter().find(|name| !call.target.parameter(name).is_empty());
        if let Some(name) = parameter.or(call.request.enterprise_header) {
            return Err(ConsulErrorResponse::malformed(format!("{name} is a matter of Consul Enterprise")));
        }
        if call.request.method == "GET" && route.has_index() {
            call.target.wait().map_err(ConsulErrorResponse::malformed)?;
        }
        self.check_datacenter(call.target.parameter("dc"))
    }

    fn answer(
        &mut self,
        call: &RequestContext<'_>,
        route: &ConsulRoute,
        answers: &[Result<AwsAnswer, String>],
    ) -> HandlerResult {
        match call.request.method.as_str() {
            "GET" => self.read(call, route),
            "DELETE" => self.delete(call, route),
            _ => self.write(call, route, answers),
        }
    }

    fn read(&self, call: &RequestContext<'_>, route: &ConsulRoute) -> HandlerResult {
        match route {
            ConsulRoute::Leader => Ok(HandlerResponse::Plain(json!("127.0.0.1:8300"))),
            ConsulRoute::Datacenters => Ok(HandlerResponse::Plain(json!([self.config.datacenter]))),
            ConsulRoute::AgentSelf => self.agent(call),
            // The version needs no permission.
            ConsulRoute::AgentVersion => {
                Ok(HandlerResponse::Plain(json!({"SHA": "", "HumanVersion": VERSION})))
            }
            ConsulRoute::OwnToken => self.read_own_token(call),
            ConsulRoute::List(Acl::Token) => self.list_tokens(call),
            ConsulRoute::List(Acl::Policy) => self.list_policies(call),
            ConsulRoute::List(Acl::Role) => self.list_roles(call),
            ConsulRoute::List(Acl::Method) => self.list_methods(call),
            ConsulRoute::List(Acl::Rule) => self.list_rules(call),
            ConsulRoute::Item(_, id) if id.is_empty() => {
                Err(ConsulErrorResponse::malformed("the URL names no object"))
            }
            ConsulRoute::Item(Acl::Token, id) => self.read_token(call, id),
            ConsulRoute::Item(Acl::Policy, id) => self.read_policy(call, id),
            ConsulRoute::Item(Acl::Role, id) => self.read_role(call, id),
            ConsulRoute::Item(Acl::Method, name) => self.read_method(call, name),
            ConsulRoute::Item(Acl::Rule, id) => self.read_rule(call, id),
            ConsulRoute::Named(Acl::Policy, name) => self.read_policy_by_name(call, name),
            ConsulRoute::Named(_, name) => self.read_role_by_name(call, name),
            ConsulRoute::Nodes => self.list_nodes(call),
            ConsulRoute::Services => self.list_services(call),
            ConsulRoute::Node(name) => self.node_services(call, name, false),
            ConsulRoute::NodeServices(name) => self.node_services(call, name, true),
            ConsulRoute::HealthOfService(name) => self.health_of_service(call, name),
            ConsulRoute::HealthOfNode(name) => self.health_of_node(call, name),
            ConsulRoute::Key(key) => self.read_key(call, key),
            _ => Err(ConsulErrorResponse::not_found("thing to read")),
        }
    }

    fn write(
        &mut self,
        call: &RequestContext<'_>,
        route: &ConsulRoute,
        answers: &[Result<AwsAnswer, String>],
    ) -> HandlerResult {
        let (kind, id) = match route {
            ConsulRoute::Login => return self.login(call, answers),
            ConsulRoute::Logout => return self.logout(call),
            ConsulRoute::Authorize => return self.authorize(call),
            ConsulRoute::Register => return self.register(call),
            ConsulRoute::Deregister => return self.deregister(call),
            ConsulRoute::Transaction => return self.transact(call),
            ConsulRoute::CreateSession => return self.create_session(call),
            ConsulRoute::DestroySession(id) => return self.destroy_session(call, id),
            ConsulRoute::RenewSession(id) => return self.renew_session(call, id),
            ConsulRoute::Key(key) => return self.write_key(call, key),
            ConsulRoute::Create(kind) => (kind, None),
            ConsulRoute::Item(kind, id) => (kind, Some(id.as_str()).filter(|id| !id.is_empty())),
            _ => return Err(ConsulErrorResponse::not_found("thing to write")),
        };
        match kind {
            Acl::Token => self.write_token(call, id),
            Acl::Policy => self.write_policy(call, id),
            Acl::Role => self.write_role(call, id),
            Acl::Method => self.write_method(call, id),
            Acl::Rule => self.write_rule(call, id),
        }
    }

    fn delete(&mut self, call: &RequestContext<'_>, route: &ConsulRoute) -> HandlerResult {
        match route {
            ConsulRoute::Item(_, id) if id.is_empty() => {
                Err(ConsulErrorResponse::malformed("the URL names no object"))
            }
            ConsulRoute::Item(Acl::Token, id) => self.delete_token(call, id),
            ConsulRoute::Item(Acl::Policy, id) => self.delete_policy(call, id),
            ConsulRoute::Item(Acl::Role, id) => self.delete_role(call, id),
            ConsulRoute::Item(Acl::Method, name) => self.delete_method(call, name),
            ConsulRoute::Item(Acl::Rule, id) => self.delete_rule(call, id),
            ConsulRoute::Key(key) => self.delete_key(call, key),
            _ => Err(ConsulErrorResponse::not_found("thing to delete")),
        }
    }

    fn agent(&self, call: &RequestContext<'_>) -> HandlerResult {
        self.caller(call.secret)?.require(Resource::Agent, NODE_NAME, AccessLevel::Read)?;
        Ok(HandlerResponse::Plain(json!({
            "Config": {
                "Datacenter": self.config.datacenter,
                "PrimaryDatacenter": self.config.datacenter,
                "NodeName": NODE_NAME,
                "NodeID": self.node_id,
                "Revision": "",
                "Server": true,
                "Version": VERSION,
                "BuildDate": "1970-01-01T00:00:01Z",
            },
            "Member": {"Name": NODE_NAME},
        })))
    }

    /// The index that a blocking query of this request waits on; `None` for other requests.
    pub(super) fn waits_on(&self, request: &ConsulRequest) -> Option<u64> {
        let target = ConsulRequestTarget::parse(&request.path_and_query)?;
        let (route, _) = route::of(&target.path)?;
        // Rejected requests do not block.
        let caller = self.caller(request.token.as_deref()).ok()?;
        let is_object =
            matches!(route, ConsulRoute::List(_) | ConsulRoute::Item(..) | ConsulRoute::Named(..));
        if request.method != "GET" || (is_object && !caller.may(Resource::Acl, "", AccessLevel::Read)) {
            return None;
        }
        let changed = &self.acl.changed;
        let index = match &route {
            ConsulRoute::OwnToken | ConsulRoute::List(Acl::Token) | ConsulRoute::Item(Acl::Token, _) => {
                changed.tokens
            }
            ConsulRoute::List(Acl::Policy)
            | ConsulRoute::Item(Acl::Policy, _)
            | ConsulRoute::Named(Acl::Policy, _) => changed.policies,
            ConsulRoute::List(Acl::Role) | ConsulRoute::Item(Acl::Role, _) | ConsulRoute::Named(..) => {
                changed.roles
            }
            ConsulRoute::List(Acl::Method) | ConsulRoute::Item(Acl::Method, _) => changed.methods,
            ConsulRoute::List(Acl::Rule) | ConsulRoute::Item(Acl::Rule, _) => changed.rules,
            ConsulRoute::Nodes => self.catalog.nodes_changed,
            ConsulRoute::Services => self.catalog.services_changed,
            ConsulRoute::HealthOfService(name) => self.catalog.service_index(name),
            ConsulRoute::Node(name) | ConsulRoute::NodeServices(name) => self.catalog.node_index(name),
            ConsulRoute::HealthOfNode(name) => self.catalog.node_index(name).max(self.catalog.checks_changed),
            ConsulRoute::Key(key) => {
                self.locks.entries.get(key).map_or(self.locks.entries_changed, |entry| entry.modified)
            }
            _ => return None,
        };
        Some(index.max(1))
    }
}
