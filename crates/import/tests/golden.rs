//! The manifests and reports of `tests/golden/import/`: one directory for each case, with its input.
//!
//! `UPDATE_GOLDEN=1 cargo test -p ecs-mesh-import --test golden` writes them again.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use ecs_mesh_import::{
    ImportFailure, ImportOptions, Imported, SourceFile, import_app_mesh, import_dataplanes,
};

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

fn check(kind: &str, import: Import) {
    let cases = entries(&root().join(kind));
    assert!(!cases.is_empty());
    for case in cases {
        let files = input(&case);
        let imported = import(&files, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let text: Vec<&str> = imported.manifests.iter().map(|manifest| manifest.text.as_str()).collect();
        compare(&case.join("manifests.yaml"), &text.join("---\n"));
        let report = serde_json::to_string_pretty(&imported.report.to_json()).unwrap() + "\n";
        compare(&case.join("report.json"), &report);
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
