//! Applies one step: reads the server's copy, which must equal the plan's; checks the lease; writes. Only the lease check is
//! between read and write.

use std::error::Error;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::snapshot::{anonymous, read};
use super::{ConsulAclBackend, to_json};
use crate::backend::{WriteGate, WriteResult};
use crate::desired::{ObjectOwner, owner, sign};
use crate::normalise::does_the_same;
use crate::plan::{AclAction, AclStep};
use ecs_mesh_consul::{
    AclObjects, AclPolicy, AclRole, AnonymousToken, AuthMethod, BindingRule, ClusterNode, ConsulNamespace,
    TokenRefKind,
};
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::ClusterArn;

impl<T: StreamTransport + 'static> ConsulAclBackend<T> {
    pub(super) async fn apply_step(
        &self,
        step: &AclStep,
        may_send: &(dyn Fn() -> WriteGate + Sync),
    ) -> Result<WriteResult, MeshError> {
        let objects = self.objects_in(&step.id.scope);
        if let Some(reason) = self.unsupported_reason(step) {
            return Ok(WriteResult::Unsupported(reason));
        }
        if let Some(reason) = self.stale_reason(step, &objects).await? {
            return Ok(WriteResult::Stale(reason));
        }
        match may_send() {
            WriteGate::Dry => return Ok(WriteResult::Dry),
            WriteGate::Obstructed(obstacle) => return Ok(WriteResult::Obstructed(obstacle)),
            WriteGate::Outdated(reason) => return Ok(WriteResult::Stale(reason.to_owned())),
            WriteGate::Allowed => {}
        }
        match &step.action {
            AclAction::Create { body } | AclAction::Update { body, .. } => {
                let mut body = body.clone();
                if let Some(writer) = self.consul.writer() {
                    sign(step.id.kind, &mut body, writer);
                }
                put(step, &objects, body).await?;
                Ok(WriteResult::Done)
            }
            AclAction::Remove if !remove(step, &objects).await? => {
                Ok(WriteResult::Stale("removed already".to_owned()))
            }
            AclAction::Remove => Ok(WriteResult::Done),
            _ => Ok(WriteResult::Stale("nothing to write".to_owned())),
        }
    }

    /// Older servers would only report an unknown type.
    fn unsupported_reason(&self, step: &AclStep) -> Option<String> {
        let AclAction::Create { body } = &step.action else { return None };
        let version = self.consul.version().filter(|version| !version.has_iam_logins())?;
        (step.id.kind == ObjectKind::AuthMethod && body["Type"] == "aws-iam").then(|| {
            format!(
                "these servers are Consul {version}, which has no auth method's type aws-iam: it came with 1.12, so \
                 upgrade them"
            )
        })
    }

    /// The reason why the step does not fit the server's copy, if any.
    async fn stale_reason(
        &self,
        step: &AclStep,
        objects: &AclObjects<T>,
    ) -> Result<Option<String>, MeshError> {
        let now = match (&step.action, step.id.kind) {
            // A rule has no name to look up, and the server would create a duplicate.
            (AclAction::Create { body }, ObjectKind::BindingRule) => {
                find_equivalent_rule(objects, body).await?
            }
            _ => current(step, objects).await?,
        };
        let found = match (&step.before, now) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Ok(Some("created by another client since the plan".to_owned())),
            (Some(_), None) => return Ok(Some("removed since the plan".to_owned())),
            (Some(before), Some(now)) if tidy(before) == tidy(&now) => now,
            (Some(_), Some(_)) => return Ok(Some("changed by another client since the plan".to_owned())),
        };
        match (owner(step.id.kind, &found, &self.operators), &step.action) {
            (ObjectOwner::Ours, AclAction::Remove) => self.in_use_reason(step, objects, &found).await,
            (ObjectOwner::Ours | ObjectOwner::Unmarked, AclAction::Update { .. }) => Ok(None),
            _ => Ok(Some("not owned by this operator".to_owned())),
        }
    }

    /// The reason why the object is used by others since the plan, if any.
    async fn in_use_reason(
        &self,
        step: &AclStep,
        objects: &AclObjects<T>,
        found: &Value,
    ) -> Result<Option<String>, MeshError> {
        let is_ours = |kind, body: &Value| owner(kind, body, &self.operators) == ObjectOwner::Ours;
        let in_use = match step.id.kind {
            ObjectKind::AuthMethod => {
                let rules = objects.binding_rules(name(step)).await?;
                rules.iter().any(|rule| !is_ours(ObjectKind::BindingRule, &to_json(rule)))
            }
            ObjectKind::Role => self.has_foreign_references(TokenRefKind::Role, objects, found).await?,
            ObjectKind::Policy => {
                let roles = objects.roles().await?;
                let has_it = |role: &&AclRole| {
                    role.policies.iter().any(|policy| Some(policy.name.as_str()) == found["Name"].as_str())
                };
                roles.iter().filter(has_it).any(|role| !is_ours(ObjectKind::Role, &to_json(role)))
                    || self.has_foreign_references(TokenRefKind::Policy, objects, found).await?
            }
            ObjectKind::Node => self.services_on(objects, &cluster(step)?).await? > 0,
            _ => false,
        };
        Ok(in_use.then(|| "used by an object of another owner since the plan".to_owned()))
    }

    /// Whether a rule of another owner binds the role or policy, or a token has it that no owned auth method issued.
    async fn has_foreign_references(
        &self,
        of: TokenRefKind,
        objects: &AclObjects<T>,
        found: &Value,
    ) -> Result<bool, MeshError> {
        let operators = &self.operators;
        let name = found["Name"].as_str().unwrap_or_default();
        let binds =
            |rule: &&BindingRule| rule.bind_type == of.as_str() && rule.bind_name.eq_ignore_ascii_case(name);
        let rules = objects.all_binding_rules().await?;
        let is_of_others = |rule: &BindingRule| {
            owner(ObjectKind::BindingRule, &to_json(rule), operators) != ObjectOwner::Ours
        };
        if rules.iter().filter(binds).any(is_of_others) {
            return Ok(true);
        }
        // The plan detaches it from the anonymous token first, which a dry run does not do.
        let holders =
            objects.token_refs(of, found["ID"].as_str().unwrap_or_default()).await?.without_anonymous();
        if holders.is_empty() {
            return Ok(false);
        }
        let mut methods = objects.auth_methods().await?;
        methods
            .retain(|method| owner(ObjectKind::AuthMethod, &to_json(method), operators) == ObjectOwner::Ours);
        Ok(holders.of_others(|name| methods.iter().any(|method| method.name == name)).is_some())
    }
}

/// Reads the server's copy.
async fn current<T: StreamTransport>(
    step: &AclStep,
    objects: &AclObjects<T>,
) -> Result<Option<Value>, MeshError> {
    let name = name(step);
    Ok(match step.id.kind {
        ObjectKind::Policy | ObjectKind::AuthMethod => read(step.id.kind, objects, name).await?,
        ObjectKind::Role => objects.role(name).await?.as_ref().map(to_json),
        ObjectKind::BindingRule => {
            objects.binding_rule(step.server_id.as_deref().unwrap_or_default()).await?.as_ref().map(to_json)
        }
        ObjectKind::Node => objects.node(&cluster(step)?).await?.as_ref().map(to_json),
        ObjectKind::AnonymousToken => {
            objects.anonymous_token().await?.as_ref().map(|token| anonymous(to_json(token)))
        }
        ObjectKind::Namespace => objects.namespace(name).await?.as_ref().map(to_json),
    })
}

/// An equivalent rule that was created since the plan.
async fn find_equivalent_rule<T: StreamTransport>(
    objects: &AclObjects<T>,
    body: &Value,
) -> Result<Option<Value>, MeshError> {
    let rules = objects.binding_rules(body["AuthMethod"].as_str().unwrap_or_default()).await?;
    let mut body = body.clone();
    // An omitted selector is empty and selects every login.
    if let Some(fields) = body.as_object_mut() {
        fields.entry("Selector").or_insert_with(|| Value::String(String::new()));
        fields.entry("BindVars").or_insert_with(|| Value::Object(Map::new()));
    }
    Ok(rules.iter().map(to_json).find(|rule| does_the_same(ObjectKind::BindingRule, rule, &body)))
}

async fn put<T: StreamTransport>(
    step: &AclStep,
    objects: &AclObjects<T>,
    mut body: Value,
) -> Result<(), MeshError> {
    if let Some(id) = step.server_id.as_deref().filter(|_| has_id(step.id.kind)) {
        body["ID"] = id.into();
    }
    match (step.id.kind, &step.before) {
        (ObjectKind::Policy, _) => drop(objects.put_policy(&form::<AclPolicy>(step, body)?).await?),
        (ObjectKind::Role, _) => drop(objects.put_role(&form::<AclRole>(step, body)?).await?),
        (ObjectKind::AuthMethod, _) => {
            drop(objects.put_auth_method(&form::<AuthMethod>(step, body)?).await?);
        }
        (ObjectKind::BindingRule, _) => {
            drop(objects.put_binding_rule(&form::<BindingRule>(step, body)?).await?);
        }
        (ObjectKind::Node, _) => {
            if let Some(meta) = body.as_object_mut().and_then(|fields| fields.remove("NodeMeta")) {
                body["Meta"] = meta;
            }
            objects.register_node(&form::<ClusterNode>(step, body)?).await?;
        }
        (ObjectKind::AnonymousToken, _) => {
            drop(objects.put_anonymous_token(&form::<AnonymousToken>(step, body)?).await?);
        }
        (ObjectKind::Namespace, Some(_)) => {
            drop(objects.update_namespace(&form::<ConsulNamespace>(step, body)?).await?);
        }
        (ObjectKind::Namespace, None) => {
            drop(objects.create_namespace(&form::<ConsulNamespace>(step, body)?).await?);
        }
    }
    Ok(())
}

async fn remove<T: StreamTransport>(step: &AclStep, objects: &AclObjects<T>) -> Result<bool, MeshError> {
    let id = step.server_id.as_deref().unwrap_or_default();
    match step.id.kind {
        ObjectKind::Policy => objects.delete_policy(id).await,
        ObjectKind::Role => objects.delete_role(id).await,
        ObjectKind::BindingRule => objects.delete_binding_rule(id).await,
        ObjectKind::AuthMethod => objects.delete_auth_method_with_its_tokens(name(step)).await,
        ObjectKind::Node => objects.deregister_node_with_its_services(&cluster(step)?).await.map(|()| true),
        // Without an owner, so never removed.
        ObjectKind::AnonymousToken | ObjectKind::Namespace => Ok(false),
    }
}

/// The name as the server spells it.
fn name(step: &AclStep) -> &str {
    let objects = step.before.as_ref().and_then(|before| before["Name"].as_str());
    objects.unwrap_or(&step.id.name)
}

fn cluster(step: &AclStep) -> Result<ClusterArn, MeshError> {
    ClusterArn::parse(&step.id.name).map_err(|error| invalid(step, error))
}

fn has_id(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::Policy | ObjectKind::Role | ObjectKind::BindingRule)
}

fn form<F: DeserializeOwned>(step: &AclStep, body: Value) -> Result<F, MeshError> {
    serde_json::from_value(body).map_err(|error| invalid(step, error))
}

fn invalid(step: &AclStep, cause: impl Error + Send + Sync + 'static) -> MeshError {
    let message = format!("{} cannot be written: {cause}", step.id);
    MeshError::new(MeshErrorKind::Invalid, message).with_source(cause)
}

/// Without empty values, which lists and single reads omit differently.
fn tidy(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), tidy(value)));
            let says = |value: &Value| match value {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(fields) => !fields.is_empty(),
                _ => true,
            };
            fields.filter(|(_, value)| says(value)).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(tidy).collect(),
        other => other.clone(),
    }
}
