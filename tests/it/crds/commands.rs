//! The commands `crds` and `validate`.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{root, schemas};

/// Runs the program and returns exit code, standard output and standard error.
fn call(arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_ecs-mesh-operator"))
        .current_dir(root())
        .env_remove("ECS_MESH_LOG")
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

const BINDING: &str = "\
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {name: demo}
spec: {controlPlane: kuma, mesh: default, selector: {clusters: ['*']}}
";
const LIST: &str = "\
apiVersion: ecs-mesh.dev/v1alpha1
kind: OutboundList
metadata: {name: idle}
spec: {workloads: [unknown], outbounds: []}
";

#[test]
fn crds_writes_and_checks_the_output_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("deeper/crds");
    let (code, out, _) = call(&["crds", "--output-dir", path(&directory), "--check"]);
    assert_eq!((code, out.matches(": missing").count()), (2, 7), "{out}");
    assert!(!directory.exists(), "a check wrote something");

    let (code, out, _) = call(&["crds", "--output-dir", path(&directory)]);
    assert_eq!((code, out.matches(": written").count()), (0, 7), "{out}");
    for file in fs::read_dir(schemas()).unwrap().map(|file| file.unwrap().path()) {
        let written = fs::read(directory.join(file.file_name().unwrap())).unwrap();
        assert!(written == fs::read(&file).unwrap(), "{} differs", file.display());
    }
    assert_eq!(
        call(&["crds", "--output-dir", path(&directory), "--check"]),
        (0, String::new(), String::new())
    );

    fs::write(directory.join("workloads.yaml"), "old").unwrap();
    let (code, out, _) = call(&["crds", "--output-dir", path(&directory), "--check"]);
    assert!(code == 2 && out.contains("workloads.yaml: out of date"), "{out}");
}

#[test]
fn dash_prints_only_the_definitions() {
    let (code, out, _) = call(&["crds", "--output-dir", "-"]);
    assert_eq!((code, out.matches("\nkind: CustomResourceDefinition\n").count()), (0, 6));
}

#[test]
fn unwritable_directory_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let (code, _, err) = call(&["crds", "--output-dir", path(&file.join("crds"))]);
    assert!(code == 1 && err.contains(&format!("creating {}", file.join("crds").display())), "{err}");
}

#[test]
fn validate_resolves_references_across_files() {
    let (code, out, _) = call(&["validate", "examples/manifests"]);
    assert_eq!((code, out.as_str()), (0, "6 manifests in 3 files: 0 errors, 0 warnings\n"));
    let (code, out, _) =
        call(&["validate", "examples/manifests/mesh.yaml", "examples/manifests/counter-demo.yaml"]);
    assert_eq!((code, out.as_str()), (0, "4 manifests in 2 files: 0 errors, 0 warnings\n"));
}

#[test]
fn validate_partial_accepts_missing_references() {
    let file = "examples/manifests/counter-demo.yaml";
    let (code, out, _) = call(&["validate", file]);
    let expected = "error: examples/manifests/counter-demo.yaml:7 (document 1, Workload/demo-app): spec.bindings[0]: \
                    no MeshBinding is named \"demo\"";
    assert!(code == 1 && out.starts_with(expected), "{out}");
    assert_eq!(call(&["validate", "--partial", file]).0, 0);
}

#[test]
fn validate_partial_still_reports_errors() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("a.yaml");
    let workload = fs::read_to_string(root().join("examples/manifests/counter-demo.yaml")).unwrap();
    fs::write(&file, format!("{BINDING}---\n{LIST}---\n{workload}")).unwrap();
    let (code, out, _) = call(&["validate", "--partial", "--deny-warnings", path(&file)]);
    assert_eq!((code, out.as_str()), (0, "4 manifests in 1 file: 0 errors, 0 warnings\n"));

    fs::write(&file, format!("{}---\n{workload}", BINDING.replace("mesh: default", "mash: default")))
        .unwrap();
    let (code, out, _) = call(&["validate", "--partial", path(&file)]);
    assert!(code == 1 && out.contains("refers to MeshBinding demo, which is invalid"), "{out}");
}

#[test]
fn deny_warnings_fails_validation() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("a.yaml"), LIST).unwrap();
    let directory = path(scratch.path());
    let (code, out, _) = call(&["validate", directory]);
    assert!(code == 0 && out.starts_with("warning: ") && out.contains("1 warning\n"), "{out}");
    assert_eq!(call(&["validate", "--deny-warnings", directory]).0, 2);
}

#[test]
fn validate_json_has_each_finding_as_fields() {
    let (code, out, _) =
        call(&["validate", "--output", "json", "examples/manifests/redis-users.yaml", "nowhere"]);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["files"], &found["manifests"]), (1, &1.into(), &2.into()));
    let error = &found["errors"][0];
    assert_eq!(
        (&error["file"], &error["line"], &error["document"], &error["subject"], &error["path"]),
        (
            &"examples/manifests/redis-users.yaml".into(),
            &15.into(),
            &2.into(),
            &"Workload/redis".into(),
            &"spec.bindings[0]".into()
        )
    );
    assert!(found["errors"][1]["message"].as_str().unwrap().starts_with("does not exist"), "{out}");
}

#[test]
fn validate_requires_manifests() {
    let (code, _, err) = call(&["validate"]);
    assert!(code != 0 && err.contains("<SOURCE>..."), "{err}");
}
