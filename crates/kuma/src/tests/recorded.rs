//! Replays exchanges recorded from a 2.14 server, if a directory of recordings is given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::normalise;

/// Names the directory that holds `kuma-2.14.jsonl`.
const DIRECTORY: &str = "ECS_MESH_RECORDINGS";

/// Bodies with unknown fields, which the server drops.
const WITH_UNKNOWN_FIELDS: [&str; 2] = ["bad-unknown-field", "bad-unknown-top-field"];

#[test]
fn recorded_bodies_share_the_sent_normal_form() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        println!("skipped: {DIRECTORY} names no directory with recorded exchanges");
        return;
    };
    let text = std::fs::read_to_string(PathBuf::from(directory).join("kuma-2.14.jsonl")).unwrap();
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
                    assert_eq!(normalise(&exchange["response"]), normalise(body), "{name}");
                    compared += 1;
                }
            }
            _ => {
                sent.remove(&path);
            }
        }
    }
    assert!(compared > 20, "only {compared} pairs were found");
}
