//! `import` as a process: equal files for equal input, and exit codes and places for input of no use.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::harness::OperatorProcess;

/// Exit code, standard output and standard error.
type ImportRun = (Option<i32>, String, String);

async fn import(directory: &Path, arguments: &[&str]) -> ImportRun {
    let all = [&["import"], arguments].concat();
    let mut process = OperatorProcess::start(directory, "import", &BTreeMap::new(), &all);
    (process.code().await, process.stdout(), process.stderr())
}

/// The files of a directory, by name.
fn contents(directory: &Path) -> BTreeMap<String, String> {
    let Ok(listed) = std::fs::read_dir(directory) else { return BTreeMap::new() };
    let file = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
    };
    listed.map(|entry| file(entry.unwrap().path())).collect()
}

#[tokio::test]
async fn app_mesh_import_run_twice_gives_the_same_files() {
    let directory = tempfile::tempdir().unwrap();
    let input = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/import/app-mesh/full/input");
    let mut reversed: Vec<String> =
        contents(Path::new(input)).into_keys().map(|name| format!("{input}/{name}")).collect();
    reversed.reverse();
    let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
    let to = |target: &Path, paths: &[&str]| {
        let target = target.to_str().unwrap().to_owned();
        let mut arguments: Vec<String> =
            ["app-mesh", "--report", "json", "--output-dir", &target].map(str::to_owned).to_vec();
        arguments.extend(paths.iter().map(|path| (*path).to_owned()));
        arguments
    };
    let run = async |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        import(directory.path(), &arguments).await
    };
    let first = run(to(&one, &[input])).await;
    assert_eq!(first.0, Some(2), "the report asks for action: {}", first.2);
    let files = contents(&one);
    assert!(files.len() > 3 && files.keys().any(|name| name.starts_with("workload-")), "{files:#?}");
    // Into the same directory, without --force, and of the single files in another order.
    let again = run(to(&one, &[input])).await;
    assert_eq!(again, first);
    assert_eq!(contents(&one), files);
    let reversed: Vec<&str> = reversed.iter().map(String::as_str).collect();
    assert_eq!(run(to(&other, &reversed)).await.0, Some(2));
    assert_eq!(contents(&other), files);

    // A file that a person has edited is kept.
    let name = files.keys().find(|name| name.starts_with("workload-")).unwrap();
    std::fs::write(one.join(name), "edited\n").unwrap();
    let (code, _, error) = run(to(&one, &[input])).await;
    assert_eq!(code, Some(1));
    assert!(error.contains(name) && error.contains("--force"), "{error}");
    assert_eq!(contents(&one)[name], "edited\n");
}

#[tokio::test]
async fn bad_input_of_an_import_ends_it_with_the_place() {
    let node = r#"{"virtualNode": {"meshName": "m", "virtualNodeName": "kv", "spec": {}}}"#;
    for (kind, file, text, place, cause) in [
        (
            "app-mesh",
            "cut.json",
            "{\"virtualNode\": {\n\"meshName\": ",
            "cut.json:2",
            "ends within the document",
        ),
        (
            "app-mesh",
            "other.yaml",
            "Resources: {Logs: {Type: 'AWS::Logs::LogGroup'}}\n",
            "other.yaml:1",
            "no resource",
        ),
        ("app-mesh", "task.json", r#"{"taskDefinition": {}}"#, "task.json:1", "taskDefinition"),
        ("app-mesh", "twice.json", "{\"mesh\": {},\n\"mesh\": {}}", "twice.json:2", "given twice"),
        (
            "dataplanes",
            "cut.yaml",
            "type: Dataplane\nnetworking: {address: [\n",
            "cut.yaml:",
            "not valid YAML",
        ),
        (
            "dataplanes",
            "kube.yaml",
            "apiVersion: kuma.io/v1alpha1\nkind: Dataplane\n",
            "kube.yaml:1",
            "Universal",
        ),
        ("dataplanes", "node.json", node, "node.json:1", ""),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(file), text).unwrap();
        let (path, output) = (directory.path().join(file), directory.path().join("out"));
        let arguments = [kind, path.to_str().unwrap(), "--output-dir", output.to_str().unwrap()];
        let (code, out, error) = import(directory.path(), &arguments).await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{file}: {error}");
        assert!(
            error.starts_with("error: ") && error.contains(place) && error.contains(cause),
            "{file}: {error}"
        );
        assert!(contents(&output).is_empty(), "{file}: nothing is written");
    }
}

#[tokio::test]
async fn unknown_field_of_an_import_asks_for_action() {
    let node =
        r#"{"virtualNode": {"meshName": "m", "virtualNodeName": "kv", "spec": {"oddity": {"deep": true}}}}"#;
    let plane = "type: Dataplane\nname: a\nmesh: m\nnetworking:\n  address: 1.2.3.4\n  inbound:\n  \
                 - {port: 15000, servicePort: 80, odd: 1, tags: {kuma.io/service: a}}\n";
    for (kind, file, text, path) in [
        ("app-mesh", "node.json", node, "virtualNode.spec.oddity.deep"),
        ("dataplanes", "plane.yaml", plane, "networking.inbound[0].odd"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let input = directory.path().join(file);
        std::fs::write(&input, text).unwrap();
        let (code, out, error) =
            import(directory.path(), &[kind, input.to_str().unwrap(), "--report", "json"]).await;
        assert_eq!(code, Some(2), "{file}: {error}");
        assert!(out.contains("kind: Workload"), "the rest is imported: {out}");
        let report: Value = serde_json::from_str(&error).unwrap_or_else(|cause| panic!("{cause}: {error}"));
        let entries = report["noCounterpart"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["path"] == path);
        let entry = entry.unwrap_or_else(|| panic!("{path}: {report:#}"));
        let is_its = entry["file"].as_str().unwrap().ends_with(file);
        assert!(entry["action"] == true && is_its, "{entry}");
        assert!(entry["line"].as_u64() > Some(0), "{entry}");
    }
}
