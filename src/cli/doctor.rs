//! `ecs-mesh-operator doctor`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use super::output::print;
use super::common::CommonArgs;
use ecs_mesh_doctor::{
    EventPatterns, DoctorScope, IamPolicy, DoctorRequest, PolicyPrincipal, DoctorReport, CheckStatus, examine, gather, token_policy,
};
use ecs_mesh_manifests::{ManifestSources, ManifestStatus as Manifests};

/// What `doctor` takes.
#[derive(clap::Args)]
// No print says whose registrations are whose.
#[command(mut_arg("operator_id", |arg| {
    arg.required(false)
        .required_unless_present_any(["print_policy", "print_rules", "print_token_policy"])
        .default_value_ifs([
            ("print_policy", "true", "none"),
            ("print_rules", "true", "none"),
            ("print_token_policy", "true", "none"),
        ])
}))]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    setup: CommonArgs,

    /// SQS queue with the EventBridge events.
    #[arg(long, env = "ECS_MESH_QUEUE_URL")]
    queue_url: Option<String>,

    /// Print the least IAM policy for these manifests and this queue, and ask nobody.
    #[arg(long, conflicts_with_all = ["print_rules", "output"])]
    print_iam_policy: bool,

    /// For whom `--print-policy` prints: the operator's task role, or whoever runs the doctor.
    #[arg(long = "for", value_enum, default_value = "operator", requires = "print_policy")]
    reader: PolicyPrincipal,

    /// IAM path below which the tasks' roles lie, for `--print-policy`.
    #[arg(long, default_value = "/", requires = "print_policy", value_parser = role_path)]
    role_path: String,

    /// Print the event patterns that the rules need, and ask nobody.
    #[arg(long, conflicts_with = "output")]
    print_event_patterns: bool,

    /// Print the least ACL policy, in HCL, for the operator's own token at a Consul control plane, and ask nobody.
    #[arg(long, conflicts_with_all = ["print_policy", "print_rules", "output"])]
    print_acl_policy: bool,

    /// Which control plane `--print-token-policy` prints for; needed where several are of type consul.
    #[arg(long, requires = "print_token_policy", value_name = "NAME")]
    control_plane: Option<String>,

    /// What to print: `text` for people, `json` for one object.
    #[arg(long, value_enum, default_value = "text")]
    output: DoctorOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DoctorOutput {
    Text,
    Json,
}

/// Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>.
fn role_path(text: &str) -> Result<String, String> {
    let fits = text.starts_with('/')
        && text.ends_with('/')
        && text.len() <= 512
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'?' | b'"'));
    if fits { Ok(text.to_owned()) } else { Err(format!("{text:?} is no IAM path: write / or /NAME/")) }
}

impl DoctorArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let manifests = load(ManifestSources::new(self.setup.manifests.clone())).await?;
        if self.print_iam_policy || self.print_event_patterns || self.print_acl_policy {
            return self.print_for(&manifests);
        }
        let question = DoctorRequest {
            operator: self.setup.operator_id.clone(),
            manifests,
            queue_url: self.queue_url.clone(),
            region: self.setup.region.clone(),
        };
        let report = examine(&gather(question).await);
        match self.output {
            DoctorOutput::Json => print(&json(&report)?)?,
            DoctorOutput::Text => print(&render_text(&report))?,
        }
        Ok(ExitCode::from(report.exit_code()))
    }

    /// What would be printed for half of the manifests would be half of what is needed.
    fn print_for(&self, manifests: &Manifests) -> Result<ExitCode, String> {
        if !manifests.errors.is_empty() {
            let errors: Vec<String> = manifests.errors.iter().map(|error| format!("\n  {error}")).collect();
            return Err(format!("the manifests have errors:{}", errors.concat()));
        }
        if self.print_acl_policy {
            print(&token_policy(&manifests.set, self.control_plane.as_deref())?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let region = self.setup.region.clone().or_else(region_of_environment);
        let place = DoctorScope::new(&manifests.set, self.queue_url.as_deref(), region.as_deref())?;
        print(&if self.print_iam_policy {
            json(&IamPolicy::new(&place, self.reader, &self.role_path)?)?
        } else {
            json(&EventPatterns::new(&place))?
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The variables alone: who only prints has no AWS to ask.
fn region_of_environment() -> Option<String> {
    ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|region| !region.is_empty()))
}

pub(super) async fn load(sources: ManifestSources) -> Result<Manifests, String> {
    let loaded = tokio::task::spawn_blocking(move || sources.load(None).into_loaded()).await;
    let loaded = loaded.map_err(|error| format!("reading the manifests broke off: {error}"))?;
    // Without an earlier load there is always one.
    loaded.as_ref().map(Manifests::from).ok_or_else(|| "the manifests were not read".to_owned())
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| format!("it cannot be printed: {error}"))?;
    Ok(text + "\n")
}

fn render_text(report: &DoctorReport) -> String {
    let widest = report.checks.iter().map(|check| check.id.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let style = style(check.status);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "{style}{:<7}{style:#}  {:<widest$}  {}: {}",
            check.status.as_str(),
            check.id,
            check.subject,
            check.message
        );
        if check.status > CheckStatus::Info {
            let _ = writeln!(text, "         needed: {}", check.expected);
        }
        if let Some(mend) = &check.fix {
            let _ = writeln!(text, "         mend:   {mend}");
        }
    }
    let summary = report.summary;
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let _ = writeln!(
        text,
        "\n{}, {}, {} unknown, {} info, {} ok; docs/reference/doctor.md explains each check",
        plural(summary.error, "error"),
        plural(summary.warning, "warning"),
        summary.unknown,
        summary.info,
        summary.ok
    );
    text
}

fn style(status: CheckStatus) -> Style {
    let colour = match status {
        CheckStatus::Ok => AnsiColor::Green,
        CheckStatus::Info => AnsiColor::Cyan,
        CheckStatus::Unknown => AnsiColor::Magenta,
        CheckStatus::Warning => AnsiColor::Yellow,
        CheckStatus::Error => AnsiColor::Red,
    };
    colour.on_default().bold()
}
