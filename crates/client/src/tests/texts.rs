use ecs_mesh_read_api::{StatusView, TaskDetailView};

use super::columns::sent;
use super::*;
use crate::output::description::{Described, render_description};
use crate::output::explanation::render_task;
use crate::output::status::render_status;

fn status() -> Value {
    sent::<StatusView>(json!({
        "operator": "prod", "version": "0.1.0", "startedAt": "2026-11-30T00:00:00Z", "now": "2026-11-30T03:00:00Z",
        "role": "standby", "leader": "task-7", "ready": false, "pending": ["control plane kuma is not synced"],
        "controlPlanes": [
            {"name": "kuma", "type": "kuma", "version": "2.14.1", "supported": true, "synced": false, "circuit": "open",
             "registrations": 7, "drained": 1, "tasksWithWarnings": 2},
            {"name": "old", "type": "consul", "version": "1.8.7", "supported": false, "unsupportedReason": "too old",
             "synced": true, "circuit": "closed", "registrations": 0, "drained": 0, "tasksWithWarnings": 0},
        ],
        "guards": [{"controlPlane": "kuma", "binding": "demo", "tripped": true, "withdrawn": 3, "limit": 3, "held": 2}],
        "clusters": [{"arn": "arn:aws:ecs:eu-west-1:111122223333:cluster/demo", "name": "demo", "account": "111122223333",
                      "region": "eu-west-1", "lastFullSweep": "2026-11-30T02:59:30Z"}],
        "manifests": {"documents": 6, "complete": true, "errors": [], "warnings": ["mesh.yaml:3: \u{1b}[2J"], "unread": []},
        "counts": {"tasks": 9, "services": 4, "bindings": 1, "identities": 7, "outbounds": 5, "warnings": 1, "changes": 12},
        "history": {"changes": 12, "capacity": 10_000, "oldest": "2026-11-30T01:00:00Z"},
    }))
}

#[test]
fn status_shows_each_control_plane_guard_and_cluster() {
    let text = render_status(&status(), Some(80)).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |start: &[&str]| {
        rows.iter().find(|row| row.starts_with(start)).unwrap_or_else(|| panic!("{start:?}: {text}"))
    };
    assert_eq!(*row(&["kuma"]), ["kuma", "kuma", "2.14.1", "unreachable", "7", "1", "2"]);
    assert_eq!(row(&["old"])[3], "unsupported");
    assert_eq!(*row(&["demo", "kuma"]), ["demo", "kuma", "tripped", "3/3", "2"]);
    assert_eq!(*row(&["demo", "111122223333"]), ["demo", "111122223333", "eu-west-1", "30s"]);
    assert_eq!(*row(&["running:"]), ["running:", "3h"]);
    assert!(row(&["role:"]).contains(&"task-7") && text.contains("kuma is not synced"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn status_of_another_version_is_printed_as_far_as_known() {
    let text =
        render_status(&json!({"operator": "prod", "controlPlanes": [{"name": "kuma"}], "guards": 7}), None)
            .unwrap();
    assert!(text.contains("prod") && text.lines().any(|line| line.starts_with("kuma")), "{text}");
}

#[test]
fn explanation_shows_reason_broken_tags_fix_and_history() {
    let mut object = task(1, "rejected");
    for (key, value) in [
        ("reason", json!({"key": "rejected", "message": "the role lacks a tag"})),
        ("lastStatus", json!("RUNNING")),
        ("desiredStatus", json!("RUNNING")),
        ("role", json!("arn:aws:iam::111122223333:role/kv")),
        (
            "evidence",
            json!({"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 4,
                            "seenAt": "2026-11-30T02:59:00Z", "seenBy": "describe"}),
        ),
        (
            "registrations",
            json!([{"controlPlane": "kuma", "mesh": "default", "name": "0a", "service": "kv",
                                  "kind": "dataplane", "ready": true, "drained": "revoked"}]),
        ),
        (
            "roleTags",
            json!([{"key": "kuma.io/mesh", "expected": "default", "ok": false},
                            {"key": "kuma.io/service", "value": "kv", "ok": true}]),
        ),
        (
            "warnings",
            json!([{"reason": "rejected", "message": "a tag is absent\u{1b}[2J", "fix": "aws iam tag-role"}]),
        ),
        ("verdict", json!([{"controlPlane": "kuma", "text": "reject\nthe role lacks a tag"}])),
        ("history", json!([change(2, "drain"), change(1, "create")])),
    ] {
        object[key] = value;
    }
    let text = render_task(&sent::<TaskDetailView>(object));
    let has = |line: &str| assert!(text.lines().any(|found| found.trim() == line), "{line}: {text}");
    has(&format!("task demo/{}", task_id(1)));
    has("state: rejected");
    assert_eq!(text.matches("the role lacks a tag").count(), 1, "{text}");
    has("ecs: RUNNING, desired RUNNING, version 4, seen 2026-11-30T02:59:00Z by describe");
    has("registration: default/0a at kuma, service kv, drained revoked, ready");
    has("role tag kuma.io/mesh: absent, expected \"default\"");
    has("fix: aws iam tag-role");
    has("verdict at control plane kuma:");
    let at = |kind: &str| text.find(&format!(" {kind} success")).unwrap();
    assert!(at("create") < at("drain"), "the oldest first: {text}");
    assert!(!text.contains('\u{1b}') && !text.contains("kuma.io/service"), "{text:?}");
}

#[test]
fn explanation_says_each_sentence_once() {
    let message = "role r: tag kuma.io/service is missing; aws iam tag-role --role-name r";
    let longer = format!("the role is not allowed: {message}");
    let warning = json!({"reason": "rejected", "message": longer, "fix": "aws iam tag-role --role-name r"});
    let verdict = json!({"controlPlane": "kuma", "text": format!("  x reject\n      reason: {message} (MeshBinding b)\n")});
    for (verdicts, warnings, expected) in [
        (vec![&verdict], vec![&warning], ["state: rejected", "verdict at control plane kuma:"]),
        (vec![], vec![&warning], ["state: rejected", &format!("warning: rejected: {longer}")]),
        (vec![], vec![], [&format!("state: rejected: {message}"), "verdict: nothing is due"]),
    ] {
        let mut object = task(1, "rejected");
        object["reason"] = json!({"key": "rejected", "message": message});
        (object["verdict"], object["warnings"], object["history"]) =
            (json!(verdicts), json!(warnings), json!([]));
        let text = render_task(&object);
        for line in expected {
            assert!(text.lines().any(|found| found.trim() == line), "{line}: {text}");
        }
        assert_eq!(text.matches("kuma.io/service is missing").count(), 1, "{text}");
        let warned = usize::from(verdicts.is_empty() && !warnings.is_empty());
        assert_eq!(text.matches("warning:").count(), warned, "{text}");
    }
}

fn described(object: Value, changes: Vec<Value>, warnings: Vec<Value>) -> Described {
    Described { object, tasks: Vec::new(), all_tasks: 0, changes, warnings }
}

fn description(kind: ResourceKind, described: &Described, limit: Option<usize>) -> String {
    let now = Timestamp::parse("2026-11-30T03:00:00Z").unwrap();
    render_description(kind, described, now, limit).unwrap()
}

#[test]
fn description_ends_with_changes_and_warnings_as_events() {
    let mut object = task(1, "rejected");
    for (key, value) in [
        ("evidence", json!({"lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 4})),
        (
            "registrations",
            json!([{"controlPlane": "kuma", "mesh": "default", "name": "0a", "service": "kv", "kind": "dataplane",
                    "ready": true, "readinessObservedAt": "2026-11-30T02:59:50Z"}]),
        ),
        ("roleTags", json!([{"key": "kuma.io/mesh", "expected": "default", "ok": false}])),
        (
            "verdict",
            json!([{"controlPlane": "kuma", "text": "  x reject\n      reason: a tag\u{1b}[2J\n", "change": "reject"}]),
        ),
        ("history", json!([])),
    ] {
        object[key] = value;
    }
    let mut failed = change(2, "remove");
    (failed["result"], failed["error"]) = ("error".into(), "503".into());
    let warning = json!({"reason": "rejected", "message": "a tag is absent", "fix": "aws iam tag-role"});
    let all = described(sent::<TaskDetailView>(object), vec![change(1, "create"), failed], vec![warning]);
    let text = description(ResourceKind::Tasks, &all, Some(100));
    let row = |start: &str| {
        text.lines().find(|line| line.trim().starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"))
    };
    assert!(row("dataplane").contains("ready") && row("dataplane").ends_with("10s"), "{text}");
    assert!(row("kuma.io/mesh").contains("<unset>") && row("x reject").starts_with("  x"), "{text}");
    let events: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| *line != "Events:")
        .skip(2)
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    assert_eq!(events, [["Normal", "create"], ["Warning", "remove"], ["Warning", "rejected"]], "{text}");
    assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.chars().count() <= 100), "{text:?}");
}

#[test]
fn description_shows_each_value_of_each_kind() {
    for kind in ResourceKind::ALL {
        let object = super::columns::complete(kind);
        let text = description(kind, &described(object.clone(), Vec::new(), Vec::new()), None);
        let name = object["name"].as_str().or(object["id"].as_str()).unwrap_or_default();
        assert!(text.lines().count() > 5 && text.contains(name), "{kind:?}: {text}");
        let has_events =
            !matches!(kind, ResourceKind::Outbounds | ResourceKind::Warnings | ResourceKind::Changes);
        assert_eq!(text.contains("Events:"), has_events, "{kind:?}: {text}");
    }
}

#[test]
fn status_before_the_first_sweep_has_no_zeros() {
    let mut status = status();
    status.as_object_mut().unwrap().remove("counts");
    let text = render_status(&status, None).unwrap();
    let objects = text.lines().find(|line| line.starts_with("objects:")).unwrap();
    assert!(!objects.contains('0') && objects.contains("not read yet"), "{objects}");
}
