//! Consul is listed in parts: the tokens, and the services of each cluster, of each namespace. One that fails is told
//! apart from the rest, which counts; servers that give no answer are not asked for one part after the other.

use std::fmt;
use std::sync::Arc;

use super::errors;
use super::resource_key::ResourceKey;
use super::scope::ALL_NAMESPACES;
use ecs_mesh_control_plane::{FailedSegment, MeshError, MeshErrorKind, ListSegment, Registration};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::ClusterArn;

/// What is listed by itself; without a namespace that of all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConsulSegment {
    /// The tokens of logins.
    Tokens { namespace: Option<Arc<str>> },
    /// The services on a cluster's node.
    Services { cluster: ClusterArn, namespace: Option<Arc<str>> },
}

impl ConsulSegment {
    fn namespace(&self) -> Option<&str> {
        let (Self::Tokens { namespace } | Self::Services { namespace, .. }) = self;
        namespace.as_deref().filter(|name| *name != ALL_NAMESPACES)
    }
}

impl fmt::Display for ConsulSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens { .. } => write!(f, "the tokens of logins")?,
            Self::Services { cluster, .. } => write!(f, "the services of {cluster}")?,
        }
        self.namespace().map_or(Ok(()), |name| write!(f, " in namespace {name}"))
    }
}

impl ListSegment for ConsulSegment {
    fn contains(&self, id: &RegistrationId) -> bool {
        let of = match (self, ResourceKey::parse(&id.name)) {
            (Self::Tokens { .. }, Some(ResourceKey::Token { namespace, .. })) => namespace,
            (Self::Services { cluster, .. }, Some(ResourceKey::Service { cluster: on, namespace, .. }))
                if *cluster == on =>
            {
                namespace
            }
            (_, Some(_)) => return false,
            // Whatever it is, nothing is known of it.
            (_, None) => return true,
        };
        self.namespace().is_none_or(|here| of.is_none_or(|of| *of == *here))
    }
}

/// How the parts of one list went.
#[derive(Debug, Default)]
pub(super) struct SegmentResults {
    listed: usize,
    failed: Vec<FailedSegment>,
    /// The servers have answered something.
    answered: bool,
    /// The last part had no answer.
    unanswered: bool,
    /// Why no further part is asked for.
    aborted: Option<MeshError>,
}

impl SegmentResults {
    /// Lists a part, unless it is known that nothing would come of it.
    pub(super) async fn list(&mut self, place: ConsulSegment, list: impl Future<Output = Result<(), MeshError>>) {
        let outcome = match &self.aborted {
            Some(error) => Err(error.clone()),
            None => list.await,
        };
        let Err(error) = outcome else {
            (self.answered, self.unanswered) = (true, false);
            self.listed += 1;
            return;
        };
        let unanswered = error.kind == MeshErrorKind::Unreachable;
        // One part may be all that has no answer; two in a row, or the first, are the servers.
        let at_large = match error.kind {
            MeshErrorKind::Unreachable => self.unanswered || !self.answered,
            MeshErrorKind::Throttled => true,
            _ => errors::is_own_token_unknown(&error),
        };
        if at_large {
            self.aborted.get_or_insert_with(|| error.clone());
        }
        (self.answered, self.unanswered) = (self.answered || !unanswered, unanswered);
        self.failed.push(FailedSegment { segment: Arc::new(place), error });
    }

    /// How many failed so far.
    pub(super) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// The parts that failed; an error where no part could be listed.
    pub(super) fn finish(self) -> Result<Vec<FailedSegment>, MeshError> {
        let why = self.aborted.or_else(|| self.failed.first().map(|failed| failed.error.clone()));
        match why {
            Some(error) if self.listed == 0 => Err(error),
            _ => Ok(self.failed),
        }
    }

    /// An error where any part failed.
    pub(super) fn require_all(self) -> Result<(), MeshError> {
        self.failed.into_iter().next().map_or(Ok(()), |failed| Err(failed.error))
    }
}

/// What was found in those parts that could be listed.
#[derive(Clone, Debug, Default)]
pub(super) struct RegistrationsFound {
    pub(super) registrations: Vec<Registration>,
    pub(super) failed: Vec<FailedSegment>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_model::MeshName;

    const ARN: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";

    fn holds(place: &ConsulSegment, name: &str) -> bool {
        place.contains(&RegistrationId { mesh: MeshName::default(), name: name.into() })
    }

    #[test]
    fn a_part_holds_what_is_of_its_kind_cluster_and_namespace() {
        let token = |namespace: &str| format!("token/4fa6e11c-21d1-3462-a316-99515e5544f7{namespace}");
        let service = |rest: &str| format!("service/web@{ARN}{rest}");
        for namespace in [None, Some(ALL_NAMESPACES)] {
            let tokens = ConsulSegment::Tokens { namespace: namespace.map(Into::into) };
            assert!(holds(&tokens, &token("")) && holds(&tokens, &token("@a")));
            assert!(!holds(&tokens, &service("")));
        }
        let tokens = ConsulSegment::Tokens { namespace: Some("a".into()) };
        assert_eq!(["", "@a", "@b"].map(|namespace| holds(&tokens, &token(namespace))), [true, true, false]);
        let cluster = ClusterArn::parse(ARN).unwrap();
        let services = ConsulSegment::Services { cluster, namespace: Some("a".into()) };
        assert_eq!(
            ["", "@a", "@b", "-2"].map(|rest| holds(&services, &service(rest))),
            [true, true, false, false]
        );
        assert!(!holds(&services, &token("@a")));
        assert_eq!(services.to_string(), format!("the services of {ARN} in namespace a"));
    }
}
