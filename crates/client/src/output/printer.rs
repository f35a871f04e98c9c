//! Prints objects in the format that is asked for.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::columns::{TableColumn, columns};
use super::document::{ListWriter, Syntax, to_json, to_yaml};
use super::table::Table;
use crate::pages::Page;
use crate::resource::ResourceKind;
use crate::text::printable;
use ecs_mesh_clock::Clock;

/// The format of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectFormat {
    /// A table.
    Table,
    /// A table with all columns.
    Wide,
    /// JSON as the operator sends it.
    Json,
    /// The same as YAML.
    Yaml,
    /// `KIND/NAME`, one a line.
    Name,
}

/// Prints objects of one kind to `out`.
pub struct ObjectPrinter<W> {
    kind: ResourceKind,
    format: ObjectFormat,
    columns: Vec<TableColumn>,
    table: Table,
    list: Option<ListWriter>,
    documents: usize,
    clock: Clock,
    out: W,
}

impl<W: Write> ObjectPrinter<W> {
    /// Prints tables with their heads, no wider than `limit`.
    pub fn new(
        kind: ResourceKind,
        format: ObjectFormat,
        with_heads: bool,
        limit: Option<usize>,
        clock: Clock,
        out: W,
    ) -> Self {
        let columns = columns(kind, format == ObjectFormat::Wide);
        let table = Table::new(columns.iter().map(|column| column.head).collect(), with_heads, limit);
        Self { kind, format, columns, table, list: None, documents: 0, clock, out }
    }

    /// Prints the items of a list's page.
    pub fn page(&mut self, page: &Page) -> io::Result<()> {
        match self.syntax() {
            None => self.rows(&page.items)?,
            Some(syntax) => {
                let new = || ListWriter::new(syntax, &page.api_version, &page.kind);
                let list = self.list.get_or_insert_with(new);
                for item in &page.items {
                    list.item(item, &mut self.out)?;
                }
            }
        }
        self.out.flush()
    }

    /// Prints objects as rows, or each as a document of its own: what a watch sees.
    pub fn updates(&mut self, objects: &[Value]) -> io::Result<()> {
        match self.syntax() {
            None => self.rows(objects)?,
            Some(syntax) => objects.iter().try_for_each(|object| self.document(syntax, object))?,
        }
        self.out.flush()
    }

    /// Ends the list.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(list) = self.list.take() {
            list.finish(&mut self.out)?;
        }
        self.out.flush()
    }

    /// The texts by which a watch sees that a row changed: the passing of time is no change.
    pub(crate) fn fingerprint(&self, object: &Value) -> String {
        if self.syntax().is_some() {
            return object.to_string();
        }
        let now = ecs_mesh_model::Timestamp(0);
        self.columns.iter().map(|column| column.cell(object, now) + "\n").collect()
    }

    fn syntax(&self) -> Option<Syntax> {
        match self.format {
            ObjectFormat::Json => Some(Syntax::Json),
            ObjectFormat::Yaml => Some(Syntax::Yaml),
            ObjectFormat::Table | ObjectFormat::Wide | ObjectFormat::Name => None,
        }
    }

    fn rows(&mut self, objects: &[Value]) -> io::Result<()> {
        if self.format == ObjectFormat::Name {
            for object in objects {
                let name = self.kind.object_name(object);
                writeln!(self.out, "{}/{}", self.kind.singular(), printable(&name))?;
            }
            return Ok(());
        }
        let now = self.clock.wall();
        let row = |object| self.columns.iter().map(|column| column.cell(object, now)).collect();
        let rows: Vec<Vec<String>> = objects.iter().map(row).collect();
        self.table.print(&rows, &mut self.out)
    }

    fn document(&mut self, syntax: Syntax, object: &Value) -> io::Result<()> {
        let text = match syntax {
            Syntax::Json => to_json(object),
            Syntax::Yaml if self.documents > 0 => format!("---\n{}", to_yaml(object)),
            Syntax::Yaml => to_yaml(object),
        };
        self.documents += 1;
        self.out.write_all(text.as_bytes())
    }
}

/// An item of a list as an object of its own.
pub(crate) fn as_object(item: &Value, api_version: &str, list_kind: &str) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": list_kind.trim_end_matches("List")});
    if let (Some(head), Some(fields)) = (object.as_object_mut(), item.as_object()) {
        // A field of the same name is the item's own.
        head.extend(fields.clone());
    }
    object
}
