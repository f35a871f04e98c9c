//! `ecs-mesh-operator doctor`.

use std::process::ExitCode;

use super::common::CommonArgs;
use super::doctor_text::{DoctorDetail, render_text};
use super::manifest_args::{aws_access, load, sources};
use super::output::{print, to_json};
use super::team_events::TeamEventArgs;
use super::terminal;
use ecs_mesh_doctor::{
    DoctorRequest, DoctorScope, EventPatterns, IamPolicy, PolicyPrincipal, QueueLocation, examine, gather,
    token_policy,
};
use ecs_mesh_lease::LeaseLocation;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::OperatorId;

/// The operator of printed documents that do not depend on one.
const NO_OPERATOR: &str = "none";

/// Arguments of `doctor`.
#[derive(clap::Args)]
// The printed policies and patterns do not depend on the operator id, but for the lease.
#[command(mut_arg("operator_id", |arg| {
    arg.required(false)
        .required_unless_present_any(["print_iam_policy", "print_event_patterns", "print_acl_policy"])
        .default_value_ifs([
            ("print_iam_policy", "true", NO_OPERATOR),
            ("print_event_patterns", "true", NO_OPERATOR),
            ("print_acl_policy", "true", NO_OPERATOR),
        ])
}))]
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
pub(super) struct DoctorArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// SQS queue of EventBridge events, also several
    #[arg(long, env = "ECS_MESH_QUEUE_URL", value_name = "URL", value_delimiter = ',')]
    queue_url: Vec<String>,

    /// Where the lease of the operator is kept: as for `run`
    #[arg(long, default_value = "none")]
    lease: LeaseLocation,

    #[command(flatten)]
    team_events: TeamEventArgs,

    /// Print the least-privilege IAM policy (offline)
    #[arg(long, conflicts_with_all = ["print_event_patterns", "output"])]
    print_iam_policy: bool,

    /// Principal of `--print-iam-policy`: the operator's task role, or the caller of `doctor`
    #[arg(long = "for", value_enum, default_value = "operator", requires = "print_iam_policy")]
    principal: PolicyPrincipal,

    /// IAM path of task roles, for `--print-iam-policy`; repeat the flag for several paths
    #[arg(long, default_value = "/", value_delimiter = ',', requires = "print_iam_policy", value_parser = role_path)]
    role_path: Vec<String>,

    /// Account of an AwsAccount whose role the policy of `--print-iam-policy` is for
    #[arg(long, requires = "print_iam_policy", value_name = "ID")]
    account: Option<String>,

    /// Include the permissions that tasks in network mode host need, for `--print-iam-policy`
    #[arg(long, requires = "print_iam_policy")]
    host_mode: bool,

    /// Print the EventBridge event patterns (offline)
    #[arg(long, conflicts_with = "output")]
    print_event_patterns: bool,

    /// Print the least-privilege Consul ACL policy in HCL (offline)
    #[arg(long, conflicts_with_all = ["print_iam_policy", "print_event_patterns", "output"])]
    print_acl_policy: bool,

    /// ControlPlane of `--print-acl-policy`; required if several are of type consul
    #[arg(long, requires = "print_acl_policy", value_name = "NAME")]
    control_plane: Option<String>,

    /// Output format: `text` or `json`
    #[arg(long, value_enum, default_value = "text")]
    output: DoctorOutput,

    /// Also list every check that passed, which the text summarises
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DoctorOutput {
    Text,
    Json,
}

/// Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>.
fn role_path(text: &str) -> Result<String, String> {
    let valid = text.starts_with('/')
        && text.ends_with('/')
        && text.len() <= 512
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'*' | b'?' | b'"'));
    if valid { Ok(text.to_owned()) } else { Err(format!("{text:?} is not an IAM path: use / or /NAME/")) }
}

impl DoctorArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let args = &self.common.manifests;
        let region = self.common.region.as_deref();
        if self.print_iam_policy || self.print_event_patterns || self.print_acl_policy {
            let given = args.offline_first();
            let aws = aws_access(&given, region).await;
            let manifests = load(sources(&given, args.manifests_content.as_deref(), &aws)).await?;
            return self.print_document(&manifests);
        }
        let manifests = load(args.sources(&aws_access(&args.manifests, region).await)).await?;
        let request = DoctorRequest {
            operator: self.common.operator_id.clone(),
            manifests,
            sources: self.common.manifests.remote(),
            queue_urls: self.queue_url.clone(),
            region: self.common.region.clone(),
            allowed: self.common.allow.list(),
            lease: self.lease.clone(),
            team_events_bus: self.team_events.team_events_bus.clone(),
        };
        let report = examine(&Box::pin(gather(request)).await);
        match self.output {
            DoctorOutput::Json => print(&to_json(&report)?)?,
            DoctorOutput::Text => {
                let detail = if self.all { DoctorDetail::All } else { DoctorDetail::Problems };
                print(&render_text(&report, detail, terminal::width()))?;
            }
        }
        Ok(ExitCode::from(report.exit_code()))
    }

    /// Whether the Consul of `--print-acl-policy` keeps the lease.
    fn keeps_lease(&self, manifests: &ManifestStatus) -> Result<bool, String> {
        let keeper = self.lease.control_plane(&manifests.set)?;
        let printed = self.control_plane.as_deref();
        Ok(keeper.is_some_and(|keeper| printed.is_none_or(|printed| *keeper == *printed)))
    }

    /// The operator whose lease a policy covers.
    fn lease_operator(&self) -> Result<&OperatorId, String> {
        if self.common.operator_id.as_str() == NO_OPERATOR {
            return Err("--lease in a policy needs --operator-id, which names the item or key".to_owned());
        }
        Ok(&self.common.operator_id)
    }

    /// Prints the requested policy or patterns. Invalid manifests are an error, since the document would be incomplete.
    fn print_document(&self, manifests: &ManifestStatus) -> Result<ExitCode, String> {
        if !manifests.errors.is_empty() {
            let errors: Vec<String> = manifests.errors.iter().map(|error| format!("\n  {error}")).collect();
            return Err(format!("the manifests are invalid:{}", errors.concat()));
        }
        if self.print_acl_policy {
            let keeps_lease = self.keeps_lease(manifests)?;
            let lease = if keeps_lease { Some(self.lease_operator()?) } else { None };
            print(&token_policy(&manifests.set, self.control_plane.as_deref(), lease)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let region = self.common.region.clone().or_else(region_of_environment);
        let scope =
            DoctorScope::new(&manifests.set, self.queue_url.first().map(String::as_str), region.as_deref())?;
        let lease = match &self.lease {
            LeaseLocation::DynamoDb(table) => Some((table.clone(), self.lease_operator()?.clone())),
            LeaseLocation::None | LeaseLocation::Consul(_) => None,
        };
        let manifest_sources = self.common.manifests.remote();
        let team_events_bus = self.team_events.team_events_bus.clone();
        let more_queues = self.queue_url.iter().skip(1).map(|url| QueueLocation::parse(url));
        let more_queues = more_queues.collect::<Result<_, _>>()?;
        let scope = DoctorScope {
            reads_hosts: self.host_mode,
            lease,
            manifest_sources,
            team_events_bus,
            more_queues,
            ..scope
        };
        let scope = match &self.account {
            Some(account) => scope.of_member(&manifests.set, account)?,
            None => scope,
        };
        print(&if self.print_iam_policy {
            let paths: Vec<&str> = self.role_path.iter().map(String::as_str).collect();
            to_json(&IamPolicy::new(&scope, self.principal, &paths)?)?
        } else {
            to_json(&EventPatterns::new(&scope))?
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The Region of the environment variables. Printing does not load the AWS configuration.
fn region_of_environment() -> Option<String> {
    ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|region| !region.is_empty()))
}
