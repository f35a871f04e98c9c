//! Locks with sessions and keys.

use serde_json::{Value, json};

use super::{ConsulServerFixture, MANAGEMENT};

const KEY: &str = "/v1/kv/operator/leader";

fn session(world: &mut ConsulServerFixture) -> String {
    let body = json!({"Name": "lock", "TTL": "15s", "LockDelay": "5s"});
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
}

#[test]
fn check_and_set_needs_the_current_index() {
    let mut world = ConsulServerFixture::new();
    let mut put = |cas: &Value| world.done("PUT", &format!("/v1/kv/a?cas={cas}"), &json!(1)) == true;
    assert!(put(&json!(0)));
    assert!(!put(&json!(0)));
    let seen = world.get("/v1/kv/a")[0]["ModifyIndex"].clone();
    world.done("PUT", "/v1/kv/a", &json!(2));
    let mut put = |cas: &Value| world.done("PUT", &format!("/v1/kv/a?cas={cas}"), &json!(3)) == true;
    assert!(!put(&seen));
}

#[test]
fn keys_are_listed_below_a_prefix() {
    let mut world = ConsulServerFixture::new();
    for key in ["a/b/1", "a/b/2", "a/c", "d"] {
        world.done("PUT", &format!("/v1/kv/{key}"), &json!(1));
    }
    assert_eq!(world.get("/v1/kv/a/?keys&separator=/"), json!(["a/b/", "a/c"]));
    assert_eq!(world.get("/v1/kv/a/?recurse").as_array().unwrap().len(), 3);
    let (some, none) = (world.token("key_prefix \"a/b\" { policy = \"read\" }"), world.token(""));
    for (token, status, listed) in [(some, 200, 2), (none, 404, 0)] {
        let answer = world.call(Some(&token), "GET", "/v1/kv/a/?recurse", &Value::Null);
        let seen = answer.json().as_array().map_or(0, Vec::len);
        let filtered = answer.header("X-Consul-Results-Filtered-By-ACLs").is_some();
        assert_eq!((answer.status, seen, filtered), (status, listed, true));
    }
    world.done("DELETE", "/v1/kv/a/?recurse", &Value::Null);
    let missing = world.call(Some(MANAGEMENT), "GET", "/v1/kv/a/c", &Value::Null);
    assert_eq!((missing.status, missing.header("X-Consul-Index").is_some()), (404, true));
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
