//! Round trips: manifests that `import` makes of a world leave nothing to do in that world.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::consul_harness::ConsulHarness;
use super::harness::{Harness, OperatorProcess, document, eventually};

/// Runs `import` into the directory of the harness's manifests, validates what it writes, and returns the report.
pub(crate) async fn import(harness: &Harness, arguments: &[&str], force: bool) -> Value {
    let manifests = harness.path("manifests");
    let directory = harness.directory.path();
    let mut all = vec!["import"];
    all.extend(arguments);
    all.extend(["--output-dir", manifests.to_str().unwrap(), "--report", "json"]);
    if force {
        all.push("--force");
    }
    let mut process = OperatorProcess::start(directory, "import", &harness.environment, &all);
    let code = process.code().await.unwrap();
    let report: Value = serde_json::from_str(&process.stdout())
        .unwrap_or_else(|error| panic!("{error}: {}{}", process.stdout(), process.stderr()));
    let asks = report
        .as_object()
        .unwrap()
        .values()
        .any(|group| group.as_array().unwrap().iter().any(|entry| entry["action"] == true));
    assert_eq!(code, if asks { 2 } else { 0 }, "{report:#}");
    let arguments = ["validate", manifests.to_str().unwrap()];
    let mut process = OperatorProcess::start(directory, "validate", &harness.environment, &arguments);
    assert_eq!(process.code().await, Some(0), "{}{}", process.stdout(), process.stderr());
    report
}

fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let listed = std::fs::read_dir(directory).unwrap();
    let mut found: Vec<(PathBuf, String)> = listed
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    found.sort();
    found
}

/// Removes a line from all manifests, as a person does who follows the comments.
fn without_line(harness: &Harness, line: &str) {
    for (path, text) in files(&harness.path("manifests")) {
        let kept: Vec<&str> = text.lines().filter(|one| one.trim() != line).collect();
        std::fs::write(path, kept.join("\n") + "\n").unwrap();
    }
}

/// Asserts that the plan is complete, and has only registrations as declared.
async fn assert_nothing_to_do(harness: &Harness, unchanged: usize) {
    let (code, plan) = harness.plan().await;
    assert_eq!((code, &plan["changes"], &plan["complete"]), (0, &json!([]), &json!(true)), "{plan:#}");
    assert_eq!(plan["summary"]["unchanged"], unchanged, "{plan:#}");
}

async fn stop(mut operator: OperatorProcess) {
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}

/// Tasks of two services, of which `web` calls `app`.
async fn two_services() -> Harness {
    let harness = Harness::start().await;
    harness.deploy("app", 2).await;
    harness.deploy("web", 1).await;
    harness.running(3).await;
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http, tags: {version: \"1.10\"}}";
    let outbound = "{service: app, targetPort: 15000, listen: {port: 9000}}";
    let spec = format!(
        "{{selector: {{families: [web]}}, service: web, inbounds: [{inbound}], outbounds: [{outbound}]}}"
    );
    harness.manifest("base.yaml", &(harness.base_manifests() + &document("Workload", "web", &spec)));
    harness
}

/// Imports the Dataplanes that the control plane has, instead of the manifests so far.
async fn import_dataplanes(harness: &Harness) {
    let list = harness.path("dataplanes.json");
    std::fs::write(&list, harness.get("/meshes/default/dataplanes").await).unwrap();
    std::fs::remove_file(harness.path("manifests/base.yaml")).unwrap();
    let (list, url, cluster) =
        (list.to_str().unwrap(), harness.variable("KUMA_API_URL"), harness.variable("ECS_MESH_CLUSTER_ARN"));
    let arguments = ["dataplanes", list, "--address", url, "--cluster", cluster];
    import(harness, &arguments, false).await;
    let first = files(&harness.path("manifests"));
    import(harness, &arguments, false).await;
    assert_eq!(files(&harness.path("manifests")), first, "a second import changes nothing");
}

#[tokio::test]
async fn imported_dataplanes_of_an_operator_leave_nothing_to_do() {
    let harness = two_services().await;
    let operator = harness.operator(&[]);
    harness.wait_for_dataplanes("three Dataplanes", |found| found.len() == 3).await;
    stop(operator).await;
    import_dataplanes(&harness).await;
    assert_nothing_to_do(&harness, 3).await;
    without_line(&harness, "dataplanes: sidecar");
    without_line(&harness, "paused: true");
    assert_nothing_to_do(&harness, 3).await;
}

#[tokio::test]
async fn imported_dataplanes_of_sidecars_leave_nothing_to_do() {
    let harness = two_services().await;
    let (_, plan) = harness.plan().await;
    for item in plan["changes"].as_array().unwrap() {
        let (name, registration) = (item["name"].as_str().unwrap(), &item["registration"]);
        let body = json!({
            "type": "Dataplane", "mesh": "default", "name": name, "networking": registration["networking"],
        });
        harness.put(&format!("/meshes/default/dataplanes/{name}"), &body).await;
    }
    import_dataplanes(&harness).await;
    // Equal, and without the labels by which the operator would remove them after their tasks.
    let (code, plan) = harness.plan().await;
    assert_eq!(
        (code, &plan["complete"], &plan["summary"]["unmanaged"]),
        (0, &json!(true), &json!(3)),
        "{plan:#}"
    );
    assert!(plan["changes"].as_array().unwrap().iter().all(|item| item["change"] == "unmanaged"), "{plan:#}");
}

/// Two virtual nodes, of which `web` calls the virtual service of `app`.
fn app_mesh() -> String {
    let node = |name: &str, backends: Value| {
        json!({"virtualNode": {"meshName": "demo", "virtualNodeName": format!("{name}-node"), "spec": {
            "backends": backends,
            "listeners": [{"portMapping": {"port": 8080, "protocol": "http"}}],
            "serviceDiscovery": {"awsCloudMap": {"namespaceName": "demo.local", "serviceName": name}},
        }}})
    };
    let service = |name: &str| {
        json!({"virtualService": {"meshName": "demo", "virtualServiceName": format!("{name}.demo.local"),
            "spec": {"provider": {"virtualNode": {"virtualNodeName": format!("{name}-node")}}}}})
    };
    let backend = json!([{"virtualService": {"virtualServiceName": "app.demo.local"}}]);
    [node("app", json!([])), node("web", backend), service("app"), service("web")]
        .map(|one| one.to_string())
        .concat()
}

#[tokio::test]
async fn imported_app_mesh_registers_its_tasks() {
    let harness = Harness::start().await;
    harness.deploy("app", 1).await;
    harness.deploy("web", 1).await;
    harness.running(2).await;
    let input = harness.path("app-mesh.json");
    std::fs::write(&input, app_mesh()).unwrap();
    let (url, cluster) = (harness.variable("KUMA_API_URL"), harness.variable("ECS_MESH_CLUSTER_ARN"));
    let arguments =
        ["app-mesh", input.to_str().unwrap(), "--mesh", "default", "--address", url, "--cluster", cluster];
    import(&harness, &arguments, false).await;
    let (_, plan) = harness.plan().await;
    assert_eq!(plan["summary"]["create"], 0, "the binding is paused: {plan:#}");
    without_line(&harness, "paused: true");
    let operator = harness.operator(&[]);
    let made = harness.wait_for_dataplanes("two Dataplanes", |found| found.len() == 2).await;
    stop(operator).await;
    let calls = made.values().filter(|plane| plane["networking"]["outbound"].is_array());
    assert_eq!(calls.count(), 1, "{made:#?}");
    for plane in made.values() {
        let inbound = &plane["networking"]["inbound"][0];
        assert_eq!((&inbound["port"], &inbound["servicePort"]), (&json!(15000), &json!(8080)), "{plane}");
    }
    assert_nothing_to_do(&harness, 2).await;
}

#[tokio::test]
async fn imported_consul_leaves_nothing_to_do_once_adopted() {
    let ConsulHarness(harness) = ConsulHarness::start().await;
    let (url, cluster) = (harness.variable("CONSUL_HTTP_ADDR"), harness.variable("ECS_MESH_CLUSTER_ARN"));
    let arguments = ["consul", "--address", url, "--token-env", "CONSUL_HTTP_TOKEN", "--cluster", cluster];
    import(&harness, &arguments, false).await;
    let first = files(&harness.path("manifests"));
    import(&harness, &arguments, false).await;
    assert_eq!(files(&harness.path("manifests")), first, "a second import changes nothing");

    // The ownership marker is added, and the role tags that gateways need.
    let (code, plan) = harness.plan().await;
    assert_eq!(code, 2, "{plan:#}");
    for change in plan["changes"].as_array().unwrap() {
        let fields: Vec<&str> = change["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field["path"].as_str().unwrap())
            .collect();
        assert_eq!(change["change"], "update", "{change:#}");
        let is_adopted = |field: &&str| {
            ["Config.IAMEntityTags", "Description", "NodeMeta.ecs-mesh-operator"].contains(field)
        };
        assert!(fields.iter().all(is_adopted), "{change:#}");
    }
    let operator = harness.operator(&[]);
    eventually("nothing to do", || async { (harness.plan().await.0 == 0).then_some(()) }).await;
    stop(operator).await;
    let (_, plan) = harness.plan().await;
    assert_eq!(plan["changes"], json!([]), "{plan:#}");

    // The adopted objects are imported as the same ConsulAuth.
    import(&harness, &arguments, true).await;
    let (code, plan) = harness.plan().await;
    assert_eq!((code, &plan["changes"]), (0, &json!([])), "{plan:#}");
}
