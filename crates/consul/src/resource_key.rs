//! The names of registrations: readable, and enough to find the thing again. Nothing in one is a secret.

use std::fmt;
use std::sync::Arc;

use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{ClusterArn, MeshName};

/// What a registration is in Consul: `token/ACCESSOR`, or `service/ID@CLUSTER`; in Enterprise with `@NAMESPACE` behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// A token of a login.
    Token {
        /// Its accessor, by which it is spoken of and which opens nothing.
        accessor: Arc<str>,
        /// Its namespace, where there are any.
        namespace: Option<Arc<str>>,
    },
    /// A service in the catalog.
    Service {
        /// The cluster; its ARN is the name of the node that the service is on.
        cluster: ClusterArn,
        /// The service's id on that node.
        id: Arc<str>,
        /// Its namespace, where there are any.
        namespace: Option<Arc<str>>,
    },
}

impl ResourceKey {
    /// Reads a handle.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(token) = text.strip_prefix("token/") {
            let (accessor, namespace) = match token.split_once('@') {
                Some((accessor, namespace)) => (accessor, Some(namespace)),
                None => (token, None),
            };
            return (is_uuid(accessor) && namespace.is_none_or(is_namespace))
                .then(|| Self::Token { accessor: accessor.into(), namespace: namespace.map(Into::into) });
        }
        // An id may hold anything: it is what is left when the rest is taken off the end.
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

    /// The registration's name in this partition.
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

/// As Consul's accessors are.
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
    fn a_handle_reads_as_it_is_written() {
        for text in [
            "token/4fa6e11c-21d1-3462-a316-99515e5544f7".to_owned(),
            "token/4fa6e11c-21d1-3462-a316-99515e5544f7@team-1".to_owned(),
            format!("service/web-00000000000000000000000000000001@{ARN}"),
            format!("service/web-1-sidecar-proxy@{ARN}@team-1"),
            format!("service/odd@id/with {ARN}@{ARN}"),
            format!("service/odd@{ARN}@{ARN}@team-1"),
        ] {
            let handle = ResourceKey::parse(&text).unwrap_or_else(|| panic!("{text} is not read"));
            assert_eq!(handle.to_string(), text);
        }
    }

    #[test]
    fn a_service_is_found_by_its_node_id_and_namespace() {
        let handle = ResourceKey::parse(&format!("service/a@b@{ARN}@ns1")).unwrap();
        let ResourceKey::Service { cluster, id, namespace } = handle else { panic!("{handle}") };
        assert_eq!((cluster.as_str(), &*id, namespace.as_deref()), (ARN, "a@b", Some("ns1")));
    }

    #[test]
    fn what_is_no_handle_is_refused() {
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
