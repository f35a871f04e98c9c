//! Columns against the types of the API.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::output::columns::columns;
use ecs_mesh_read_api::{
    BindingFilter, BindingView, ChangeFilter, ChangeView, Filter, IdentityFilter, IdentityView,
    OutboundFilter, OutboundView, ServiceFilter, ServiceView, TaskFilter, TaskView, WarningFilter,
    WarningView,
};

/// The object as an operator sends it. A field that the type does not have is lost here.
pub(super) fn sent<T: Serialize + DeserializeOwned>(object: Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(object).unwrap()).unwrap()
}

pub(super) fn complete(kind: ResourceKind) -> Value {
    let time = "2026-11-30T02:00:00Z";
    let arn = "arn:aws:ecs:eu-west-1:111122223333:task/demo/0a";
    let mut full_task = task(1, "rejected");
    for (key, value) in [
        ("ecsService", json!("demo/kv")),
        ("lastStatus", json!("RUNNING")),
        ("address", json!("10.0.0.1")),
        ("role", json!("arn:aws:iam::111122223333:role/kv")),
        ("createdAt", json!(time)),
        ("reason", json!({"key": "rejected", "message": "tag is absent"})),
        ("binding", json!("demo")),
        (
            "registrations",
            json!([{"controlPlane": "kuma", "name": "0a", "kind": "dataplane", "readinessObservedAt": time}]),
        ),
    ] {
        full_task[key] = value;
    }
    let guard = json!({"controlPlane": "kuma", "binding": "demo", "tripped": true, "withdrawn": 1, "limit": 3, "held": 2});
    let mut full_change = change(1, "create");
    for (key, value) in [
        ("controlPlane", "kuma"),
        ("mesh", "default"),
        ("name", "0a"),
        ("task", arn),
        ("cluster", "demo"),
        ("ecsService", "demo/kv"),
        ("role", "kv"),
        ("binding", "demo"),
    ] {
        full_change[key] = value.into();
    }
    match kind {
        ResourceKind::Tasks => sent::<TaskView>(full_task),
        ResourceKind::Services => sent::<ServiceView>(json!({
            "name": "kv", "controlPlane": "kuma", "mesh": "default", "state": "ok", "declared": true,
            "registrations": {"total": 3, "ready": 2, "drained": 1, "unknown": 0},
            "readinessObservedAt": time, "others": {"total": 1, "ready": 0},
            "tasks": {"total": 3, "rejected": 1, "held": 1, "pending": 1, "warnings": 1},
            "workloads": ["kv"], "bindings": ["demo"], "ecsServices": ["demo/kv"], "outbounds": ["web"], "callers": ["web"],
        })),
        ResourceKind::Bindings => sent::<BindingView>(json!({
            "name": "demo", "controlPlane": "kuma", "mesh": "default", "clusters": ["demo"], "policy": "sync",
            "roleTagsMode": "enforce", "paused": false, "tasks": 3, "registrations": 2, "guard": guard,
        })),
        ResourceKind::Identities => sent::<IdentityView>(json!({
            "name": "0a", "kind": "dataplane", "controlPlane": "kuma", "mesh": "default", "service": "kv", "task": arn,
            "cluster": "demo", "role": "kv", "state": "active", "since": time,
        })),
        ResourceKind::Outbounds => sent::<OutboundView>(json!({
            "from": "web", "to": "kv", "controlPlane": "kuma", "mesh": "default", "port": 80, "listen": "127.0.0.1:80",
            "declaredBy": "Workload/web", "state": "unknownTarget", "reason": "no such service",
        })),
        ResourceKind::Warnings => sent::<WarningView>(json!({
            "id": "w1", "controlPlane": "kuma", "reason": "rejected", "message": "tag is absent", "fix": "aws iam tag-role",
            "tasks": 3, "examples": ["0a"], "services": ["kv"], "since": time,
        })),
        ResourceKind::Changes => sent::<ChangeView>(full_change),
    }
}

#[test]
fn each_column_shows_a_field_that_operators_send() {
    let now = Timestamp::parse("2026-11-30T03:00:00Z").unwrap();
    for kind in ResourceKind::ALL {
        let object = complete(kind);
        for column in columns(kind, true) {
            assert!(!column.cell(&object, now).is_empty(), "{kind:?} {}: {object}", column.head.name);
        }
        assert!(!kind.object_name(&object).is_empty(), "{kind:?}");
    }
}

#[test]
fn filters_are_those_of_the_api() {
    for (kind, parameters) in [
        (ResourceKind::Tasks, TaskFilter::PARAMETERS),
        (ResourceKind::Services, ServiceFilter::PARAMETERS),
        (ResourceKind::Bindings, BindingFilter::PARAMETERS),
        (ResourceKind::Identities, IdentityFilter::PARAMETERS),
        (ResourceKind::Outbounds, OutboundFilter::PARAMETERS),
        (ResourceKind::Warnings, WarningFilter::PARAMETERS),
        (ResourceKind::Changes, ChangeFilter::PARAMETERS),
    ] {
        let sorted = |names: &[&'static str]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(kind.filters()), sorted(parameters), "{kind:?}");
    }
}

#[test]
fn tables_show_each_column_at_80_columns() {
    for kind in ResourceKind::ALL {
        let mut object = complete(kind);
        if object["service"].is_string() {
            object["service"] = "a-service-with-a-long-name_default_svc_8080".into();
        }
        if kind != ResourceKind::Tasks {
            object["name"] = "a-long-name-of-some-object_default_svc_8080".into();
        }
        let now = Clock::simulated(Timestamp::parse("2026-11-30T03:00:00Z").unwrap());
        let mut out = Vec::new();
        let mut printer = ObjectPrinter::new(kind, ObjectFormat::Table, true, Some(80), now, &mut out);
        printer.updates(&[object]).unwrap();
        drop(printer);
        let text = String::from_utf8(out).unwrap();
        let heads: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
        let expected: Vec<&str> = columns(kind, false).iter().map(|column| column.head.name).collect();
        assert_eq!(heads, expected, "{text}");
        assert!(text.lines().all(|line| textwrap::core::display_width(line) <= 80), "{text}");
    }
}
