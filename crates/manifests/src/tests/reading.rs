//! Reading of files: all errors, each with its location.

use super::helpers::{BINDING, CONTROL_PLANE, TestDirectory, WORKLOAD, errors_of};
use crate::ManifestSources;

#[test]
fn kuma_examples_load_without_warning() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/manifests");
    let loaded = ManifestSources::new([examples]).load(None).into_loaded().unwrap();
    assert_eq!((loaded.errors.as_slice(), loaded.warnings.as_slice()), (&[][..], &[][..]));
    assert!(loaded.set.complete);
    assert_eq!(
        loaded.set.workloads.keys().map(AsRef::as_ref).collect::<Vec<_>>(),
        ["demo-app", "kv", "redis"]
    );
}

#[test]
fn consul_example_loads_without_warning() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/consul");
    let loaded = ManifestSources::new([example]).load(None).into_loaded().unwrap();
    assert_eq!((loaded.errors.as_slice(), loaded.warnings.as_slice()), (&[][..], &[][..]));
    assert_eq!(loaded.set.consul_auths.keys().map(AsRef::as_ref).collect::<Vec<_>>(), ["ecs"]);
}

#[test]
fn reference_manifests_load() {
    let reference =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/manifests.md");
    let reference = std::fs::read_to_string(reference).unwrap();
    let blocks = reference.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    // The first example shows the fields of all kinds, and has no spec.
    let manifests: Vec<&str> = blocks.filter(|block| !block.contains("spec: {}")).collect();
    assert_eq!(manifests.len(), 8);
    assert_eq!(errors_of(&manifests.join("---\n")), "");
}

#[test]
fn unknown_field_error_has_location_and_suggestion() {
    let text =
        format!("{CONTROL_PLANE}---\n{BINDING}---\n{}", WORKLOAD.replace("containerPort", "contianerPort"));
    insta::assert_snapshot!(errors_of(&text), @r#"a.yaml:23 (document 3, Workload/kv): spec.inbounds[0].contianerPort: unknown field; did you mean containerPort? Allowed: name, container, containerPort, port, serviceAddress, protocol, tags"#);
}

#[test]
fn all_errors_of_a_document_are_reported() {
    insta::assert_snapshot!(errors_of("\
apiVersion: ecs-mesh.dev/v1
kind: Workload
metadata:
  name: Demo_App
  namespace: default
spec:
  selectr: {services: [demo-app]}
  service: demo/app
  inbounds:
    - name: http
      containerPort: \"5050\"
      port: 70000
      protocol: htp
      serviceAddress: localhost
    - port: 0
  outbounds:
    - {service: kv, listen: {port: 15050}}
    - not-a-mapping
  probe:
"), @r#"
    a.yaml:1 (document 1, Workload/Demo_App): apiVersion: "ecs-mesh.dev/v1" is not known: write ecs-mesh.dev/v1alpha1
    a.yaml:4 (document 1, Workload/Demo_App): metadata.name: "Demo_App" is not allowed: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit, at most 63 characters
    a.yaml:5 (document 1, Workload/Demo_App): metadata.namespace: unknown field. Allowed: name, labels, annotations
    a.yaml:7 (document 1, Workload/Demo_App): spec.selectr: unknown field; did you mean selector? Allowed: bindings, selector, service, workload, proxy, gateway, zoneIngress, zoneEgress, inbounds, reach, outbounds, probe, dataplanes
    a.yaml:8 (document 1, Workload/Demo_App): spec.service: service name "demo/app" is not allowed: letters, digits, '.', '-', '_' and ':', not empty, at most 253 characters
    a.yaml:11 (document 1, Workload/Demo_App): spec.inbounds[0].containerPort: expected a whole number from 1 to 65535, found the text "5050" (write it without quotes)
    a.yaml:12 (document 1, Workload/Demo_App): spec.inbounds[0].port: expected a whole number from 1 to 65535, found 70000
    a.yaml:13 (document 1, Workload/Demo_App): spec.inbounds[0].protocol: "htp" is not allowed; did you mean http? Allowed: tcp, http, http2, grpc, kafka
    a.yaml:14 (document 1, Workload/Demo_App): spec.inbounds[0].serviceAddress: "localhost" is not an IP address, such as 127.0.0.1 or ::1
    a.yaml:15 (document 1, Workload/Demo_App): spec.inbounds[1].containerPort: required, and missing
    a.yaml:15 (document 1, Workload/Demo_App): spec.inbounds[1].port: expected a whole number from 1 to 65535, found 0
    a.yaml:17 (document 1, Workload/Demo_App): spec.outbounds[0].targetPort: is missing: with reach: outbounds a listener needs one port
    a.yaml:18 (document 1, Workload/Demo_App): spec.outbounds[1]: expected a mapping, found the text "not-a-mapping"
    a.yaml:19 (document 1, Workload/Demo_App): spec.probe: has no value: give one, or leave the field out
    "#);
}

#[test]
fn all_missing_fields_are_reported() {
    let text = "kind: MeshBinding\nspec:\n  roleTags: {recheck: 10}\n  cleanup: {drain: 5, guard: {minOwned: many}}\n";
    insta::assert_snapshot!(errors_of(text), @r#"
    a.yaml:1 (document 1, MeshBinding): apiVersion: required, and missing
    a.yaml:1 (document 1, MeshBinding): metadata: required, and missing
    a.yaml:2 (document 1, MeshBinding): spec.controlPlane: required, and missing
    a.yaml:2 (document 1, MeshBinding): spec.selector: required, and missing
    a.yaml:3 (document 1, MeshBinding): spec.roleTags.recheck: "10" is not a duration: write a number with a unit, such as 500ms, 5s, 10m or 1h30m
    a.yaml:4 (document 1, MeshBinding): spec.cleanup.drain: "5" is not a duration: write a number with a unit, such as 500ms, 5s, 10m or 1h30m
    a.yaml:4 (document 1, MeshBinding): spec.cleanup.guard.minOwned: expected a whole number from 0 to 4294967295, found the text "many"
    "#);
    insta::assert_snapshot!(errors_of("kind: OutboundList\nspec:\n  workloads: ['*']\n  outbounds: [{}, 1]\n"), @r#"
    a.yaml:1 (document 1, OutboundList): apiVersion: required, and missing
    a.yaml:1 (document 1, OutboundList): metadata: required, and missing
    a.yaml:4 (document 1, OutboundList): spec.outbounds[0]: names nothing to call: write service and targetPort, or backend
    a.yaml:4 (document 1, OutboundList): spec.outbounds[1]: expected a mapping, found 1
    "#);
}

#[test]
fn invalid_yaml_does_not_hide_errors_of_other_documents() {
    let text = "kind: [Workload\n---\nkind: Wrkload\nspec: {}\n---\nonly a text\n---\n- a\n- list\n";
    insta::assert_snapshot!(errors_of(text), @r#"
    a.yaml:1 (document 1): not valid YAML: unclosed bracket '['
    a.yaml:3 (document 2, Wrkload): apiVersion: required, and missing
    a.yaml:3 (document 2, Wrkload): kind: "Wrkload" is not a kind of manifest; did you mean Workload? Allowed: ControlPlane, MeshBinding, Workload, OutboundList, ConsulAuth, AwsAccount
    a.yaml:3 (document 2, Wrkload): metadata: required, and missing
    a.yaml:6 (document 3): expected a mapping with apiVersion, kind, metadata and spec (one manifest a document)
    a.yaml:8 (document 4): expected a mapping with apiVersion, kind, metadata and spec (one manifest a document)
    "#);
}

#[test]
fn duplicate_key_is_an_error() {
    let text = format!("{CONTROL_PLANE}  type: kuma\n");
    insta::assert_snapshot!(errors_of(&text), @r#"a.yaml:7 (document 1, ControlPlane/kuma): spec.type: given twice, first on line 5: keep one of them"#);
}

#[test]
fn duplicate_name_error_names_both_locations() {
    let directory = TestDirectory::with(&[("a.yaml", CONTROL_PLANE), ("b.yaml", CONTROL_PLANE)]);
    let loaded = directory.load();
    insta::assert_snapshot!(directory.text(&loaded.errors), @r#"b.yaml:3 (document 1, ControlPlane/kuma): metadata.name: ControlPlane kuma is also at a.yaml:1: names are unique within a kind: rename or delete one"#);
    assert!(loaded.set.control_planes.is_empty());
}

#[test]
fn unquoted_strings_keep_their_spelling() {
    let workload = WORKLOAD.replace("protocol: http", "tags: {version: 1.10, canary: true}");
    let binding = format!("{BINDING}  roleTags: {{mode: off, authorizedAccounts: [012345678901]}}\n");
    let directory =
        TestDirectory::with(&[("a.yaml", &format!("{CONTROL_PLANE}---\n{binding}---\n{workload}"))]);
    let loaded = directory.load();
    assert_eq!(directory.text(&loaded.errors), "");
    let tags = &loaded.set.workloads["kv"].inbounds[0].tags;
    assert_eq!((tags["version"].as_str(), tags["canary"].as_str()), ("1.10", "true"));
    assert_eq!(loaded.set.bindings["demo"].spec.role_tags.authorized_accounts, ["012345678901"]);
}

#[test]
fn json_file_holds_one_manifest() {
    let json = r#"{
	"apiVersion": "ecs-mesh.dev/v1alpha1",
	"kind": "ControlPlane",
	"metadata": {"name": "kuma", "annotations": {"note": "\ud83d\ude00 tabs\/slashes"}},
	"spec": {"type": "kuma", "kuma": {"adress": "https://cp.internal:5682"}}
}"#;
    let directory = TestDirectory::with(&[("a.json", json)]);
    insta::assert_snapshot!(directory.text(&directory.load().errors), @r#"a.json:5 (document 1, ControlPlane/kuma): spec.kuma.adress: unknown field; did you mean address? Allowed: address, caFile, caEnv, caSecret, tokenFile, tokenEnv, tokenSecret, tlsServerName, dialect, proxy, timeout"#);
    directory.write("a.json", json.replace("adress", "address"));
    assert!(directory.load().set.control_planes.contains_key("kuma"));
}

#[test]
fn documents_without_content_do_not_count() {
    let text = format!(
        "%YAML 1.2\n---\n# a comment\n---\n---\n{CONTROL_PLANE}...\n---\n{BINDING}  nonsense: 1\n---\n"
    );
    insta::assert_snapshot!(errors_of(&text), @r#"a.yaml:21 (document 2, MeshBinding/demo): spec.nonsense: unknown field; did you mean tokens? Allowed: controlPlane, mesh, selector, roleTags, discovery, claims, dataplanes, policy, cleanup, drain, deployments, tokens, addressFamily, dataplaneName, paused"#);
    assert_eq!(errors_of(""), "");
    assert_eq!(errors_of("# nothing yet\n"), "");
}

#[test]
fn yaml_aliases_expand_within_limits() {
    let workload = WORKLOAD.replace("services: [kv]", "services: &names [kv], families: *names");
    assert_eq!(errors_of(&format!("{CONTROL_PLANE}---\n{BINDING}---\n{workload}")), "");

    let level = |level: usize| {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("a{level}: &a{level} [{aliases}]\n")
    };
    let bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned() + &(1..9).map(level).collect::<String>();
    insta::assert_snapshot!(errors_of(&bomb), @r#"a.yaml:4 (document 1): too large: at most 100000 values, 10000 of them from aliases, and 64 levels in a document"#);
    insta::assert_snapshot!(errors_of("a: &a [*a]\n"), @r#"a.yaml:1 (document 1): an alias is used within the value that it refers to"#);
}

#[test]
fn truncated_file_is_read_without_panic() {
    let text = format!("{CONTROL_PLANE}---\n{BINDING}---\n{WORKLOAD}");
    for (end, _) in text.char_indices() {
        let file: std::sync::Arc<std::path::Path> = std::path::Path::new("a.yaml").into();
        ecs_mesh_api::manifests::read_file(&file, &text[..end]);
        ecs_mesh_api::manifests::read_file(&file, &text[end..]);
    }
}

#[test]
fn unreadable_file_is_reported_with_cause() {
    let directory = TestDirectory::with(&[("b-big.yaml", &"# no end\n".repeat(120_000))]);
    directory.write("a-latin1.yaml", b"# fine\n# caf\xe9\n");
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere.yaml", directory.path().join("c-link.yaml")).unwrap();
    insta::assert_snapshot!(directory.text(&directory.load().errors), @r#"
    a-latin1.yaml: is not UTF-8 text (first wrong byte on line 2): save it as UTF-8
    b-big.yaml: is larger than 1 MiB: split it into several files
    c-link.yaml: cannot be read: not found, or a broken link
    "#);
}

#[test]
fn pipe_or_device_is_reported_and_the_rest_is_read() {
    let directory = TestDirectory::demo();
    let path = |name: &str| directory.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(path("d-pipe.yaml")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", path("e-zeroes.yaml")).unwrap();
    let loaded = directory.load();
    insta::assert_snapshot!(directory.text(&loaded.errors), @"
    d-pipe.yaml: cannot be read: not a regular file but a FIFO
    e-zeroes.yaml: cannot be read: not a regular file but a device
    ");
    assert_eq!((loaded.set.workloads.len(), loaded.set.complete), (1, false));
    let source = ManifestSources::new([path("d-pipe.yaml")]).load(None).into_loaded().unwrap();
    assert!(directory.text(&source.errors).contains("a FIFO"), "a source of its own, too");
}

#[test]
fn hidden_files_and_subdirectories_are_ignored() {
    let directory = TestDirectory::demo();
    for name in [".a-cp.yaml", "notes.txt", "a-cp.yaml~"] {
        directory.write(name, "not: [yaml");
    }
    std::fs::create_dir(directory.path().join("deeper.yaml")).unwrap();
    let loaded = directory.load();
    assert_eq!((directory.text(&loaded.errors).as_str(), loaded.files), ("", 3));
}

#[test]
fn file_given_twice_is_read_once() {
    let directory = TestDirectory::demo();
    let sources = ManifestSources::new([directory.path(), directory.path().join("a-cp.yaml")]);
    let loaded = sources.load(None).into_loaded().unwrap();
    assert_eq!(directory.text(&loaded.errors), "");
}
