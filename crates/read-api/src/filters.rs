//! The filters of each list.

use std::sync::Arc;
use std::time::Duration;

use crate::query::{join_pairs, parse_filter, quoted};
use crate::{
    BindingView, ChangeView, ErrorView, Filter, FilterValue, IdentityStateView, IdentityView,
    OutboundStateView, OutboundView, ServiceStateView, ServiceView, TaskStateView, TaskView, TimeView,
    WarningView,
};
use ecs_mesh_model::Timestamp;

impl FilterValue for String {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a text".to_owned()) } else { Ok(text.to_owned()) }
    }

    fn render(&self) -> String {
        self.clone()
    }
}

impl FilterValue for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "true or false".to_owned())
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

/// A bounded value.
pub(crate) trait Label: Copy + PartialEq + 'static {
    const ALL: &'static [Self];
    fn label(self) -> &'static str;
}

/// Several values, separated by commas: each of them matches.
impl<T: Label> FilterValue for Vec<T> {
    fn parse(text: &str) -> Result<Self, String> {
        let one = |text: &str| T::ALL.iter().copied().find(|value| value.label() == text);
        text.split(',').map(one).collect::<Option<Vec<T>>>().ok_or_else(|| {
            let all: Vec<&str> = T::ALL.iter().map(|value| value.label()).collect();
            format!("one or several of {}", all.join(","))
        })
    }

    fn render(&self) -> String {
        self.iter().map(|value| value.label()).collect::<Vec<_>>().join(",")
    }
}

/// A moment, or the time since it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinceView {
    /// A moment.
    At(TimeView),
    /// This long before the request.
    Ago(Duration),
}

impl SinceView {
    /// The moment, for a request at `now`.
    pub fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at.0,
            Self::Ago(ago) => {
                Timestamp(now.0.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

impl FilterValue for SinceView {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(at) = Timestamp::parse(text) {
            return Ok(Self::At(at.into()));
        }
        let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
        let ago = units.into_iter().find_map(|(unit, seconds)| {
            let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(Duration::from_secs(count.checked_mul(seconds)?))
        });
        ago.map(Self::Ago)
            .ok_or_else(|| "an RFC 3339 time, or a duration such as 90s, 10m, 8h or 2d".to_owned())
    }

    fn render(&self) -> String {
        match self {
            Self::At(at) => at.to_string(),
            Self::Ago(ago) => format!("{}s", ago.as_secs()),
        }
    }
}

macro_rules! filter {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty => $parameter:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
        }

        impl Filter for $name {
            const PARAMETERS: &'static [&'static str] = &[$($parameter),*];

            fn set(&mut self, name: &str, value: &str) -> Result<bool, ErrorView> {
                match name {
                    $($parameter => {
                        let parsed = <$type as FilterValue>::parse(value).map_err(|expected| {
                            let found = quoted(value);
                            ErrorView::parameter(name, format!("{name}: found {found}, expected {expected}"))
                        })?;
                        self.$field = Some(parsed);
                    })*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            fn parameters(&self) -> Vec<(&'static str, String)> {
                let all: [Option<(&'static str, String)>; _] =
                    [$(self.$field.as_ref().map(|value| ($parameter, value.render()))),*];
                all.into_iter().flatten().collect()
            }
        }

        impl $name {
            /// Parses a query string that has filters alone.
            ///
            /// # Errors
            /// A parameter that is unknown, malformed or given twice.
            pub fn parse(query: &str) -> Result<Self, ErrorView> {
                parse_filter(query)
            }

            /// The query string that [`Self::parse`] reads.
            pub fn to_query_string(&self) -> String {
                join_pairs(&self.parameters())
            }
        }
    };
}

filter! {
    /// Filters of tasks.
    TaskFilter {
        /// Name or ARN of the ECS cluster.
        cluster: String => "cluster",
        /// AWS account.
        account: String => "account",
        /// Service in ECS.
        ecs_service: String => "ecsService",
        /// Service in the mesh.
        service: String => "service",
        /// `Workload`.
        workload: String => "workload",
        /// `MeshBinding`.
        binding: String => "binding",
        /// `ControlPlane`.
        control_plane: String => "controlPlane",
        /// States.
        state: Vec<TaskStateView> => "state",
        /// Reason of an active warning.
        warning: String => "warning",
        /// Text within id, ECS service, service, workload or role, in any case of letters.
        search: String => "q",
        /// Ignored tasks as well.
        all: bool => "all",
    }
}

filter! {
    /// Filters of services.
    ServiceFilter {
        /// `ControlPlane`.
        control_plane: String => "controlPlane",
        /// Mesh.
        mesh: String => "mesh",
        /// States.
        state: Vec<ServiceStateView> => "state",
        /// Text within name, workloads or ECS services.
        search: String => "q",
    }
}

filter! {
    /// Filters of bindings.
    BindingFilter {
        /// `ControlPlane`.
        control_plane: String => "controlPlane",
        /// Text within the name.
        search: String => "q",
    }
}

filter! {
    /// Filters of identities.
    IdentityFilter {
        /// Id or ARN of the task.
        task: String => "task",
        /// ARN of the role, or the last part of it.
        role: String => "role",
        /// Service in the mesh.
        service: String => "service",
        /// `ControlPlane`.
        control_plane: String => "controlPlane",
        /// States.
        state: Vec<IdentityStateView> => "state",
        /// Text within name, service, task or role.
        search: String => "q",
    }
}

filter! {
    /// Filters of outbounds.
    OutboundFilter {
        /// `Workload` that calls.
        from: String => "from",
        /// Service that is called.
        to: String => "to",
        /// States.
        state: Vec<OutboundStateView> => "state",
        /// Text within either name.
        search: String => "q",
    }
}

filter! {
    /// Filters of warnings.
    WarningFilter {
        /// `ControlPlane`.
        control_plane: String => "controlPlane",
        /// Reason.
        reason: String => "reason",
        /// Text within reason, message or services.
        search: String => "q",
    }
}

filter! {
    /// Filters of changes.
    ChangeFilter {
        /// The first moment.
        since: SinceView => "since",
        /// The last moment.
        until: SinceView => "until",
        /// Id or ARN of the task.
        task: String => "task",
        /// Service, in the mesh or in ECS, or `Workload`.
        service: String => "service",
        /// `MeshBinding`.
        binding: String => "binding",
        /// Kind of change or of object.
        kind: String => "kind",
        /// Text within name, service, workload, task or role.
        search: String => "q",
        /// Whether warnings and their ends are listed as well.
        warnings: bool => "warnings",
    }
}

filter! {
    /// Filters of the topology.
    TopologyFilter {
        /// `ControlPlane`.
        control_plane: String => "controlPlane",
        /// Mesh.
        mesh: String => "mesh",
    }
}

/// Whether a filter that names one value matches.
fn is(filter: Option<&String>, value: Option<&Arc<str>>) -> bool {
    filter.is_none_or(|wanted| value.is_some_and(|value| **value == **wanted))
}

/// Whether one of several values matches.
fn any(filter: Option<&String>, values: &[Arc<str>]) -> bool {
    filter.is_none_or(|wanted| values.iter().any(|value| **value == **wanted))
}

fn one_of<T: PartialEq>(filter: Option<&Vec<T>>, value: &T) -> bool {
    filter.is_none_or(|wanted| wanted.contains(value))
}

/// Whether a text is within one of these, in any case of letters.
fn within<'a>(search: Option<&String>, texts: impl IntoIterator<Item = &'a str>) -> bool {
    let Some(search) = search else { return true };
    let wanted = search.to_lowercase();
    texts.into_iter().any(|text| contains(text, &wanted))
}

/// Whether `wanted`, in lower case, is within the text. Names are nearly always ASCII: those need no copy.
fn contains(text: &str, wanted: &str) -> bool {
    if !text.is_ascii() || !wanted.is_ascii() {
        return text.to_lowercase().contains(wanted);
    }
    text.as_bytes().windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The shortest beginning of a task's id that stands for the task.
const MIN_TASK_PREFIX: usize = 6;

/// Whether a filter names this task, by its ARN, its id, or the beginning of its id.
fn is_task(filter: Option<&String>, arn: Option<&str>) -> bool {
    filter.is_none_or(|wanted| {
        arn.is_some_and(|arn| {
            let id = arn.rsplit('/').next().unwrap_or(arn);
            arn == wanted
                || id == wanted
                || (wanted.len() >= MIN_TASK_PREFIX && id.starts_with(wanted.as_str()))
        })
    })
}

impl TaskFilter {
    /// Whether the task matches. Ignored tasks match only with `all` or where their state is asked for.
    pub fn matches(&self, task: &TaskView) -> bool {
        let services = || task.registrations.iter().filter_map(|known| known.service.as_ref());
        let of_cluster = self.cluster.as_ref().is_none_or(|wanted| {
            *task.cluster == **wanted || task.cluster.rsplit('/').next() == Some(wanted.as_str())
        });
        of_cluster
            && is(self.account.as_ref(), Some(&task.account))
            && is(self.ecs_service.as_ref(), task.ecs_service.as_ref())
            && self.service.as_ref().is_none_or(|wanted| {
                task.service.iter().chain(services()).any(|service| **service == **wanted)
            })
            && any(self.workload.as_ref(), &task.workloads)
            && is(self.binding.as_ref(), task.binding.as_ref())
            && self.control_plane.as_ref().is_none_or(|wanted| {
                let known = task.control_plane.iter();
                known
                    .chain(task.registrations.iter().map(|known| &known.control_plane))
                    .any(|n| **n == **wanted)
            })
            && self.is_in_state(task.state)
            && self
                .warning
                .as_ref()
                .is_none_or(|wanted| task.warnings.iter().any(|warning| *warning.reason == **wanted))
            && within(
                self.search.as_ref(),
                [&*task.name]
                    .into_iter()
                    .chain(
                        [&task.ecs_service, &task.service, &task.role]
                            .into_iter()
                            .flatten()
                            .map(|text| &**text),
                    )
                    .chain(task.workloads.iter().map(|text| &**text))
                    .chain(services().map(|text| &**text)),
            )
    }

    fn is_in_state(&self, state: TaskStateView) -> bool {
        match &self.state {
            Some(wanted) => wanted.contains(&state),
            None => state != TaskStateView::Ignored || self.all == Some(true),
        }
    }
}

impl ServiceFilter {
    /// Whether the service matches.
    pub fn matches(&self, service: &ServiceView) -> bool {
        is(self.control_plane.as_ref(), Some(&service.control_plane))
            && is(self.mesh.as_ref(), service.mesh.as_ref())
            && one_of(self.state.as_ref(), &service.state)
            && within(
                self.search.as_ref(),
                [&service.name]
                    .into_iter()
                    .chain(&service.workloads)
                    .chain(&service.ecs_services)
                    .map(|n| &**n),
            )
    }
}

impl BindingFilter {
    /// Whether the binding matches.
    pub fn matches(&self, binding: &BindingView) -> bool {
        is(self.control_plane.as_ref(), Some(&binding.control_plane))
            && within(self.search.as_ref(), [&*binding.name])
    }
}

impl IdentityFilter {
    /// Whether the identity matches.
    pub fn matches(&self, identity: &IdentityView) -> bool {
        let of_role = self.role.as_ref().is_none_or(|wanted| {
            let role = identity.role.as_deref();
            role.is_some_and(|role| role == wanted || role.rsplit('/').next() == Some(wanted.as_str()))
        });
        of_role
            && is_task(self.task.as_ref(), Some(&identity.task))
            && is(self.service.as_ref(), identity.service.as_ref())
            && is(self.control_plane.as_ref(), Some(&identity.control_plane))
            && one_of(self.state.as_ref(), &identity.state)
            && within(
                self.search.as_ref(),
                [
                    Some(&identity.name),
                    identity.service.as_ref(),
                    Some(&identity.task),
                    identity.role.as_ref(),
                ]
                .into_iter()
                .flatten()
                .map(|text| &**text),
            )
    }
}

impl OutboundFilter {
    /// Whether the outbound matches.
    pub fn matches(&self, outbound: &OutboundView) -> bool {
        is(self.from.as_ref(), Some(&outbound.from))
            && is(self.to.as_ref(), Some(&outbound.to))
            && one_of(self.state.as_ref(), &outbound.state)
            && within(self.search.as_ref(), [&*outbound.from, &*outbound.to])
    }
}

impl WarningFilter {
    /// Whether the warning matches.
    pub fn matches(&self, warning: &WarningView) -> bool {
        is(self.control_plane.as_ref(), warning.control_plane.as_ref())
            && is(self.reason.as_ref(), Some(&warning.reason))
            && within(
                self.search.as_ref(),
                [&*warning.reason, &*warning.message]
                    .into_iter()
                    .chain(warning.services.iter().map(|n| &**n)),
            )
    }
}

impl ChangeFilter {
    /// Whether the change matches, for a request at `now`.
    pub fn matches(&self, change: &ChangeView, now: Timestamp) -> bool {
        let at = change.time.0;
        (self.warnings == Some(true) || !change.is_warning())
            && self.since.is_none_or(|since| at >= since.moment(now))
            && self.until.is_none_or(|until| at <= until.moment(now))
            && is_task(self.task.as_ref(), change.task.as_deref())
            && self.service.as_ref().is_none_or(|wanted| {
                let names = [&change.service, &change.ecs_service, &change.workload];
                names.into_iter().flatten().any(|name| **name == **wanted)
            })
            && is(self.binding.as_ref(), change.binding.as_ref())
            && self.kind.as_ref().is_none_or(|kind| *change.kind == **kind || *change.object == **kind)
            && within(
                self.search.as_ref(),
                [
                    &change.name,
                    &change.service,
                    &change.ecs_service,
                    &change.workload,
                    &change.task,
                    &change.role,
                ]
                .into_iter()
                .flatten()
                .map(|text| &**text),
            )
    }
}

impl TopologyFilter {
    /// Whether the service is part of the graph.
    pub fn matches(&self, service: &ServiceView) -> bool {
        is(self.control_plane.as_ref(), Some(&service.control_plane))
            && is(self.mesh.as_ref(), service.mesh.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCodeView, Paging, Query};

    #[test]
    fn task_is_named_by_arn_id_or_beginning_of_id() {
        let arn = "arn:aws:ecs:eu-west-1:111122223333:task/prod/4f1d0c9a7b3e4f1d0c9a7b3e4f1d0c9a";
        let other = "arn:aws:ecs:eu-west-1:111122223333:task/test/4f1d0c9a7b3e4f1d0c9a7b3e4f1d0c9a";
        for (wanted, is_named) in [
            (arn, true),
            ("4f1d0c9a7b3e4f1d0c9a7b3e4f1d0c9a", true),
            ("4f1d0c", true),
            ("4f1d0", false),
            ("f1d0c9", false),
            (other, false),
        ] {
            assert_eq!(is_task(Some(&wanted.to_owned()), Some(arn)), is_named, "{wanted}");
        }
    }

    fn error(query: &str) -> ErrorView {
        Query::<TaskFilter>::parse(query).unwrap_err()
    }

    #[test]
    fn refused_parameter_is_named() {
        for (query, parameter) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=", "limit"),
            ("continue=%00", "continue"),
            ("continue=", "continue"),
            ("colour=red", "colour"),
            ("state=green", "state"),
            ("state=", "state"),
            ("all=yes", "all"),
            ("service=", "service"),
            ("service=a&service=b", "service"),
            ("q=%zz", "q"),
            ("since=1h", "since"),
        ] {
            let error = error(query);
            assert_eq!(error.code, ErrorCodeView::InvalidParameter, "{query}");
            assert_eq!(error.parameter.as_deref(), Some(parameter), "{query}");
        }
        assert!(error(&format!("{}=1", "x".repeat(2_000))).message.len() < 500);
    }

    #[test]
    fn query_round_trips_through_its_text() {
        let query = Query::<TaskFilter> {
            paging: Paging { limit: 5, after: Some("arn:aws:ecs/ü".to_owned()) },
            filter: TaskFilter {
                service: Some("a&b=c d".to_owned()),
                state: Some(vec![TaskStateView::Held, TaskStateView::Rejected]),
                all: Some(true),
                ..TaskFilter::default()
            },
        };
        assert_eq!(Query::parse(&query.to_query_string()), Ok(query));
    }

    #[test]
    fn since_is_a_time_or_a_duration() {
        let now = Timestamp::parse("2026-11-22T03:00:00Z").unwrap();
        for (text, moment) in [
            ("90s", "2026-11-22T02:58:30Z"),
            ("10m", "2026-11-22T02:50:00Z"),
            ("2d", "2026-11-20T03:00:00Z"),
            ("2026-11-22T01:02:03Z", "2026-11-22T01:02:03Z"),
        ] {
            let since = <SinceView as FilterValue>::parse(text).unwrap();
            assert_eq!(since.moment(now), Timestamp::parse(moment).unwrap(), "{text}");
            assert_eq!(
                <SinceView as FilterValue>::parse(&since.render()).unwrap().moment(now),
                since.moment(now)
            );
        }
        for bad in ["", "10", "m", "-5m", "1w", "99999999999999999999d", "99999999999999999d", "yesterday"] {
            assert!(<SinceView as FilterValue>::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn search_ignores_the_case_of_letters() {
        for (text, search, found) in
            [("Payments-API", "ts-a", true), ("größe", "GRÖ", true), ("kv", "kvx", false), ("", "a", false)]
        {
            assert_eq!(within(Some(&search.to_owned()), [text]), found, "{text} {search}");
        }
    }
}
