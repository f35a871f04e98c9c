//! The JSON Schema of all answers, generated from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::{
    BindingView, ChangeView, ChangedView, ErrorView, IdentityView, ListView, ObjectView, OutboundView,
    ResolvedView, ResourceView, ServiceDetailView, ServiceView, StatusView, TaskDetailView,
    TaskRegistrationsView, TaskView, TopologyView, WarningView,
};

/// The schema of all answers. `$defs` has one entry for each kind of answer (`TaskList`, `Task`, `Error`), and one for each
/// event of the stream that has a form of its own (`Event.tasks`, `Event.resolved`); an answer is one of the kinds.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let mut kinds = vec![
        kind::<StatusView>(&mut generator),
        kind::<TaskDetailView>(&mut generator),
        kind::<TaskRegistrationsView>(&mut generator),
        kind::<ServiceDetailView>(&mut generator),
        kind::<TopologyView>(&mut generator),
        list::<TaskView>(&mut generator),
        list::<ServiceView>(&mut generator),
        list::<BindingView>(&mut generator),
        list::<IdentityView>(&mut generator),
        list::<OutboundView>(&mut generator),
        list::<WarningView>(&mut generator),
        list::<ChangeView>(&mut generator),
    ];
    kinds.push(("Error".to_owned(), constant(&generator.subschema_for::<ErrorView>().into(), "Error")));
    let events = [
        ("Event.change", generator.subschema_for::<ChangeView>()),
        ("Event.warning", generator.subschema_for::<WarningView>()),
        ("Event.status", generator.subschema_for::<StatusView>()),
        ("Event.resolved", generator.subschema_for::<ResolvedView>()),
        ("Event.tasks", generator.subschema_for::<ChangedView>()),
    ];
    let mut definitions = generator.take_definitions(true);
    let any: Vec<Value> = kinds.iter().map(|(name, _)| json!({"$ref": format!("#/$defs/{name}")})).collect();
    definitions.extend(kinds);
    definitions.extend(events.map(|(name, schema)| (name.to_owned(), schema.into())));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Answers of the read API of ecs-mesh-operator",
        "oneOf": any,
        "$defs": definitions,
    })
}

fn kind<T: ResourceView + schemars::JsonSchema>(
    generator: &mut schemars::SchemaGenerator,
) -> (String, Value) {
    let schema = generator.subschema_for::<ObjectView<T>>();
    (T::KIND.to_owned(), constant(&schema.into(), T::KIND))
}

fn list<T: ResourceView + schemars::JsonSchema>(
    generator: &mut schemars::SchemaGenerator,
) -> (String, Value) {
    let name = format!("{}List", T::KIND);
    let schema = generator.subschema_for::<ListView<T>>();
    let schema = constant(&schema.into(), &name);
    (name, schema)
}

/// The schema of one kind: `kind` and `apiVersion` have constant values.
fn constant(schema: &Value, kind: &str) -> Value {
    let constants = json!({"kind": {"const": kind}, "apiVersion": {"const": crate::API_VERSION}});
    json!({"allOf": [schema, {"properties": constants}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_GOLDEN=1 cargo test -p ecs-mesh-read-api` renews the file.
    #[test]
    fn published_schema_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/api.schema.json");
        let text = format!("{:#}\n", schema());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "UPDATE_GOLDEN=1 renews it");
    }

    #[test]
    fn schema_has_each_kind_once() {
        let schema = schema();
        let kinds = schema["oneOf"].as_array().unwrap();
        assert_eq!(kinds.len(), 13);
        for kind in kinds {
            let pointer = kind["$ref"].as_str().unwrap().trim_start_matches('#');
            assert!(schema.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
