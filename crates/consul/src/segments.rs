//! Lists Consul in segments: the tokens and each cluster's services, per namespace. A failed segment does not affect the
//! others, and unreachable servers are not called for every segment.

use std::fmt;
use std::sync::Arc;

use super::resource_key::ResourceKey;
use super::scope::ALL_NAMESPACES;
use ecs_mesh_control_plane::{FailedSegment, ListSegment, MeshError, MeshErrorKind, Refusal, Registration};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::ClusterArn;

/// A segment of the lists; without a namespace it covers all namespaces.
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
            // An unknown kind of registration may be in any segment.
            (_, None) => return true,
        };
        self.namespace().is_none_or(|own| of.is_none_or(|of| *of == *own))
    }
}

/// The results of the segments of one list.
#[derive(Debug, Default)]
pub(super) struct SegmentResults {
    listed: usize,
    failed: Vec<FailedSegment>,
    /// The servers have responded at least once.
    answered: bool,
    /// The last segment had no response.
    unanswered: bool,
    /// The error after which no further segment is listed.
    aborted: Option<MeshError>,
}

impl SegmentResults {
    /// Lists a segment, unless an earlier error affects all segments.
    pub(super) async fn list(
        &mut self,
        segment: ConsulSegment,
        list: impl Future<Output = Result<(), MeshError>>,
    ) {
        let result = match &self.aborted {
            Some(error) => Err(error.clone()),
            None => list.await,
        };
        let Err(error) = result else {
            (self.answered, self.unanswered) = (true, false);
            self.listed += 1;
            return;
        };
        let unanswered = error.kind == MeshErrorKind::Unreachable;
        // A single segment without a response may be an exception; two in a row, or the first, are an outage.
        let affects_all = match error.kind {
            MeshErrorKind::Unreachable => self.unanswered || !self.answered,
            MeshErrorKind::Throttled => true,
            _ => error.refusal == Some(Refusal::OwnTokenUnknown),
        };
        if affects_all {
            self.aborted.get_or_insert_with(|| error.clone());
        }
        (self.answered, self.unanswered) = (self.answered || !unanswered, unanswered);
        self.failed.push(FailedSegment { segment: Arc::new(segment), error });
    }

    /// The number of failed segments so far.
    pub(super) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Returns the failed segments; an error if no segment could be listed.
    pub(super) fn finish(self) -> Result<Vec<FailedSegment>, MeshError> {
        let first_error = self.aborted.or_else(|| self.failed.first().map(|failed| failed.error.clone()));
        match first_error {
            Some(error) if self.listed == 0 => Err(error),
            _ => Ok(self.failed),
        }
    }

    /// Fails if any segment failed.
    pub(super) fn require_all(self) -> Result<(), MeshError> {
        self.failed.into_iter().next().map_or(Ok(()), |failed| Err(failed.error))
    }
}

/// The registrations in the segments that could be listed.
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

    fn contains(segment: &ConsulSegment, name: &str) -> bool {
        segment.contains(&RegistrationId { mesh: MeshName::default(), name: name.into() })
    }

    #[test]
    fn segment_contains_its_kind_cluster_and_namespace() {
        let token = |namespace: &str| format!("token/4fa6e11c-21d1-3462-a316-99515e5544f7{namespace}");
        let service = |rest: &str| format!("service/web@{ARN}{rest}");
        for namespace in [None, Some(ALL_NAMESPACES)] {
            let tokens = ConsulSegment::Tokens { namespace: namespace.map(Into::into) };
            assert!(contains(&tokens, &token("")) && contains(&tokens, &token("@a")));
            assert!(!contains(&tokens, &service("")));
        }
        let tokens = ConsulSegment::Tokens { namespace: Some("a".into()) };
        assert_eq!(
            ["", "@a", "@b"].map(|namespace| contains(&tokens, &token(namespace))),
            [true, true, false]
        );
        let cluster = ClusterArn::parse(ARN).unwrap();
        let services = ConsulSegment::Services { cluster, namespace: Some("a".into()) };
        assert_eq!(
            ["", "@a", "@b", "-2"].map(|rest| contains(&services, &service(rest))),
            [true, true, false, false]
        );
        assert!(!contains(&services, &token("@a")));
        assert_eq!(services.to_string(), format!("the services of {ARN} in namespace a"));
    }
}
