//! `ConsulAuth`: how ECS tasks get their identity in Consul.
//!
//! Leaving a field out never lets in more than is let in now: who may log in must be written, and where two ways to
//! read a silence differ, the tighter one holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, limits, patterns};
use ecs_mesh_model::Glob;

/// The identity set-up of Consul on ECS: auth methods, binding rules, roles, policies, and the clusters' nodes in the
/// catalog. One for each control plane of type `consul`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsulAuthSpec {
    /// The name of a `ControlPlane` of type `consul`.
    pub control_plane: String,
    /// Whether the set-up is to be there. `absent` removes everything of it that bears this operator's mark, whatever
    /// else is written here.
    #[serde(default)]
    pub state: Presence,
    /// Names of objects that exist without this operator's mark, and are to be its own from now on; `["*"]` for all
    /// that are declared. Binding rules are called METHOD/service, METHOD/client or METHOD/GATEWAY-KIND, nodes by
    /// their cluster's ARN. What another operator has marked is never taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<Glob>,
    /// Logins of tasks by their IAM role: for services and gateways. Left out: what is there is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tokens: Option<ServiceTokens>,
    /// Logins of Consul client agents, as in set-ups without `consul-dataplane`. Left out: what is there is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tokens: Option<ClientTokens>,
    /// Lets requests without a token read services and nodes, which traffic between datacenters through mesh gateways
    /// needs. Kept in the primary datacenter alone, which hands it on. Left out: what is there is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_policy: Option<Presence>,
    /// What Consul Enterprise has beyond that; the control plane's `partition` or `namespaces` must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enterprise: Option<ConsulEnterprise>,
}

/// Whether something is to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Made, and kept as it is written.
    #[default]
    Present,
    /// Removed where it bears this operator's mark.
    Absent,
}

/// Logins of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = patterns::needed_unless_absent("boundPrincipals")))]
pub struct ServiceTokens {
    /// Whether this part is to be there. With its auth method go all tokens that it gave out.
    #[serde(default)]
    pub state: Presence,
    /// ARNs of the IAM roles that may log in, in any partition of AWS and any account; `*` may stand at the end.
    /// Needed unless the part is `absent`: no role may log in because this was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1), schema_with = "patterns::bound_principals")]
    pub bound_principals: Vec<String>,
    /// The auth method's name, which tasks log in with.
    #[serde(default = "service_method")]
    #[schemars(schema_with = "patterns::consul_name")]
    pub auth_method: String,
    /// The kinds of gateway that may log in, each with its rule, role and policy. Left out: none is made. A kind that is
    /// not on the list is left alone where it is there; `absentGateways` removes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<GatewayKind>,
    /// The kinds of gateway whose rule, role and policy are to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_gateways: Vec<GatewayKind>,
    /// Policies of yours that terminating gateways get: they need `service:write` for each service that they stand
    /// for. All others that are attached to their role are taken off it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::consul_policies")]
    pub terminating_gateway_policies: Vec<String>,
    /// How long a token lives; its task cannot get another without a restart. `0s` for as long as the task. Left out:
    /// what the method says now, and no limit for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allowed" = TTL_RANGE))]
    pub token_ttl: Option<HumanDuration>,
    /// Where a token is known.
    #[serde(default)]
    pub token_locality: TokenLocality,
    /// Where the servers ask AWS who logs in. Who answers there decides who is who. Left out: AWS's own address, and
    /// another one is taken out of the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::api_address")]
    pub sts_endpoint: Option<String>,
    /// Where the servers ask AWS for a role's tags. Left out: AWS's own address, and another one is taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::api_address")]
    pub iam_endpoint: Option<String>,
    /// What logins must have signed in the header `X-Consul-IAM-ServerID`, so that a login for another server is worth
    /// nothing here; `""` for nothing. Left out: what the method says now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::header_value")]
    pub server_id_header_value: Option<String>,
    /// Further headers that a login's signed request may have. Left out: none, and others are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::header_names")]
    pub allowed_sts_headers: Vec<String>,
}

fn service_method() -> String {
    "iam-ecs-service-token".to_owned()
}

/// Logins of client agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = patterns::needed_unless_absent("boundPrincipals")))]
pub struct ClientTokens {
    /// Whether this part is to be there. With its auth method go all tokens that it gave out.
    #[serde(default)]
    pub state: Presence,
    /// ARNs of the IAM roles that may log in as a client agent, written as those of `serviceTokens`. Each of them gets
    /// `node:write` for every node. Needed unless the part is `absent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1), schema_with = "patterns::bound_principals")]
    pub bound_principals: Vec<String>,
    /// The auth method's name.
    #[serde(default = "client_method")]
    #[schemars(schema_with = "patterns::consul_name")]
    pub auth_method: String,
    /// Whether the servers read the role itself from IAM. Needed for `*` and for roles with a path.
    #[serde(default = "yes")]
    pub entity_details: bool,
    /// As in `serviceTokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allowed" = TTL_RANGE))]
    pub token_ttl: Option<HumanDuration>,
    /// As in `serviceTokens`.
    #[serde(default)]
    pub token_locality: TokenLocality,
    /// As in `serviceTokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::api_address")]
    pub sts_endpoint: Option<String>,
    /// As in `serviceTokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::api_address")]
    pub iam_endpoint: Option<String>,
    /// As in `serviceTokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::header_value")]
    pub server_id_header_value: Option<String>,
    /// As in `serviceTokens`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::header_names")]
    pub allowed_sts_headers: Vec<String>,
}

fn client_method() -> String {
    "iam-ecs-client-token".to_owned()
}

fn yes() -> bool {
    true
}

const TTL_RANGE: &str = limits::TOKEN_TTL_OR_NONE;

/// What both kinds of login say about their auth method, under one name.
#[derive(Clone, Copy, Debug)]
pub struct LoginSettings<'a> {
    /// `authMethod`.
    pub auth_method: &'a str,
    /// `boundPrincipals`.
    pub bound_principals: &'a [String],
    /// `entityDetails`, which services always need.
    pub entity_details: bool,
    /// `tokenTtl`.
    pub token_ttl: Option<HumanDuration>,
    /// `tokenLocality`.
    pub token_locality: TokenLocality,
    /// `stsEndpoint`.
    pub sts_endpoint: Option<&'a str>,
    /// `iamEndpoint`.
    pub iam_endpoint: Option<&'a str>,
    /// `serverIdHeaderValue`.
    pub server_id_header_value: Option<&'a str>,
    /// `allowedStsHeaders`.
    pub allowed_sts_headers: &'a [String],
}

impl ServiceTokens {
    /// What is said about the auth method.
    pub fn login(&self) -> LoginSettings<'_> {
        LoginSettings {
            auth_method: &self.auth_method,
            bound_principals: &self.bound_principals,
            entity_details: true,
            token_ttl: self.token_ttl,
            token_locality: self.token_locality,
            sts_endpoint: self.sts_endpoint.as_deref(),
            iam_endpoint: self.iam_endpoint.as_deref(),
            server_id_header_value: self.server_id_header_value.as_deref(),
            allowed_sts_headers: &self.allowed_sts_headers,
        }
    }
}

impl ClientTokens {
    /// What is said about the auth method.
    pub fn login(&self) -> LoginSettings<'_> {
        LoginSettings {
            auth_method: &self.auth_method,
            bound_principals: &self.bound_principals,
            entity_details: self.entity_details,
            token_ttl: self.token_ttl,
            token_locality: self.token_locality,
            sts_endpoint: self.sts_endpoint.as_deref(),
            iam_endpoint: self.iam_endpoint.as_deref(),
            server_id_header_value: self.server_id_header_value.as_deref(),
            allowed_sts_headers: &self.allowed_sts_headers,
        }
    }
}

/// The kinds of gateway, as in the role tag `consul.hashicorp.com.gateway-kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayKind {
    /// Between datacenters, partitions and peers: may write mesh entries, and read peerings.
    MeshGateway,
    /// From the mesh to what is outside: may do what you attach to its role.
    TerminatingGateway,
    /// From outside into the mesh: may read mesh entries, nodes and services.
    ApiGateway,
}

impl GatewayKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::MeshGateway, Self::TerminatingGateway, Self::ApiGateway];

    /// The value of the role tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeshGateway => "mesh-gateway",
            Self::TerminatingGateway => "terminating-gateway",
            Self::ApiGateway => "api-gateway",
        }
    }

    /// The kind that was most likely meant by a word that names none.
    pub fn suggest(word: &str) -> Option<Self> {
        let word = word.to_lowercase().replace('_', "-");
        // All end alike, which says nothing.
        let front = |kind: Self| kind.as_str().strip_suffix("-gateway").unwrap_or_default();
        let (word, is_whole) = match word.strip_suffix("-gateway") {
            Some(front) => (front, false),
            None => (&*word, true),
        };
        // API gateways took their place.
        if word == "ingress" {
            return Some(Self::ApiGateway);
        }
        let likeness = |kind: Self| {
            let of_front = strsim::normalized_damerau_levenshtein(word, front(kind));
            let of_whole = strsim::normalized_damerau_levenshtein(word, kind.as_str());
            if is_whole { of_front.max(of_whole) } else { of_front }
        };
        let likely = Self::ALL.into_iter().filter(|kind| likeness(*kind) >= 0.5);
        likely.max_by(|a, b| likeness(*a).total_cmp(&likeness(*b)))
    }
}

/// Where a token is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenLocality {
    /// In the datacenter that it was given out in.
    #[default]
    Local,
    /// In every datacenter.
    Global,
}

/// What Consul Enterprise has beyond the rest. The rule that puts a token into the namespace of the role tag
/// `consul.hashicorp.com.namespace` needs no word: it comes with the control plane's `partition` or `namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsulEnterprise {
    /// Lets every token of the control plane's namespaces read services and nodes in all namespaces of the partition.
    /// Left out: what is there is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_namespace: Option<Presence>,
    /// Lets them read services and nodes in all partitions; only where the partition is `default`. Left out: what is
    /// there is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_partition: Option<Presence>,
}
