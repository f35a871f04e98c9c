//! Committed schemas and reference tables match the types. `make golden` renews them.

use std::collections::BTreeSet;
use std::fs;

use ecs_mesh_api::schema;

use super::{root, schemas};

fn renewing() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

#[test]
fn committed_schemas_match_the_types() {
    for file in schema::files() {
        let path = schemas().join(&file.name);
        if renewing() {
            fs::write(&path, &file.text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == file.text, "{} is out of date: `make golden` renews it", path.display());
    }
    let names: BTreeSet<String> = schema::files().into_iter().map(|file| file.name).collect();
    let there = fs::read_dir(schemas()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), names, "something else lies in crds/");
}

#[test]
fn reference_tables_match_the_types() {
    let path = root().join("docs/reference/manifests.md");
    let committed = fs::read_to_string(&path).unwrap();
    let mut wanted = committed.clone();
    for table in schema::tables() {
        let (begin, end) = (format!("<!-- fields of {} -->\n", table.kind), "<!-- end of fields -->");
        let (before, rest) = wanted.split_once(&begin).unwrap_or_else(|| panic!("no line {begin}"));
        let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("no line {end}"));
        wanted = format!("{before}{begin}{}{end}{after}", table.markdown);
    }
    if renewing() {
        fs::write(&path, &wanted).unwrap();
    } else {
        assert!(committed == wanted, "{} is out of date: `make golden` renews it", path.display());
    }
}
