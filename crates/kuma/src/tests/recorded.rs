//! Replays exchanges recorded from servers of both dialects, if a directory of recordings is given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::normalise;
use ecs_mesh_api::KumaRelease;

/// Names the directory that holds the recordings.
const DIRECTORY: &str = "ECS_MESH_RECORDINGS";

/// Bodies with unknown fields, which the server drops.
const WITH_UNKNOWN_FIELDS: [&str; 2] = ["bad-unknown-field", "bad-unknown-top-field"];

/// The recordings with the releases of their servers.
const RECORDINGS: [(&str, KumaRelease); 2] =
    [("kuma-2.14.jsonl", KumaRelease::new(2, 14)), ("kuma-3.0-dev.jsonl", KumaRelease::new(3, 0))];

#[test]
fn recorded_bodies_share_the_sent_normal_form() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        println!("skipped: {DIRECTORY} names no directory with recorded exchanges");
        return;
    };
    for (file, release) in RECORDINGS {
        let text = std::fs::read_to_string(PathBuf::from(&directory).join(file)).unwrap();
        let compared = compare(&text, release);
        assert!(compared > 20, "{file}: only {compared} pairs were found");
    }
}

/// Compares what was sent, without the fields that the release does not know, with what the server returned. Returns the
/// number of pairs.
fn compare(text: &str, release: KumaRelease) -> usize {
    let mut sent: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let mut compared = 0;
    for line in text.lines() {
        let exchange: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| exchange[name].as_str().unwrap().to_owned();
        let (path, name) = (field("path"), field("id"));
        let worked = exchange["status"].as_u64().is_some_and(|status| status < 300);
        if !path.contains("/dataplanes/") || !worked {
            continue;
        }
        match field("method").as_str() {
            "PUT" if !WITH_UNKNOWN_FIELDS.contains(&name.as_str()) => {
                sent.insert(path, (name, exchange["request"].clone()));
            }
            "GET" => {
                if let Some((name, body)) = sent.get(&path) {
                    let known = normalise(&without_unknown_fields(body, release));
                    assert_eq!(normalise(&exchange["response"]), known, "{release}: {name}");
                    compared += 1;
                }
            }
            _ => {
                sent.remove(&path);
            }
        }
    }
    compared
}

/// The body as a server of the release parses it.
fn without_unknown_fields(body: &Value, release: KumaRelease) -> Value {
    let mut known = body.clone();
    for field in release.unknown_fields(body) {
        let pointer = format!("/{}", field.replace(['.', '['], "/").replace(']', ""));
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        known.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().remove(name).unwrap();
    }
    known
}
