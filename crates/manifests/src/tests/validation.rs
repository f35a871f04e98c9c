//! A check of the sources for `validate`: everything that is wrong, in one run.

use ecs_mesh_api::AllowList;
use ecs_mesh_api::manifests::ManifestScope;

use super::helpers::{BINDING, CONTROL_PLANE, TestDirectory, WORKLOAD};
use crate::{ManifestSources, ManifestText};

fn allow_all() -> AllowList {
    AllowList::new(["*"], ["/"])
}

fn check(files: &[(&str, &str)]) -> (String, String) {
    let directory = TestDirectory::with(files);
    let result = directory.sources().check(ManifestScope::Complete, &allow_all());
    (directory.text(&result.errors), directory.text(&result.warnings))
}

#[test]
fn rules_are_checked_beside_unreadable_fields() {
    let control_plane = "apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {name: kuma, team: a}
spec:
  type: kuma
  writesPerSecond: 0
  kuma: {address: 'ftp://cp.internal', tokenFil: /run/token, timeout: 10}
";
    let workload = "apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: kv}
spec:
  bindings: [dmeo]
  selector: {services: [kv], familys: 5}
  service: kv
  inbounds:
    - {containerPort: 8080, port: 8080, protocl: http}
    - {containerPort: '9090', port: 9901}
";
    let (errors, _) = check(&[("a.yaml", control_plane), ("b.yaml", BINDING), ("c.yaml", workload)]);
    insta::assert_snapshot!(errors, @r#"
    a.yaml:3 (document 1, ControlPlane/kuma): metadata.team: unknown field. Allowed: name, labels, annotations
    a.yaml:6 (document 1, ControlPlane/kuma): spec.writesPerSecond: 0 is out of range: write 1 to 10000
    a.yaml:7 (document 1, ControlPlane/kuma): spec.kuma.address: is neither http:// nor https://: write https://HOST:5682 or http://HOST:5681
    a.yaml:7 (document 1, ControlPlane/kuma): spec.kuma.timeout: "10" is not a duration: write a number with a unit, such as 500ms, 5s, 10m or 1h30m
    a.yaml:7 (document 1, ControlPlane/kuma): spec.kuma.tokenFil: unknown field; did you mean tokenFile? Allowed: address, caFile, caEnv, caSecret, tokenFile, tokenEnv, tokenSecret, tlsServerName, dialect, proxy, timeout
    b.yaml:5 (document 1, MeshBinding/demo): spec.controlPlane: refers to ControlPlane kuma, which is invalid
    c.yaml:5 (document 1, Workload/kv): spec.bindings[0]: no MeshBinding is named "dmeo"; did you mean demo? There are: demo
    c.yaml:6 (document 1, Workload/kv): spec.selector.familys: unknown field; did you mean families? Allowed: services, families, tags, clusters
    c.yaml:9 (document 1, Workload/kv): spec.inbounds[0].port: 8080 is also the containerPort: choose another, or let the app listen on loopback alone and set serviceAddress: 127.0.0.1
    c.yaml:9 (document 1, Workload/kv): spec.inbounds[0].protocl: unknown field; did you mean protocol? Allowed: name, container, containerPort, port, serviceAddress, protocol, tags
    c.yaml:10 (document 1, Workload/kv): spec.inbounds[1].containerPort: expected a whole number from 1 to 65535, found the text "9090" (write it without quotes)
    c.yaml:10 (document 1, Workload/kv): spec.inbounds[1].port: 9901 is the sidecar's admin port: choose another
    "#);
}

#[test]
fn stand_ins_cause_no_errors() {
    for spec in [
        "type: consull\n  consul: {address: 'https://consul.internal:8501'}",
        "type: 5\n  kuma: {address: 'https://cp.internal:5682'}",
    ] {
        let text = format!(
            "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ControlPlane\nmetadata: {{name: a}}\nspec:\n  {spec}\n"
        );
        let (errors, _) = check(&[("a.yaml", &text)]);
        assert!(errors.lines().count() == 1 && errors.contains("spec.type"), "{errors}");
    }
    let misspelt = WORKLOAD.replace(
        "containerPort: 5050, port: 15050",
        "port: 5050, containerPort: 5050, serviceAdress: 127.0.0.1",
    );
    let (errors, _) = check(&[("a.yaml", CONTROL_PLANE), ("b.yaml", BINDING), ("c.yaml", &misspelt)]);
    assert!(errors.lines().count() == 1 && errors.contains("did you mean serviceAddress?"), "{errors}");
}

#[test]
fn duplicate_and_nameless_documents_are_checked() {
    let duplicate = WORKLOAD.replace("port: 15050", "port: 9901");
    let nameless =
        WORKLOAD.replace("metadata: {name: kv}", "metadata: {}").replace("services: [kv]", "services: ['']");
    let (errors, _) = check(&[
        ("a.yaml", CONTROL_PLANE),
        ("b.yaml", BINDING),
        ("c.yaml", WORKLOAD),
        ("d.yaml", &duplicate),
        ("e.yaml", &nameless),
    ]);
    insta::assert_snapshot!(errors, @r#"
    d.yaml:3 (document 1, Workload/kv): metadata.name: Workload kv is also at c.yaml:1: names are unique within a kind: rename or delete one
    d.yaml:8 (document 1, Workload/kv): spec.inbounds[0].port: 9901 is the sidecar's admin port: choose another
    e.yaml:3 (document 1, Workload): metadata.name: required, and missing
    e.yaml:6 (document 1, Workload): spec.selector.services[0]: is empty: write a name or a pattern with * and ?
    "#);
}

#[test]
fn warnings_are_reported_beside_errors() {
    let plain =
        CONTROL_PLANE.replace("https://cp.internal:5682'", "http://cp.internal:5681', tokenEnv: TOKEN");
    let (errors, warnings) = check(&[("a.yaml", &plain), ("b.yaml", "kind: [\n")]);
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(warnings.contains("spec.kuma.address: the token would cross the network"), "{warnings}");
}

#[test]
fn source_without_manifests_is_a_warning() {
    let (errors, warnings) = check(&[("a.yaml", " \n"), ("b.yaml", "# none yet\n")]);
    assert_eq!(errors, "");
    insta::assert_snapshot!(warnings, @r#"
    manifests: holds no manifest: an operator with this source alone does nothing
    a.yaml: is empty: if that is on purpose, leave a comment in it (a line with #)
    "#);

    let (_, warnings) = check(&[("a.yaml", CONTROL_PLANE), ("b.yaml", "# moved\n")]);
    assert_eq!(warnings, "");
}

#[test]
fn text_of_a_reader_is_checked_with_the_files() {
    let directory = TestDirectory::with(&[("a.yaml", CONTROL_PLANE)]);
    let input = BINDING.replace("controlPlane: kuma", "controlPlane: kumo");
    let text = ManifestText::read("<stdin>", input.as_bytes());
    let result = directory.sources().with_text(text).check(ManifestScope::Complete, &allow_all());
    assert_eq!((result.files, result.manifests, result.errors.len()), (2, 2, 1));
    let error = &result.errors[0];
    assert_eq!((error.file.to_str(), error.line), (Some("<stdin>"), Some(5)));

    let text = ManifestText::read("<stdin>", &b"\xff"[..]);
    let result = ManifestSources::default().with_text(text).check(ManifestScope::Complete, &allow_all());
    assert!(result.errors[0].message.contains("is not UTF-8"), "{:?}", result.errors);
}

#[test]
fn sources_outside_the_allow_list_are_errors() {
    let connection = "https://cp.internal:5682', caFile: /etc/ssl/ca.pem, tokenEnv: AWS_SECRET_ACCESS_KEY";
    let directory =
        TestDirectory::with(&[("a.yaml", &CONTROL_PLANE.replace("https://cp.internal:5682'", connection))]);
    let errors = |allowed: &AllowList| {
        let found = directory.sources().check(ManifestScope::Complete, allowed).errors;
        found.into_iter().map(|error| (error.line, error.path)).collect::<Vec<_>>()
    };
    let refused = |field: &str| (Some(6), format!("spec.kuma.{field}"));
    assert_eq!(errors(&AllowList::default()), [refused("caFile"), refused("tokenEnv")]);
    assert_eq!(errors(&AllowList::new(["NONE"], ["/etc/ssl"])), [refused("tokenEnv")]);
    assert_eq!(errors(&allow_all()), [refused("tokenEnv")], "never");
    // A file whose other fields are in error.
    let misspelt =
        CONTROL_PLANE.replace("https://cp.internal:5682'", "https://cp', tokenFile: /etc/shadow, timeot: 1s");
    let directory = TestDirectory::with(&[("a.yaml", &misspelt)]);
    let found = directory.sources().check(ManifestScope::Complete, &AllowList::default()).errors;
    assert!(found.iter().any(|error| error.path == "spec.kuma.tokenFile"), "{found:?}");
}
