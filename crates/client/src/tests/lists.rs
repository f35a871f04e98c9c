use std::collections::BTreeSet;

use super::server::{FakeOperator, Reply};
use super::*;

#[tokio::test]
async fn list_has_every_object_once_while_others_come_and_go() {
    let operator =
        FakeOperator::start((0..1_203).map(|number| task(number * 2, "registered")).collect()).await;
    let mut round = 0;
    operator.after_page(move |tasks| {
        round += 1;
        tasks.retain(|task| task["name"] != task_id(round * 2));
        tasks.push(task(round * 2 + 1, "registered"));
    });
    let (text, result) =
        printed(&operator, &request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Name).await;
    let names: Vec<&str> = text.lines().collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "none is printed twice");
    let lasting = (10..1_203).map(|number| format!("task/{}", task_id(number * 2)));
    assert!(lasting.into_iter().all(|name| names.contains(&&*name)), "none is missing");
    assert_eq!(result.unwrap(), names.len());
    assert_eq!(operator.seen().len(), 3, "pages");
}

#[tokio::test]
async fn list_is_printed_in_each_format() {
    let operator = FakeOperator::start(vec![task(1, "registered"), task(2, "rejected")]).await;
    let all = request(ResourceKind::Tasks, &[], &[]);
    let (table, _) = printed(&operator, &all, ObjectFormat::Table).await;
    assert!(table.starts_with("NAME ") && table.lines().count() == 3, "{table}");
    let (wide, _) = printed(&operator, &all, ObjectFormat::Wide).await;
    assert!(wide.lines().next().unwrap().contains("ECS-SERVICE"), "{wide}");
    let (text, _) = printed(&operator, &all, ObjectFormat::Json).await;
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&"TaskList".into(), 2));
    let (text, _) = printed(&operator, &all, ObjectFormat::Yaml).await;
    assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), list);
    let filtered = request(ResourceKind::Tasks, &[], &[("state", "rejected")]);
    let (text, _) = printed(&operator, &filtered, ObjectFormat::Name).await;
    assert_eq!(text, format!("task/{}\n", task_id(2)));
}

#[tokio::test]
async fn empty_list_has_no_rows_and_is_a_list() {
    let operator = FakeOperator::start(Vec::new()).await;
    let all = request(ResourceKind::Tasks, &[], &[]);
    let (text, result) = printed(&operator, &all, ObjectFormat::Table).await;
    assert_eq!((text.as_str(), result.unwrap()), ("", 0));
    let (text, _) = printed(&operator, &all, ObjectFormat::Json).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["items"], json!([]));
}

#[tokio::test]
async fn named_objects_are_printed_and_missing_ones_are_an_error() {
    let operator = FakeOperator::start(vec![task(1, "registered"), task(2, "rejected")]).await;
    let (one, two) = (task_id(1), format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{}", task_id(2)));
    let (text, result) =
        printed(&operator, &request(ResourceKind::Tasks, &[&one, "none", &two], &[]), ObjectFormat::Name)
            .await;
    assert_eq!(text, format!("task/{}\ntask/{}\n", task_id(1), task_id(2)));
    assert!(matches!(result, Err(GetError::Missing { names, .. }) if names == ["none"]));
    let (text, _) = printed(&operator, &request(ResourceKind::Tasks, &[&one], &[]), ObjectFormat::Json).await;
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&object["kind"], &object["name"]), (&"Task".into(), &one.into()));
}

#[tokio::test]
async fn task_is_found_by_the_beginning_of_its_id() {
    let mut tasks = vec![task(1, "registered"), task(2, "registered")];
    for (task, id) in tasks.iter_mut().zip(["0123456789abcdef", "0123456789abffff"]) {
        task["name"] = format!("{id}{id}").into();
        task["arn"] = format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{id}{id}").into();
    }
    let operator = FakeOperator::start(tasks).await;
    let named = |name: &str| request(ResourceKind::Tasks, &[name], &[]);
    for name in ["0123456789abc", "0123456789abc…"] {
        let (text, _) = printed(&operator, &named(name), ObjectFormat::Name).await;
        assert_eq!(text, "task/0123456789abcdef0123456789abcdef\n", "{name}");
    }
    let (_, result) = printed(&operator, &named("0123456789"), ObjectFormat::Name).await;
    assert!(matches!(result, Err(GetError::Ambiguous { ids, .. }) if ids.len() == 2));
    for name in ["..", ".", "0123", ""] {
        let (_, result) = printed(&operator, &named(name), ObjectFormat::Name).await;
        assert!(matches!(result, Err(GetError::Missing { .. })), "{name}");
    }
    assert!(operator.seen().iter().all(|seen| !seen.target.contains("..")));
}

#[tokio::test]
async fn list_is_sorted_by_a_field_that_it_has() {
    let mut tasks = vec![task(1, "registered"), task(2, "held"), task(3, "pending")];
    tasks[0]["createdAt"] = "2026-11-30T02:00:00Z".into();
    tasks[2]["createdAt"] = "2026-11-30T01:00:00Z".into();
    let operator = FakeOperator::start(tasks).await;
    let by = |path: &str| GetRequest {
        sort_by: Some(path.parse().unwrap()),
        ..request(ResourceKind::Tasks, &[], &[])
    };
    let (text, _) = printed(&operator, &by(".createdAt"), ObjectFormat::Name).await;
    let order: Vec<String> = [3, 1, 2].map(|number| format!("task/{}", task_id(number))).to_vec();
    assert_eq!(text.lines().collect::<Vec<_>>(), order);
    let (_, result) = printed(&operator, &by(".colour"), ObjectFormat::Name).await;
    assert!(matches!(result, Err(GetError::NoSuchField { .. })));
}

#[tokio::test]
async fn changes_are_printed_from_the_oldest_on() {
    let operator = FakeOperator::start(Vec::new()).await;
    operator.set_changes((1..=3).map(|id| change(id, "create")).collect());
    let (text, _) = printed(&operator, &request(ResourceKind::Changes, &[], &[]), ObjectFormat::Name).await;
    assert_eq!(text, "change/1\nchange/2\nchange/3\n");
}

#[tokio::test]
async fn names_of_others_never_reach_the_terminal_raw() {
    let mut hostile = task(1, "registered");
    hostile["service"] = "\u{1b}]0;owned\u{7}\u{9b}2J\nNAME \u{202e}".into();
    let operator = FakeOperator::start(vec![hostile]).await;
    for format in [ObjectFormat::Table, ObjectFormat::Wide, ObjectFormat::Json, ObjectFormat::Yaml] {
        let (text, _) = printed(&operator, &request(ResourceKind::Tasks, &[], &[]), format).await;
        let unsafe_text = |c: char| c != '\n' && crate::text::is_unsafe(c);
        assert!(!text.contains(unsafe_text), "{text:?}");
    }
    let (text, _) = printed(&operator, &request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Table).await;
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[tokio::test]
async fn reader_that_is_too_fast_waits_and_goes_on() {
    let operator = FakeOperator::start(vec![task(1, "registered")]).await;
    for _ in 0..2 {
        operator.reply("/api/v1/tasks", Reply::Whole(429, "retry-after: 0\r\n", "{}".to_owned()));
    }
    let (text, _) = printed(&operator, &request(ResourceKind::Tasks, &[], &[]), ObjectFormat::Name).await;
    assert_eq!(text.lines().count(), 1);
}
