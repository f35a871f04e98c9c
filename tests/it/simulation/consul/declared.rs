//! ACL objects of runs with a `ConsulAuth`: foreign changes during the run, and the expected objects at its end, which
//! are those of a golden file.

use std::collections::BTreeMap;

use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::consul::{ConsulRequest, ConsulServer};
use ecs_mesh_sandbox::world::{LOGIN_METHOD, MANAGEMENT_TOKEN};
use serde_json::{Value, json};

use super::super::driver::OPERATOR;

const GOLDEN: &str = include_str!("../../../golden/consul-auth/service-tokens.yaml");
/// The bound principals, as in the golden file.
const BOUND: &str = "arn:aws:iam::111122223333:role/consul-ecs/*";

/// The ownership mark of the operator's objects.
pub(super) fn mark() -> String {
    format!("[ecs-mesh:{OPERATOR}]")
}

/// The manifest, with the account's own endpoints.
pub(super) fn manifest(aws: &str) -> String {
    format!(
        "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: ConsulAuth
metadata: {{name: ecs}}
spec:
  controlPlane: consul
  serviceTokens:
    boundPrincipals: [\"{BOUND}\"]
    gateways: [mesh-gateway, terminating-gateway, api-gateway]
    stsEndpoint: \"{aws}\"
    iamEndpoint: \"{aws}\"
"
    )
}

/// An administrator of Consul.
pub(super) struct Administrator<'a> {
    pub(super) consul: &'a mut ConsulServer,
    pub(super) secret: &'a str,
    pub(super) now: Timestamp,
}

impl Administrator<'_> {
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let request = ConsulRequest::new(method, path, Some(self.secret), body);
        let answer = self.consul.handle(self.now, &request);
        if answer.status == 200 { answer.json() } else { Value::Null }
    }

    fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null)
    }

    fn rules(&mut self) -> Vec<Value> {
        let rules = self.get(&format!("/v1/acl/binding-rules?authmethod={LOGIN_METHOD}"));
        rules.as_array().cloned().unwrap_or_default()
    }

    fn put_method(&mut self, method: &Value) {
        self.ask("PUT", &format!("/v1/acl/auth-method/{LOGIN_METHOD}"), method);
    }

    fn rule_path(rule: &Value) -> String {
        format!("/v1/acl/binding-rule/{}", rule["ID"].as_str().unwrap())
    }

    /// Adds the operator's ownership mark to all existing objects.
    pub(super) fn hand_over(&mut self) {
        let mut method = self.get(&format!("/v1/acl/auth-method/{LOGIN_METHOD}"));
        method["Description"] = mark().into();
        self.put_method(&method);
        for mut rule in self.rules() {
            rule["Description"] = mark().into();
            self.ask("PUT", &Self::rule_path(&rule), &rule);
        }
        self.consul.take_journal();
    }

    /// Changes or removes a declared object. Returns the change, if there was an object.
    pub(super) fn edit(&mut self, rng: &mut fastrand::Rng) -> Option<&'static str> {
        match rng.u8(..5) {
            0 => {
                let rules = self.rules();
                let rule = rules.get(rng.usize(..rules.len().max(1)))?;
                self.ask("DELETE", &Self::rule_path(rule), &Value::Null);
                Some("a rule is deleted")
            }
            1 => {
                let mut method = self.get(&format!("/v1/acl/auth-method/{LOGIN_METHOD}"));
                method["Config"]["BoundIAMPrincipalARNs"] =
                    json!([BOUND, "arn:aws:iam::666666666666:role/*"]);
                self.put_method(&method);
                Some("a foreign account is let in")
            }
            2 => {
                let name = "consul-ecs-mesh-gateway-policy";
                let mut policy = self.get(&format!("/v1/acl/policy/name/{name}"));
                policy["Rules"] = "mesh = \"read\"".into();
                let path = format!("/v1/acl/policy/{}", policy["ID"].as_str()?);
                self.ask("PUT", &path, &policy);
                Some("a policy is weakened")
            }
            3 => {
                let mut role = self.get("/v1/acl/role/name/consul-ecs-mesh-gateway-role");
                role["Policies"] = json!([{"Name": "global-management"}]);
                let path = format!("/v1/acl/role/{}", role["ID"].as_str()?);
                self.ask("PUT", &path, &role);
                Some("a role may do everything")
            }
            _ => {
                let mut rule = self.rules().into_iter().find(|rule| rule["BindType"] == "role")?;
                rule["Selector"] = "".into();
                self.ask("PUT", &Self::rule_path(&rule), &rule);
                Some("a selector is emptied")
            }
        }
    }

    /// Objects with the operator's mark by kind and name, in the form of the golden file.
    fn content(&mut self) -> BTreeMap<String, Value> {
        let mut content = BTreeMap::new();
        let (policies, roles) = (self.get("/v1/acl/policies"), self.get("/v1/acl/roles"));
        let named = policies.as_array().unwrap().iter().map(|policy| ("policy", policy.clone()));
        let named = named.chain(roles.as_array().unwrap().iter().map(|role| ("role", role.clone())));
        for (kind, listed) in named.collect::<Vec<_>>() {
            let name = listed["Name"].as_str().unwrap();
            let whole = self.get(&format!("/v1/acl/{kind}/name/{name}"));
            content.insert(format!("{kind} {name}"), whole);
        }
        for method in self.get("/v1/acl/auth-methods").as_array().unwrap() {
            let name = method["Name"].as_str().unwrap();
            let whole = self.get(&format!("/v1/acl/auth-method/{name}"));
            content.insert(format!("auth method {name}"), whole);
        }
        for (number, rule) in self.rules().into_iter().enumerate() {
            let is_first = |name: &String| !content.contains_key(name);
            let name = format!("rule {}", rule["BindName"].as_str().unwrap());
            let name = Some(name.clone()).filter(is_first).unwrap_or_else(|| format!("{name} ({number})"));
            content.insert(name, rule);
        }
        let mark = mark();
        content.retain(|_, body| body["Description"].as_str().unwrap_or_default().contains(&mark));
        content.into_iter().map(|(name, body)| (name, essence(&body))).collect()
    }

    /// Differences between actual and declared objects.
    pub(super) fn differences(&mut self, aws: &str) -> Vec<String> {
        let (is, should_be) = (self.content(), declared(aws));
        let names: std::collections::BTreeSet<&String> = is.keys().chain(should_be.keys()).collect();
        let differ = names.into_iter().filter(|name| is.get(*name) != should_be.get(*name));
        differ
            .map(|name| {
                let (is, should_be) = (is.get(name), should_be.get(name));
                format!("{name} is {is:?} and should be {should_be:?}")
            })
            .collect()
    }
}

/// The compared content of an object, in one form for declared and actual objects.
fn essence(body: &Value) -> Value {
    let fields = ["Description", "Rules", "AuthMethod", "BindName", "BindType", "Type"];
    let mut essence: serde_json::Map<String, Value> =
        fields.into_iter().filter_map(|field| Some((field.to_owned(), body.get(field)?.clone()))).collect();
    essence.insert("Selector".to_owned(), body["Selector"].as_str().unwrap_or_default().into());
    let policies = body["Policies"].as_array().into_iter().flatten().map(|policy| policy["Name"].clone());
    essence.insert("Policies".to_owned(), policies.collect());
    for field in
        ["BoundIAMPrincipalARNs", "IAMEntityTags", "EnableIAMEntityDetails", "STSEndpoint", "IAMEndpoint"]
    {
        if let Some(value) = body["Config"].get(field) {
            essence.insert(field.to_owned(), value.clone());
        }
    }
    Value::Object(essence)
}

/// The objects of the golden file with the names of this operator and account.
fn declared(aws: &str) -> BTreeMap<String, Value> {
    let text =
        GOLDEN.split_once("---\n").unwrap().1.replace("ecs-mesh:golden", &format!("ecs-mesh:{OPERATOR}"));
    let golden: Value = serde_saphyr::from_str(&text).unwrap();
    let objects = golden["objects"].as_array().unwrap().iter().filter_map(|one| {
        let (object, mut body) = (one["object"].as_str().unwrap(), one["body"].clone());
        if object.starts_with("node ") {
            // The object has no owner here.
            return None;
        }
        let name = match body["BindName"].as_str() {
            Some(bound) => format!("rule {bound}"),
            None => object.to_owned(),
        };
        if body["Config"].is_object() {
            body["Config"]["STSEndpoint"] = aws.into();
            body["Config"]["IAMEndpoint"] = aws.into();
        }
        Some((name, essence(&body)))
    });
    objects.collect()
}

/// Calls Consul as the administrator.
pub(super) fn administrator(consul: &mut ConsulServer, now: Timestamp) -> Administrator<'_> {
    Administrator { consul, secret: MANAGEMENT_TOKEN, now }
}
