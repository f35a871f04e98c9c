//! The fate of each field of Consul's ACL objects, unless what it says decides it.

use crate::report::{FieldRule as Rule, ResourceRules};

const MARK: &str = "the operator writes its own text and its ownership marker, once it adopts the object";
const KEPT: &str = "a ConsulAuth does not declare it: it stays as it is";
const SERVER: &str = "Consul's record of the object";

const AUTH_METHOD: &[Rule] = &[
    Rule::carried("Name", "ConsulAuth.spec.serviceTokens.authMethod, clientTokens.authMethod"),
    Rule::carried("Type", "ConsulAuth.spec.serviceTokens, clientTokens"),
    Rule::changed("Description", "ConsulAuth.spec.adopt", MARK),
    Rule::carried("MaxTokenTTL", "tokenTtl"),
    Rule::carried("TokenLocality", "tokenLocality"),
    Rule::carried("Config.BoundIAMPrincipalARNs", "boundPrincipals"),
    Rule::carried("Config.EnableIAMEntityDetails", "ConsulAuth.spec.clientTokens.entityDetails"),
    Rule::changed(
        "Config.IAMEntityTags",
        "ConsulAuth.spec.serviceTokens",
        "the operator sets the role tags that it needs",
    ),
    Rule::carried("Config.STSEndpoint", "stsEndpoint"),
    Rule::carried("Config.IAMEndpoint", "iamEndpoint"),
    Rule::carried("Config.AllowedSTSHeaderValues", "allowedStsHeaders"),
    Rule::needless(
        "Config.ServerIDHeaderValue",
        "it stays as it is, and is not printed, since it may be a secret",
    ),
    Rule::needless("Config.MaxRetries", KEPT),
    Rule::needless("Config.STSRegion", KEPT),
    Rule::needless("DisplayName", KEPT),
    Rule::needless(
        "NamespaceRules",
        "the operator writes the rule for namespaces where the control plane has them",
    ),
    Rule::needless("Namespace", SERVER),
    Rule::needless("Partition", SERVER),
    Rule::needless("ModifyIndex", SERVER),
];

const BINDING_RULE: &[Rule] = &[
    Rule::needless("ID", SERVER),
    Rule::changed("Description", "ConsulAuth.spec.adopt", MARK),
    Rule::carried("AuthMethod", "ConsulAuth.spec.serviceTokens.authMethod, clientTokens.authMethod"),
    Rule::carried("BindType", "ConsulAuth.spec.serviceTokens.gateways, clientTokens"),
    Rule::carried("BindName", "ConsulAuth.spec.serviceTokens.gateways, clientTokens"),
    Rule::carried("Selector", "ConsulAuth.spec.serviceTokens.gateways"),
    Rule::needless("BindVars", KEPT),
    Rule::needless("Namespace", SERVER),
    Rule::needless("Partition", SERVER),
    Rule::needless("ModifyIndex", SERVER),
];

const ROLE: &[Rule] = &[
    Rule::needless("ID", SERVER),
    Rule::carried("Name", "ConsulAuth.spec.serviceTokens.gateways, clientTokens"),
    Rule::changed("Description", "ConsulAuth.spec.adopt", MARK),
    Rule::needless("Policies[].ID", SERVER),
    Rule::carried("Policies[].Name", "ConsulAuth.spec.serviceTokens.terminatingGatewayPolicies"),
    Rule::needless("Namespace", SERVER),
    Rule::needless("Partition", SERVER),
    Rule::needless("ModifyIndex", SERVER),
];

const POLICY: &[Rule] = &[
    Rule::needless("ID", SERVER),
    Rule::carried("Name", "ConsulAuth.spec.anonymousPolicy"),
    Rule::changed("Description", "ConsulAuth.spec.adopt", MARK),
    Rule::changed(
        "Rules",
        "ConsulAuth.spec.anonymousPolicy",
        "the operator writes its own rules: `plan` shows the difference",
    ),
    Rule::needless("Datacenters", KEPT),
    Rule::needless("Namespace", SERVER),
    Rule::needless("Partition", SERVER),
    Rule::needless("ModifyIndex", SERVER),
];

/// The rules of all kinds.
pub(crate) const RULES: [ResourceRules; 4] = [
    ResourceRules { kind: "AuthMethod", rules: AUTH_METHOD },
    ResourceRules { kind: "BindingRule", rules: BINDING_RULE },
    ResourceRules { kind: "Role", rules: ROLE },
    ResourceRules { kind: "AnonymousPolicy", rules: POLICY },
];

/// The rules of a kind.
pub(super) fn rules_of(kind: &str) -> &'static [Rule] {
    RULES.iter().find(|rules| rules.kind == kind).map_or(&[], |rules| rules.rules)
}
