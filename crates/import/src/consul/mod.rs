//! Consul's ACL objects for logins of ECS tasks become a `ConsulAuth` that adopts them.

mod fields;
mod method;

use std::collections::BTreeSet;

use ecs_mesh_api::manifests::ManifestScope;
use ecs_mesh_api::{
    BindingSelector, ClientTokens, ConsulAuthSpec, ConsulConnection, ControlPlaneSpec, ControlPlaneType,
    GatewayKind, Presence, ServiceTokens,
};
use ecs_mesh_model::Glob;
use serde_json::Value;

pub(crate) use fields::RULES;

use crate::cursor::TrackedResource;
use crate::import::{ImportFailure, ImportOptions, Imported};
use crate::json;
use crate::output::{self, ImportedManifest, binding};
use crate::place::{DocumentPlace, ImportError};
use crate::report::{FieldFate, ImportEntry, ImportReport};
use method::ReadMethod;

/// The part of a `ConsulAuth` that an object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsulAuthPart {
    /// Services' logins.
    Service,
    /// Client agents' logins.
    Client,
    /// Logins of a kind of gateway.
    Gateway(GatewayKind),
    /// Reads by requests without a token.
    Anonymous,
}

/// An ACL object at Consul.
#[derive(Clone, Debug)]
pub struct FoundAclObject {
    /// The object as the API shows it.
    pub body: Value,
    /// The name by which a `ConsulAuth` adopts it.
    pub name: String,
    /// The operator whose marker it has.
    pub owner: Option<String>,
    /// The part of a `ConsulAuth` that it belongs to; `None` for an object of another purpose, and for auth methods, whose
    /// rules decide it.
    pub part: Option<ConsulAuthPart>,
    /// Of a binding rule: the selector that the operator writes.
    pub selector: Option<String>,
    /// Of a role: the policies that the operator writes; `None` where a person attaches them.
    pub policies: Option<Vec<String>>,
}

/// The ACL objects of a live Consul.
#[derive(Clone, Debug)]
pub struct ConsulSetUp {
    /// How to reach it.
    pub connection: ConsulConnection,
    /// All auth methods, with their `Config`.
    pub methods: Vec<FoundAclObject>,
    /// All binding rules.
    pub rules: Vec<FoundAclObject>,
    /// All roles.
    pub roles: Vec<FoundAclObject>,
    /// The policies of the anonymous token.
    pub anonymous: Vec<FoundAclObject>,
    /// The nodes of clusters, by the clusters' ARNs.
    pub nodes: Vec<String>,
}

const NOT_OURS: &str = "not of a purpose that a ConsulAuth declares: it stays as it is";

/// Imports what a live Consul has as a `ConsulAuth` and the names that it adopts.
///
/// # Errors
/// If Consul has no auth method of type `aws-iam` with binding rules for ECS tasks.
pub fn import_consul(found: &ConsulSetUp, options: &ImportOptions) -> Result<Imported, ImportFailure> {
    let import = ConsulImport::of(found);
    let service = import.method_with(ConsulAuthPart::Service);
    let client = import.method_with(ConsulAuthPart::Client);
    if service.is_none() && client.is_none() {
        let message = "no auth method of type aws-iam has a binding rule for ECS tasks, so there is nothing to import; \
                       help: declare a ConsulAuth, and let the operator create it";
        return Err(ImportFailure::Input(vec![ImportError::about_file(&found.connection.address, message)]));
    }
    let mut spec = ConsulAuthSpec {
        control_plane: options.control_plane.clone(),
        state: Presence::Present,
        adopt: Vec::new(),
        service_tokens: service.as_deref().and_then(|method| import.service_tokens(method)),
        client_tokens: client.as_deref().and_then(|method| import.client_tokens(method)),
        anonymous_policy: import.anonymous_policy(),
        enterprise: None,
    };
    import.note_others(service.as_deref(), client.as_deref());
    import.drop_refused_principals(&mut spec);
    spec.adopt = import.adopt(&spec).into_iter().map(Glob::new).collect();
    let mut manifests = vec![control_plane(&options.control_plane, &found.connection)];
    manifests.extend(consul_binding(options));
    let comment = "As found at Consul. Read `plan` before the first run: adopted objects show as `update`.";
    manifests.push(ImportedManifest::consul_auth("ecs", comment, &spec));
    Imported::validated(manifests, ImportReport::of(import.entries(options)), ManifestScope::Complete)
}

fn control_plane(name: &str, connection: &ConsulConnection) -> ImportedManifest {
    let spec = ControlPlaneSpec {
        kind: ControlPlaneType::Consul,
        kuma: None,
        consul: Some(connection.clone()),
        writes_per_second: 500,
    };
    ImportedManifest::control_plane(name, "", &spec)
}

/// A paused binding, where the clusters are known.
fn consul_binding(options: &ImportOptions) -> Option<ImportedManifest> {
    if options.clusters.is_empty() {
        return None;
    }
    let selector = BindingSelector { clusters: options.clusters.clone(), ..BindingSelector::default() };
    let mut spec = binding(&options.control_plane, selector);
    spec.mesh = options.mesh.clone().unwrap_or_default();
    spec.paused = true;
    let comment =
        "Applies to tasks, and not to the ConsulAuth. Set paused: false once `plan` shows what you expect.";
    Some(ImportedManifest::mesh_binding("ecs", comment, &spec))
}

/// The objects, and what was read of them.
struct ConsulImport<'a> {
    found: &'a ConsulSetUp,
    methods: Vec<(&'a FoundAclObject, TrackedResource)>,
    rules: Vec<(&'a FoundAclObject, TrackedResource)>,
    roles: Vec<(&'a FoundAclObject, TrackedResource)>,
    anonymous: Vec<(&'a FoundAclObject, TrackedResource)>,
}

impl<'a> ConsulImport<'a> {
    fn of(found: &'a ConsulSetUp) -> Self {
        let place = DocumentPlace { file: found.connection.address.as_str().into(), document: 1 };
        let tracked = |kind: &str, objects: &'a [FoundAclObject]| {
            let mut tracked: Vec<(&FoundAclObject, TrackedResource)> = objects
                .iter()
                .map(|object| {
                    let tree = json::documents(&object.body.to_string()).0.pop();
                    let root = tree.unwrap_or(crate::tree::SourceNode {
                        line: 1,
                        value: crate::tree::SourceValue::Null,
                    });
                    let prefix = format!("{kind}[{:?}]", object.name);
                    (object, TrackedResource::new(&place, &prefix, &format!("{kind} {}", object.name), root))
                })
                .collect();
            tracked.sort_by(|(one, a), (other, b)| (&one.name, &a.prefix).cmp(&(&other.name, &b.prefix)));
            tracked
        };
        Self {
            found,
            methods: tracked("AuthMethod", &found.methods),
            rules: tracked("BindingRule", &found.rules),
            roles: tracked("Role", &found.roles),
            anonymous: tracked("AnonymousPolicy", &found.anonymous),
        }
    }

    /// The auth method with a rule of this part: the one of the usual name, or else the first.
    fn method_with(&self, part: ConsulAuthPart) -> Option<String> {
        let usual = match part {
            ConsulAuthPart::Client => "iam-ecs-client-token",
            _ => "iam-ecs-service-token",
        };
        let is_iam = |name: &str| {
            self.methods.iter().any(|(method, _)| method.name == name && method.body["Type"] == "aws-iam")
        };
        let of_part = self.rules.iter().filter(|(rule, _)| rule.part == Some(part));
        let methods =
            of_part.filter_map(|(rule, _)| rule.body["AuthMethod"].as_str()).filter(|name| is_iam(name));
        let methods: BTreeSet<&str> = methods.collect();
        methods.get(usual).or_else(|| methods.first()).map(|name| (*name).to_owned())
    }

    fn read_method(&self, name: &str, is_service: bool) -> Option<ReadMethod> {
        let (_, resource) = self.methods.iter().find(|(method, _)| method.name == name)?;
        Some(method::read(&resource.cursor(), is_service))
    }

    fn service_tokens(&self, method: &str) -> Option<ServiceTokens> {
        let read = self.read_method(method, true)?;
        let mut gateways = Vec::new();
        for (rule, resource) in self.rules_of(method) {
            match rule.part {
                Some(ConsulAuthPart::Gateway(kind)) => {
                    gateways.push(kind);
                    read_rule(rule, resource);
                }
                Some(ConsulAuthPart::Service) => read_rule(rule, resource),
                _ => {}
            }
        }
        gateways.sort_unstable();
        gateways.dedup();
        let mut policies = Vec::new();
        for kind in &gateways {
            policies.extend(self.read_role(ConsulAuthPart::Gateway(*kind)));
        }
        Some(ServiceTokens {
            state: Presence::Present,
            bound_principals: read.principals,
            auth_method: method.to_owned(),
            gateways,
            absent_gateways: Vec::new(),
            terminating_gateway_policies: policies,
            token_ttl: read.token_ttl,
            token_locality: read.locality,
            sts_endpoint: read.sts_endpoint,
            iam_endpoint: read.iam_endpoint,
            server_id_header_value: None,
            allowed_sts_headers: read.headers,
        })
    }

    fn client_tokens(&self, method: &str) -> Option<ClientTokens> {
        let read = self.read_method(method, false)?;
        let of_client = self.rules_of(method).filter(|(rule, _)| rule.part == Some(ConsulAuthPart::Client));
        of_client.for_each(|(rule, resource)| read_rule(rule, resource));
        self.read_role(ConsulAuthPart::Client);
        Some(ClientTokens {
            state: Presence::Present,
            bound_principals: read.principals,
            auth_method: method.to_owned(),
            entity_details: read.entity_details,
            token_ttl: read.token_ttl,
            token_locality: read.locality,
            sts_endpoint: read.sts_endpoint,
            iam_endpoint: read.iam_endpoint,
            server_id_header_value: None,
            allowed_sts_headers: read.headers,
        })
    }

    fn rules_of(&self, method: &str) -> impl Iterator<Item = (&FoundAclObject, &TrackedResource)> {
        let rules = self.rules.iter().filter(move |(rule, _)| rule.body["AuthMethod"] == method);
        rules.map(|(rule, resource)| (*rule, resource))
    }

    /// Reads the role of a part; the policies that a person attached to it.
    fn read_role(&self, part: ConsulAuthPart) -> Vec<String> {
        let Some((role, resource)) = self.roles.iter().find(|(role, _)| role.part == Some(part)) else {
            return Vec::new();
        };
        let cursor = resource.cursor();
        cursor.text_of("Name");
        let mut attached = Vec::new();
        for name in cursor.list("Policies").iter().filter_map(|policy| policy.get("Name")) {
            let Some(text) = name.text() else { continue };
            match &role.policies {
                None => attached.push(text),
                Some(own) if own.contains(&text) => {}
                Some(_) => {
                    name.lost("", "the operator removes other policies from the role, once it adopts it");
                }
            }
        }
        for field in ["ServiceIdentities", "NodeIdentities", "TemplatedPolicies"] {
            let Some(identities) = cursor.get(field) else { continue };
            if identities.node.items().is_empty() {
                identities.needless("it is empty");
            } else {
                identities.lost("", "the operator removes it from the role, once it adopts it");
            }
        }
        attached
    }

    fn anonymous_policy(&self) -> Option<Presence> {
        let of_part =
            self.anonymous.iter().find(|(policy, _)| policy.part == Some(ConsulAuthPart::Anonymous))?;
        let cursor = of_part.1.cursor();
        cursor.text_of("Name");
        cursor.text_of("Description");
        cursor.text_of("Rules");
        Some(Presence::Present)
    }

    /// Objects that no part declares.
    fn note_others(&self, service: Option<&str>, client: Option<&str>) {
        let is_declared = |name: &str| service == Some(name) || client == Some(name);
        for (method, resource) in &self.methods {
            if is_declared(&method.name) {
                continue;
            }
            let is_iam = method.body["Type"] == "aws-iam";
            let has_rule = self.rules_of(&method.name).any(|(rule, _)| rule.part.is_some());
            if is_iam && has_rule {
                resource
                    .cursor()
                    .lost("", "a ConsulAuth declares one method for each kind of login: this one stays");
            } else {
                resource.cursor().needless(NOT_OURS);
            }
        }
        for (rule, resource) in &self.rules {
            let method = rule.body["AuthMethod"].as_str().unwrap_or_default();
            let is_read = match rule.part {
                Some(ConsulAuthPart::Client) => client == Some(method),
                Some(_) => service == Some(method),
                None => false,
            };
            if is_read {
                continue;
            }
            if is_declared(method) {
                let reason = "a rule of the method that a ConsulAuth does not declare: it stays, and `plan` warns of it";
                resource.cursor().lost("", reason);
            } else {
                resource.cursor().needless(NOT_OURS);
            }
        }
        for (role, resource) in self.roles.iter().chain(&self.anonymous) {
            if role.part.is_none() {
                resource.cursor().needless(NOT_OURS);
            }
        }
    }

    /// Principals that Consul takes and a `ConsulAuth` does not, such as users.
    fn drop_refused_principals(&self, spec: &mut ConsulAuthSpec) {
        let candidate = ImportedManifest::consul_auth("ecs", "", spec);
        let Err(findings) = output::validate(&[candidate], ManifestScope::Partial) else { return };
        let refused = |section: &str, method: &str, principals: &mut Vec<String>| {
            let mut index = 0;
            principals.retain(|principal| {
                let path = format!("spec.{section}.boundPrincipals[{index}]");
                index += 1;
                let Some(finding) = findings.iter().find(|finding| finding.path == path) else { return true };
                let of_method = self.methods.iter().find(|(found, _)| found.name == method);
                let config = of_method.and_then(|(_, resource)| resource.cursor().get("Config"));
                let items = config.map(|config| config.list("BoundIAMPrincipalARNs")).unwrap_or_default();
                let item = items.iter().find(|item| item.node.as_text().as_ref() == Some(principal));
                item.iter().for_each(|item| item.lost("boundPrincipals", finding.message.clone()));
                false
            });
        };
        if let Some(tokens) = &mut spec.service_tokens {
            refused("serviceTokens", &tokens.auth_method, &mut tokens.bound_principals);
        }
        if let Some(tokens) = &mut spec.client_tokens {
            refused("clientTokens", &tokens.auth_method, &mut tokens.bound_principals);
        }
    }

    /// The names of unmarked objects that the spec declares.
    fn adopt(&self, spec: &ConsulAuthSpec) -> BTreeSet<String> {
        let methods: Vec<&str> = spec
            .service_tokens
            .iter()
            .map(|tokens| tokens.auth_method.as_str())
            .chain(spec.client_tokens.iter().map(|tokens| tokens.auth_method.as_str()))
            .collect();
        let is_declared = |object: &FoundAclObject| match object.part {
            Some(ConsulAuthPart::Client) => spec.client_tokens.is_some(),
            Some(ConsulAuthPart::Service) => spec.service_tokens.is_some(),
            Some(ConsulAuthPart::Gateway(kind)) => {
                spec.service_tokens.as_ref().is_some_and(|tokens| tokens.gateways.contains(&kind))
            }
            Some(ConsulAuthPart::Anonymous) => true,
            None => false,
        };
        let mut names = BTreeSet::new();
        let add = |names: &mut BTreeSet<String>, object: &FoundAclObject, resource: &TrackedResource| {
            match &object.owner {
                None => drop(names.insert(object.name.clone())),
                Some(owner) => {
                    let reason = format!(
                        "the object has the marker of operator {owner}, and only that one may change it: nothing is \
                         to do where it reads this manifest"
                    );
                    resource
                        .cursor()
                        .get("Description")
                        .iter()
                        .for_each(|text| text.lost("", reason.clone()));
                }
            }
        };
        for (method, resource) in
            self.methods.iter().filter(|(method, _)| methods.contains(&method.name.as_str()))
        {
            add(&mut names, method, resource);
        }
        for (rule, resource) in self.rules.iter().filter(|(rule, _)| is_declared(rule)) {
            if rule.body["AuthMethod"].as_str().is_some_and(|method| methods.contains(&method)) {
                add(&mut names, rule, resource);
            }
        }
        for (object, resource) in
            self.roles.iter().chain(&self.anonymous).filter(|(object, _)| is_declared(object))
        {
            add(&mut names, object, resource);
            // A role's own policies are declared with it.
            names.extend(names_of_policies(object));
        }
        names.extend(self.found.nodes.iter().cloned());
        names
    }

    fn entries(&self, options: &ImportOptions) -> Vec<ImportEntry> {
        let all = [
            ("AuthMethod", &self.methods),
            ("BindingRule", &self.rules),
            ("Role", &self.roles),
            ("AnonymousPolicy", &self.anonymous),
        ];
        let mut entries = Vec::new();
        for (kind, objects) in all {
            for (object, resource) in objects {
                // The object's description is in the manifest once it is adopted.
                if object.part.is_some() || kind == "AuthMethod" {
                    resource.cursor().text_of("Description");
                }
                entries.extend(resource.entries(fields::rules_of(kind)));
            }
        }
        if options.clusters.is_empty()
            && let Some((_, resource)) = self.methods.first()
        {
            let reason =
                "Consul does not say which clusters are bound: write a MeshBinding, or give --cluster";
            entries.push(ImportEntry {
                fate: FieldFate::Changed,
                target: "MeshBinding.spec.selector.clusters".to_owned(),
                reason: reason.to_owned(),
                action: true,
                ..resource.entry("Name", 1)
            });
        }
        entries
    }
}

fn names_of_policies(role: &FoundAclObject) -> Vec<String> {
    let linked = role.body["Policies"].as_array().into_iter().flatten();
    let linked: Vec<&str> = linked.filter_map(|policy| policy["Name"].as_str()).collect();
    let own = role.policies.iter().flatten();
    own.filter(|name| linked.contains(&name.as_str())).cloned().collect()
}

fn read_rule(rule: &FoundAclObject, resource: &TrackedResource) {
    let cursor = resource.cursor();
    for key in ["AuthMethod", "BindType", "BindName"] {
        cursor.text_of(key);
    }
    let Some(selector) = cursor.get("Selector") else { return };
    let found = selector.node.as_text().unwrap_or_default();
    match &rule.selector {
        Some(own) if *own == found => selector.mark_used(),
        _ => {
            let reason =
                "the operator writes its own selector, once it adopts the rule: `plan` shows the difference";
            selector.changed("ConsulAuth.spec.adopt", reason, true);
        }
    }
}
