//! Grants of roles and tokens: linked policies, service and node identities, templated policies.

use serde_json::{Map, Value, json};

use super::acl::AclStore;
use super::decode::{JsonFieldKind, JsonMessage, objects, text, texts};
use super::ids;
use super::response::ConsulErrorResponse;

pub(super) const LINK: JsonMessage =
    JsonMessage(&[("ID", JsonFieldKind::Text), ("Name", JsonFieldKind::Text)]);
pub(super) const SERVICE_IDENTITY: JsonMessage =
    JsonMessage(&[("ServiceName", JsonFieldKind::Text), ("Datacenters", JsonFieldKind::Texts)]);
pub(super) const NODE_IDENTITY: JsonMessage =
    JsonMessage(&[("NodeName", JsonFieldKind::Text), ("Datacenter", JsonFieldKind::Text)]);
const VARIABLES: JsonMessage = JsonMessage(&[("Name", JsonFieldKind::Text)]);
pub(super) const TEMPLATED_POLICY: JsonMessage = JsonMessage(&[
    ("TemplateID", JsonFieldKind::Text),
    ("TemplateName", JsonFieldKind::Text),
    ("TemplateVariables", JsonFieldKind::Message(&VARIABLES)),
    ("Datacenters", JsonFieldKind::Texts),
]);

/// A service identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenServiceIdentity {
    pub(super) name: String,
    pub(super) datacenters: Vec<String>,
}

/// A node identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeIdentity {
    pub(super) name: String,
    pub(super) datacenter: String,
}

/// A templated policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TemplatedPolicy {
    pub(super) template: &'static Template,
    pub(super) name: String,
    pub(super) datacenters: Vec<String>,
}

/// A policy template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    id: &'static str,
    pub(super) name: &'static str,
    /// Whether it requires a name.
    takes_name: bool,
    rules: &'static str,
}

/// The built-in templates, with the placeholder `NAME`.
const TEMPLATES: &[Template] = &[
    Template {
        id: "00000000-0000-0000-0000-000000000003",
        name: "builtin/service",
        takes_name: true,
        rules: "\nservice \"NAME\" {\n\tpolicy = \"write\"\n}\nservice \"NAME-sidecar-proxy\" {\n\tpolicy = \"write\"\n}\
                \nservice_prefix \"\" {\n\tpolicy = \"read\"\n}\nnode_prefix \"\" {\n\tpolicy = \"read\"\n}",
    },
    Template {
        id: "00000000-0000-0000-0000-000000000004",
        name: "builtin/node",
        takes_name: true,
        rules: "\nnode \"NAME\" {\n\tpolicy = \"write\"\n}\nservice_prefix \"\" {\n\tpolicy = \"read\"\n}",
    },
    Template {
        id: "00000000-0000-0000-0000-000000000005",
        name: "builtin/dns",
        takes_name: false,
        rules: "\nnode_prefix \"\" {\n\tpolicy = \"read\"\n}\nservice_prefix \"\" {\n\tpolicy = \"read\"\n}\
                \nquery_prefix \"\" {\n\tpolicy = \"read\"\n}",
    },
    Template {
        id: "00000000-0000-0000-0000-000000000008",
        name: "builtin/api-gateway",
        takes_name: true,
        rules: "\nmesh = \"read\"\nnode_prefix \"\" {\n\tpolicy = \"read\"\n}\nservice_prefix \"\" {\n\tpolicy = \"read\"\n}\
                \nservice \"NAME\" {\n\tpolicy = \"write\"\n}",
    },
];

impl Template {
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    fn find(id: &str, name: &str) -> Option<&'static Self> {
        TEMPLATES
            .iter()
            .find(|template| if id.is_empty() { template.name == name } else { template.id == id })
    }
}

/// A policy of an identity or a template, which is not stored.
pub(super) struct Synthetic {
    pub(super) description: String,
    pub(super) rules: String,
}

/// The grants of a role or a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grants {
    /// Ids of policies. Deleted policies are not shown.
    pub(super) policies: Vec<String>,
    pub(super) services: Vec<TokenServiceIdentity>,
    pub(super) nodes: Vec<NodeIdentity>,
    pub(super) templated: Vec<TemplatedPolicy>,
}

impl Grants {
    /// Parses and checks the grants of a body.
    pub(super) fn read(acl: &AclStore, body: &Map<String, Value>) -> Result<Self, ConsulErrorResponse> {
        let mut grants = Self::default();
        for link in objects(body, "Policies") {
            let id = acl.policy_of(text(link, "ID"), text(link, "Name"))?;
            if !grants.policies.contains(&id) {
                grants.policies.push(id);
            }
        }
        for identity in objects(body, "ServiceIdentities") {
            let name = text(identity, "ServiceName").to_owned();
            let datacenters = texts(identity, "Datacenters");
            grants.add_service(TokenServiceIdentity { name, datacenters })?;
        }
        for identity in objects(body, "NodeIdentities") {
            let (name, datacenter) = (text(identity, "NodeName"), text(identity, "Datacenter"));
            grants.add_node(NodeIdentity { name: name.to_owned(), datacenter: datacenter.to_owned() })?;
        }
        for policy in objects(body, "TemplatedPolicies") {
            let (id, name) = (text(policy, "TemplateID"), text(policy, "TemplateName"));
            let template = Template::find(id, name).ok_or_else(|| {
                ConsulErrorResponse::invalid(format!(
                    "no template of policies has the id {id:?} or the name {name:?}"
                ))
            })?;
            let variables = policy.get("TemplateVariables").and_then(Value::as_object);
            let name = variables.map_or("", |variables| text(variables, "Name")).to_owned();
            let datacenters = texts(policy, "Datacenters");
            grants.add_templated(TemplatedPolicy { template, name, datacenters })?;
        }
        Ok(grants)
    }

    pub(super) fn add_service(&mut self, identity: TokenServiceIdentity) -> Result<(), ConsulErrorResponse> {
        if !is_identity_name(&identity.name) {
            return Err(ConsulErrorResponse::invalid(not_a_name("service identity", &identity.name)));
        }
        if !self.services.contains(&identity) {
            self.services.push(identity);
        }
        Ok(())
    }

    pub(super) fn add_node(&mut self, identity: NodeIdentity) -> Result<(), ConsulErrorResponse> {
        if !is_identity_name(&identity.name) {
            return Err(ConsulErrorResponse::invalid(not_a_name("node identity", &identity.name)));
        }
        if identity.datacenter.is_empty() {
            return Err(ConsulErrorResponse::invalid(format!(
                "the node identity {:?} names no datacenter",
                identity.name
            )));
        }
        if !self.nodes.contains(&identity) {
            self.nodes.push(identity);
        }
        Ok(())
    }

    pub(super) fn add_templated(&mut self, policy: TemplatedPolicy) -> Result<(), ConsulErrorResponse> {
        let template = policy.template.name;
        if policy.template.takes_name && !is_identity_name(&policy.name) {
            return Err(ConsulErrorResponse::invalid(not_a_name(template, &policy.name)));
        }
        if !policy.template.takes_name && !policy.name.is_empty() {
            return Err(ConsulErrorResponse::invalid(format!(
                "{template} takes no name; {:?} is given",
                policy.name
            )));
        }
        if !self.templated.contains(&policy) {
            self.templated.push(policy);
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The synthetic policies of identities and templates, each once.
    pub(super) fn synthetic(&self, datacenter: &str) -> Vec<Synthetic> {
        let here = |datacenters: &[String]| {
            datacenters.is_empty() || datacenters.iter().any(|known| known == datacenter)
        };
        let services = self.services.iter().filter(|identity| here(&identity.datacenters));
        let nodes = self.nodes.iter().filter(|identity| identity.datacenter == datacenter);
        let templated = self.templated.iter().filter(|policy| here(&policy.datacenters));
        let named = services
            .map(|identity| (Template::named("builtin/service"), identity.name.as_str()))
            .chain(nodes.map(|identity| (Template::named("builtin/node"), identity.name.as_str())))
            .chain(templated.map(|policy| (Some(policy.template), policy.name.as_str())));
        let mut policies: Vec<Synthetic> = Vec::new();
        for (template, name) in named {
            let Some(template) = template else { continue };
            let rules = template.rules.replace("NAME", name);
            if policies.iter().all(|known| known.rules != rules) {
                let description =
                    format!("synthetic policy generated from templated policy: {}", template.name);
                policies.push(Synthetic { description, rules });
            }
        }
        policies
    }

    /// Adds the grants to a response body, without empty fields.
    pub(super) fn show(&self, acl: &AclStore, body: &mut Value) {
        let policies: Vec<Value> = self
            .policies
            .iter()
            .filter_map(|id| acl.policies.get(id))
            .map(|policy| json!({"ID": policy.id, "Name": policy.name}))
            .collect();
        let services = self
            .services
            .iter()
            .map(|identity| with_datacenters(json!({"ServiceName": identity.name}), &identity.datacenters));
        let nodes = self
            .nodes
            .iter()
            .map(|identity| json!({"NodeName": identity.name, "Datacenter": identity.datacenter}));
        let templated = self.templated.iter().map(|policy| {
            let mut shown = json!({"TemplateID": policy.template.id, "TemplateName": policy.template.name});
            if !policy.name.is_empty() {
                shown["TemplateVariables"] = json!({"name": policy.name});
            }
            with_datacenters(shown, &policy.datacenters)
        });
        let lists = [
            ("Policies", policies),
            ("ServiceIdentities", services.collect()),
            ("NodeIdentities", nodes.collect()),
            ("TemplatedPolicies", templated.collect()),
        ];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            body[name] = Value::Array(list);
        }
    }

    /// The grants' part of the object's hash.
    pub(super) fn digest(&self) -> String {
        ids::hash(&[&format!("{self:?}")])
    }
}

fn with_datacenters(mut body: Value, datacenters: &[String]) -> Value {
    if !datacenters.is_empty() {
        body["Datacenters"] = json!(datacenters);
    }
    body
}

fn not_a_name(what: &str, name: &str) -> String {
    format!(
        "{what}: {name:?} is not a valid name; lower-case letters, digits, '-' and '_' are allowed, not '-' or '_' at an end"
    )
}

/// Whether the name is valid for an identity.
pub(super) fn is_identity_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=256).contains(&name.len())
        && bytes.iter().all(|byte| inner(*byte) || matches!(byte, b'-' | b'_'))
        && bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte))
}

/// Whether the name consists of letters, digits, `-` and `_`, with at most `most` characters.
pub(super) fn is_plain_name(name: &str, most: usize) -> bool {
    (1..=most).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
