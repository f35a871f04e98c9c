//! Input that is cut off, of another kind, contradictory or unknown: an error with its place, or a line of the report.

use ecs_mesh_import::{
    FieldFate, ImportEntry, ImportError, ImportFailure, ImportOptions, Imported, SourceFile, import_app_mesh,
    import_dataplanes,
};

fn options() -> ImportOptions {
    ImportOptions::default()
}

fn errors(result: Result<Imported, ImportFailure>) -> Vec<ImportError> {
    match result {
        Err(ImportFailure::Input(errors)) => errors,
        other => panic!("{other:?}"),
    }
}

fn app_mesh(text: &str) -> Result<Imported, ImportFailure> {
    import_app_mesh(&[SourceFile::new("a.json", text)], &options())
}

fn dataplanes(text: &str) -> Result<Imported, ImportFailure> {
    import_dataplanes(&[SourceFile::new("a.yaml", text)], &options())
}

fn node(spec: &str) -> String {
    format!(r#"{{"virtualNode": {{"meshName": "m", "virtualNodeName": "kv", "spec": {spec}}}}}"#)
}

fn entry<'a>(imported: &'a Imported, path: &str) -> &'a ImportEntry {
    let found = imported.report.entries.iter().find(|entry| entry.path == path);
    found.unwrap_or_else(|| panic!("{path}: {:#?}", imported.report.entries))
}

#[test]
fn app_mesh_input_of_no_use_is_an_error_with_its_place() {
    let same = node("{}");
    for (text, line, part) in [
        ("", None, "has no document"),
        ("{\"virtualNode\": {\n\"meshName\": ", Some(2), "ends within the document"),
        ("[1]", Some(1), "no object"),
        ("[]", Some(1), "names no resource"),
        (r#"{"virtualNodes": []}"#, Some(1), "names no resource"),
        (r#"{"virtualNodeName": "kv", "spec": {}}"#, Some(1), "meshName: is missing"),
        ("Resources: {Logs: {Type: 'AWS::Logs::LogGroup'}}", Some(1), "no resource of type"),
        (r#"{"taskDefinition": {}}"#, Some(1), "taskDefinition"),
        (r#"{"virtualNode": {"virtualNodeName": "kv"}}"#, Some(1), "is missing"),
        (&format!("{same}\n{}", node("{\"listeners\": []}")), Some(2), "with another spec"),
        ("{\"mesh\": {},\n\"mesh\": {}}", Some(2), "given twice"),
    ] {
        let found = errors(app_mesh(text));
        assert_eq!(found[0].line, line, "{text}: {found:?}");
        assert!(found[0].to_string().contains(part), "{text}: {found:?}");
    }
}

#[test]
fn errors_of_all_files_are_reported_at_once() {
    let files = [
        SourceFile::new("a.json", "{"),
        SourceFile::new("b.json", "{}"),
        SourceFile::new("c.json", node("{}")),
    ];
    let found = errors(import_app_mesh(&files, &options()));
    let names: Vec<&str> = found.iter().map(|error| &*error.file).collect();
    assert_eq!(names, ["a.json", "b.json"]);
}

#[test]
fn odd_field_is_reported_as_without_a_counterpart() {
    let imported = app_mesh(&node(r#"{"listeners": [], "oddity": {"deep": [1, {"x": true}]}}"#)).unwrap();
    for path in ["virtualNode.spec.oddity.deep[0]", "virtualNode.spec.oddity.deep[1].x"] {
        let entry = entry(&imported, path);
        assert_eq!((entry.fate, entry.action), (FieldFate::NoCounterpart, true));
    }
    let text = "type: Dataplane\nname: a\nmesh: m\nnetworking:\n  address: 1.2.3.4\n  inbound:\n  - {port: 15000, servicePort: 80, \
                odd: 1, tags: {kuma.io/service: a}}\n";
    let imported = dataplanes(text).unwrap();
    assert!(entry(&imported, "networking.inbound[0].odd").action);
}

#[test]
fn document_of_something_else_is_a_line_beside_others() {
    let other = "Resources: {Logs: {Type: 'AWS::Logs::LogGroup'}}\n";
    let files = [SourceFile::new("a.json", node("{}")), SourceFile::new("b.yaml", other)];
    let imported = import_app_mesh(&files, &options()).unwrap();
    assert!(!entry(&imported, "Resources").action);
    let dataplane = "type: ZoneEgress\nname: egress\nnetworking: {address: 1.2.3.4, port: 10002}\n";
    let files = [SourceFile::new("a.yaml", dataplane), SourceFile::new("b.yaml", other)];
    let imported = import_dataplanes(&files, &options()).unwrap();
    let found = imported.report.entries.iter().find(|entry| &*entry.file == "b.yaml").unwrap();
    assert!(!found.action && found.reason.contains("no resource"), "{found:?}");
}

#[test]
fn resource_without_a_mesh_is_of_the_only_one() {
    let text = r#"{"virtualNodeName": "web", "spec": {}}"#;
    let files = [SourceFile::new("a.json", node("{}")), SourceFile::new("b.json", text)];
    let imported = import_app_mesh(&files, &options()).unwrap();
    assert_eq!(imported.manifests.iter().filter(|manifest| manifest.kind == "Workload").count(), 2);
    let found =
        imported.report.entries.iter().find(|entry| &*entry.file == "b.json" && entry.path == "meshName");
    assert!(found.unwrap().action);
}

#[test]
fn value_that_only_a_stack_knows_is_reported_as_such() {
    let text = "Resources:\n  Kv:\n    Type: AWS::AppMesh::VirtualNode\n    Properties:\n      MeshName: m\n      \
                Spec: {Listeners: !If [Stage, [], []]}\n";
    let imported = import_app_mesh(&[SourceFile::new("a.yaml", text)], &options()).unwrap();
    let found = entry(&imported, "Resources.Kv.Properties.Spec.Listeners");
    assert!(found.action && found.reason.starts_with("only a stack knows"), "{found:?}");
}

#[test]
fn every_leaf_of_the_input_has_a_line() {
    let spec = r#"{"listeners": [{"portMapping": {"port": 80, "protocol": "http"}}], "x": 1}"#;
    let imported = app_mesh(&node(spec)).unwrap();
    for path in [
        "virtualNode.meshName",
        "virtualNode.virtualNodeName",
        "virtualNode.spec.listeners[0].portMapping.port",
        "virtualNode.spec.listeners[0].portMapping.protocol",
        "virtualNode.spec.x",
    ] {
        entry(&imported, path);
    }
}

#[test]
fn value_that_no_manifest_has_is_reported_and_left_out() {
    let imported =
        app_mesh(&node(r#"{"listeners": [{"portMapping": {"port": 70000, "protocol": "http"}}]}"#)).unwrap();
    assert!(entry(&imported, "virtualNode.spec.listeners[0].portMapping.port").action);
    assert!(entry(&imported, "virtualNode.spec.listeners[0]").action);
    let workload = imported.manifests.iter().find(|manifest| manifest.kind == "Workload").unwrap();
    assert!(!workload.text.contains("inbounds"), "{}", workload.text);
}

#[test]
fn dataplane_input_of_no_use_is_an_error_with_its_place() {
    for (text, line, part) in [
        ("type: Dataplane\nnetworking: {address: [\n", None, "not valid YAML"),
        ("apiVersion: kuma.io/v1alpha1\nkind: Dataplane\n", Some(1), "Universal form"),
        ("containerDefinitions: [{name: app}]\n", Some(1), "no template"),
        ("Resources: {Logs: {Type: 'AWS::Logs::LogGroup'}}\n", Some(1), "no resource"),
        ("[]\n", None, "no Dataplane"),
        ("type: Mesh\nname: default\n", None, "no Dataplane"),
        ("a: 1\na: 2\n", Some(2), "given twice"),
        ("- hello\n", Some(1), "no fields"),
    ] {
        let found = errors(dataplanes(text));
        if line.is_some() {
            assert_eq!(found[0].line, line, "{text}: {found:?}");
        }
        assert!(found[0].to_string().contains(part), "{text}: {found:?}");
    }
}

#[test]
fn values_of_variables_are_in_no_output() {
    let text = "containerDefinitions:\n- name: kuma\n  environment:\n  - {name: PASSWORD, value: hunter2}\n  - name: DP\n    \
                value: 'type: Dataplane\n\n\n      name: [hunter2'\n";
    let found = errors(dataplanes(text));
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
}

#[test]
fn names_that_are_not_valid_are_changed_and_reported() {
    let text = r#"{"meshName": "My_Mesh", "virtualNodeName": "Kv_1", "spec": {}}"#;
    let imported = app_mesh(text).unwrap();
    let names: Vec<&str> = imported.manifests.iter().map(|manifest| manifest.name.as_str()).collect();
    assert_eq!(names, ["kuma", "my-mesh", "kv-1"]);
    assert!(
        imported.report.entries.iter().any(|entry| entry.target == "MeshBinding.spec.mesh" && entry.action)
    );
    let changed =
        imported.report.of_fate(FieldFate::Changed).filter(|entry| entry.target == "Workload.metadata.name");
    assert_eq!(changed.count(), 1);
}
