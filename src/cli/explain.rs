//! `ecs-mesh-operator explain`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use clap::builder::Resettable;
use serde_json::Value;

use super::api_client_args::{ApiClientArgs, notice};
use super::common::{CommonArgs, RateArgs};
use super::duration;
use super::output::{print, to_json};
use super::plan::plan;
use crate::operator::{PlanOptions, PlanSelection, TaskExplanation};
use ecs_mesh_client::get::{GetError, find_task, is_beginning_of_id};
use ecs_mesh_client::http::ApiClient;
use ecs_mesh_client::output::{document, explanation};
use ecs_mesh_client::resource::ResourceKind;
use ecs_mesh_client::{ApiError, Pages};
use ecs_mesh_core::plan::report::{PlanReport, TaskVerdict};
use ecs_mesh_model::{Glob, RoleArn, TaskArn};

/// Most tasks of a service that are explained by a running operator.
const MAX_TASKS: usize = 50;

/// The operator id where none is given.
const NO_OPERATOR: &str = "unset";

/// Arguments of `explain`.
#[derive(clap::Args)]
// A running operator has its own id and manifests: a plan alone needs them.
#[command(mut_arg("operator_id", |arg| arg.required(false).default_value(NO_OPERATOR).hide_default_value(true)))]
#[command(mut_arg("manifests", |arg| arg.required_unless_present(Resettable::<clap::Id>::Reset)))]
pub(super) struct ExplainArgs {
    /// Task (id, beginning of an id, or ARN) or service (name in ECS or in the mesh) to explain
    #[arg(value_name = "TARGET")]
    target: String,

    /// Make a plan, even if a running operator could answer
    #[arg(long)]
    offline: bool,

    #[command(flatten)]
    api: ApiClientArgs,

    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    rates: RateArgs,

    /// Output format: `text` or `json`
    #[arg(short, long, value_enum, default_value = "text")]
    output: ExplainOutput,

    /// Overall time limit of the plan
    #[arg(long, default_value = "5m", value_parser = duration)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ExplainOutput {
    Text,
    Json,
}

impl ExplainArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        if self.offline {
            return Box::pin(self.explain_by_plan(None)).await;
        }
        // Only where no operator answers at all, a plan takes its place: another failure would hide a difference.
        match self.explain_live().await {
            Err(GetError::Api(error)) if error.is_refused() => {
                Box::pin(self.explain_by_plan(Some(&error))).await
            }
            Err(error) => Err(format!("{error}; help: --offline makes a plan instead")),
            Ok(code) => Ok(code),
        }
    }

    /// Explains by what the running operator knows.
    async fn explain_live(&self) -> Result<ExitCode, GetError> {
        let client = self.api.clone().client()?;
        let selection = selection(&self.target);
        let (mut tasks, omitted) = match selection.tasks.first() {
            Some(task) => (find_task(&client, task.as_str()).await?.into_iter().collect(), 0),
            None => tasks_of_services(&client, &selection.services).await?,
        };
        if tasks.is_empty()
            && let Some(beginning) = beginning_of_id(&self.target)
        {
            tasks.extend(find_task(&client, beginning).await?);
        }
        if tasks.is_empty() {
            return Err(GetError::Missing { kind: ResourceKind::Tasks, names: vec![self.target.clone()] });
        }
        let source = format!("live operator at {}", client.address());
        let text = match self.output {
            ExplainOutput::Json => {
                document::to_json(&serde_json::json!({"source": source, "tasks": tasks, "unresolved": []}))
            }
            ExplainOutput::Text => {
                let tasks: String = tasks.iter().map(explanation::render_task).collect();
                format!("source: {source}\n\n{tasks}")
            }
        };
        print(&text).map_err(|error| GetError::Output(std::io::Error::other(error)))?;
        if omitted > 0 {
            notice(&format!("{omitted} more tasks; help: name one of `get tasks --query {}`", self.target));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Explains by a plan of these tasks, since no operator answers, unless that was not tried.
    async fn explain_by_plan(self, unreachable: Option<&ApiError>) -> Result<ExitCode, String> {
        self.check_plan_arguments(unreachable)?;
        let (mut report, mut tasks) = Box::pin(self.plan_of(selection(&self.target))).await?;
        if tasks.is_empty()
            && report.unresolved.is_empty()
            && let Some(beginning) = beginning_of_id(&self.target)
        {
            let begins_so = vec![Glob::new(format!("{beginning}*"))];
            let selection = PlanSelection { tasks: begins_so, ..PlanSelection::default() };
            (report, tasks) = Box::pin(self.plan_of(selection)).await?;
        }
        let missing: Vec<String> =
            report.unresolved.iter().map(|input| format!("{}: {}", input.subject, input.error)).collect();
        if tasks.is_empty() && missing.is_empty() {
            return Err(format!(
                "no task or service {:?} in the clusters that the manifests select; help: give a task's id or ARN, or a \
                 service's name in ECS or in the mesh",
                self.target
            ));
        }
        print(&match self.output {
            ExplainOutput::Json => {
                to_json(&serde_json::json!({"source": "plan", "tasks": tasks, "unresolved": missing}))?
            }
            ExplainOutput::Text => format!("source: plan\n\n{}", render_text(&tasks, &missing)),
        })?;
        Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Plans these tasks, and explains each.
    async fn plan_of(&self, selection: PlanSelection) -> Result<(PlanReport, Vec<TaskExplanation>), String> {
        let options =
            PlanOptions { timeout: self.timeout, selection: selection.clone(), ..PlanOptions::default() };
        let (report, operator) = Box::pin(plan(&self.common, &self.rates, options, None)).await?;
        let tasks = operator.explain(&selection, &report);
        Ok((report, tasks))
    }

    fn check_plan_arguments(&self, unreachable: Option<&ApiError>) -> Result<(), String> {
        let manifests = &self.common.manifests;
        let has_manifests = !manifests.manifests.is_empty() || manifests.manifests_content.is_some();
        if has_manifests && self.common.operator_id.as_str() != NO_OPERATOR {
            return Ok(());
        }
        let before = unreachable.map(|error| format!("{error}; ")).unwrap_or_default();
        Err(format!("{before}a plan instead needs --operator-id and --manifests"))
    }
}

/// The tasks of the services, at most [`MAX_TASKS`], and how many more there are.
async fn tasks_of_services(client: &ApiClient, services: &[Glob]) -> Result<(Vec<Value>, usize), GetError> {
    let mut query = vec![("all".to_owned(), "true".to_owned())];
    if let [service] = services
        && service.is_literal()
    {
        query.push(("q".to_owned(), service.as_str().to_owned()));
    }
    let mut pages = Pages::new(client, ResourceKind::Tasks, &query);
    let mut ids = Vec::new();
    while let Some(page) = pages.next_page().await? {
        let is_of_service = |task: &&Value| services.iter().any(|service| is_task_of(task, service));
        ids.extend(
            page.items
                .iter()
                .filter(is_of_service)
                .filter_map(|task| task["name"].as_str().map(str::to_owned)),
        );
    }
    let omitted = ids.len().saturating_sub(MAX_TASKS);
    let mut tasks = Vec::new();
    for id in ids.iter().take(MAX_TASKS) {
        tasks.extend(find_task(client, id).await?);
    }
    Ok((tasks, omitted))
}

/// Whether a task belongs to a service, by its name in ECS or in the mesh, or is of the Workload of that name.
fn is_task_of(task: &Value, service: &Glob) -> bool {
    let of_mesh = task["registrations"].as_array().into_iter().flatten().map(|one| &one["service"]);
    let workloads = task["workloads"].as_array().into_iter().flatten();
    let names =
        of_mesh.chain(workloads).chain([&task["service"], &task["ecsService"]]).filter_map(Value::as_str);
    names
        .into_iter()
        .any(|name| service.matches(name) || name.rsplit('/').next().is_some_and(|end| service.matches(end)))
}

/// An ARN or the id of a task, or else a service.
fn selection(target: &str) -> PlanSelection {
    let is_id = target.len() >= 32 && target.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_id || TaskArn::parse(target).is_ok() {
        return PlanSelection { tasks: vec![Glob::new(target)], ..PlanSelection::default() };
    }
    // An ARN of a service ends in its name.
    let name = target.rsplit('/').next().unwrap_or(target);
    PlanSelection { services: vec![Glob::new(name)], ..PlanSelection::default() }
}

/// The target, if it may be the beginning of a task's id. A service of such a name goes first.
fn beginning_of_id(target: &str) -> Option<&str> {
    // The mark of a truncated cell, which is copied with it.
    Some(target.trim_end_matches('…')).filter(|text| is_beginning_of_id(text))
}

fn render_text(tasks: &[TaskExplanation], missing: &[String]) -> String {
    let mut text = String::new();
    for task in tasks {
        render_task(&mut text, task);
    }
    for input in missing {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "unknown: {input}");
    }
    text
}

fn render_task(text: &mut String, explained: &TaskExplanation) {
    let TaskExplanation { task, ecs, workloads, registrations, changes, warnings } = explained;
    let bold = Style::new().bold();
    let _ = writeln!(text, "{bold}task {}/{}{bold:#}", task.cluster().name(), task.id());
    match ecs {
        None => text.push_str("  ecs: does not show the task\n"),
        Some(state) => {
            let _ = writeln!(
                text,
                "  ecs: {}, desired {}, version {}",
                state.last_status, state.desired_status, state.version
            );
            let list = |addresses: &[String]| Some(addresses.join(", ")).filter(|text| !text.is_empty());
            let addresses = list(&state.addresses);
            let instance_addresses = list(&state.container_instance_addresses);
            let fields = [
                ("service", state.service.as_deref()),
                ("task definition", Some(state.definition.as_str())),
                ("role", state.role.as_ref().map(RoleArn::as_str)),
                ("address", addresses.as_deref()),
                ("container instance", state.container_instance.as_deref()),
                ("container instance's address", instance_addresses.as_deref()),
                ("launch type", state.is_external.then_some("EXTERNAL")),
                ("created", state.created_at.as_deref()),
            ];
            for (name, value) in fields {
                let _ = value.map(|value| writeln!(text, "    {name}: {value}"));
            }
        }
    }
    let names: Vec<&str> = workloads.iter().map(AsRef::as_ref).collect();
    let _ =
        writeln!(text, "  workload: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") });
    if registrations.is_empty() {
        text.push_str("  registration: none\n");
    }
    for known in registrations {
        let service =
            known.service.as_deref().map(|service| format!(", service {service}")).unwrap_or_default();
        let drained = known.drained.map(|reason| format!(", drained ({reason})")).unwrap_or_default();
        let _ = writeln!(text, "  registration: {} at {}{service}{drained}", known.name, known.control_plane);
    }
    let verdicts = TaskVerdict::by_control_plane(changes, warnings);
    for verdict in &verdicts {
        let _ = writeln!(text, "  verdict at control plane {}:", verdict.control_plane);
        for line in verdict.render().lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if verdicts.is_empty() {
        text.push_str("  verdict: nothing is due\n");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_belongs_to_each_name_of_its_service() {
        let task = serde_json::json!({
            "service": "kv_demo_svc_80", "ecsService": "demo/kv-service", "workloads": ["kv"],
            "registrations": [{"service": "kv-zone"}],
        });
        for (name, expected) in [
            ("kv_demo_svc_80", true),
            ("kv-service", true),
            ("kv", true),
            ("kv-zone", true),
            ("kv*", true),
            ("web", false),
        ] {
            assert_eq!(is_task_of(&task, &Glob::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn target_is_a_task_or_a_service() {
        let id = "0123456789abcdef0123456789abcdef";
        let arn = format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{id}");
        for target in [id, &arn] {
            let found = selection(target);
            assert!(found.services.is_empty() && found.tasks[0].as_str() == target, "{found:?}");
        }
        for target in ["kv", "arn:aws:ecs:eu-west-1:111122223333:service/demo/kv"] {
            let found = selection(target);
            assert!(found.tasks.is_empty() && found.services[0].as_str() == "kv", "{found:?}");
        }
    }
}
