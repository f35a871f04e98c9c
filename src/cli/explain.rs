//! `ecs-mesh-operator explain`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;

use super::common::{CommonArgs, RateArgs};
use super::duration;
use super::output::{print, to_json};
use super::plan::plan;
use crate::operator::{PlanOptions, PlanSelection, TaskExplanation};
use ecs_mesh_core::plan::report::render_change;
use ecs_mesh_model::{Glob, RoleArn, TaskArn};

/// Arguments of `explain`.
#[derive(clap::Args)]
pub(super) struct ExplainArgs {
    /// Task (id or ARN) or service (name in ECS or in the mesh) to explain
    #[arg(value_name = "TARGET")]
    target: String,

    #[command(flatten)]
    common: CommonArgs,

    #[command(flatten)]
    rates: RateArgs,

    /// Output format: `text` or `json`
    #[arg(long, value_enum, default_value = "text")]
    output: ExplainOutput,

    /// Overall time limit
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
        let selection = selection(&self.target);
        let options =
            PlanOptions { timeout: self.timeout, selection: selection.clone(), ..PlanOptions::default() };
        let (report, operator) = Box::pin(plan(&self.common, &self.rates, options, None)).await?;
        let tasks = operator.explain(&selection, &report.changes);
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
            ExplainOutput::Json => to_json(&serde_json::json!({"tasks": tasks, "unresolved": missing}))?,
            ExplainOutput::Text => render_text(&tasks, &missing),
        })?;
        Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
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
    let TaskExplanation { task, ecs, workloads, registrations, changes } = explained;
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
    for change in changes {
        let _ = writeln!(text, "  verdict at control plane {}:", change.control_plane);
        for line in render_change(change).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if changes.is_empty() {
        text.push_str("  verdict: nothing is due\n");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

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
