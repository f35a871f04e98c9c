//! The manifests' schemas, made from the types in [`crate`] and from nothing else.
//!
//! [`files`] gives what `ecs-mesh-operator crds` writes: a `CustomResourceDefinition` for each kind, and one JSON
//! Schema for editors. [`reference`] gives the tables of `docs/reference/manifests.md`. All are plain texts; whoever
//! asks writes them.

mod crd;
mod editor;
mod kinds;
mod reference;
mod source;
mod yaml;

pub use reference::{ReferenceTable, tables};

use kinds::KINDS;

/// A file that holds schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFile {
    /// Its name within the directory of schemas.
    pub name: String,
    /// All that is in it.
    pub text: String,
}

/// The name of the JSON Schema for editors, which the modelines of manifests speak of.
pub const EDITOR_SCHEMA: &str = "ecs-mesh.schema.json";

/// All files with schemas, in name order.
pub fn files() -> Vec<SchemaFile> {
    let mut files: Vec<SchemaFile> = KINDS
        .iter()
        .map(|kind| SchemaFile {
            name: format!("{}.yaml", kind.plural),
            text: format!("{HEADER}{}", yaml::text(&crd::definition(kind))),
        })
        .collect();
    files
        .push(SchemaFile { name: EDITOR_SCHEMA.to_owned(), text: format!("{:#}\n", editor::schema(&KINDS)) });
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// The `CustomResourceDefinition`s alone, as one stream of YAML documents.
pub fn definitions() -> String {
    let texts: Vec<String> = KINDS.iter().map(|kind| yaml::text(&crd::definition(kind))).collect();
    format!("---\n{}", texts.join("---\n"))
}

const HEADER: &str =
    "# Written by `ecs-mesh-operator crds` from the types in crates/api: change those, not this.\n";
