//! `ecs-mesh-operator audit`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use super::doctor::load;
use super::output::print;
use ecs_mesh_audit::{SourcesAllowed, AuditRequest, AuditReport, examine, gather, sarif, render_text};
use ecs_mesh_manifests::ManifestSources;
use ecs_mesh_model::ClusterArn;

/// What `audit` takes.
#[derive(clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["task_definition", "manifests", "cluster"]))]
pub(super) struct AuditArgs {
    /// JSON files with task definitions, as `register-task-definition` takes or `describe-task-definition` prints them;
    /// alone they are judged without AWS and without Consul.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    task_definition: Vec<PathBuf>,

    /// Manifest files or directories: their Consul control planes are asked, and the tasks that they bind are looked at.
    #[arg(long, env = "ECS_MESH_MANIFESTS", value_name = "PATH", value_delimiter = ',', num_args = 1..)]
    manifests: Vec<PathBuf>,

    /// Clusters whose running tasks are looked at, whatever the manifests bind.
    #[arg(long, value_name = "ARN", value_parser = cluster, num_args = 1..)]
    cluster: Vec<ClusterArn>,

    /// AWS Region [default: that of the environment].
    #[arg(long)]
    region: Option<String>,

    /// Ask neither AWS nor Consul: judge files by themselves and by the manifests.
    #[arg(long, conflicts_with = "cluster")]
    offline: bool,

    /// What to print: `table` for people, `json` for one object, `sarif` for code scanning (SARIF 2.1.0).
    #[arg(long, value_enum, default_value = "table")]
    output: AuditOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AuditOutput {
    Table,
    Json,
    Sarif,
}

fn cluster(text: &str) -> Result<ClusterArn, String> {
    ClusterArn::parse(text).map_err(|error| error.to_string())
}

impl AuditArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let manifests = match self.manifests.as_slice() {
            [] => None,
            paths => Some(load(ManifestSources::new(paths.to_vec())).await?),
        };
        let question = AuditRequest {
            files: self.task_definition,
            manifests,
            clusters: self.cluster.into_iter().collect::<BTreeSet<_>>(),
            region: self.region,
            asking: if self.offline { SourcesAllowed::Offline } else { SourcesAllowed::All },
        };
        let report = examine(&gather(question).await);
        print(&render(&report, self.output)?)?;
        Ok(ExitCode::from(report.exit_code()))
    }
}

fn render(report: &AuditReport, output: AuditOutput) -> Result<String, String> {
    let pretty = |text: serde_json::Result<String>| {
        text.map(|text| text + "\n").map_err(|error| format!("it cannot be printed: {error}"))
    };
    match output {
        AuditOutput::Table => Ok(render_text(report)),
        AuditOutput::Json => pretty(serde_json::to_string_pretty(report)),
        AuditOutput::Sarif => {
            let root = std::env::current_dir().unwrap_or_default();
            pretty(serde_json::to_string_pretty(&sarif(report, &root)))
        }
    }
}
