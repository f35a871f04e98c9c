//! Nodes and services: permissions, filters and transactions.

use serde_json::{Value, json};

use super::{ConsulServerFixture, MANAGEMENT};

const NODE: &str = "arn:aws:ecs:us-east-1:1:cluster/a";
const REGISTER: &str = "/v1/catalog/register";

fn service(name: &str, id: &str) -> Value {
    let meta = json!({"task-id": id});
    let service = json!({"ID": format!("{name}-{id}"), "Service": name, "Port": 80, "Meta": meta});
    json!({"Node": NODE, "SkipNodeUpdate": true, "Service": service})
}

fn world() -> ConsulServerFixture {
    let mut world = ConsulServerFixture::new();
    world.done("PUT", REGISTER, &json!({"Node": NODE, "Address": "127.0.0.1"}));
    for (name, id) in [("web", "1"), ("web", "2"), ("db", "3")] {
        world.done("PUT", REGISTER, &service(name, id));
    }
    world
}

fn ids(world: &ConsulServerFixture) -> Vec<String> {
    world.server.services(NODE).into_keys().collect()
}

fn op(verb: &str, name: &str, id: &str, index: u64) -> Value {
    let service = json!({"ID": format!("{name}-{id}"), "Service": name, "ModifyIndex": index});
    json!({"Service": {"Verb": verb, "Node": NODE, "Service": service}})
}

#[test]
fn node_is_found_by_raw_or_encoded_name() {
    let mut world = world();
    for (name, found) in [
        (NODE, true),
        ("arn%3Aaws%3Aecs%3Aus-east-1%3A1%3Acluster%2Fa", true),
        ("arn%253Aaws%253Aecs%253Aus-east-1%253A1%253Acluster%252Fa", false),
    ] {
        let shown = world.get(&format!("/v1/catalog/node-services/{name}"));
        assert_eq!(!shown["Node"].is_null(), found, "{name}");
    }
}

#[test]
fn filtering_is_reported_only_with_a_token() {
    let mut world = world();
    let path = format!("/v1/catalog/node-services/{NODE}");
    let half = world.token("node_prefix \"\" { policy = \"read\" } service \"db\" { policy = \"read\" }");
    let half = world.call(Some(&half), "GET", &path, &Value::Null);
    let filtered_header = "X-Consul-Results-Filtered-By-ACLs";
    assert_eq!(half.json()["Services"].as_array().map(Vec::len), Some(1));
    assert_eq!(half.header(filtered_header), Some("true"));
    let nodes = world.token("node_prefix \"\" { policy = \"read\" }");
    let nodes = world.call(Some(&nodes), "GET", &path, &Value::Null);
    assert_eq!((&nodes.json()["Services"], nodes.header(filtered_header)), (&json!([]), Some("true")));
    let no_access = world.call(None, "GET", &path, &Value::Null);
    assert_eq!(
        (no_access.json(), no_access.header(filtered_header)),
        (json!({"Node": null, "Services": null}), None)
    );
    let all = world.call(Some(MANAGEMENT), "GET", &path, &Value::Null);
    assert_eq!(
        (all.json()["Services"].as_array().map(Vec::len), all.header(filtered_header)),
        (Some(3), None)
    );
}

#[test]
fn filter_returns_selected_services() {
    let mut world = world();
    let mut filtered = |filter: &str| {
        let filter = form_urlencoded::byte_serialize(filter.as_bytes()).collect::<String>();
        let shown = world.get(&format!("/v1/catalog/node-services/{NODE}?filter={filter}"));
        let services = shown["Services"].as_array().unwrap().iter();
        services.map(|service| service["ID"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(filtered("Meta[\"task-id\"] == \"2\""), ["web-2"]);
    assert_eq!(filtered("Service == web and Meta[\"task-id\"] != \"2\""), ["web-1"]);
    assert_eq!(filtered("\"task-id\" not in Meta"), Vec::<String>::new());
}

#[test]
fn service_token_registers_on_known_nodes_only() {
    let mut world = world();
    let token = world.done("PUT", "/v1/acl/token", &json!({"ServiceIdentities": [{"ServiceName": "web"}]}));
    let secret = token["SecretID"].as_str().unwrap().to_owned();
    let mut put = |body: &Value| world.call(Some(&secret), "PUT", REGISTER, body).status;
    assert_eq!(put(&service("web", "4")), 200);
    assert_eq!(put(&service("web-sidecar-proxy", "4")), 200);
    assert_eq!(put(&service("db", "4")), 403);
    let mut elsewhere = service("web", "4");
    elsewhere["Node"] = json!("unknown");
    assert_eq!(put(&elsewhere), 403);
    let mut renamed = service("web", "4");
    renamed["Service"]["ID"] = json!("db-3");
    assert_eq!(put(&renamed), 403, "an instance of another service cannot be taken over");
}

#[test]
fn unchanged_write_moves_no_index() {
    let mut world = world();
    let path = format!("/v1/catalog/node-services/{NODE}");
    let before = world.call(Some(MANAGEMENT), "GET", &path, &Value::Null);
    world.done("PUT", REGISTER, &service("web", "1"));
    world.done("PUT", REGISTER, &json!({"Node": "another", "Address": "10.0.0.1"}));
    world.done("PUT", "/v1/catalog/deregister", &json!({"Node": NODE, "ServiceID": "absent"}));
    let after = world.call(Some(MANAGEMENT), "GET", &path, &Value::Null);
    assert_eq!(after, before);
    world.done("PUT", "/v1/catalog/deregister", &json!({"Node": NODE, "ServiceID": "db-3"}));
    let index = |response: &super::super::ConsulResponse| -> u64 {
        response.header("X-Consul-Index").unwrap().parse().unwrap()
    };
    assert!(index(&world.call(Some(MANAGEMENT), "GET", &path, &Value::Null)) > index(&before));
}

#[test]
fn transaction_removes_all_or_nothing() {
    let mut world = world();
    let modified = world.server.services(NODE)["web-1"]["ModifyIndex"].as_u64().unwrap();
    let stale = json!([op("delete", "web", "2", 0), op("delete-cas", "web", "1", modified + 1)]);
    let lost = world.call(Some(MANAGEMENT), "PUT", "/v1/txn", &stale);
    assert_eq!((lost.status, &lost.json()["Errors"][0]["OpIndex"]), (409, &json!(1)));
    assert_eq!(ids(&world), ["db-3", "web-1", "web-2"]);
    let right = json!([op("delete-cas", "web", "1", modified), op("delete", "gone", "9", 0)]);
    assert_eq!(world.done("PUT", "/v1/txn", &right), json!({"Results": [], "Errors": null}));
    assert_eq!(ids(&world), ["db-3", "web-2"]);
}

#[test]
fn transaction_needs_permission_for_each_service() {
    let mut world = world();
    let web = world.token("service \"web\" { policy = \"write\" }");
    let both = json!([op("delete", "web", "1", 0), op("delete", "db", "3", 0)]);
    let refused = world.call(Some(&web), "PUT", "/v1/txn", &both);
    assert_eq!(refused.status, 409);
    // Clients match this text to detect missing permissions.
    assert!(String::from_utf8_lossy(&refused.body).contains("Permission denied"));
    assert_eq!(ids(&world).len(), 3);
    assert_eq!(world.call(Some(&web), "PUT", "/v1/txn", &json!([both[0]])).status, 200);
    assert_eq!(world.call(Some("unknown"), "PUT", "/v1/txn", &json!([both[0]])).status, 403);
}

#[test]
fn transaction_accepts_128_operations() {
    let mut world = world();
    let ops = |count: usize| Value::Array(vec![op("delete", "n", "1", 0); count]);
    assert_eq!(world.call(Some(MANAGEMENT), "PUT", "/v1/txn", &ops(128)).status, 200);
    assert_eq!(world.call(Some(MANAGEMENT), "PUT", "/v1/txn", &ops(129)).status, 413);
    let mut nameless = op("delete", "web", "1", 0);
    nameless["Service"]["Service"]["Service"] = Value::Null;
    assert_eq!(world.call(Some(MANAGEMENT), "PUT", "/v1/txn", &json!([nameless])).status, 409);
}

#[test]
fn virtual_address_lasts_until_last_proxy() {
    let mut world = world();
    let mut proxy = |service_name: &str, id: &str| {
        let mut body = service(&format!("{service_name}-sidecar-proxy"), id);
        body["Service"]["Kind"] = json!("connect-proxy");
        body["Service"]["Proxy"] = json!({"DestinationServiceName": service_name});
        world.done("PUT", REGISTER, &body);
        let shown = world.server.services(NODE)[&format!("{service_name}-sidecar-proxy-{id}")].clone();
        shown["TaggedAddresses"]["consul-virtual"].clone()
    };
    assert_eq!(proxy("web", "1"), json!({"Address": "240.0.0.1", "Port": 80}));
    assert_eq!(proxy("web", "2")["Address"], "240.0.0.1");
    assert_eq!(proxy("db", "3")["Address"], "240.0.0.2");
    for id in ["1", "2"] {
        let gone = json!({"Node": NODE, "ServiceID": format!("web-sidecar-proxy-{id}")});
        world.done("PUT", "/v1/catalog/deregister", &gone);
    }
    let mut cache = service("cache-sidecar-proxy", "4");
    cache["Service"]["Kind"] = json!("connect-proxy");
    cache["Service"]["Proxy"] = json!({"DestinationServiceName": "cache"});
    world.done("PUT", REGISTER, &cache);
    let shown = &world.server.services(NODE)["cache-sidecar-proxy-4"];
    assert_eq!(shown["TaggedAddresses"]["consul-virtual"]["Address"], "240.0.0.1");
}

#[test]
fn deregistered_node_removes_its_services() {
    let mut world = world();
    world.done("PUT", "/v1/catalog/deregister", &json!({"Node": NODE}));
    assert_eq!(world.get("/v1/health/service/web"), json!([]));
    assert_eq!(world.get(&format!("/v1/catalog/node/{NODE}")), Value::Null);
    let kinds: Vec<_> = world.server.take_journal().into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds[kinds.len() - 4..], ["service", "service", "service", "node"]);
}

#[test]
fn lists_show_the_latest_registration() {
    let mut world = world();
    let list = format!("/v1/catalog/node-services/{NODE}");
    let find = |world: &mut ConsulServerFixture| {
        let shown = world.get(&list)["Services"].as_array().cloned().unwrap();
        shown.into_iter().find(|service| service["ID"] == "web-1").unwrap()
    };
    let before = find(&mut world);
    let mut moved = service("web", "1");
    moved["Service"]["Port"] = json!(81);
    world.done("PUT", REGISTER, &moved);
    let after = find(&mut world);
    assert_eq!((&before["Port"], &after["Port"]), (&json!(80), &json!(81)));
    assert_eq!(before["CreateIndex"], after["CreateIndex"]);
    assert!(before["ModifyIndex"].as_u64() < after["ModifyIndex"].as_u64());
    assert_eq!(world.get(&format!("/v1/catalog/node/{NODE}"))["Services"]["web-1"], after);
    assert_eq!(world.server.services(NODE)["web-1"], after);
}
