//! The manifests and reports of `tests/golden/import/`: one directory for each case, with its input.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ecs-mesh-import --test golden` writes them again.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use ecs_mesh_api::{ConsulConnection, GatewayKind};
use ecs_mesh_import::{
    ConsulAuthPart, ConsulSetUp, FoundAclObject, ImportFailure, ImportOptions, Imported, SourceFile,
    import_app_mesh, import_consul, import_dataplanes,
};
use ecs_mesh_model::Glob;
use serde::Deserialize;
use serde_json::Value;

type Import = fn(&[SourceFile], &ImportOptions) -> Result<Imported, ImportFailure>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/import")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn input(case: &Path) -> Vec<SourceFile> {
    let file = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        SourceFile::new(&name, fs::read_to_string(&path).unwrap())
    };
    entries(&case.join("input")).into_iter().map(file).collect()
}

fn compare(path: &Path, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(expected == found, "{} differs; make golden renews it. Found:\n{found}", path.display());
}

fn compare_all(case: &Path, imported: &Imported) {
    let text: Vec<&str> = imported.manifests.iter().map(|manifest| manifest.text.as_str()).collect();
    compare(&case.join("manifests.yaml"), &text.join("---\n"));
    let report = serde_json::to_string_pretty(&imported.report.to_json()).unwrap() + "\n";
    // The inputs' values of secrets.
    assert!(!report.contains("hunter2") && !text.concat().contains("hunter2"), "{report}");
    compare(&case.join("report.json"), &report);
}

fn check(kind: &str, import: Import) {
    let cases = entries(&root().join(kind));
    assert!(!cases.is_empty());
    for case in cases {
        let files = input(&case);
        let imported = import(&files, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        compare_all(&case, &imported);
        let reversed: Vec<SourceFile> = files.into_iter().rev().collect();
        let again = import(&reversed, &ImportOptions::default()).unwrap();
        assert_eq!(again.manifests, imported.manifests, "the order of the files changes the manifests");
    }
}

#[test]
fn app_mesh_import_is_golden() {
    check("app-mesh", import_app_mesh);
}

#[test]
fn dataplanes_import_is_golden() {
    check("dataplanes", import_dataplanes);
}

/// The objects of a Consul, as the program hands them to the import.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsulInput {
    methods: Vec<AclObjectInput>,
    rules: Vec<AclObjectInput>,
    roles: Vec<AclObjectInput>,
    anonymous: Vec<AclObjectInput>,
    nodes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AclObjectInput {
    name: String,
    owner: Option<String>,
    part: Option<String>,
    selector: Option<String>,
    policies: Option<Vec<String>>,
    body: Value,
}

impl AclObjectInput {
    fn found(self) -> FoundAclObject {
        let part = self.part.map(|part| match part.as_str() {
            "service" => ConsulAuthPart::Service,
            "client" => ConsulAuthPart::Client,
            "anonymous" => ConsulAuthPart::Anonymous,
            kind => ConsulAuthPart::Gateway(
                GatewayKind::ALL.into_iter().find(|one| one.as_str() == kind).unwrap(),
            ),
        });
        let Self { name, owner, selector, policies, body, .. } = self;
        FoundAclObject { body, name, owner, part, selector, policies }
    }
}

fn consul_input(case: &Path) -> ConsulSetUp {
    let text = fs::read_to_string(case.join("input/objects.json")).unwrap();
    let input: ConsulInput =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let found = |objects: Vec<AclObjectInput>| objects.into_iter().map(AclObjectInput::found).collect();
    ConsulSetUp {
        connection: ConsulConnection {
            token_env: Some("CONSUL_HTTP_TOKEN".to_owned()),
            ..ConsulConnection::new("https://consul.internal:8501")
        },
        methods: found(input.methods),
        rules: found(input.rules),
        roles: found(input.roles),
        anonymous: found(input.anonymous),
        nodes: input.nodes,
    }
}

#[test]
fn consul_import_is_golden() {
    let clusters = vec![Glob::new("arn:aws:ecs:eu-west-1:111122223333:cluster/demo")];
    let options = ImportOptions { control_plane: "consul".to_owned(), clusters, ..ImportOptions::default() };
    let cases = entries(&root().join("consul"));
    assert!(!cases.is_empty());
    for case in cases {
        let mut found = consul_input(&case);
        let imported = import_consul(&found, &options).unwrap_or_else(|error| panic!("{error}"));
        compare_all(&case, &imported);
        for list in [&mut found.methods, &mut found.rules, &mut found.roles] {
            list.reverse();
        }
        let again = import_consul(&found, &options).unwrap();
        assert_eq!(again.manifests, imported.manifests, "the order of the objects changes the manifests");
    }
}
