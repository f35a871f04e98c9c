//! The names of Consul registrations: readable, sufficient to find the object, and without secrets.

use std::fmt;
use std::sync::Arc;

use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{ClusterArn, MeshName};

/// The object of a registration: `token/ACCESSOR` or `service/ID@CLUSTER`; in Enterprise followed by `@NAMESPACE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// A login token.
    Token {
        /// The accessor, which identifies the token and grants nothing.
        accessor: Arc<str>,
        /// The namespace, in Enterprise.
        namespace: Option<Arc<str>>,
    },
    /// A service in the catalog.
    Service {
        /// The cluster; its ARN is the name of the service's node.
        cluster: ClusterArn,
        /// The service's id on that node.
        id: Arc<str>,
        /// The namespace, in Enterprise.
        namespace: Option<Arc<str>>,
    },
}

impl ResourceKey {
    /// Parses the name of a registration.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(token) = text.strip_prefix("token/") {
            let (accessor, namespace) = match token.split_once('@') {
                Some((accessor, namespace)) => (accessor, Some(namespace)),
                None => (token, None),
            };
            return (is_uuid(accessor) && namespace.is_none_or(is_namespace))
                .then(|| Self::Token { accessor: accessor.into(), namespace: namespace.map(Into::into) });
        }
        // An id may contain any character, so the other parts are split off from the end.
        let (id, last) = text.strip_prefix("service/")?.rsplit_once('@')?;
        let (id, cluster, namespace) = match ClusterArn::parse(last) {
            Ok(cluster) => (id, cluster, None),
            Err(_) => {
                let (id, cluster) = id.rsplit_once('@')?;
                (id, ClusterArn::parse(cluster).ok()?, Some(last))
            }
        };
        (!id.is_empty() && namespace.is_none_or(is_namespace)).then(|| Self::Service {
            cluster,
            id: id.into(),
            namespace: namespace.map(Into::into),
        })
    }

    /// The registration's id in this partition.
    pub fn in_mesh(&self, mesh: MeshName) -> RegistrationId {
        RegistrationId { mesh, name: self.to_string().into() }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = match self {
            Self::Token { accessor, namespace } => {
                write!(f, "token/{accessor}")?;
                namespace
            }
            Self::Service { cluster, id, namespace } => {
                write!(f, "service/{id}@{cluster}")?;
                namespace
            }
        };
        namespace.iter().try_for_each(|namespace| write!(f, "@{namespace}"))
    }
}

/// Whether the text is a UUID, as Consul's accessors are.
pub(super) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

fn is_namespace(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";

    #[test]
    fn resource_key_round_trips() {
        for text in [
            "token/4fa6e11c-21d1-3462-a316-99515e5544f7".to_owned(),
            "token/4fa6e11c-21d1-3462-a316-99515e5544f7@team-1".to_owned(),
            format!("service/web-00000000000000000000000000000001@{ARN}"),
            format!("service/web-1-sidecar-proxy@{ARN}@team-1"),
            format!("service/odd@id/with {ARN}@{ARN}"),
            format!("service/odd@{ARN}@{ARN}@team-1"),
        ] {
            let key = ResourceKey::parse(&text).unwrap_or_else(|| panic!("{text} is not read"));
            assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn service_key_has_cluster_id_and_namespace() {
        let key = ResourceKey::parse(&format!("service/a@b@{ARN}@ns1")).unwrap();
        let ResourceKey::Service { cluster, id, namespace } = key else { panic!("{key}") };
        assert_eq!((cluster.as_str(), &*id, namespace.as_deref()), (ARN, "a@b", Some("ns1")));
    }

    #[test]
    fn invalid_resource_key_is_rejected() {
        for text in [
            "",
            "token/",
            "token/self",
            "token/4fa6e11c-21d1-3462-a316-99515e5544f7@",
            "token/4fa6e11c-21d1-3462-a316-99515e5544f7@a&b",
            "token/../acl/token/bootstrapxxxxxxxxxxxx",
            "service/web",
            "service/web@node-1",
            &format!("service/@{ARN}"),
            &format!("service/web@{ARN}@a b"),
            &format!("node/{ARN}"),
        ] {
            assert_eq!(ResourceKey::parse(text), None, "{text}");
        }
    }
}
