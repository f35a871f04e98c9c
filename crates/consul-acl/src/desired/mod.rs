//! The desired ACL objects: derived from a `ConsulAuth` and the bound clusters, with Consul's field names. Pure, so that
//! a plan shows exactly what a run would send.

mod enterprise;
mod logins;
mod method;
mod object;
mod ownership;
mod templates;
mod well_known;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, ConsulConnection, ControlPlaneType, Presence};
use ecs_mesh_consul::{ANONYMOUS_TOKEN, NODE_MARK, SYNTHETIC_NODE};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::ClusterArn;

pub use object::{
    DesiredObject, DesiredObjects, DesiredState, ObjectId, ObjectScope, RuleKey, UndeclaredPolicy,
};
pub use ownership::{
    ExistingObject, ObjectOwner, OperatorIds, is_ours, owner, sign, strip_marks, taken_over, unsigned,
    with_mark, writer,
};
pub use templates::ROLE_TAGS;
pub use well_known::{WellKnownRule, absent_by, allows_extra_policies, rule_name};

/// Inputs beside the manifest.
#[derive(Clone, Debug)]
pub struct AclContext<'a> {
    /// The operator's ids, of which the current one marks the objects.
    pub operators: &'a OperatorIds,
    /// The clusters whose nodes are registered: [`named_clusters`].
    pub clusters: &'a BTreeSet<ClusterArn>,
    /// The edition of Consul.
    pub edition: Edition,
    /// The role of the datacenter.
    pub datacenter: DatacenterRole,
}

/// The edition of Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edition {
    /// Without partitions and namespaces; a request with one is refused.
    Community,
    /// With partitions and namespaces.
    Enterprise {
        /// The partition of the control plane's manifest, or `default`.
        partition: Arc<str>,
        /// The managed namespaces.
        namespaces: BTreeSet<Arc<str>>,
    },
}

impl Edition {
    /// The edition by the control plane's manifest. `all_namespaces`: the meaning of `*`.
    pub fn of(consul: &ConsulConnection, all_namespaces: &BTreeSet<Arc<str>>) -> Self {
        if consul.partition.is_none() && consul.namespaces.is_empty() {
            return Self::Community;
        }
        let mut namespaces: BTreeSet<Arc<str>> = BTreeSet::new();
        for name in &consul.namespaces {
            match name.as_str() {
                "*" => namespaces.extend(all_namespaces.iter().cloned()),
                name => {
                    namespaces.insert(name.into());
                }
            }
        }
        Self::Enterprise { partition: consul.partition.as_deref().unwrap_or("default").into(), namespaces }
    }

    /// The scope of policies, roles, auth methods and rules.
    fn scope(&self) -> ObjectScope {
        match self {
            Self::Community => ObjectScope::default(),
            Self::Enterprise { partition, .. } => ObjectScope::new(partition, Some("default")),
        }
    }

    /// The scope of the anonymous token and its policy, for any partition.
    fn anonymous_scope(&self) -> ObjectScope {
        match self {
            Self::Community => ObjectScope::default(),
            Self::Enterprise { .. } => ObjectScope::new("default", Some("default")),
        }
    }

    /// The scope of objects without a namespace.
    fn partition_scope(&self) -> ObjectScope {
        ObjectScope { namespace: None, ..self.scope() }
    }
}

impl AclContext<'_> {
    /// The kinds and scopes to list for a plan of `desired`. Objects without an owner and foreign scopes are listed only if
    /// something is declared there, so that the token needs no further permission.
    pub fn scopes_to_list(&self, desired: &DesiredObjects) -> BTreeSet<(ObjectKind, ObjectScope)> {
        let (scope, partition) = (self.edition.scope(), self.edition.partition_scope());
        let anonymous = self.edition.anonymous_scope();
        let mut places: BTreeSet<(ObjectKind, ObjectScope)> =
            [ObjectKind::Policy, ObjectKind::Role, ObjectKind::AuthMethod, ObjectKind::BindingRule]
                .map(|kind| (kind, scope.clone()))
                .into();
        places.insert((ObjectKind::Node, partition.clone()));
        places.extend([ObjectKind::Policy, ObjectKind::AnonymousToken].map(|kind| (kind, anonymous.clone())));
        if let Edition::Enterprise { .. } = self.edition {
            places.insert((ObjectKind::Namespace, partition));
        }
        places.retain(|(kind, scope)| {
            let is_never_ours = matches!(kind, ObjectKind::AnonymousToken | ObjectKind::Namespace);
            (!is_never_ours && desired.own.contains(scope)) || desired.wants_any(*kind, scope)
        });
        places
    }

    /// The desired state without a `ConsulAuth`: nothing is declared, nothing is removed.
    pub fn nothing_declared(&self) -> DesiredObjects {
        DesiredObjects { own: self.own_scopes(), ..DesiredObjects::default() }
    }

    fn own_scopes(&self) -> BTreeSet<ObjectScope> {
        [self.edition.scope(), self.edition.partition_scope()].into()
    }
}

/// The role of a datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatacenterRole {
    /// The primary one, which replicates policies, roles and global tokens.
    Primary,
    /// A secondary one.
    Secondary,
    /// Unknown, for this reason.
    Unknown(String),
}

/// The clusters whose nodes are registered: literal clusters in `MeshBinding`s of the control plane.
pub fn named_clusters(set: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn> {
    set.bindings
        .values()
        .filter(|binding| binding.spec.control_plane == control_plane)
        .filter(|binding| binding.control_plane_type == ControlPlaneType::Consul)
        .flat_map(|binding| &binding.spec.selector.clusters)
        .filter(|glob| glob.is_literal())
        .filter_map(|glob| ClusterArn::parse(glob.as_str()).ok())
        .collect()
}

/// All declared objects. Parts that the manifest omits are not included and stay unchanged.
pub fn desired(spec: &ConsulAuthSpec, context: &AclContext<'_>) -> DesiredObjects {
    let mut objects = DesiredObjectsBuilder { context, list: Vec::new() };
    let undeclared = match spec.state {
        Presence::Present => {
            objects.declare(spec);
            UndeclaredPolicy::Keep
        }
        Presence::Absent => {
            // All owned objects are removed; only links on foreign objects must be declared.
            if context.edition.scope() == context.edition.anonymous_scope() || spec.anonymous_policy.is_some()
            {
                // In another partition, only if the manifest declares it.
                objects.anonymous(Presence::Absent);
            }
            objects.enterprise(Some(Presence::Absent), Some(Presence::Absent));
            UndeclaredPolicy::Remove
        }
    };
    let mut list = objects.list;
    list.sort_by(|a, b| a.id.cmp(&b.id));
    DesiredObjects {
        objects: list,
        undeclared,
        adopt: spec.adopt.clone(),
        own: context.own_scopes(),
        declared_by: None,
        manifests_incomplete: false,
    }
}

/// Builds the list; further methods are in the modules of the parts.
struct DesiredObjectsBuilder<'a> {
    context: &'a AclContext<'a>,
    list: Vec<DesiredObject>,
}

impl DesiredObjectsBuilder<'_> {
    fn declare(&mut self, spec: &ConsulAuthSpec) {
        if let Some(tokens) = &spec.service_tokens {
            self.service_tokens(tokens);
        }
        if let Some(tokens) = &spec.client_tokens {
            self.client_tokens(tokens);
        }
        if let Some(presence) = spec.anonymous_policy {
            self.anonymous(presence);
        }
        if let Some(enterprise) = &spec.enterprise {
            self.enterprise(enterprise.cross_namespace, enterprise.cross_partition);
        }
        for cluster in self.context.clusters {
            self.node(cluster);
        }
    }

    fn id(&self, kind: ObjectKind, name: &str) -> ObjectId {
        ObjectId { kind, scope: self.context.edition.scope(), name: name.into() }
    }

    /// A description with the ownership marker.
    fn with_mark(&self, text: &str) -> String {
        with_mark(text, self.context.operators.current())
    }

    fn add(&mut self, id: ObjectId, state: DesiredState) {
        self.list.push(DesiredObject { id, rule: None, state });
    }

    /// A policy with exactly these rules, in every datacenter.
    fn policy(&mut self, id: &ObjectId, description: &str, rules: &str) {
        let body = json!({
            "Name": &*id.name,
            "Description": self.with_mark(description),
            "Rules": rules,
            "Datacenters": [],
        });
        self.add(id.clone(), DesiredState::Present { body, needs: Vec::new() });
    }

    /// A role with exactly these policies.
    fn role(&mut self, id: &ObjectId, description: &str, policies: &[ObjectId]) {
        let links: Vec<_> = policies.iter().map(|policy| json!({ "Name": &*policy.name })).collect();
        let body = json!({
            "Name": &*id.name,
            "Description": self.with_mark(description),
            "Policies": links,
            "ServiceIdentities": [],
            "NodeIdentities": [],
            "TemplatedPolicies": [],
        });
        self.add(id.clone(), DesiredState::Present { body, needs: policies.to_vec() });
    }

    /// A binding rule of an auth method.
    fn rule(&mut self, id: &ObjectId, key: RuleKey, selector: &str) {
        let (bind_type, bind_name) = &key.bind;
        let mut needs = vec![self.id(ObjectKind::AuthMethod, &key.auth_method)];
        if *bind_type == "role" {
            needs.push(self.id(ObjectKind::Role, bind_name));
        }
        let body = json!({
            "AuthMethod": &*key.auth_method,
            "Description": self.with_mark(key.text),
            "Selector": selector,
            "BindType": bind_type,
            "BindName": &**bind_name,
            "BindVars": {},
        });
        let want = DesiredState::Present { body, needs };
        self.list.push(DesiredObject { id: id.clone(), rule: Some(key), state: want });
    }

    fn no_rule(&mut self, id: &ObjectId, key: RuleKey) {
        self.list.push(DesiredObject { id: id.clone(), rule: Some(key), state: DesiredState::Absent });
    }

    /// The node of a cluster, on which tasks register services and which they may not create.
    fn node(&mut self, cluster: &ClusterArn) {
        let id = ObjectId {
            kind: ObjectKind::Node,
            scope: self.context.edition.partition_scope(),
            name: cluster.as_str().into(),
        };
        let body = json!({
            "Node": cluster.as_str(),
            // A node needs an address. It is never called, and an existing one is kept.
            "Address": "127.0.0.1",
            "NodeMeta": { SYNTHETIC_NODE: "true", NODE_MARK: self.context.operators.current().as_str() },
        });
        self.add(id, DesiredState::Present { body, needs: Vec::new() });
    }

    /// The anonymous token and its policy, which are in the default partition for any control plane.
    fn anonymous(&mut self, presence: Presence) {
        let scope = self.context.edition.anonymous_scope();
        let policy = ObjectId {
            kind: ObjectKind::Policy,
            scope: scope.clone(),
            name: templates::ANONYMOUS_POLICY.into(),
        };
        let token = ObjectId { kind: ObjectKind::AnonymousToken, scope, name: ANONYMOUS_TOKEN.into() };
        let held = match &self.context.datacenter {
            DatacenterRole::Primary => None,
            DatacenterRole::Secondary => Some(
                "managed in the primary datacenter only, and these servers are in another one".to_owned(),
            ),
            DatacenterRole::Unknown(reason) => Some(format!(
                "managed in the primary datacenter only, and it is unknown whether this is the primary one: {reason}"
            )),
        };
        if let Some(reason) = held {
            self.add(policy, DesiredState::Blocked(reason.clone()));
            return self.add(token, DesiredState::Blocked(reason));
        }
        match presence {
            Presence::Present => {
                let rules = templates::anonymous_rules(&self.context.edition);
                self.policy(&policy, "Anonymous token Policy", &rules);
                self.add(token, DesiredState::PolicyLinks { attach: vec![policy], detach: Vec::new() });
            }
            Presence::Absent => {
                self.add(policy.clone(), DesiredState::Absent);
                self.add(token, DesiredState::PolicyLinks { attach: Vec::new(), detach: vec![policy] });
            }
        }
    }
}
