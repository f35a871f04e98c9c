//! What is sent to Enterprise: as its documentation says, each object in its partition and namespace. No Enterprise
//! server was there to try it on.

use super::*;
use crate::api::ConsulAuthSpec;
use crate::intent::identity::{Datacenter, Edition, Surroundings, desired};
use crate::mesh::{Identities as _, MaySend, Written};
use crate::plan::plan_objects;

/// A server with two namespaces in the partition and nothing else in it, which keeps nothing of what it is sent.
#[derive(Default)]
struct Enterprise(Mutex<Vec<(String, Value)>>);

impl Enterprise {
    fn sent(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    /// What was sent by this call.
    fn body(&self, call: &str) -> Value {
        let all = self.0.lock().unwrap();
        let found = all.iter().find(|(sent, _)| sent == call);
        found.unwrap_or_else(|| panic!("no {call} among {all:#?}")).1.clone()
    }

    fn namespace(name: &str) -> Value {
        json!({
            "Name": name, "Description": "theirs", "Partition": "ecs", "Meta": {"team": "a"},
            "ACLs": {"PolicyDefaults": [{"ID": "1", "Name": "audit"}], "RoleDefaults": null},
        })
    }

    fn read(path: &str) -> Saying {
        match path {
            "/v1/namespaces" => says(200, &json!([Self::namespace("default"), Self::namespace("team-a")])),
            "/v1/namespace/default" => says(200, &Self::namespace("default")),
            "/v1/namespace/team-a" => says(200, &Self::namespace("team-a")),
            "/v1/acl/token/self" => known(),
            "/v1/acl/token/00000000-0000-0000-0000-000000000002" => {
                says(200, &json!({"Description": "Anonymous Token", "Policies": null}))
            }
            "/v1/catalog/nodes"
            | "/v1/acl/policies"
            | "/v1/acl/roles"
            | "/v1/acl/auth-methods"
            | "/v1/acl/binding-rules" => says(200, &json!([])),
            _ => text(404, "there is none"),
        }
    }
}

#[async_trait]
impl StreamTransport for Enterprise {
    async fn stream(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<Vec<u8>>,
        sink: &mut dyn Sink,
    ) -> Result<Head, TransportError> {
        let path = path_and_query.split('?').next().unwrap();
        let said = if method == Method::Get {
            Self::read(path)
        } else {
            let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
            let answer = if path.starts_with("/v1/catalog") { json!(true) } else { body.clone() };
            self.0.lock().unwrap().push((format!("{method} {path_and_query}"), body));
            says(200, &answer)
        }?;
        assert!(sink.take(&said.head, &said.body));
        Ok(said.head)
    }
}

/// All that can be declared, made in the partition `ecs`.
async fn made() -> Arc<Enterprise> {
    let server = Arc::new(Enterprise::default());
    let spec = spec(&json!({"partition": "ecs", "namespaces": ["team-a"]}));
    let consul = ConsulControlPlane::new(server.clone(), &spec, operator(), Arc::new(NoObserver));
    let auth: ConsulAuthSpec = serde_json::from_value(json!({
        "controlPlane": "consul",
        "serviceTokens": {
            "boundPrincipals": ["arn:aws:iam::111122223333:role/consul-ecs/*"], "gateways": ["mesh-gateway"],
        },
        "clientTokens": {"boundPrincipals": ["arn:aws:iam::111122223333:role/consul-agents/*"]},
        "anonymousPolicy": "present",
        "enterprise": {"crossNamespace": "present"},
    }))
    .unwrap();
    let (operator, clusters) = (operator(), clusters());
    let around = Surroundings {
        operator: &operator,
        clusters: &clusters,
        edition: Edition::of(&spec, &BTreeSet::new()),
        datacenter: Datacenter::Primary,
    };
    let desired = desired(&auth, &around);
    let looked = consul.look(&around, &desired).await;
    assert_eq!(looked.errors, []);
    for step in plan_objects(&desired, &looked.actual, &operator) {
        assert!(step.writes(), "{step:#?}");
        assert_eq!(consul.carry_out(&step, &|| MaySend::Yes).await.unwrap(), Written::Done, "{step:#?}");
    }
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
        // The anonymous token and its policy are in one partition alone.
        ("PUT /v1/acl/policy?partition=default&ns=default", 1),
        ("PUT /v1/acl/token/00000000-0000-0000-0000-000000000002?partition=default&ns=default", 1),
        // These are in no namespace.
        ("PUT /v1/catalog/register?partition=ecs", 1),
        ("PUT /v1/namespace/default?partition=ecs", 1),
        ("PUT /v1/namespace/team-a?partition=ecs", 1),
    ] {
        assert_eq!(count(call), times, "{call} in {sent:#?}");
    }
    assert_eq!(sent.len(), 15, "{sent:#?}");
}

#[tokio::test]
async fn a_method_puts_tokens_into_the_namespace_of_the_roles_tag() {
    let body = made()
        .await
        .0
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
async fn a_namespace_is_sent_whole_with_one_policy_more() {
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
async fn the_anonymous_token_gets_its_policy_in_the_partition_default() {
    let server = made().await;
    let token =
        server.body("PUT /v1/acl/token/00000000-0000-0000-0000-000000000002?partition=default&ns=default");
    assert_eq!(token["Policies"], json!([{"Name": "anonymous-token-policy"}]));
    let policy = server.body("PUT /v1/acl/policy?partition=default&ns=default");
    assert_eq!(policy["Name"], "anonymous-token-policy");
    assert!(policy["Rules"].as_str().unwrap().starts_with("partition_prefix \"\" {"), "{policy}");
}

#[tokio::test]
async fn a_node_is_registered_and_taken_off_in_its_partition() {
    let server = made().await;
    let body = server.body("PUT /v1/catalog/register?partition=ecs");
    assert_eq!((&body["Node"], &body["Partition"]), (&json!(CLUSTER), &json!("ecs")));
    let spec = spec(&json!({"partition": "ecs"}));
    let consul = ConsulControlPlane::new(server.clone(), &spec, operator(), Arc::new(NoObserver));
    consul.objects().deregister_node_with_its_services(&cluster()).await.unwrap();
    let body = server.body("PUT /v1/catalog/deregister?partition=ecs");
    assert_eq!(body, json!({"Node": CLUSTER, "Partition": "ecs"}));
}
