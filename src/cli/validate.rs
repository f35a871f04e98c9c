//! `ecs-mesh-operator validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::allow::AllowArgs;
use super::manifest_args::{aws_access, sources};
use super::output::print;
use super::terminal::count;
use ecs_mesh_api::manifests::{ManifestFinding, ManifestScope};
use ecs_mesh_manifests::{ManifestSource, ManifestText, ValidationResult};

/// The path that means standard input; a file of this name is `./-`.
const STDIN: &str = "-";

/// Arguments of `validate`.
#[derive(clap::Args)]
pub(super) struct ValidateArgs {
    /// Manifest files or directories (*.yaml, *.yml, *.json), s3://BUCKET/PREFIX/ or ssm:/PATH/; `-` reads standard input
    #[arg(required_unless_present = "manifests_content", value_name = "SOURCE")]
    sources: Vec<ManifestSource>,

    /// Manifests as YAML text, beside the sources
    #[arg(long, env = "ECS_MESH_MANIFESTS_CONTENT", hide_env_values = true, value_name = "YAML")]
    manifests_content: Option<String>,

    /// AWS Region of S3 and SSM sources [default: from the environment]
    #[arg(long)]
    region: Option<String>,

    /// Accept references to manifests outside the given files
    #[arg(long)]
    partial: bool,

    /// Exit with 2 on warnings
    #[arg(long)]
    deny_warnings: bool,

    #[command(flatten)]
    allow: AllowArgs,

    /// Output format: `text` or `json`
    #[arg(long, value_enum, default_value = "text")]
    output: ValidateOutput,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ValidateOutput {
    Text,
    Json,
}

impl ValidateArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let scope = if self.partial { ManifestScope::Partial } else { ManifestScope::Complete };
        let (stdin, given): (Vec<_>, Vec<_>) = self
            .sources
            .into_iter()
            .partition(|source| *source == ManifestSource::Path(PathBuf::from(STDIN)));
        let aws = aws_access(&given, self.region.as_deref()).await;
        let mut sources = sources(&given, self.manifests_content.as_deref(), &aws);
        if !stdin.is_empty() {
            sources = sources.with_text(ManifestText::read("<stdin>", std::io::stdin().lock()));
        }
        sources.read_remote().await;
        let result = sources.check(scope, &self.allow.list());
        print(&match self.output {
            ValidateOutput::Text => render_text(&result),
            ValidateOutput::Json => format!("{}\n", render_json(&result)),
        })?;
        Ok(match (result.errors.is_empty(), result.warnings.is_empty() || !self.deny_warnings) {
            (false, _) => ExitCode::FAILURE,
            (true, false) => ExitCode::from(2),
            (true, true) => ExitCode::SUCCESS,
        })
    }
}

fn render_text(result: &ValidationResult) -> String {
    let ValidationResult { errors, warnings, files, manifests } = result;
    let (red, yellow) = (AnsiColor::Red.on_default().bold(), AnsiColor::Yellow.on_default().bold());
    let mut lines = findings("error", red, errors);
    lines += &findings("warning", yellow, warnings);
    let counts = [
        count(*manifests, "manifest"),
        count(*files, "file"),
        count(errors.len(), "error"),
        count(warnings.len(), "warning"),
    ];
    let [manifests, files, errors, warnings] = counts;
    lines + &format!("{manifests} in {files}: {errors}, {warnings}\n")
}

fn findings(label: &str, style: Style, findings: &[ManifestFinding]) -> String {
    findings
        .iter()
        .fold(String::new(), |lines, finding| lines + &format!("{style}{label}{style:#}: {finding}\n"))
}

fn render_json(result: &ValidationResult) -> Value {
    let findings = |findings: &[ManifestFinding]| findings.iter().map(finding_json).collect::<Vec<_>>();
    json!({
        "files": result.files,
        "manifests": result.manifests,
        "errors": findings(&result.errors),
        "warnings": findings(&result.warnings),
    })
}

fn finding_json(finding: &ManifestFinding) -> Value {
    json!({
        "file": finding.file.display().to_string(),
        "line": finding.line,
        "document": finding.document,
        "subject": finding.subject.as_deref(),
        "path": finding.path,
        "message": finding.message,
    })
}
