//! Requests to Enterprise, by its documentation: each object in its partition and namespace. They were not tried on an
//! Enterprise server.

use std::collections::BTreeMap;

use super::*;
use crate::backend::{WriteGate, WriteResult};
use crate::desired::{AclContext, DatacenterRole, Edition, OperatorIds, desired};
use crate::plan::{AclAction, AclStep, plan_objects};
use ecs_mesh_api::ConsulAuthSpec;

/// A server whose partition has two namespaces and the given objects. It does not store writes.
#[derive(Default)]
struct FakeEnterprise {
    sent: Mutex<Vec<(String, Value)>>,
    asked: Mutex<BTreeSet<String>>,
    /// The response to a read, by method and path with its query.
    objects: BTreeMap<String, Value>,
    /// The own token has only the permissions that are printed without an anonymous policy and namespaces.
    is_narrow: bool,
}

impl FakeEnterprise {
    fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    /// The requests that this call sent.
    fn body(&self, call: &str) -> Value {
        let all = self.sent.lock().unwrap();
        let found = all.iter().find(|(sent, _)| sent == call);
        found.unwrap_or_else(|| panic!("no {call} among {all:#?}")).1.clone()
    }

    fn namespace(name: &str) -> Value {
        json!({
            "Name": name, "Description": "theirs", "Partition": "ecs", "Meta": {"team": "a"},
            "ACLs": {"PolicyDefaults": [{"ID": "1", "Name": "audit"}], "RoleDefaults": null},
        })
    }

    fn read(&self, path_and_query: &str) -> ScriptedResult {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let is_reached = path == "/v1/acl/token/self"
            || (query.starts_with("partition=ecs") && !path.starts_with("/v1/namespace"));
        if self.is_narrow && !is_reached {
            return text(403, "Permission denied");
        }
        if let Some(objects) = self.objects.get(path_and_query) {
            return responds(200, objects);
        }
        match path {
            "/v1/namespaces" => {
                responds(200, &json!([Self::namespace("default"), Self::namespace("team-a")]))
            }
            "/v1/namespace/default" => responds(200, &Self::namespace("default")),
            "/v1/namespace/team-a" => responds(200, &Self::namespace("team-a")),
            "/v1/acl/token/self" => known_token(),
            "/v1/acl/token/00000000-0000-0000-0000-000000000002" => {
                responds(200, &json!({"Description": "Anonymous Token", "Policies": null}))
            }
            "/v1/catalog/nodes"
            | "/v1/acl/policies"
            | "/v1/acl/roles"
            | "/v1/acl/auth-methods"
            | "/v1/acl/tokens"
            | "/v1/acl/binding-rules" => responds(200, &json!([])),
            _ => text(404, "there is none"),
        }
    }
}

#[async_trait]
impl StreamTransport for FakeEnterprise {
    async fn stream(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        let path = path_and_query.split('?').next().unwrap();
        let said = if method == HttpMethod::Get {
            self.asked.lock().unwrap().insert(path_and_query.to_owned());
            self.read(path_and_query)
        } else {
            let body: Value = body.map_or(json!(true), |body| serde_json::from_slice(&body).unwrap());
            let answer = if path.starts_with("/v1/catalog") { json!(true) } else { body.clone() };
            self.sent.lock().unwrap().push((format!("{method} {path_and_query}"), body));
            responds(200, &answer)
        }?;
        assert!(sink.write(&said.head, &said.body));
        Ok(said.head)
    }
}

fn tokens() -> Value {
    json!({
        "controlPlane": "consul",
        "serviceTokens": {
            "boundPrincipals": ["arn:aws:iam::111122223333:role/consul-ecs/*"], "gateways": ["mesh-gateway"],
        },
        "clientTokens": {"boundPrincipals": ["arn:aws:iam::111122223333:role/consul-agents/*"]},
    })
}

fn everything() -> Value {
    let mut all = tokens();
    all["anonymousPolicy"] = json!("present");
    all["enterprise"] = json!({"crossNamespace": "present"});
    all
}

/// Runs a reconcile of the manifests in the partition `ecs`.
async fn run(server: &Arc<FakeEnterprise>, auth: &Value) -> Vec<AclStep> {
    let spec = spec(&json!({"partition": "ecs", "namespaces": ["team-a"]}));
    let consul = ConsulControlPlane::new(Arc::clone(server), &spec, operator(), Arc::new(NoObserver));
    let acl = ConsulAclBackend::new(Arc::new(consul));
    let auth: ConsulAuthSpec = serde_json::from_value(auth.clone()).unwrap();
    let (operators, clusters) = (OperatorIds::new(operator()), clusters());
    let around = AclContext {
        operators: &operators,
        clusters: &clusters,
        edition: Edition::of(&spec, &BTreeSet::new()),
        datacenter: DatacenterRole::Primary,
    };
    let desired = desired(&auth, &around);
    let looked = acl.snapshot(&around, &desired).await;
    assert_eq!(looked.errors, []);
    let steps = plan_objects(&desired, &looked.actual, &operators);
    for step in steps.iter().filter(|step| step.writes()) {
        assert_eq!(acl.apply(step, &|| WriteGate::Allowed).await.unwrap(), WriteResult::Done, "{step:#?}");
    }
    steps
}

/// All kinds of objects, created in the partition `ecs`.
async fn made() -> Arc<FakeEnterprise> {
    let server = Arc::new(FakeEnterprise::default());
    let steps = run(&server, &everything()).await;
    assert!(steps.iter().all(AclStep::writes), "{steps:#?}");
    server
}

#[tokio::test]
async fn each_object_is_sent_to_its_partition_and_namespace() {
    let sent = made().await.sent();
    let count = |call: &str| sent.iter().filter(|sent| *sent == call).count();
    for (call, times) in [
        ("PUT /v1/acl/auth-method?partition=ecs&ns=default", 2),
        ("PUT /v1/acl/binding-rule?partition=ecs&ns=default", 3),
        ("PUT /v1/acl/role?partition=ecs&ns=default", 2),
        ("PUT /v1/acl/policy?partition=ecs&ns=default", 3),
        // The anonymous token and its policy exist only in the default partition.
        ("PUT /v1/acl/policy?partition=default&ns=default", 1),
        ("PUT /v1/acl/token/00000000-0000-0000-0000-000000000002?partition=default&ns=default", 1),
        // These kinds have no namespace.
        ("PUT /v1/catalog/register?partition=ecs", 1),
        ("PUT /v1/namespace/default?partition=ecs", 1),
        ("PUT /v1/namespace/team-a?partition=ecs", 1),
    ] {
        assert_eq!(count(call), times, "{call} in {sent:#?}");
    }
    assert_eq!(sent.len(), 15, "{sent:#?}");
}

/// An owned policy and role, as lists and single reads return them.
fn of_ours(place: &str, policy: &str) -> BTreeMap<String, Value> {
    let policy = json!({"ID": "7", "Name": policy, "Description": "[ecs-mesh:op-1]", "Rules": ""});
    let name = policy["Name"].as_str().unwrap();
    BTreeMap::from([
        (format!("/v1/acl/policies?{place}"), json!([policy])),
        (format!("/v1/acl/policy/name/{name}?{place}"), policy.clone()),
    ])
}

#[tokio::test]
async fn each_scope_is_listed_by_partition_and_namespace() {
    let asked = made().await.asked.lock().unwrap().clone();
    let lists = ["policies", "roles", "auth-methods", "binding-rules"];
    for list in lists {
        assert!(asked.contains(&format!("/v1/acl/{list}?partition=ecs&ns=default")), "{list} in {asked:#?}");
    }
    for call in [
        "/v1/namespaces?partition=ecs",
        "/v1/namespace/team-a?partition=ecs",
        "/v1/acl/policy/name/consul-ecs-client-policy?partition=ecs&ns=default",
        "/v1/acl/binding-rules?partition=ecs&ns=default&authmethod=iam-ecs-service-token",
        // The anonymous token and its policy exist only in the default partition.
        "/v1/acl/policies?partition=default&ns=default",
        "/v1/acl/policy/name/anonymous-token-policy?partition=default&ns=default",
        "/v1/acl/token/00000000-0000-0000-0000-000000000002?partition=default&ns=default",
    ] {
        assert!(asked.contains(call), "{call} in {asked:#?}");
    }
    let nodes: Vec<_> = asked.iter().filter(|call| call.starts_with("/v1/catalog")).collect();
    assert!(
        !nodes.is_empty() && nodes.iter().all(|call| call.contains("?partition=ecs&filter=")),
        "{nodes:?}"
    );
    let of_default = asked.iter().filter(|call| call.contains("partition=default"));
    assert_eq!(of_default.count(), 3, "{asked:#?}");
    // The own token is read by its secret.
    let without: Vec<_> = asked.iter().filter(|call| !call.contains("partition=")).collect();
    assert_eq!(without, ["/v1/acl/token/self"]);
}

#[tokio::test]
async fn policy_references_are_counted_in_all_namespaces() {
    let mut absent = everything();
    absent["state"] = json!("absent");
    let objects = of_ours("partition=ecs&ns=default", "consul-ecs-client-policy");
    let server = Arc::new(FakeEnterprise { objects, ..FakeEnterprise::default() });
    run(&server, &absent).await;
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked.contains("/v1/acl/tokens?partition=ecs&ns=*&policy=7"), "{asked:#?}");
    assert_eq!(server.sent(), ["DELETE /v1/acl/policy/7?partition=ecs&ns=default"]);
}

#[tokio::test]
async fn partition_token_suffices_for_partition_objects() {
    let narrow = || Arc::new(FakeEnterprise { is_narrow: true, ..FakeEnterprise::default() });
    let steps = run(&narrow(), &tokens()).await;
    assert!(!steps.is_empty() && steps.iter().all(AclStep::writes), "{steps:#?}");

    let mut absent = tokens();
    absent["state"] = json!("absent");
    let steps = run(&narrow(), &absent).await;
    assert!(steps.iter().all(|step| step.action == AclAction::Unchanged), "{steps:#?}");
}

#[tokio::test]
async fn policy_is_detached_from_namespaces_before_removal() {
    let mut absent = tokens();
    absent["state"] = json!("absent");
    let mut objects = of_ours("partition=ecs&ns=default", "cross-namespace-read");
    let mut namespace = FakeEnterprise::namespace("team-a");
    namespace["ACLs"]["PolicyDefaults"] = json!([{"ID": "7", "Name": "cross-namespace-read"}]);
    objects.insert("/v1/namespaces?partition=ecs".to_owned(), json!([namespace]));
    objects.insert("/v1/namespace/team-a?partition=ecs".to_owned(), namespace);
    let server = Arc::new(FakeEnterprise { objects, ..FakeEnterprise::default() });
    run(&server, &absent).await;
    assert_eq!(
        server.sent(),
        ["PUT /v1/namespace/team-a?partition=ecs", "DELETE /v1/acl/policy/7?partition=ecs&ns=default"]
    );
}

#[tokio::test]
async fn auth_method_maps_role_tag_to_namespace() {
    let body = made()
        .await
        .sent
        .lock()
        .unwrap()
        .iter()
        .map(|(_, body)| body.clone())
        .find(|body| body["Name"] == "iam-ecs-service-token");
    assert_eq!(
        body.unwrap()["NamespaceRules"],
        json!([{
            "Selector": "entity_tags[\"consul.hashicorp.com.namespace\"] != \"\"",
            "BindNamespace": "${entity_tags.consul.hashicorp.com.namespace}",
        }])
    );
}

#[tokio::test]
async fn namespace_update_adds_one_policy() {
    let body = made().await.body("PUT /v1/namespace/team-a?partition=ecs");
    assert_eq!(
        body,
        json!({
            "Name": "team-a", "Description": "theirs", "Meta": {"team": "a"},
            "ACLs": {
                "PolicyDefaults": [{"ID": "1", "Name": "audit"}, {"Name": "cross-namespace-read"}],
                "RoleDefaults": [],
            },
        })
    );
}

#[tokio::test]
async fn anonymous_policy_is_in_partition_default() {
    let server = made().await;
    let token =
        server.body("PUT /v1/acl/token/00000000-0000-0000-0000-000000000002?partition=default&ns=default");
    assert_eq!(token["Policies"], json!([{"Name": "anonymous-token-policy"}]));
    let policy = server.body("PUT /v1/acl/policy?partition=default&ns=default");
    assert_eq!(policy["Name"], "anonymous-token-policy");
    assert!(policy["Rules"].as_str().unwrap().starts_with("partition_prefix \"\" {"), "{policy}");
}

#[tokio::test]
async fn node_is_registered_and_removed_in_its_partition() {
    let server = made().await;
    let body = server.body("PUT /v1/catalog/register?partition=ecs");
    assert_eq!((&body["Node"], &body["Partition"]), (&json!(CLUSTER), &json!("ecs")));
    let spec = spec(&json!({"partition": "ecs"}));
    let consul = ConsulControlPlane::new(server.clone(), &spec, operator(), Arc::new(NoObserver));
    consul.objects().deregister_node_with_its_services(&cluster()).await.unwrap();
    let body = server.body("PUT /v1/catalog/deregister?partition=ecs");
    assert_eq!(body, json!({"Node": CLUSTER, "Partition": "ecs"}));
}
