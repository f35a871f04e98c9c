//! `ConsulAuth`: the identity set-up of ECS tasks in Consul.
//!
//! A field that is left out never admits more logins: principals must be listed, and where an omission could be read in
//! two ways, the stricter one applies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HumanDuration, limits, patterns};
use ecs_mesh_model::Glob;

/// The identity set-up of Consul on ECS: auth methods, binding rules, roles, policies, and the clusters' nodes in the
/// catalog. One for each control plane of type `consul`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsulAuthSpec {
    /// Name of a `ControlPlane` of type `consul`.
    pub control_plane: String,
    /// Whether the set-up should exist.
    ///
    /// `absent` removes all objects with this operator's marker, whatever else is declared here.
    #[serde(default)]
    pub state: Presence,
    /// Existing objects without this operator's marker to take over.
    ///
    /// `["*"]` adopts all that are declared. Binding rules are named METHOD/service, METHOD/client or
    /// METHOD/GATEWAY-KIND, nodes by their cluster's ARN. An object with another operator's marker is never
    /// adopted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopt: Vec<Glob>,
    /// Logins of services and gateways by their IAM role.
    ///
    /// Left out: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tokens: Option<ServiceTokens>,
    /// Logins of Consul client agents, without `consul-dataplane`.
    ///
    /// Left out: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tokens: Option<ClientTokens>,
    /// Lets requests without a token read services and nodes.
    ///
    /// Traffic between datacenters through mesh gateways needs that. Kept in the primary datacenter, which
    /// replicates it. Left out: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_policy: Option<Presence>,
    /// Consul Enterprise only.
    ///
    /// The control plane's `partition` or `namespaces` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enterprise: Option<ConsulEnterprise>,
}

/// Whether an object should exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Created and kept as declared.
    #[default]
    Present,
    /// Removed where this operator's marker is.
    Absent,
}

/// Logins of services and gateways by their IAM role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = patterns::required_unless_absent("boundPrincipals")))]
pub struct ServiceTokens {
    /// Whether this part should exist.
    ///
    /// Deleting the auth method deletes all tokens that it issued.
    #[serde(default)]
    pub state: Presence,
    /// IAM roles that may log in.
    ///
    /// Of any partition and account of AWS; one `*` may stand at the end. Required unless `state` is `absent`:
    /// leaving the field out admits no role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1), schema_with = "patterns::bound_principals")]
    pub bound_principals: Vec<String>,
    /// Name of the auth method.
    #[serde(default = "default_service_method")]
    #[schemars(schema_with = "patterns::consul_name")]
    pub auth_method: String,
    /// Gateway kinds that may log in, each with its rule, role and policy.
    ///
    /// Default: none. A kind that is not listed is unchanged where it exists; `absentGateways` removes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<GatewayKind>,
    /// Gateway kinds whose rule, role and policy are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_gateways: Vec<GatewayKind>,
    /// Your policies for terminating gateways.
    ///
    /// They need `service:write` for each service that they represent. Other policies are removed from their
    /// role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::consul_policies")]
    pub terminating_gateway_policies: Vec<String>,
    /// Lifetime of a token; a task cannot get another without a restart.
    ///
    /// `0s`: as long as the task. Left out: unchanged, and unlimited for a new method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allowed" = limits::TOKEN_TTL_OR_NONE, "x-format" = limits::TOKEN_TTL_FORMAT))]
    pub token_ttl: Option<HumanDuration>,
    /// Where a token is valid.
    #[serde(default)]
    pub token_locality: TokenLocality,
    /// STS endpoint that the servers ask who logs in.
    ///
    /// This endpoint decides identities. Default: AWS's own; another one is removed from the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::api_address")]
    pub sts_endpoint: Option<String>,
    /// IAM endpoint from which the servers read a role's tags.
    ///
    /// Default: AWS's own; another one is removed from the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::api_address")]
    pub iam_endpoint: Option<String>,
    /// Required value of the signed header `X-Consul-IAM-ServerID`.
    ///
    /// Makes a login for another server worthless here. `""` for none; left out: unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "patterns::header_value")]
    pub server_id_header_value: Option<String>,
    /// Further headers that a login's signed request may have.
    ///
    /// Default: none; others are removed from the method.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns::header_names")]
    pub allowed_sts_headers: Vec<String>,
}

fn default_service_method() -> String {
    "iam-ecs-service-token".to_owned()
}

/// Logins of Consul client agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = patterns::required_unless_absent("boundPrincipals")))]
pub struct ClientTokens {
    /// Whether this part should exist.
    ///
    /// Deleting the auth method deletes all tokens that it issued.
    #[serde(default)]
    pub state: Presence,
    /// Roles that may log in as a client agent.
    ///
    /// Format as in `serviceTokens`. Each gets `node:write` for every node. Required unless `state` is `absent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1), schema_with = "patterns::bound_principals")]
    pub bound_principals: Vec<String>,
    /// Name of the auth method.
    #[serde(default = "default_client_method")]
    #[schemars(schema_with = "patterns::consul_name")]
    pub auth_method: String,
    /// Whether the servers read the role from IAM.
    ///
    /// Required for `*` and for roles with a path.
    #[serde(default = "default_entity_details")]
    pub entity_details: bool,
    /// As in `serviceTokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allowed" = limits::TOKEN_TTL_OR_NONE, "x-format" = limits::TOKEN_TTL_FORMAT))]
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

fn default_client_method() -> String {
    "iam-ecs-client-token".to_owned()
}

fn default_entity_details() -> bool {
    true
}

/// Settings that both kinds of login have in common.
#[derive(Clone, Copy, Debug)]
pub struct LoginSettings<'a> {
    /// `authMethod`.
    pub auth_method: &'a str,
    /// `boundPrincipals`.
    pub bound_principals: &'a [String],
    /// `entityDetails`; services always need them.
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
    /// The settings of the auth method.
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
    /// The settings of the auth method.
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

/// Kinds of gateway, as in the role tag `consul.hashicorp.com.gateway-kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayKind {
    /// Between datacenters, partitions and peers: may write mesh entries and read peerings.
    MeshGateway,
    /// From the mesh to external services: may do what the policies of its role allow.
    TerminatingGateway,
    /// From outside into the mesh: may read mesh entries, nodes and services.
    ApiGateway,
}

impl GatewayKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::MeshGateway, Self::TerminatingGateway, Self::ApiGateway];

    /// The value of the role tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeshGateway => "mesh-gateway",
            Self::TerminatingGateway => "terminating-gateway",
            Self::ApiGateway => "api-gateway",
        }
    }

    /// The most likely kind for a word that is none.
    pub fn suggest(word: &str) -> Option<Self> {
        let word = word.to_lowercase().replace('_', "-");
        // The common suffix distinguishes none of them.
        let front = |kind: Self| kind.as_str().strip_suffix("-gateway").unwrap_or_default();
        let (word, is_whole) = match word.strip_suffix("-gateway") {
            Some(front) => (front, false),
            None => (&*word, true),
        };
        // API gateways replace ingress gateways.
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

/// Where a token is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenLocality {
    /// In the datacenter that issued it.
    #[default]
    Local,
    /// In every datacenter.
    Global,
}

/// Objects of Consul Enterprise. The rule that issues a token in the namespace of the role tag
/// `consul.hashicorp.com.namespace` needs no field: it exists where the control plane has a `partition` or
/// `namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsulEnterprise {
    /// Lets managed namespaces' tokens read services and nodes in all namespaces.
    ///
    /// Every token of the control plane's namespaces, within the partition. Left out: unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_namespace: Option<Presence>,
    /// Lets those tokens read services and nodes in all partitions.
    ///
    /// Only for the partition `default`. Left out: unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_partition: Option<Presence>,
}
