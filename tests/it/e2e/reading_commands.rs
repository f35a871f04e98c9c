//! The commands that read an operator, as processes beside a running one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::harness::{Harness, OperatorProcess, eventually, workload};
use super::read_api_access::{address, file};

/// No task has this id.
const NO_TASK: &str = "ffffffffffffffffffffffffffffffff";

/// Runs commands beside one operator.
pub(super) struct OperatorReader<'a> {
    harness: &'a Harness,
    environment: BTreeMap<String, String>,
    url: String,
}

/// A command that has ended.
#[derive(Debug)]
pub(super) struct EndedCommand {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl EndedCommand {
    /// The value behind a name, as `status` and `describe` print it.
    fn value(&self, name: &str) -> &str {
        let found = self.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {name}: {self:?}")).trim()
    }

    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl<'a> OperatorReader<'a> {
    /// Waits until the operator listens.
    pub(super) async fn of(harness: &'a Harness, operator: &OperatorProcess) -> Self {
        let address = address(operator).await;
        let mut environment = harness.environment.clone();
        environment.insert("ECS_MESH_API_ADDRESS".to_owned(), address.clone());
        Self { harness, environment, url: format!("http://{address}") }
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, arguments: &[&str]) -> EndedCommand {
        let directory = self.harness.directory.path();
        Self::end(OperatorProcess::start(directory, "reader", &self.environment, arguments)).await
    }

    /// Runs a command to its end, with a file as standard input.
    pub(super) async fn run_with_input(&self, arguments: &[&str], input: &Path) -> EndedCommand {
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" < "$INPUT""#, env!("CARGO_BIN_EXE_ecs-mesh-operator")]);
        command.args(arguments);
        let mut environment = self.environment.clone();
        environment.insert("INPUT".to_owned(), input.to_str().unwrap().to_owned());
        let directory = self.harness.directory.path();
        Self::end(OperatorProcess::launch(&mut command, directory, "reader", &environment)).await
    }

    async fn end(mut process: OperatorProcess) -> EndedCommand {
        EndedCommand { code: process.code().await, out: process.stdout(), err: process.stderr() }
    }

    /// The objects that a command lists.
    pub(super) async fn items(&self, arguments: &[&str]) -> Vec<Value> {
        let list = self.run(&[arguments, &["-o", "json"]].concat()).await.json();
        list["items"].as_array().unwrap_or_else(|| panic!("{list}")).clone()
    }

    /// Waits until the objects that a command lists fit the condition.
    pub(super) async fn wait_for_items(
        &self,
        arguments: &[&str],
        expected: &str,
        fits: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        eventually(expected, || async {
            let items = self.items(arguments).await;
            fits(&items).then_some(items)
        })
        .await
    }
}

/// The states of tasks, by id.
fn states(tasks: &[Value]) -> BTreeMap<&str, &str> {
    tasks.iter().map(|task| (task["name"].as_str().unwrap(), task["state"].as_str().unwrap())).collect()
}

/// Deploys a service whose task is registered and one whose task is rejected, and returns the ids of both.
async fn deploy_both(harness: &Harness) -> [String; 2] {
    harness.manifest("all.yaml", &(harness.base_manifests() + &workload("denied", "denied")));
    harness.deploy("app", 1).await;
    let [app] = &harness.running(1).await[..] else { panic!("one task runs") };
    harness.role_with("denied", &[]).await;
    harness.define("denied").await;
    harness.serve("sandbox", "denied", 1).await;
    let both = harness.running(2).await;
    [app.clone(), both.into_iter().find(|id| id != app).unwrap()]
}

/// Waits until the operator shows both tasks as they are.
async fn wait_for_both(reader: &OperatorReader<'_>, [app, denied]: &[String; 2]) {
    let expected = BTreeMap::from([(&**app, "registered"), (&**denied, "rejected")]);
    let fits = |tasks: &[Value]| states(tasks) == expected;
    reader.wait_for_items(&["get", "tasks"], "one task is registered and one is rejected", fits).await;
}

#[tokio::test]
async fn commands_show_the_objects_of_an_operator() {
    let harness = Harness::start().await;
    let tasks @ [app, denied] = &deploy_both(&harness).await;
    let operator = harness.operator(&["--api-address", "127.0.0.1:0"]);
    let reader = OperatorReader::of(&harness, &operator).await;
    wait_for_both(&reader, tasks).await;
    operator.wait_for_sweep(true).await;

    let status = reader.run(&["status"]).await;
    assert!(status.code == Some(0) && status.value("operator").starts_with("harness "), "{status:?}");
    let status = reader.run(&["status", "-o", "json"]).await.json();
    assert_eq!(
        (&status["operator"], &status["controlPlanes"][0]["name"]),
        (&json!("harness"), &json!("kuma"))
    );

    let names = reader.run(&["get", "tasks", "-o", "name"]).await;
    let mut lines: Vec<&str> = names.out.lines().collect();
    lines.sort_unstable();
    let mut expected = [format!("task/{app}"), format!("task/{denied}")];
    expected.sort_unstable();
    assert!(names.code == Some(0) && lines == expected, "{names:?}");
    let rejected = reader.items(&["get", "tasks", "--state", "rejected"]).await;
    assert_eq!(states(&rejected), BTreeMap::from([(&**denied, "rejected")]));
    let warnings = reader.items(&["get", "warnings"]).await;
    assert!(warnings.len() == 1 && warnings[0]["reason"] == "rejected", "{warnings:?}");

    let task = reader.run(&["describe", "task", app]).await;
    assert_eq!((task.code, task.value("Name"), task.value("State")), (Some(0), &**app, "registered"));
    assert_eq!((task.value("Service"), task.value("Binding")), ("app", "harness"));
    assert!(task.out.lines().any(|line| line.contains("Normal") && line.contains("create")), "{task:?}");
    // The beginning of an id is enough.
    let task = reader.run(&["describe", "task", &denied[..12]]).await;
    assert_eq!((task.code, task.value("Name"), task.value("State")), (Some(0), &**denied, "rejected"));
    let service = reader.run(&["describe", "service", "app"]).await;
    assert_eq!(
        (service.code, service.value("Name"), service.value("Control Plane")),
        (Some(0), "app", "kuma")
    );
    assert!(service.out.contains(app.as_str()), "{service:?}");

    let changes = reader.items(&["changes", "--since", "1h"]).await;
    let is_create = |change: &&Value| {
        change["kind"] == "create" && change["task"].as_str().is_some_and(|task| task.ends_with(app))
    };
    let create = changes.iter().find(is_create).unwrap_or_else(|| panic!("{changes:?}"));
    assert_eq!((&create["result"], &create["service"]), (&json!("success"), &json!("app")), "{create}");
    // As a terminal of 80 columns shortens the id.
    let of_task = reader.items(&["changes", "--task", &app[..7]]).await;
    assert!(of_task.contains(create), "{of_task:?}");
    let identities = reader.items(&["get", "identities", "--task", &app[..7]]).await;
    assert_eq!(identities.len(), 1, "{identities:?}");
}

#[tokio::test]
async fn command_fails_when_an_object_does_not_exist() {
    let harness = Harness::start().await;
    let tasks @ [app, denied] = &deploy_both(&harness).await;
    let mut operator = harness.operator(&["--api-address", "127.0.0.1:0"]);
    let reader = OperatorReader::of(&harness, &operator).await;
    wait_for_both(&reader, tasks).await;

    for arguments in [["get", "task", NO_TASK], ["describe", "task", NO_TASK], ["get", "service", "none"]] {
        let ended = reader.run(&arguments).await;
        assert!(ended.code == Some(1) && ended.out.is_empty(), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(arguments[2]), "{arguments:?}: {ended:?}");
    }
    // The others are printed.
    let ended = reader.run(&["get", "tasks", app, NO_TASK, denied, "-o", "name"]).await;
    assert_eq!((ended.code, ended.out.lines().count()), (Some(1), 2), "{ended:?}");

    // An empty list is no failure, and no line of output.
    for arguments in [
        &["get", "outbounds"][..],
        &["get", "outbounds", "-o", "name"],
        &["get", "tasks", "--state", "drained", "-o", "wide"],
        &["changes", "--kind", "drain"],
    ] {
        let ended = reader.run(arguments).await;
        assert!(ended.code == Some(0) && ended.out.is_empty(), "{arguments:?}: {ended:?}");
        assert!(ended.err.lines().count() == 1, "{arguments:?}: {ended:?}");
    }
    let empty = reader.run(&["get", "outbounds", "-o", "json"]).await;
    assert!(empty.json()["items"] == json!([]) && empty.err.is_empty(), "{empty:?}");

    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    for arguments in [&["status"][..], &["get", "tasks"], &["describe", "task", app], &["changes"]] {
        let ended = reader.run(arguments).await;
        assert!(ended.code == Some(1) && ended.out.is_empty(), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(&reader.url), "{arguments:?}: {ended:?}");
    }
}

#[tokio::test]
async fn explain_makes_a_plan_when_no_operator_listens() {
    let harness = Harness::start().await;
    let tasks @ [app, denied] = &deploy_both(&harness).await;
    let token = file(&harness, "token", "readers-token-0123456789");
    let wrong = file(&harness, "wrong-token", "readers-token-of-another-operator");
    let mut operator = harness.operator(&["--api-address", "127.0.0.1:0", "--api-token-file", &token]);
    let mut reader = OperatorReader::of(&harness, &operator).await;
    let variable = "ECS_MESH_API_TOKEN_FILE";
    reader.environment.insert(variable.to_owned(), token.clone());
    wait_for_both(&reader, tasks).await;

    let manifests = harness.path("manifests");
    let of_plan = ["--operator-id", "harness", "--manifests", manifests.to_str().unwrap()];
    let of_denied = [&["explain", denied, "-o", "json"][..], &of_plan].concat();
    let live = reader.run(&of_denied).await.json();
    assert_eq!(live["source"], format!("live operator at {}", reader.url));
    assert_eq!(live["tasks"][0]["name"], **denied, "{live}");
    assert_eq!(live["tasks"][0]["state"], "rejected", "{live}");
    let beginning = &app[..12];
    let live = reader.run(&["explain", beginning, "-o", "json"]).await.json();
    assert_eq!(live["tasks"][0]["name"], **app, "{live}");
    // A service is explained task by task, and its own id and manifests are the operator's.
    let live = reader.run(&["explain", "app", "-o", "json"]).await.json();
    assert_eq!(live["tasks"][0]["name"], **app, "{live}");

    // A plan in place of the answer would hide the wrong token.
    reader.environment.insert(variable.to_owned(), wrong);
    let refused = reader.run(&of_denied).await;
    assert!(refused.code == Some(1) && refused.out.is_empty(), "{refused:?}");
    assert!(refused.err.contains("rejects the token") && refused.err.contains("--offline"), "{refused:?}");
    let offline = reader.run(&[&of_denied[..], &["--offline"]].concat()).await;
    assert_eq!(offline.json()["source"], "plan");

    reader.environment.insert(variable.to_owned(), token);
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    let planned = reader.run(&of_denied).await.json();
    assert_eq!(planned["source"], "plan");
    assert!(
        planned["tasks"][0]["task"].as_str().is_some_and(|arn| arn.ends_with(denied.as_str())),
        "{planned}"
    );
    assert_eq!(planned["tasks"][0]["changes"][0]["change"], "reject", "{planned}");
    let planned = reader.run(&[&["explain", beginning, "-o", "json"][..], &of_plan].concat()).await.json();
    assert!(planned["tasks"][0]["task"].as_str().is_some_and(|arn| arn.ends_with(app.as_str())), "{planned}");
    // Without the manifests there is no plan, and the error names the operator that did not answer.
    let neither = reader.run(&["explain", denied, "-o", "json"]).await;
    assert!(neither.code == Some(1) && neither.out.is_empty(), "{neither:?}");
    assert!(neither.err.contains(&reader.url) && neither.err.contains("--manifests"), "{neither:?}");
}
