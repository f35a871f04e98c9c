//! How a server stores what other clients write: unknown and removed fields, and an empty list of backends.

use serde_json::{Value, json};

use super::server::RealKuma;

/// The fields of `sent` that `stored` has not, or has with another value. Empty lists count as absent, since the server
/// omits them, and readiness is the server's.
pub(super) fn dropped_fields(sent: &Value, stored: &Value) -> Vec<String> {
    let mut dropped = Vec::new();
    collect_dropped(sent, Some(stored), "", &mut dropped);
    dropped
}

fn collect_dropped(sent: &Value, stored: Option<&Value>, path: &str, dropped: &mut Vec<String>) {
    match (sent, stored) {
        (Value::Array(sent), None) if sent.is_empty() => {}
        (Value::Object(sent), Some(Value::Object(stored))) => {
            for (name, value) in sent.iter().filter(|(name, _)| !["state", "health"].contains(&name.as_str()))
            {
                collect_dropped(value, stored.get(name), &format!("{path}.{name}"), dropped);
            }
        }
        (Value::Array(sent), Some(Value::Array(stored))) => {
            for (at, value) in sent.iter().enumerate() {
                collect_dropped(value, stored.get(at), &format!("{path}[{at}]"), dropped);
            }
        }
        (sent, stored) if Some(sent) == stored => {}
        _ => dropped.push(path.trim_start_matches('.').to_owned()),
    }
}

#[test]
fn dropped_fields_are_found_at_any_depth() {
    let sent = json!({"a": {"b": 1, "refs": [], "tcp": {}}, "list": [{"state": "x", "y": 2}]});
    assert_eq!(dropped_fields(&sent, &sent), Vec::<String>::new());
    let stored = json!({"a": {"b": 2}, "list": [{"state": "z"}], "added": 1});
    assert_eq!(dropped_fields(&sent, &stored), ["a.b", "a.tcp", "list[0].y"]);
}

/// The server does with a Dataplane as the table of releases says.
#[tokio::test]
async fn unknown_fields_are_dropped_as_the_table_says() {
    let Some(kuma) = RealKuma::start("unknown fields").await else { return };
    let networking = json!({
        "address": "10.0.0.2",
        "advertisedAddress": "192.0.2.1",
        "inbound": [{
            "port": 15050, "servicePort": 5050, "serviceAddress": "127.0.0.1", "name": "http", "protocol": "http",
            "tags": {"kuma.io/service": "all", "kuma.io/protocol": "http", "version": "1"},
            "state": "NotReady", "serviceProbe": {"tcp": {}},
        }],
        "outbound": [{
            "address": "127.0.0.1", "port": 6379, "backendRef": {"kind": "MeshService", "name": "kv", "port": 6379},
        }],
        "transparentProxying": {
            "reachableServices": ["kv"], "reachableBackends": {"refs": [{"kind": "MeshService", "name": "kv"}]},
        },
    });
    let stored = kuma.put_dataplane("all", &networking).await;
    let dropped = dropped_fields(&json!({"networking": networking}), &stored);
    let mut expected = kuma.release.unknown_fields(&json!({"networking": networking}));
    expected.sort();
    assert_eq!(dropped, expected, "{stored}");
    kuma.report("unknown fields", json!({"dropped": dropped}));

    // Fields of no release are dropped, too, and are shown nowhere.
    let odd = json!({"address": "10.0.0.3", "odd": 1, "inbound": [{"port": 15000, "odd": 2}]});
    let stored = kuma.put_dataplane("odd", &odd).await;
    assert_eq!(
        dropped_fields(&json!({"networking": odd}), &stored),
        ["networking.inbound[0].odd", "networking.odd"]
    );
    assert!(!stored.to_string().contains("\"odd\":"), "{stored}");
}

/// An empty list of backends is kept, as something else than no list.
#[tokio::test]
async fn empty_list_of_backends_is_stored() {
    let Some(kuma) = RealKuma::start("an empty list of backends").await else { return };
    let backends = |proxying: Value| json!({"address": "10.0.0.4", "transparentProxying": proxying});
    let empty = json!({"reachableBackends": {"refs": []}});
    let stored = kuma.put_dataplane("none", &backends(empty)).await;
    let proxying = &stored["networking"]["transparentProxying"];
    assert_eq!(proxying, &json!({"reachableBackends": {}}), "{stored}");
    kuma.report("an empty list of backends", json!({"stored": proxying}));
    let stored = kuma.put_dataplane("every", &backends(json!({}))).await;
    assert_eq!(stored["networking"]["transparentProxying"], json!({}), "{stored}");
}
