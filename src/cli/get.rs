//! `ecs-mesh-operator get`.

use std::process::ExitCode;

use super::api_client_args::{ApiClientArgs, OutputArgs, notice};
use ecs_mesh_client::change_selector::ChangeSelector;
use ecs_mesh_client::field::FieldPath;
use ecs_mesh_client::get::{GetError, GetRequest, get};
use ecs_mesh_client::resource::ResourceKind;
use ecs_mesh_client::time_bound::parse_time;
use ecs_mesh_client::watch::watch;
use ecs_mesh_clock::Clock;
use ecs_mesh_model::{Glob, Timestamp};

/// Arguments of `get`.
#[derive(clap::Args)]
pub(super) struct GetArgs {
    /// Kind of objects (tasks, services, bindings, identities, outbounds, warnings or changes, or a short name), or KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,

    /// Names of objects: all without any
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    filters: FilterArgs,

    /// Order by a field, such as `.registrations.ready`
    #[arg(long, value_name = "FIELD")]
    sort_by: Option<FieldPath>,

    /// After the list, print each object that changes until interrupted
    #[arg(short, long)]
    watch: bool,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    api: ApiClientArgs,
}

/// Filters; each kind of objects has some of them.
#[derive(clap::Args, Default)]
struct FilterArgs {
    /// State: of tasks, services, identities or outbounds; several are separated by commas
    #[arg(long)]
    state: Option<String>,

    /// Service in the mesh: of tasks or identities; of changes also the service in ECS, or Workload
    #[arg(long)]
    service: Option<String>,

    /// Workload of tasks
    #[arg(long)]
    workload: Option<String>,

    /// MeshBinding of tasks or changes
    #[arg(long)]
    binding: Option<String>,

    /// Name or ARN of the ECS cluster of tasks
    #[arg(long)]
    cluster: Option<String>,

    /// AWS account of tasks
    #[arg(long)]
    account: Option<String>,

    /// Service in ECS of tasks
    #[arg(long)]
    ecs_service: Option<String>,

    /// ControlPlane of tasks, services, bindings, identities or warnings
    #[arg(long)]
    control_plane: Option<String>,

    /// Mesh of services
    #[arg(long)]
    mesh: Option<String>,

    /// Task (id or ARN) of identities or changes
    #[arg(long)]
    task: Option<String>,

    /// Role (ARN or name) of identities
    #[arg(long)]
    role: Option<String>,

    /// Calling Workload of outbounds
    #[arg(long)]
    from: Option<String>,

    /// Called service of outbounds
    #[arg(long)]
    to: Option<String>,

    /// Reason of an active warning of tasks
    #[arg(long)]
    warning: Option<String>,

    /// Reason of warnings
    #[arg(long)]
    reason: Option<String>,

    /// Changes since a time, or since a duration ago
    #[arg(long, value_parser = time)]
    since: Option<Timestamp>,

    /// Changes before a time, or before a duration ago
    #[arg(long, value_parser = time)]
    until: Option<Timestamp>,

    /// Kind of change or of changed object
    #[arg(long = "kind")]
    change_kind: Option<String>,

    /// Text in names, services or roles, in any case of letters
    #[arg(short, long = "query", value_name = "TEXT")]
    q: Option<String>,

    /// Also tasks that no binding or workload selects
    #[arg(short = 'A', long)]
    all: bool,
}

/// Parses an end of a span of time.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    parse_time(text, Clock::system().wall())
}

impl GetArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let (kind, names) = objects(&self.kind, self.names)?;
        let request = GetRequest {
            kind,
            names,
            query: self.filters.query(kind)?,
            selector: self.filters.selector(),
            sort_by: self.sort_by,
        };
        show(self.api, &request, &self.output, self.watch).await
    }
}

/// Prints what is asked for.
pub(super) async fn show(
    api: ApiClientArgs,
    request: &GetRequest,
    output: &OutputArgs,
    is_watch: bool,
) -> Result<ExitCode, String> {
    if is_watch && request.sort_by.is_some() {
        return Err("--watch prints objects as they change: it cannot be combined with --sort-by".to_owned());
    }
    let client = api.client().map_err(|error| error.to_string())?;
    let mut printer = output.printer(request.kind);
    let result = if is_watch {
        watch(&client, request, &mut printer, &mut notice).await.map(|()| None)
    } else {
        get(&client, request, &mut printer).await.map(Some)
    };
    finish(result, output)
}

/// The end of a command that prints objects.
fn finish(result: Result<Option<usize>, GetError>, output: &OutputArgs) -> Result<ExitCode, String> {
    match result {
        Err(error) if error.is_closed_output() => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.to_string()),
        Ok(count) => {
            if count == Some(0) && output.is_silent_when_empty() {
                notice("No resources found.");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The kind and names of `KIND NAME…` or `KIND/NAME KIND/NAME…`.
pub(super) fn objects(first: &str, rest: Vec<String>) -> Result<(ResourceKind, Vec<String>), String> {
    let Some((kind, name)) = first.split_once('/') else {
        return Ok((ResourceKind::parse(first)?, rest));
    };
    let kind = ResourceKind::parse(kind)?;
    let mut names = vec![name.to_owned()];
    for other in rest {
        let found = other.split_once('/').map(|(other, name)| (ResourceKind::parse(other), name.to_owned()));
        match found {
            Some((Ok(other), name)) if other == kind => names.push(name),
            _ => {
                return Err(format!(
                    "{other:?} is no {}/NAME: objects of one command are of one kind",
                    kind.singular()
                ));
            }
        }
    }
    Ok((kind, names))
}

impl FilterArgs {
    /// The parameters of the list.
    fn query(&self, kind: ResourceKind) -> Result<Vec<(String, String)>, String> {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let all = [
            ("state", "state", self.state.clone()),
            ("service", "service", self.service.clone()),
            ("workload", "workload", self.workload.clone()),
            ("binding", "binding", self.binding.clone()),
            ("cluster", "cluster", self.cluster.clone()),
            ("account", "account", self.account.clone()),
            ("ecs-service", "ecsService", self.ecs_service.clone()),
            ("control-plane", "controlPlane", self.control_plane.clone()),
            ("mesh", "mesh", self.mesh.clone()),
            ("task", "task", self.task.clone()),
            ("role", "role", self.role.clone()),
            ("from", "from", self.from.clone()),
            ("to", "to", self.to.clone()),
            ("warning", "warning", self.warning.clone()),
            ("reason", "reason", self.reason.clone()),
            ("since", "since", time(self.since)),
            ("until", "until", time(self.until)),
            ("kind", "kind", self.change_kind.clone()),
            ("query", "q", self.q.clone()),
            ("all", "all", self.all.then(|| "true".to_owned())),
        ];
        let allowed = kind.filters();
        let mut query = Vec::new();
        for (flag, parameter, value) in all {
            let Some(value) = value else { continue };
            if !allowed.contains(&parameter) {
                return Err(format!("--{flag} is no filter of {}", kind.plural()));
            }
            query.push((parameter.to_owned(), value));
        }
        Ok(query)
    }

    /// The same filters for changes of the stream.
    fn selector(&self) -> ChangeSelector {
        ChangeSelector {
            since: self.since,
            until: self.until,
            services: self.service.iter().map(Glob::new).collect(),
            tasks: self.task.iter().cloned().collect(),
            binding: self.binding.clone(),
            kinds: self.change_kind.iter().cloned().collect(),
            search: self.q.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_of_another_kind_is_an_error() {
        let filters =
            FilterArgs { state: Some("down".to_owned()), q: Some("kv".to_owned()), ..FilterArgs::default() };
        let pairs = filters.query(ResourceKind::Services).unwrap();
        assert_eq!(pairs, [("state", "down"), ("q", "kv")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(filters.query(ResourceKind::Bindings).unwrap_err().contains("--state"));
    }

    #[test]
    fn objects_are_a_kind_with_names_or_kinds_with_a_name_each() {
        let names = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (first, rest, kind, expected) in [
            ("svc", names(&[]), ResourceKind::Services, names(&[])),
            ("task", names(&["a", "b"]), ResourceKind::Tasks, names(&["a", "b"])),
            (
                "service/kuma/default/kv",
                names(&["svc/web"]),
                ResourceKind::Services,
                names(&["kuma/default/kv", "web"]),
            ),
        ] {
            assert_eq!(objects(first, rest), Ok((kind, expected)));
        }
        assert!(objects("task/a", names(&["svc/b"])).is_err());
        assert!(objects("pods", names(&[])).is_err());
    }
}
