//! A bad manifest never removes anything.

use super::helpers::{BINDING, TestDirectory, WORKLOAD, kept, replaced};
use crate::{LoadOutcome, ManifestSources};

#[test]
fn bad_edit_keeps_last_good_set() {
    let directory = TestDirectory::demo();
    let good = directory.load();
    assert_eq!((good.set.generation, good.set.complete), (1, true));

    directory.write("c-kv.yaml", WORKLOAD.replace("port: 15050", "port: none"));
    let after = kept(directory.reload(&good));
    assert_eq!(after.set, good.set);
    insta::assert_snapshot!(directory.text(&after.errors), @r#"c-kv.yaml:8 (document 1, Workload/kv): spec.inbounds[0].port: expected a whole number from 1 to 65535, found the text "none""#);
    assert!(matches!(directory.reload(&after), LoadOutcome::Unchanged));
}

#[test]
fn corrected_edit_comes_into_force() {
    let directory = TestDirectory::demo();
    let good = directory.load();
    directory.write("c-kv.yaml", "kind: [");
    let bad = kept(directory.reload(&good));

    directory.write("c-kv.yaml", WORKLOAD.replace("15050", "15051"));
    let corrected = replaced(directory.reload(&bad));
    assert_eq!((corrected.set.generation, corrected.set.complete, corrected.errors.len()), (2, true, 0));
    assert_eq!(corrected.set.workloads["kv"].inbounds[0].port.get(), 15051);
}

#[test]
fn undone_edit_keeps_generation() {
    let directory = TestDirectory::demo();
    let good = directory.load();
    directory.write("c-kv.yaml", "kind: [");
    let bad = kept(directory.reload(&good));
    directory.write("c-kv.yaml", WORKLOAD);
    let undone = kept(directory.reload(&bad));
    assert_eq!((undone.set.generation, undone.errors.len()), (1, 0));
}

#[test]
fn equivalent_edit_keeps_generation() {
    let directory = TestDirectory::demo();
    let good = directory.load();
    directory.write("c-kv.yaml", format!("# who wrote this\n{WORKLOAD}"));
    assert_eq!(kept(directory.reload(&good)).set.generation, 1);
}

#[test]
fn error_at_start_blocks_removals_until_fixed() {
    let directory = TestDirectory::demo();
    directory.write("c-kv.yaml", WORKLOAD.replace("service: kv", "service: ''"));
    let start = directory.load();
    assert!(!start.set.complete);
    assert_eq!((start.set.bindings.len(), start.set.workloads.len()), (1, 0));

    directory.write("c-kv.yaml", WORKLOAD);
    let corrected = replaced(directory.reload(&start));
    assert_eq!((corrected.set.generation, corrected.set.complete), (2, true));
    assert!(corrected.set.workloads.contains_key("kv"));
}

#[test]
fn invalid_start_set_is_only_replaced_by_a_better_one() {
    let directory = TestDirectory::demo();
    directory.write("b-binding.yaml", "kind: [");
    directory.write("d-list.yaml", "kind: [");
    let start = directory.load();

    directory.write("b-binding.yaml", BINDING);
    let better = replaced(directory.reload(&start));
    assert!(!better.set.complete && better.set.workloads.contains_key("kv"));

    directory.write("c-kv.yaml", "kind: [");
    let worse = kept(directory.reload(&better));
    assert!(worse.set.workloads.contains_key("kv"));
}

#[test]
fn deleted_workload_leaves_complete_set() {
    let directory = TestDirectory::demo();
    let good = directory.load();
    directory.remove("c-kv.yaml");
    let after = replaced(directory.reload(&good));
    assert!(after.set.complete && after.set.workloads.is_empty());
}

#[test]
fn missing_or_empty_directory_keeps_last_good_set() {
    let directory = TestDirectory::demo();
    let good = directory.load();
    for name in ["a-cp.yaml", "b-binding.yaml", "c-kv.yaml"] {
        directory.remove(name);
    }
    let empty = kept(directory.reload(&good));
    assert_eq!(empty.set, good.set);
    insta::assert_snapshot!(directory.text(&empty.errors), @r#"manifests: no manifest file is left in it, and it held 3 manifests: put them back; to withdraw all on purpose, leave a file with only a comment in it"#);

    std::fs::remove_dir(directory.path()).unwrap();
    let missing = kept(directory.reload(&empty));
    assert_eq!(missing.set, good.set);
    insta::assert_snapshot!(directory.text(&missing.errors), @r#"manifests: vanished, and held 3 manifests: put it back; to withdraw all on purpose, leave a file with only a comment in it"#);

    std::fs::create_dir(directory.path()).unwrap();
    directory.write("none.yaml", "# all withdrawn on purpose\n");
    assert!(replaced(directory.reload(&missing)).set.complete);
}

#[test]
fn missing_or_empty_file_keeps_last_good_set() {
    let directory = TestDirectory::demo();
    let sources = ManifestSources::new(
        ["a-cp.yaml", "b-binding.yaml", "c-kv.yaml"].map(|name| directory.path().join(name)),
    );
    let good = sources.load(None).into_loaded().unwrap();
    directory.write("c-kv.yaml", "\n");
    let emptied = kept(sources.load(Some(&good)));
    insta::assert_snapshot!(directory.text(&emptied.errors), @r#"c-kv.yaml: was emptied, and held 1 manifest: if that is on purpose, leave a comment in it (a line with #), or delete the file"#);
    directory.remove("c-kv.yaml");
    let missing = kept(sources.load(Some(&emptied)));
    insta::assert_snapshot!(directory.text(&missing.errors), @r#"c-kv.yaml: vanished, and held 1 manifest: put it back; to withdraw all on purpose, leave a file with only a comment in it"#);
    directory.write("c-kv.yaml", "# on purpose\n");
    assert!(replaced(sources.load(Some(&missing))).set.workloads.is_empty());
}

#[test]
fn missing_path_at_start_is_an_error() {
    let directory = TestDirectory::new();
    let sources = ManifestSources::new([directory.path(), directory.path().join("typo")]);
    let start = sources.load(None).into_loaded().unwrap();
    assert!(!start.set.complete);
    insta::assert_snapshot!(directory.text(&start.errors), @r#"
    manifests: no manifest file in it (*.yaml, *.yml, *.json): an empty directory looks like a failed mount; if no manifests are intended, put a file with only a comment in it
    typo: does not exist: check the path, or wait for the mount
    "#);
}
