//! The scope of calls: datacenter, and in Enterprise partition and namespace. Unset parts are not sent, since the
//! open-source edition rejects any namespace.

use std::sync::Arc;

use ecs_mesh_api::ConsulConnection;
use ecs_mesh_model::MeshName;

/// All namespaces of the partition.
pub(super) const ALL_NAMESPACES: &str = "*";
/// The namespace of auth methods, also of those that log in to other namespaces.
pub(super) const HOME_NAMESPACE: &str = "default";

/// The part of Consul that a client reads and writes.
#[derive(Clone, Debug, Default)]
pub(super) struct ConsulScope {
    datacenter: Option<Arc<str>>,
    partition: Option<Arc<str>>,
    namespaces: Vec<Arc<str>>,
}

impl ConsulScope {
    pub(super) fn of(spec: &ConsulConnection) -> Self {
        Self {
            datacenter: spec.datacenter.as_deref().map(Into::into),
            partition: spec.partition.as_deref().map(Into::into),
            namespaces: spec.namespaces.iter().map(|name| name.as_str().into()).collect(),
        }
    }

    pub(super) fn datacenter(&self) -> Option<&str> {
        self.datacenter.as_deref()
    }

    /// The same datacenter and namespaces in this partition.
    pub(super) fn in_partition(&self, partition: &str) -> Self {
        Self { partition: Some(partition.into()), ..self.clone() }
    }

    pub(super) fn partition(&self) -> Option<&str> {
        self.partition.as_deref()
    }

    /// Whether the scope has a part that only Enterprise supports.
    pub(super) fn is_of_enterprise(&self) -> bool {
        self.partition.is_some() || !self.namespaces.is_empty()
    }

    /// The partition as a mesh.
    pub(super) fn mesh(&self) -> MeshName {
        self.partition.as_deref().and_then(|name| MeshName::parse(name).ok()).unwrap_or_default()
    }

    /// The namespaces of a list, each a separate call; a single `None` without namespaces.
    pub(super) fn namespaces(&self) -> Vec<Option<Arc<str>>> {
        if self.namespaces.iter().any(|name| &**name == ALL_NAMESPACES) {
            return vec![Some(ALL_NAMESPACES.into())];
        }
        match self.namespaces.as_slice() {
            [] => vec![None],
            names => names.iter().cloned().map(Some).collect(),
        }
    }

    /// A path with the datacenter only.
    pub(super) fn datacenter_path(&self, path: &str) -> String {
        Self { datacenter: self.datacenter.clone(), ..Self::default() }.path(path, &[])
    }

    /// A path with this query, in the scope without namespaces.
    pub(super) fn path(&self, path: &str, query: &[(&str, &str)]) -> String {
        self.path_in(None, path, query)
    }

    /// A path with this query, in a namespace.
    pub(super) fn path_in(&self, namespace: Option<&str>, path: &str, query: &[(&str, &str)]) -> String {
        let mut text = form_urlencoded::Serializer::new(String::new());
        let scope =
            [("dc", self.datacenter.as_deref()), ("partition", self.partition.as_deref()), ("ns", namespace)];
        for (name, value) in scope.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            text.append_pair(name, value);
        }
        text.extend_pairs(query);
        match text.finish() {
            query if query.is_empty() => path.to_owned(),
            // A space is `+` in forms only.
            query => format!("{path}?{}", query.replace('+', "%20")),
        }
    }

    /// The path of the list of an auth method's tokens in a namespace.
    pub(super) fn tokens_path(&self, namespace: Option<&str>, method: &str) -> String {
        let mut query = vec![("authmethod", method)];
        if namespace.is_some() {
            query.push(("authmethod-ns", HOME_NAMESPACE));
        }
        self.path_in(namespace, "/v1/acl/tokens", &query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(more: &serde_json::Value) -> ConsulScope {
        let mut spec = serde_json::json!({"address": "http://consul:8500"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ConsulScope::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn unset_scope_is_not_sent() {
        let scope = scope(&serde_json::json!({}));
        assert_eq!(scope.path("/v1/agent/self", &[]), "/v1/agent/self");
        assert_eq!(scope.tokens_path(None, "m"), "/v1/acl/tokens?authmethod=m");
        assert_eq!(scope.namespaces(), [None]);
        assert_eq!(scope.mesh(), MeshName::default());
        let filtered = scope.path("/v1/x", &[("filter", "ID == \"a+b\"")]);
        assert_eq!(filtered, "/v1/x?filter=ID%20%3D%3D%20%22a%2Bb%22");
    }

    #[test]
    fn enterprise_scope_is_sent_in_each_call() {
        let spec = serde_json::json!({"datacenter": "dc2", "partition": "ecs", "namespaces": ["a", "b"]});
        let scope = scope(&spec);
        assert_eq!(scope.path("/v1/agent/self", &[]), "/v1/agent/self?dc=dc2&partition=ecs");
        assert_eq!(
            scope.tokens_path(Some("a"), "m"),
            "/v1/acl/tokens?dc=dc2&partition=ecs&ns=a&authmethod=m&authmethod-ns=default"
        );
        assert_eq!(scope.namespaces().len(), 2);
        assert_eq!(scope.mesh().as_str(), "ecs");
    }

    #[test]
    fn all_namespaces_are_one_list() {
        let scope = scope(&serde_json::json!({"namespaces": ["a", "*"]}));
        assert_eq!(scope.namespaces(), [Some("*".into())]);
    }
}
