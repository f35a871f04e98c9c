//! Binding rules: the grants of a login.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::aws_iam::SELECTABLE;
use super::bexpr::Expression;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, text};
use super::grants::{Template, is_identity_name, is_plain_name};
use super::policies::{same_id, uuid};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};

const VARS: JsonMessage = JsonMessage(&[("Name", JsonFieldKind::Text)]);
const BODY: JsonMessage = JsonMessage(&[
    ("ID", JsonFieldKind::Text),
    ("Description", JsonFieldKind::Text),
    ("AuthMethod", JsonFieldKind::Text),
    ("Selector", JsonFieldKind::Text),
    ("BindType", JsonFieldKind::Text),
    ("BindName", JsonFieldKind::Text),
    ("BindVars", JsonFieldKind::Message(&VARS)),
    ("CreateIndex", JsonFieldKind::Number),
    ("ModifyIndex", JsonFieldKind::Number),
]);

/// The kind of grant of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindType {
    Service,
    Node,
    Role,
    Policy,
    Templated,
}

const BIND_TYPES: [(&str, BindType); 5] = [
    ("service", BindType::Service),
    ("node", BindType::Node),
    ("role", BindType::Role),
    ("policy", BindType::Policy),
    ("templated-policy", BindType::Templated),
];

/// A stored binding rule.
#[derive(Clone)]
pub(super) struct StoredBindingRule {
    pub(super) id: String,
    description: String,
    pub(super) auth_method: String,
    selector: String,
    pub(super) selects: Expression,
    pub(super) bind_type: BindType,
    pub(super) bind_name: String,
    pub(super) bind_vars: Option<String>,
    created: u64,
    modified: u64,
}

impl StoredBindingRule {
    /// Whether the rule belongs to this auth method.
    pub(super) fn is_of(&self, method: &str) -> bool {
        self.auth_method.eq_ignore_ascii_case(method)
    }

    pub(super) fn shown(&self) -> Value {
        let bind_type = BIND_TYPES.iter().find(|(_, known)| *known == self.bind_type).map(|(word, _)| word);
        let mut shown = json!({
            "ID": self.id,
            "Description": self.description,
            "AuthMethod": self.auth_method,
            "Selector": self.selector,
            "BindType": bind_type,
            "BindName": self.bind_name,
            "CreateIndex": self.created,
            "ModifyIndex": self.modified,
        });
        if let Some(name) = &self.bind_vars {
            shown["BindVars"] = json!({"name": name});
        }
        shown
    }
}

impl ConsulServer {
    pub(super) fn list_rules(&self, call: &RequestContext<'_>) -> HandlerResult {
        self.acl_reader(call.secret)?;
        let method = call.target.parameter("authmethod");
        let rules = self.acl.rules.values().filter(|rule| method.is_empty() || rule.is_of(method));
        Ok(HandlerResponse::read(&rules.map(StoredBindingRule::shown).collect(), self.acl.changed.rules))
    }

    pub(super) fn read_rule(&self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        self.acl_reader(call.secret)?;
        uuid(id)?;
        let rule = self.acl.rules.get(id).ok_or_else(|| ConsulErrorResponse::not_found("binding rule"))?;
        Ok(HandlerResponse::read(&rule.shown(), self.acl.changed.rules))
    }

    /// Creates a binding rule, even if an equal one exists, or replaces the one with this id.
    pub(super) fn write_rule(&mut self, call: &RequestContext<'_>, id: Option<&str>) -> HandlerResult {
        let body = decode::body(&BODY, &call.request.body, UnknownFields::Refused);
        let body = body
            .map_err(|what| ConsulErrorResponse::malformed(format!("decoding the binding rule: {what}")))?;
        same_id(id, text(&body, "ID"), "a binding rule")?;
        let caller = self.acl_writer(call.secret)?;
        let (before, rule) = self.checked_rule(id, &body)?;
        let index = self.commit();
        let created = before.as_ref().map_or(index, |before| before.created);
        let rule = StoredBindingRule { created, modified: index, ..rule };
        let shown = rule.shown();
        let before = before.map(|before| before.shown());
        self.record(call, &caller, "binding-rule", &rule.id, before, Some(shown.clone()));
        self.acl.rules.insert(rule.id.clone(), rule);
        self.acl.changed.rules = index;
        Ok(HandlerResponse::Plain(shown))
    }

    fn checked_rule(
        &mut self,
        id: Option<&str>,
        body: &Map<String, Value>,
    ) -> Result<(Option<StoredBindingRule>, StoredBindingRule), ConsulErrorResponse> {
        let before =
            match id {
                Some(id) => {
                    uuid(id)?;
                    let found = self.acl.rules.get(id).cloned();
                    Some(found.ok_or_else(|| {
                        ConsulErrorResponse::invalid(format!("there is no binding rule {id}"))
                    })?)
                }
                None => None,
            };
        let method = text(body, "AuthMethod");
        if before.as_ref().is_some_and(|before| before.auth_method != method) {
            return Err(ConsulErrorResponse::invalid("the AuthMethod of a binding rule cannot change"));
        }
        let aws = match self.acl.method(method) {
            Some(method) => &method.aws,
            None => {
                return Err(ConsulErrorResponse::invalid(format!(
                    "there is no auth method with the name {method:?}"
                )));
            }
        };
        let selector = text(body, "Selector");
        let selects = Expression::parse(selector, &SELECTABLE).map_err(|what| {
            ConsulErrorResponse::invalid(format!("the Selector {selector:?} is not valid: {what}"))
        })?;
        let bind_name = text(body, "BindName");
        if bind_name.is_empty() {
            return Err(ConsulErrorResponse::invalid("the binding rule has no BindName"));
        }
        let word = text(body, "BindType");
        let (_, bind_type) = BIND_TYPES.into_iter().find(|(known, _)| *known == word).ok_or_else(|| {
            let known = BIND_TYPES.map(|(word, _)| word).join(", ");
            ConsulErrorResponse::invalid(format!("the BindType is {word:?}; {known} are allowed"))
        })?;
        let bind_vars =
            body.get("BindVars").and_then(Value::as_object).map(|vars| text(vars, "Name").to_owned());
        if bind_vars.is_some() && bind_type != BindType::Templated {
            return Err(ConsulErrorResponse::invalid(
                "only rules of the BindType templated-policy have BindVars",
            ));
        }
        // Checks the result with a sample value for each variable.
        let sample = aws.variables().into_iter().map(|name| (name, "some".to_owned())).collect();
        bound_name(bind_type, bind_name, bind_vars.as_deref(), &sample)
            .map_err(ConsulErrorResponse::invalid)?;
        let rule = StoredBindingRule {
            id: id.map_or_else(|| self.ids.uuid(), str::to_owned),
            description: text(body, "Description").to_owned(),
            auth_method: method.to_owned(),
            selector: selector.to_owned(),
            selects,
            bind_type,
            bind_name: bind_name.to_owned(),
            bind_vars,
            created: 0,
            modified: 0,
        };
        Ok((before, rule))
    }

    pub(super) fn delete_rule(&mut self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        uuid(id)?;
        let caller = self.acl_writer(call.secret).map_err(|refusal| refusal.of_a_deletion("binding rule"))?;
        let rule = self.acl.rules.remove(id).ok_or_else(|| ConsulErrorResponse::not_found("binding rule"))?;
        self.acl.changed.rules = self.commit();
        self.record(call, &caller, "binding-rule", id, Some(rule.shown()), None);
        Ok(HandlerResponse::done())
    }
}

/// The bound name for these variables; for a templated policy, the name of its variable.
pub(super) fn bound_name(
    bind_type: BindType,
    bind_name: &str,
    bind_vars: Option<&str>,
    variables: &BTreeMap<String, String>,
) -> Result<String, String> {
    let name = interpolate(bind_name, variables)?;
    let (name, fits) = match bind_type {
        BindType::Service | BindType::Node => {
            let fits = is_identity_name(&name);
            (name, fits)
        }
        BindType::Role => {
            let fits = is_plain_name(&name, 256);
            (name, fits)
        }
        BindType::Policy => {
            let fits = !name.is_empty() && name.split('/').all(|part| is_plain_name(part, 128));
            (name, fits)
        }
        BindType::Templated => {
            if Template::named(&name).is_none() {
                return Err(format!("{name:?} is not a policy template"));
            }
            let variable = interpolate(bind_vars.unwrap_or_default(), variables)?;
            let fits = variable.is_empty() || is_identity_name(&variable);
            (variable, fits)
        }
    };
    if fits { Ok(name) } else { Err(format!("the bind name {name:?} is not valid")) }
}

/// Replaces `${NAME}` by the variable's value in lower case.
fn interpolate(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| format!("{text:?}: a \"${{\" has no end"))?;
        let value = variables.get(name.trim());
        let value = value.ok_or_else(|| format!("{text:?}: there is no variable {:?}", name.trim()))?;
        out.push_str(before);
        out.push_str(&value.to_lowercase());
        rest = after;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(bind_type: BindType, name: &str, tag: &str) -> Result<String, String> {
        let variables = [("entity_tags.team".to_owned(), tag.to_owned())].into();
        bound_name(bind_type, name, None, &variables)
    }

    #[test]
    fn tag_value_becomes_a_lower_case_name() {
        assert_eq!(bound(BindType::Service, "x-${entity_tags.team}", "Web").as_deref(), Ok("x-web"));
    }

    #[test]
    fn invalid_name_binds_nothing() {
        for tag in ["", "web app", "-web"] {
            assert!(bound(BindType::Service, "${entity_tags.team}", tag).is_err(), "{tag:?}");
        }
        assert!(bound(BindType::Service, "${entity_tags.other}", "web").is_err());
        assert!(bound(BindType::Service, "${entity_tags.team", "web").is_err());
    }
}
