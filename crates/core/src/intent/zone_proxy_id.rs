//! Ids of resources that are of no mesh: `ZoneIngress` and `ZoneEgress`.
//!
//! Their names are prefixed with their type. A `/` is in no name of a Dataplane, so no other id is the same.

use ecs_mesh_api::ZoneProxyKind;
use ecs_mesh_model::MeshName;

use super::RegistrationId;

/// The prefix of the ids of a type.
fn prefix(kind: ZoneProxyKind) -> &'static str {
    match kind {
        ZoneProxyKind::Ingress => "zoneingress/",
        ZoneProxyKind::Egress => "zoneegress/",
    }
}

impl RegistrationId {
    /// The id of the `ZoneIngress` or `ZoneEgress` of this name.
    pub fn of_zone_proxy(kind: ZoneProxyKind, name: &str) -> Self {
        // The mesh is the same for all of them, so that equal ids are one resource.
        Self { mesh: MeshName::default(), name: format!("{}{name}", prefix(kind)).into() }
    }

    /// Type and name, if the registration is a `ZoneIngress` or `ZoneEgress`.
    pub fn zone_proxy(&self) -> Option<(ZoneProxyKind, &str)> {
        ZoneProxyKind::ALL.into_iter().find_map(|kind| Some((kind, self.name.strip_prefix(prefix(kind))?)))
    }

    /// The registration's mesh; `None` for a `ZoneIngress` or `ZoneEgress`, which is of no mesh.
    pub fn mesh_scope(&self) -> Option<&MeshName> {
        self.zone_proxy().is_none().then_some(&self.mesh)
    }

    /// Whether the other registration is of the same type, and of the same mesh: a task has one of each at most.
    pub fn is_alike(&self, other: &Self) -> bool {
        let kind = |id: &Self| id.zone_proxy().map(|(kind, _)| kind);
        self.mesh_scope() == other.mesh_scope() && kind(self) == kind(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_of_a_zone_proxy_names_its_type_and_no_mesh() {
        let ingress = RegistrationId::of_zone_proxy(ZoneProxyKind::Ingress, "a");
        assert_eq!(ingress.zone_proxy(), Some((ZoneProxyKind::Ingress, "a")));
        assert_eq!((ingress.mesh_scope(), &*ingress.to_string()), (None, "zoneingress/a"));
        let egress = RegistrationId::of_zone_proxy(ZoneProxyKind::Egress, "a");
        let dataplane = RegistrationId { mesh: MeshName::default(), name: "a".into() };
        assert_eq!((dataplane.zone_proxy(), &*dataplane.to_string()), (None, "default/a"));
        let other = RegistrationId::of_zone_proxy(ZoneProxyKind::Ingress, "b");
        assert!(ingress.is_alike(&other) && dataplane.is_alike(&dataplane));
        assert!(!ingress.is_alike(&egress) && !ingress.is_alike(&dataplane));
    }
}
