//! `ecs-mesh-operator audit`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use super::allow::AllowArgs;
use super::audit_text::render_text;
use super::manifest_args::{aws_access, load, sources};
use super::output::{print, to_json};
use super::plan::target_version;
use super::terminal;
use ecs_mesh_api::{ControlPlaneType, KumaRelease};
use ecs_mesh_audit::{AuditReport, AuditRequest, SourcesAllowed, examine, gather, sarif};
use ecs_mesh_manifests::{ManifestSource, ManifestStatus};
use ecs_mesh_model::ClusterArn;

/// Arguments of `audit`.
#[derive(clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("sources").required(true).multiple(true).args(["task_definition", "manifests", "manifests_content", "cluster"]))]
pub(super) struct AuditArgs {
    /// Task definition files (JSON of register- or describe-task-definition), checked offline unless other sources are given
    #[arg(long, value_name = "FILE", num_args = 1..)]
    task_definition: Vec<PathBuf>,

    /// Manifests: files, directories, s3://BUCKET/PREFIX/ or ssm:/PATH/; audits their control planes and bound tasks
    #[arg(long, env = "ECS_MESH_MANIFESTS", value_name = "SOURCE", value_delimiter = ',', num_args = 1..)]
    manifests: Vec<ManifestSource>,

    /// Manifests as YAML text, beside those of `--manifests`
    #[arg(long, env = "ECS_MESH_MANIFESTS_CONTENT", hide_env_values = true, value_name = "YAML")]
    manifests_content: Option<String>,

    /// Clusters whose running tasks are audited, bound or not
    #[arg(long, value_name = "ARN", value_parser = cluster, num_args = 1..)]
    cluster: Vec<ClusterArn>,

    /// AWS Region [default: from the environment]
    #[arg(long)]
    region: Option<String>,

    #[command(flatten)]
    allow: AllowArgs,

    /// Also show what blocks an upgrade of Kuma to this version, such as `3.0`
    #[arg(long, value_name = "VERSION", value_parser = target_version, requires = "manifests", conflicts_with = "offline")]
    target_version: Option<KumaRelease>,

    /// Check files only; do not call AWS or a control plane
    #[arg(long, conflicts_with = "cluster")]
    offline: bool,

    /// Output format: `text` (a table), `json` or `sarif` (SARIF 2.1.0)
    #[arg(long, value_enum, default_value = "text")]
    output: AuditOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AuditOutput {
    #[value(alias = "table")]
    Text,
    Json,
    Sarif,
}

fn cluster(text: &str) -> Result<ClusterArn, String> {
    ClusterArn::parse(text).map_err(|error| error.to_string())
}

impl AuditArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let manifests = self.load_manifests().await?;
        if self.target_version.is_some() && !manifests.as_ref().is_some_and(has_kuma) {
            return Err("--target-version: no ControlPlane is of type kuma".to_owned());
        }
        let request = AuditRequest {
            files: self.task_definition,
            manifests,
            clusters: self.cluster.into_iter().collect::<BTreeSet<_>>(),
            region: self.region,
            allowed: self.allow.list(),
            target: self.target_version,
            sources: if self.offline { SourcesAllowed::Offline } else { SourcesAllowed::All },
        };
        let report = examine(&Box::pin(gather(request)).await);
        print(&render(&report, self.output)?)?;
        Ok(ExitCode::from(report.exit_code()))
    }
}

impl AuditArgs {
    async fn load_manifests(&self) -> Result<Option<ManifestStatus>, String> {
        let (given, content) = (self.manifests.as_slice(), self.manifests_content.as_deref());
        if given.is_empty() && content.is_none() {
            return Ok(None);
        }
        if let Some(source) = given.iter().find(|source| self.offline && source.is_remote()) {
            return Err(format!("--offline: {source} is read from AWS; help: give files"));
        }
        let aws = aws_access(given, self.region.as_deref()).await;
        load(sources(given, content, &aws)).await.map(Some)
    }
}

fn has_kuma(manifests: &ManifestStatus) -> bool {
    manifests.set.control_planes.values().any(|spec| spec.kind == ControlPlaneType::Kuma)
}

fn render(report: &AuditReport, output: AuditOutput) -> Result<String, String> {
    match output {
        AuditOutput::Text => Ok(render_text(report, terminal::width())),
        AuditOutput::Json => to_json(report),
        AuditOutput::Sarif => {
            let root = std::env::current_dir().unwrap_or_default();
            to_json(&sarif(report, &root))
        }
    }
}
