//! What Consul's identity set-up on ECS *should be*: from a `ConsulAuth` and the clusters to objects in Consul's own
//! words. Pure, so that a plan shows exactly what a run would send.

mod client_tokens;
mod enterprise;
mod well_known;
mod ownership;
mod method;
mod object;
mod service_tokens;
mod templates;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, ConsulConnection, ControlPlaneType, Presence};
use ecs_mesh_consul::{ANONYMOUS_TOKEN, NODE_MARK, SYNTHETIC_NODE};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::{ClusterArn, OperatorId};

pub use well_known::{WellKnownRule, absent_by, allows_extra_policies, rule_name};
pub use ownership::{ObjectOwner, is_ours, with_mark, owner, strip_marks};
pub use object::{DesiredObject, DesiredObjects, ObjectId, RuleKey, ObjectScope, UndeclaredPolicy, DesiredState};
pub use templates::ROLE_TAGS;

/// What the set-up's objects depend on beside the manifest.
#[derive(Clone, Debug)]
pub struct AclContext<'a> {
    /// Whose mark the objects bear.
    pub operator: &'a OperatorId,
    /// Whose nodes are kept in the catalog: [`named_clusters`].
    pub clusters: &'a BTreeSet<ClusterArn>,
    /// Which Consul it is.
    pub edition: Edition,
    /// Which datacenter the servers are of.
    pub datacenter: DatacenterRole,
}

/// Which Consul it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edition {
    /// Without partitions and namespaces: a request that names one is refused.
    Community,
    /// With them.
    Enterprise {
        /// The partition that the control plane's manifest names, or `default`.
        partition: Arc<str>,
        /// The namespaces in it that are looked after, by name.
        namespaces: BTreeSet<Arc<str>>,
    },
}

impl Edition {
    /// Of a control plane as its manifest describes it. `all_namespaces` are what `*` stands for.
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

    /// Where the set-up's policies, roles, methods and rules are.
    fn scope(&self) -> ObjectScope {
        match self {
            Self::Community => ObjectScope::default(),
            Self::Enterprise { partition, .. } => ObjectScope::new(partition, Some("default")),
        }
    }

    /// Where the anonymous token and its policy are, whatever the control plane's partition is.
    fn anonymous_scope(&self) -> ObjectScope {
        match self {
            Self::Community => ObjectScope::default(),
            Self::Enterprise { .. } => ObjectScope::new("default", Some("default")),
        }
    }

    /// Where things are that have no namespace.
    fn partition_scope(&self) -> ObjectScope {
        ObjectScope { namespace: None, ..self.scope() }
    }
}

impl AclContext<'_> {
    /// Where objects must be listed for a plan of `desired`: of each kind, in which place. What is nobody's, and another
    /// set-up's place, only where something is wanted there: nothing else would be said of it, and our token need not
    /// reach so far.
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
            let is_nobodys = matches!(kind, ObjectKind::AnonymousToken | ObjectKind::Namespace);
            (!is_nobodys && desired.own.contains(scope)) || desired.wants_any(*kind, scope)
        });
        places
    }

    /// What is wanted where no manifest speaks of the set-up any more: nothing, and nothing is removed.
    pub fn nothing_declared(&self) -> DesiredObjects {
        DesiredObjects { own: self.own_scopes(), ..DesiredObjects::default() }
    }

    fn own_scopes(&self) -> BTreeSet<ObjectScope> {
        [self.edition.scope(), self.edition.partition_scope()].into()
    }
}

/// Which datacenter the servers are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatacenterRole {
    /// The one that hands out policies, roles and global tokens to the others.
    Primary,
    /// Another one.
    Secondary,
    /// It could not be found out, for this reason.
    Unknown(String),
}

/// The clusters whose nodes are to be in the catalog: those that a `MeshBinding` of the control plane names in full.
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

/// All that the manifest declares. What it does not speak of is not in here, and is left alone.
pub fn desired(spec: &ConsulAuthSpec, context: &AclContext<'_>) -> DesiredObjects {
    let mut objects = DesiredObjectsBuilder { context, list: Vec::new() };
    let undeclared = match spec.state {
        Presence::Present => {
            objects.declare(spec);
            UndeclaredPolicy::Keep
        }
        Presence::Absent => {
            // Everything of ours goes; only what hangs on objects of others must be said.
            if context.edition.scope() == context.edition.anonymous_scope() || spec.anonymous_policy.is_some() {
                // Of another partition's set-up it is only part where that says so.
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

/// The list in the making; its other methods are with the part that they are about.
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

    /// A description with our mark.
    fn with_mark(&self, text: &str) -> String {
        with_mark(text, self.context.operator)
    }

    fn add(&mut self, id: ObjectId, state: DesiredState) {
        self.list.push(DesiredObject { id, rule: None, state });
    }

    /// A policy; what it lets do is all that it lets do, in every datacenter.
    fn policy(&mut self, id: &ObjectId, description: &str, rules: &str) {
        let body = json!({
            "Name": &*id.name,
            "Description": self.with_mark(description),
            "Rules": rules,
            "Datacenters": [],
        });
        self.add(id.clone(), DesiredState::Present { body, needs: Vec::new() });
    }

    /// A role with exactly these policies and nothing beside them.
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

    /// A rule of a method, chosen by what it says of the logins.
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

    /// Tasks register their services on their cluster's node, and may not make it themselves.
    fn node(&mut self, cluster: &ClusterArn) {
        let id = ObjectId {
            kind: ObjectKind::Node,
            scope: self.context.edition.partition_scope(),
            name: cluster.as_str().into(),
        };
        let body = json!({
            "Node": cluster.as_str(),
            // A node must have an address. Nobody calls this one, and one that is there stays.
            "Address": "127.0.0.1",
            "NodeMeta": { SYNTHETIC_NODE: "true", NODE_MARK: self.context.operator.as_str() },
        });
        self.add(id, DesiredState::Present { body, needs: Vec::new() });
    }

    /// The anonymous token and its policy are in the default partition, whatever the control plane's is.
    fn anonymous(&mut self, presence: Presence) {
        let scope = self.context.edition.anonymous_scope();
        let policy =
            ObjectId { kind: ObjectKind::Policy, scope: scope.clone(), name: templates::ANONYMOUS_POLICY.into() };
        let token = ObjectId { kind: ObjectKind::AnonymousToken, scope, name: ANONYMOUS_TOKEN.into() };
        let held = match &self.context.datacenter {
            DatacenterRole::Primary => None,
            DatacenterRole::Secondary => Some(
                "it is kept in the primary datacenter alone, and these servers are of another one".to_owned(),
            ),
            DatacenterRole::Unknown(why) => Some(format!(
                "it is kept in the primary datacenter alone, and it is not known whether this is the one: {why}"
            )),
        };
        if let Some(why) = held {
            self.add(policy, DesiredState::Blocked(why.clone()));
            return self.add(token, DesiredState::Blocked(why));
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
