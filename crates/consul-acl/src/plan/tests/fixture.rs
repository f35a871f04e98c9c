//! A fake Consul that applies a plan, with changes by others.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::desired::{
    AclContext, DatacenterRole, DesiredObjects, Edition, ObjectId, ObjectScope, OperatorIds, desired,
};
use crate::plan::{AclAction, AclStep, ActualObjects, plan_objects};
use ecs_mesh_api::ConsulAuthSpec;
use ecs_mesh_consul::TokenRefs;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::{ClusterArn, OperatorId};

pub(super) const DEMO: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/anchor";

/// Objects by kind and scope, with the server's body.
pub(super) struct AclPlanFixture {
    pub(super) objects: Vec<(ObjectKind, ObjectScope, Value)>,
    pub(super) spec: Option<Value>,
    pub(super) clusters: BTreeSet<ClusterArn>,
    pub(super) edition: Edition,
    pub(super) datacenter: DatacenterRole,
    pub(super) unlisted: BTreeSet<ObjectKind>,
    /// Whether some manifests have not loaded.
    pub(super) manifests_incomplete: bool,
    pub(super) tokens: Option<u64>,
    pub(super) services: Option<u64>,
    /// Tokens with a role or policy: the name of the role or policy, the token's accessor, and its auth method.
    pub(super) holders: Option<Vec<(&'static str, &'static str, &'static str)>>,
    next: u64,
}

pub(super) fn everything() -> Value {
    json!({
        "controlPlane": "consul",
        "serviceTokens": {
            "boundPrincipals": ["arn:aws:iam::000000000000:role/consul-ecs/*"],
            "gateways": ["mesh-gateway", "terminating-gateway", "api-gateway"],
            "tokenTtl": "24h",
            "stsEndpoint": "https://sts.us-east-1.amazonaws.com",
        },
        "clientTokens": {
            "boundPrincipals": ["arn:aws:iam::000000000000:role/consul-agents/*"],
            "tokenTtl": "72h",
            "serverIdHeaderValue": "consul.internal",
            "allowedStsHeaders": ["X-Trace"],
        },
        "anonymousPolicy": "present",
    })
}

impl AclPlanFixture {
    /// With only the objects of a new Consul.
    pub(super) fn empty(spec: Value) -> Self {
        let anonymous =
            json!({ "AccessorID": "00000000-0000-0000-0000-000000000002", "Description": "Anonymous Token" });
        let server =
            json!({ "Node": "server-0", "Address": "127.0.0.1", "Meta": { "consul-version": "1.21.4" } });
        let builtin = json!({ "ID": "1", "Name": "global-management", "Description": "builtin", "Rules": "acl = \"write\"" });
        Self {
            objects: vec![
                (ObjectKind::AnonymousToken, ObjectScope::default(), anonymous),
                (ObjectKind::Node, ObjectScope::default(), server),
                (ObjectKind::Policy, ObjectScope::default(), builtin),
            ],
            spec: Some(spec),
            clusters: [ClusterArn::parse(DEMO).unwrap()].into(),
            edition: Edition::Community,
            datacenter: DatacenterRole::Primary,
            unlisted: BTreeSet::new(),
            manifests_incomplete: false,
            tokens: None,
            services: None,
            holders: Some(Vec::new()),
            next: 100,
        }
    }

    /// With all objects created by this operator.
    pub(super) fn made(spec: Value) -> Self {
        let mut world = Self::empty(spec);
        world.run();
        world
    }

    fn surroundings<'a>(&'a self, operators: &'a OperatorIds) -> AclContext<'a> {
        AclContext {
            operators,
            clusters: &self.clusters,
            edition: self.edition.clone(),
            datacenter: self.datacenter.clone(),
        }
    }

    pub(super) fn plan(&self) -> Vec<AclStep> {
        let operators = OperatorIds::new(OperatorId::parse("op").unwrap());
        self.plan_as(&operators)
    }

    pub(super) fn plan_as(&self, operators: &OperatorIds) -> Vec<AclStep> {
        let around = self.surroundings(operators);
        let mut desired: DesiredObjects = match &self.spec {
            Some(spec) => {
                let spec: ConsulAuthSpec = serde_json::from_value(spec.clone()).unwrap();
                DesiredObjects { declared_by: Some("house".into()), ..desired(&spec, &around) }
            }
            None => around.nothing_declared(),
        };
        desired.manifests_incomplete = self.manifests_incomplete;
        let mut actual = ActualObjects::default();
        for (kind, scope) in around.scopes_to_list(&desired) {
            if self.unlisted.contains(&kind) {
                actual.mark_unlisted(kind, scope, "403 Permission denied");
                continue;
            }
            let here = self.objects.iter().filter(|object| object.0 == kind && object.1 == scope);
            let bodies = here.map(|object| object.2.clone()).collect();
            actual.set_listed(kind, scope, bodies);
        }
        for (kind, scope, body) in &self.objects {
            let id = |name: &str| ObjectId {
                kind: *kind,
                scope: scope.clone(),
                name: body[name].as_str().unwrap().into(),
            };
            if let (ObjectKind::Role | ObjectKind::Policy, Some(all)) = (kind, &self.holders) {
                let mut holders = TokenRefs::default();
                let of_it = all.iter().filter(|(name, ..)| body["Name"] == *name);
                of_it.for_each(|(_, accessor, method)| holders.add(accessor, method));
                actual.held_by(id("Name"), holders);
            }
            match (kind, self.tokens, self.services) {
                (ObjectKind::AuthMethod, Some(count), _) => actual.tokens_of(id("Name"), count),
                (ObjectKind::Node, _, Some(count)) => actual.services_on(id("Node"), count),
                _ => {}
            }
        }
        plan_objects(&desired, &actual, operators)
    }

    /// All steps except unchanged objects, as `ACTION OBJECT`, with the fields concerned.
    pub(super) fn lines(&self) -> Vec<String> {
        let steps = self.plan().into_iter().filter(|step| step.action != AclAction::Unchanged);
        steps.map(|step| line(&step)).collect()
    }

    pub(super) fn step(&self, subject: &str) -> AclStep {
        self.plan().into_iter().find(|step| line(step).starts_with(subject)).unwrap_or_else(|| {
            panic!("no step {subject:?} among {:#?}", self.lines());
        })
    }

    /// Applies the steps of the plan in order.
    pub(super) fn run(&mut self) {
        for step in self.plan() {
            self.apply(step);
        }
    }

    fn apply(&mut self, step: AclStep) {
        let AclStep { id, server_id, action, .. } = step;
        let at = self.objects.iter().position(|(kind, scope, body)| {
            let is = |field: &str, value: &str| {
                body.get(field).and_then(Value::as_str).is_some_and(|found| found.eq_ignore_ascii_case(value))
            };
            let same = match (&server_id, kind) {
                (Some(server_id), _) => is("ID", server_id),
                (None, ObjectKind::Node) => is("Node", &id.name),
                (None, ObjectKind::AnonymousToken) => is("AccessorID", &id.name),
                (None, _) => is("Name", &id.name),
            };
            *kind == id.kind && *scope == id.scope && same
        });
        match action {
            AclAction::Create { body } => {
                assert!(at.is_none() || id.kind == ObjectKind::BindingRule, "{id} exists already");
                let body = self.stored(id.kind, body, None);
                self.objects.push((id.kind, id.scope, body));
            }
            AclAction::Update { body, .. } => {
                let at = at.unwrap_or_else(|| panic!("{id} does not exist"));
                let before = self.objects[at].2.clone();
                self.objects[at].2 = self.stored(id.kind, body, before.get("ID"));
            }
            AclAction::Remove => {
                let (_, _, gone) = self.objects.remove(at.unwrap_or_else(|| panic!("{id} does not exist")));
                if id.kind == ObjectKind::AuthMethod {
                    self.objects.retain(|(_, scope, body)| {
                        *scope != id.scope || body.get("AuthMethod") != gone.get("Name")
                    });
                }
            }
            _ => {}
        }
    }

    /// The server state after the steps. Rejects an object whose reference does not exist.
    fn stored(&mut self, kind: ObjectKind, mut body: Value, id: Option<&Value>) -> Value {
        self.next += 1;
        let there = |kind, name: &Value| {
            let found = self.objects.iter().find(|(other, _, body)| {
                let names = [&body["Name"], name].map(|name| name.as_str().map(str::to_ascii_lowercase));
                *other == kind && names[0].is_some() && names[0] == names[1]
            });
            found.map(|(_, _, body)| body["Name"].clone())
        };
        match kind {
            ObjectKind::Role => {
                for link in body["Policies"].as_array_mut().into_iter().flatten() {
                    // The link contains the policy's stored name.
                    let name = there(ObjectKind::Policy, &link["Name"]);
                    link["Name"] = name.unwrap_or_else(|| panic!("{link} does not exist"));
                }
            }
            ObjectKind::BindingRule => {
                assert!(there(ObjectKind::AuthMethod, &body["AuthMethod"]).is_some(), "{body}");
            }
            ObjectKind::Node => {
                let meta = body.as_object_mut().unwrap().remove("NodeMeta").unwrap();
                body["Meta"] = meta;
            }
            _ => {}
        }
        if matches!(kind, ObjectKind::Role | ObjectKind::Policy | ObjectKind::BindingRule) {
            body["ID"] = id.cloned().unwrap_or(json!(format!("id-{}", self.next)));
        }
        body["CreateIndex"] = json!(self.next);
        body["ModifyIndex"] = json!(self.next);
        body
    }

    /// Changes an object as another client, or removes it (null).
    pub(super) fn edit(&mut self, kind: ObjectKind, name: &str, change: impl FnOnce(&mut Value)) {
        let body = self.object(kind, name);
        change(body);
        self.objects.retain(|object| !object.2.is_null());
    }

    pub(super) fn object(&mut self, kind: ObjectKind, name: &str) -> &mut Value {
        let found = self.objects.iter_mut().find(|(other, _, body)| {
            let is = |field: &str| body.get(field).and_then(Value::as_str) == Some(name);
            *other == kind && ["Name", "Node", "BindName", "AccessorID"].into_iter().any(is)
        });
        &mut found.unwrap_or_else(|| panic!("no {name}")).2
    }

    pub(super) fn add(&mut self, kind: ObjectKind, body: Value) {
        self.objects.push((kind, ObjectScope::default(), body));
    }
}

fn line(step: &AclStep) -> String {
    let fields = |fields: &[ecs_mesh_core::plan::FieldChange]| {
        let paths: Vec<&str> = fields.iter().map(|change| change.path.as_str()).collect();
        format!(" ({})", paths.join(", "))
    };
    let (word, fields) = match &step.action {
        AclAction::Create { .. } => ("create", String::new()),
        AclAction::Update { fields: changed, .. } => ("update", fields(changed)),
        AclAction::Remove => ("remove", String::new()),
        AclAction::Conflict { difference } => ("conflict", fields(difference)),
        AclAction::Drifted { difference } => ("drifted", fields(difference)),
        AclAction::Undeclared => ("stray", String::new()),
        AclAction::Unmanaged => ("leave", String::new()),
        AclAction::Hold => ("hold", String::new()),
        AclAction::Unchanged => ("unchanged", String::new()),
        AclAction::Unknown => ("unknown", String::new()),
    };
    format!("{word} {}{fields}", step.id)
}
