//! Locks with sessions and keys.

use serde_json::{Value, json};

use super::{ConsulServerFixture, MANAGEMENT};

const KEY: &str = "/v1/kv/operator/leader";

fn session(world: &mut ConsulServerFixture) -> String {
    let body = json!({"Name": "lock", "TTL": "15s", "LockDelay": "5s", "Checks": [], "NodeChecks": []});
    let session = world.done("PUT", "/v1/session/create", &body);
    session["ID"].as_str().unwrap().to_owned()
}

fn acquire(world: &mut ConsulServerFixture, session: &str) -> bool {
    let path = format!("{KEY}?acquire={session}");
    world.done("PUT", &path, &json!({"holder": session})) == true
}

fn holder(world: &mut ConsulServerFixture) -> Value {
    world.get(KEY)[0].get("Session").cloned().unwrap_or_default()
}

#[test]
fn lock_is_held_by_one_session_until_released() {
    let mut world = ConsulServerFixture::new();
    let (first, second) = (session(&mut world), session(&mut world));
    assert!(acquire(&mut world, &first));
    assert!(acquire(&mut world, &first), "the holder may write the key");
    assert!(!acquire(&mut world, &second));
    assert_eq!((holder(&mut world), &world.get(KEY)[0]["LockIndex"]), (json!(first), &json!(1)));
    assert_eq!(world.done("PUT", &format!("{KEY}?release={second}"), &Value::Null), json!(false));
    assert_eq!(world.done("PUT", &format!("{KEY}?release={first}"), &Value::Null), json!(true));
    assert!(acquire(&mut world, &second));
    assert_eq!(world.get(KEY)[0]["LockIndex"], 2);
    world.done("PUT", KEY, &json!("written without a lock"));
    assert_eq!((holder(&mut world), &world.get(KEY)[0]["LockIndex"]), (json!(second), &json!(0)));
    world.done("DELETE", KEY, &Value::Null);
    assert!(acquire(&mut world, &first), "a deleted key has no lock");
}

#[test]
fn expired_session_releases_lock_after_delay() {
    let mut world = ConsulServerFixture::new();
    let (first, second) = (session(&mut world), session(&mut world));
    assert!(acquire(&mut world, &first));
    for _ in 0..3 {
        world.passes(20);
        for id in [&first, &second] {
            world.done("PUT", &format!("/v1/session/renew/{id}"), &Value::Null);
        }
    }
    assert_eq!(holder(&mut world), json!(first));
    world.passes(20);
    world.done("PUT", &format!("/v1/session/renew/{second}"), &Value::Null);
    world.passes(10);
    assert_eq!(holder(&mut world), Value::Null);
    assert!(!acquire(&mut world, &second), "the delay of the lock is not over");
    world.passes(5);
    assert!(acquire(&mut world, &second));
    let renewed = world.call(Some(MANAGEMENT), "PUT", &format!("/v1/session/renew/{first}"), &Value::Null);
    assert_eq!(renewed.status, 404);
    let path = format!("{KEY}?acquire={first}");
    assert_eq!(world.call(Some(MANAGEMENT), "PUT", &path, &Value::Null).status, 500);
}

#[test]
fn lock_needs_permission_for_key_and_session() {
    let mut world = ConsulServerFixture::new();
    let body = json!({"TTL": "15s"});
    let keys = world.token("key_prefix \"operator/\" { policy = \"write\" }");
    assert_eq!(world.call(Some(&keys), "PUT", "/v1/session/create", &body).status, 403);
    assert_eq!(world.call(Some(&keys), "PUT", "/v1/kv/operator/x", &json!(1)).status, 200);
    assert_eq!(world.call(Some(&keys), "PUT", "/v1/kv/other", &json!(1)).status, 403);
    let sessions = world.token("session_prefix \"\" { policy = \"write\" }");
    assert_eq!(world.call(Some(&sessions), "PUT", "/v1/session/create", &body).status, 200);
    assert_eq!(world.call(Some(MANAGEMENT), "PUT", "/v1/session/create", &json!({"TTL": "1s"})).status, 500);
}

#[test]
fn transaction_is_fenced_by_the_session_of_a_lock() {
    let mut world = ConsulServerFixture::new();
    let (first, second) = (session(&mut world), session(&mut world));
    assert!(acquire(&mut world, &first));
    world.done("PUT", "/v1/catalog/register", &json!({"Node": "n", "Address": "127.0.0.1"}));
    let service = json!({"ID": "web-1", "Service": "web"});
    let body = json!({"Node": "n", "SkipNodeUpdate": true, "Service": service});
    world.done("PUT", "/v1/catalog/register", &body);
    let removal = |session: &str| {
        let fence = json!({"Verb": "check-session", "Key": "operator/leader", "Session": session});
        json!([{"KV": fence}, {"Service": {"Verb": "delete", "Node": "n", "Service": service}}])
    };
    let refused = world.call(Some(MANAGEMENT), "PUT", "/v1/txn", &removal(&second));
    assert_eq!((refused.status, refused.json()["Errors"][0]["OpIndex"].clone()), (409, json!(0)));
    assert_eq!(world.server.services("n").len(), 1);
    world.done("PUT", "/v1/txn", &removal(&first));
    assert_eq!(world.server.services("n").len(), 0);
}
