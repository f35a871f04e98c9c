//! Manifests that are imported from registrations ask for exactly these registrations.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, document};
use ecs_mesh_import::{ImportOptions, Imported, SourceFile, import_dataplanes};

/// Workloads with all that an import reads: tags, a probe, a service on loopback, shared and own outbounds, a gateway.
fn declared() -> String {
    let redis = "inbounds: [{name: tcp, containerPort: 6379, port: 16379, protocol: tcp}]";
    let kv = "inbounds: [{name: main, containerPort: 5050, port: 15050, serviceAddress: 127.0.0.1, protocol: http, \
              tags: {version: v1}}], probe: none, \
              outbounds: [{service: redis, targetPort: 16379, listen: {port: 6379}}]";
    let web = "inbounds: [{name: http, containerPort: 8080, port: 15000, protocol: http2}], \
               outbounds: [{service: redis, targetPort: 16379, listen: {port: 6379}}, \
               {service: kv, targetPort: 15050, listen: {port: 15051}}]";
    let edge = "proxy: gateway, outbounds: [{service: web, targetPort: 15000, listen: {address: 127.0.0.2, port: 15000}}]";
    [("redis", redis), ("kv", kv), ("web", web), ("edge", edge)]
        .map(|(name, spec)| {
            document("Workload", name, &format!("selector: {{services: [{name}]}}, service: {name}, {spec}"))
        })
        .concat()
}

impl OperatorFixture {
    /// The registrations as the control plane has them.
    fn stored(&self) -> Vec<Value> {
        let kuma = self.kuma.lock().unwrap();
        let with_name = |(mesh, name, body): (&str, &str, &Value)| {
            let mut body = body.clone();
            (body["type"], body["mesh"], body["name"]) = (json!("Dataplane"), json!(mesh), json!(name));
            body
        };
        kuma.dataplanes().map(with_name).collect()
    }

    /// The registrations, imported as the control plane lists them.
    fn imported(&self) -> Imported {
        let stored = self.stored();
        assert_eq!(stored.len(), 5);
        let list = json!({"total": stored.len(), "items": stored, "next": null}).to_string();
        import_dataplanes(&[SourceFile::new("dataplanes.json", list)], &ImportOptions::default()).unwrap()
    }
}

/// The documents for the fixture's own binding, once the sidecars have been replaced.
fn documents(imported: &Imported) -> String {
    let of_tasks = imported.manifests.iter().filter(|one| ["Workload", "OutboundList"].contains(&one.kind));
    let texts = of_tasks.map(|manifest| manifest.text.clone() + "---\n").collect::<String>();
    texts.replace("  bindings:\n    - default\n", "").replace("  dataplanes: sidecar\n", "")
}

#[tokio::test(start_paused = true)]
async fn import_of_registrations_leaves_nothing_to_do() {
    let mut fixture = OperatorFixture::new(&[("kv", 2), ("redis", 1), ("web", 1), ("edge", 1)]);
    fixture.edit(&declared());
    fixture.start();
    sleep(Duration::from_mins(1)).await;
    let imported = fixture.imported();
    let names: Vec<(&str, &str)> =
        imported.manifests.iter().skip(2).map(|one| (one.kind, one.name.as_str())).collect();
    let workloads = ["edge", "kv", "redis", "web"].map(|name| ("Workload", name));
    assert_eq!(names[..4], workloads);
    assert_eq!(names[4..], [("OutboundList", "redis-users")]);

    // The operator that runs applies each edit, so what is stored shows what it found to do.
    let registered = fixture.stored();
    let unedited = documents(&imported);
    fixture.edit(&unedited);
    assert_eq!(fixture.manifest_errors(), [""; 0]);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.stored(), registered);

    // The comparison finds a difference where there is one.
    let edited = unedited.replace("port: 15051", "port: 15052");
    assert_ne!(edited, unedited);
    fixture.edit(&edited);
    sleep(Duration::from_mins(1)).await;
    assert_ne!(fixture.stored(), registered);
}
