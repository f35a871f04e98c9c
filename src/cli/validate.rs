//! `ecs-mesh-operator validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::output::print;
use ecs_mesh_api::manifests::{ManifestScope, ManifestFinding};
use ecs_mesh_manifests::{ValidationResult, ManifestSources};

/// What `validate` takes.
#[derive(clap::Args)]
pub(super) struct ValidateArgs {
    /// Manifest files or directories (*.yaml, *.yml, *.json), read together as `run` reads them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// The files are not all that there are: a name that none of them has is taken to be right.
    #[arg(long)]
    partial: bool,

    /// Exit with 2 if there are warnings and no errors.
    #[arg(long)]
    deny_warnings: bool,

    /// How to print what was found.
    #[arg(long, value_enum, default_value = "text")]
    output: ValidateOutput,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ValidateOutput {
    /// A line for each finding, and one with the counts.
    Text,
    /// One object.
    Json,
}

impl ValidateArgs {
    pub(super) fn run(self) -> Result<ExitCode, String> {
        let extent = if self.partial { ManifestScope::Partial } else { ManifestScope::Complete };
        let checked = ManifestSources::new(self.paths).check(extent);
        print(&match self.output {
            ValidateOutput::Text => in_text(&checked),
            ValidateOutput::Json => format!("{}\n", in_json(&checked)),
        })?;
        Ok(match (checked.errors.is_empty(), checked.warnings.is_empty() || !self.deny_warnings) {
            (false, _) => ExitCode::FAILURE,
            (true, false) => ExitCode::from(2),
            (true, true) => ExitCode::SUCCESS,
        })
    }
}

fn in_text(checked: &ValidationResult) -> String {
    let ValidationResult { errors, warnings, files, manifests } = checked;
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

fn findings(word: &str, style: Style, findings: &[ManifestFinding]) -> String {
    findings
        .iter()
        .fold(String::new(), |lines, finding| lines + &format!("{style}{word}{style:#}: {finding}\n"))
}

fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

fn in_json(checked: &ValidationResult) -> Value {
    let findings = |findings: &[ManifestFinding]| findings.iter().map(finding_in_json).collect::<Vec<_>>();
    json!({
        "files": checked.files,
        "manifests": checked.manifests,
        "errors": findings(&checked.errors),
        "warnings": findings(&checked.warnings),
    })
}

fn finding_in_json(finding: &ManifestFinding) -> Value {
    json!({
        "file": finding.file.display().to_string(),
        "line": finding.line,
        "document": finding.document,
        "subject": finding.subject.as_deref(),
        "path": finding.path,
        "message": finding.message,
    })
}
