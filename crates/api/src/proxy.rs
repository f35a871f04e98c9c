//! `Workload.spec.proxy`: what a task's proxy is in the mesh, with what each kind of proxy needs.

use std::fmt;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KumaFeature, KumaRelease};
use ecs_mesh_model::AdvertisedAddress;

/// Kuma's default port of a zone ingress.
const INGRESS_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(10_000);
/// Kuma's default port of a zone egress.
const EGRESS_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(10_001);

/// Kinds of proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProxyKind {
    /// Beside an app, which it serves and calls for.
    #[default]
    Sidecar,
    /// Takes requests from outside the mesh.
    Gateway,
    /// Takes requests of other zones.
    ZoneIngress,
    /// Sends requests out of the zone.
    ZoneEgress,
}

impl ProxyKind {
    /// The value in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
            Self::ZoneIngress => "zoneIngress",
            Self::ZoneEgress => "zoneEgress",
        }
    }
}

/// Settings of a gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySettings {
    /// The program that routes the requests.
    #[serde(default, rename = "type")]
    pub kind: GatewayType,
}

/// Types of gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GatewayType {
    /// A gateway of its own, such as Kong Gateway, beside the sidecar.
    #[default]
    Delegated,
    /// The proxy itself, by a `MeshGateway` (Kuma 2.x only).
    Builtin,
}

impl GatewayType {
    /// The spelling in the control plane's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delegated => "DELEGATED",
            Self::Builtin => "BUILTIN",
        }
    }
}

/// Settings of a zone ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneIngressSettings {
    /// Port that the proxy listens on.
    #[serde(default = "ingress_port")]
    pub port: NonZeroU16,
    /// Where other zones reach the proxy, such as a network load balancer; default: the task itself.
    ///
    /// A `ZoneIngress` alone has it. The address of a Dataplane with a listener is that of a `MeshZoneAddress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised: Option<AdvertisedEndpoint>,
    /// For which meshes the proxy is; default: `zone` in Kuma 2.x, `mesh` in 3.x.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ZoneProxyScope>,
}

/// Settings of a zone egress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneEgressSettings {
    /// Port that the proxy listens on.
    #[serde(default = "egress_port")]
    pub port: NonZeroU16,
    /// For which meshes the proxy is; default: `zone` in Kuma 2.x, `mesh` in 3.x.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ZoneProxyScope>,
}

fn ingress_port() -> NonZeroU16 {
    INGRESS_PORT
}

fn egress_port() -> NonZeroU16 {
    EGRESS_PORT
}

impl Default for ZoneIngressSettings {
    fn default() -> Self {
        Self { port: INGRESS_PORT, advertised: None, scope: None }
    }
}

impl Default for ZoneEgressSettings {
    fn default() -> Self {
        Self { port: EGRESS_PORT, scope: None }
    }
}

/// Address and port that others connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdvertisedEndpoint {
    /// Address that other zones reach.
    pub address: AdvertisedAddress,
    /// Port at that address.
    pub port: NonZeroU16,
}

/// The meshes that a zone proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ZoneProxyScope {
    /// All meshes of the zone, as a `ZoneIngress` or `ZoneEgress` (Kuma 2.x).
    Zone,
    /// The binding's mesh, as a Dataplane with a listener (Kuma 2.14 and later).
    Mesh,
}

/// The role of a task's proxy in the mesh, with the settings of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyRole {
    /// A proxy beside an app.
    Sidecar,
    /// A gateway.
    Gateway(GatewayType),
    /// A proxy of the zone.
    Zone(ZoneProxy),
}

impl ProxyRole {
    /// Whether the proxy may have outbounds. `validateDataplane` refuses those of a built-in gateway, and zone proxies
    /// get their destinations from the control plane.
    pub fn may_have_outbounds(&self) -> bool {
        matches!(self, Self::Sidecar | Self::Gateway(GatewayType::Delegated))
    }

    /// The first setting that a release has no form for.
    pub fn inexpressible(&self, release: KumaRelease) -> Option<InexpressibleProxy> {
        match self {
            Self::Gateway(GatewayType::Builtin) if !release.has(KumaFeature::BuiltinGateway) => {
                Some(InexpressibleProxy::BuiltinGateway)
            }
            Self::Sidecar | Self::Gateway(_) => None,
            Self::Zone(proxy) => match release.zone_proxy_form().of(proxy) {
                ZoneProxyForm::Resource if !release.has(KumaFeature::ZoneProxyResources) => {
                    Some(InexpressibleProxy::ZoneScope(proxy.kind()))
                }
                ZoneProxyForm::Listener if !release.has(KumaFeature::Listeners) => {
                    Some(InexpressibleProxy::MeshScope(proxy.kind()))
                }
                ZoneProxyForm::Listener if proxy.advertised().is_some() => {
                    Some(InexpressibleProxy::Advertised)
                }
                ZoneProxyForm::Resource | ZoneProxyForm::Listener => None,
            },
        }
    }
}

/// Settings that a release of Kuma has no form for. A server of that release would refuse them, or drop them without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InexpressibleProxy {
    /// A built-in gateway.
    BuiltinGateway,
    /// A `ZoneIngress` or `ZoneEgress`.
    ZoneScope(ZoneProxyKind),
    /// A Dataplane with a listener of a zone proxy.
    MeshScope(ZoneProxyKind),
    /// The advertised address of a Dataplane with a listener.
    Advertised,
}

impl InexpressibleProxy {
    /// The field of a `Workload` that asks for it.
    pub fn field(self) -> &'static str {
        match self {
            Self::BuiltinGateway => "spec.gateway.type",
            Self::ZoneScope(ZoneProxyKind::Ingress) | Self::MeshScope(ZoneProxyKind::Ingress) => {
                "spec.zoneIngress.scope"
            }
            Self::ZoneScope(ZoneProxyKind::Egress) | Self::MeshScope(ZoneProxyKind::Egress) => {
                "spec.zoneEgress.scope"
            }
            Self::Advertised => "spec.zoneIngress.advertised",
        }
    }

    /// The next step.
    pub fn help(self) -> &'static str {
        match self {
            Self::BuiltinGateway => {
                "run a gateway of its own beside the sidecar, with gateway.type delegated"
            }
            Self::ZoneScope(_) => "leave `scope` out, or write mesh",
            Self::MeshScope(_) => "leave `scope` out, or write zone, or upgrade the control plane",
            Self::Advertised => {
                "create a MeshZoneAddress with the address and port in the zone, and leave `advertised` out"
            }
        }
    }
}

impl fmt::Display for InexpressibleProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltinGateway => f.write_str("a built-in gateway, which 3.0 removed"),
            Self::ZoneScope(kind) => write!(f, "a {}, which 3.0 removed (scope: zone)", kind.resource()),
            Self::MeshScope(kind) => write!(
                f,
                "a Dataplane with a listener of type {}, of which 2.14 is the first version (scope: mesh)",
                kind.resource()
            ),
            Self::Advertised => {
                f.write_str("an advertised address, which a Dataplane with a listener does not have")
            }
        }
    }
}

/// A zone ingress or egress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneProxy {
    /// Which of the two.
    pub direction: ZoneProxyDirection,
    /// The port that it listens on.
    pub port: NonZeroU16,
    /// The meshes that it is for, where the manifest decides it.
    pub scope: Option<ZoneProxyScope>,
}

impl ZoneProxy {
    /// Its type.
    pub fn kind(&self) -> ZoneProxyKind {
        match self.direction {
            ZoneProxyDirection::Ingress { .. } => ZoneProxyKind::Ingress,
            ZoneProxyDirection::Egress => ZoneProxyKind::Egress,
        }
    }

    /// Where other zones reach it, if that is not the task itself.
    pub fn advertised(&self) -> Option<&AdvertisedEndpoint> {
        match &self.direction {
            ZoneProxyDirection::Ingress { advertised } => advertised.as_ref(),
            ZoneProxyDirection::Egress => None,
        }
    }
}

/// The direction of a zone proxy, with what that direction needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneProxyDirection {
    /// Into the zone.
    Ingress {
        /// Where other zones reach it, if that is not the task itself.
        advertised: Option<AdvertisedEndpoint>,
    },
    /// Out of the zone.
    Egress,
}

/// Types of zone proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneProxyKind {
    /// An ingress.
    Ingress,
    /// An egress.
    Egress,
}

impl ZoneProxyKind {
    /// Both types.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The resource type, and the type of a listener.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Ingress => "ZoneIngress",
            Self::Egress => "ZoneEgress",
        }
    }

    /// The value of the role tag `kuma.io/type`, as `kuma-dp run --proxy-type` has it.
    pub fn role_type(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// How a control plane registers zone proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZoneProxyForm {
    /// As a `ZoneIngress` or `ZoneEgress`, which is of no mesh.
    #[default]
    Resource,
    /// As a Dataplane with a listener.
    Listener,
}

impl ZoneProxyForm {
    /// The form of a zone proxy at a control plane whose own form is `self`.
    #[must_use]
    pub fn of(self, proxy: &ZoneProxy) -> Self {
        match proxy.scope {
            Some(ZoneProxyScope::Zone) => Self::Resource,
            Some(ZoneProxyScope::Mesh) => Self::Listener,
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::WorkloadSpec;

    fn role(spec: Value) -> ProxyRole {
        let mut spec = spec;
        spec["selector"] = json!({"services": ["a"]});
        spec["service"] = "a".into();
        serde_json::from_value::<WorkloadSpec>(spec).unwrap().proxy_role()
    }

    #[test]
    fn missing_block_has_the_default_ports() {
        for (spec, kind, port) in [
            (json!({"proxy": "zoneIngress"}), ZoneProxyKind::Ingress, 10_001),
            (json!({"proxy": "zoneIngress", "zoneIngress": {}}), ZoneProxyKind::Ingress, 10_001),
            (json!({"proxy": "zoneEgress"}), ZoneProxyKind::Egress, 10_002),
            (json!({"proxy": "zoneEgress", "zoneEgress": {"port": 7}}), ZoneProxyKind::Egress, 7),
        ] {
            let ProxyRole::Zone(proxy) = role(spec.clone()) else { panic!("{spec}") };
            assert_eq!((proxy.kind(), proxy.port.get()), (kind, port), "{spec}");
        }
        assert_eq!(role(json!({})), ProxyRole::Sidecar);
        assert_eq!(role(json!({"proxy": "gateway"})), ProxyRole::Gateway(GatewayType::Delegated));
    }

    #[test]
    fn each_release_has_a_form_for_its_proxies() {
        use InexpressibleProxy::{Advertised, BuiltinGateway, MeshScope, ZoneScope};
        let builtin = json!({"proxy": "gateway", "gateway": {"type": "builtin"}});
        let ingress = |settings: Value| json!({"proxy": "zoneIngress", "zoneIngress": settings});
        let nlb = json!({"advertised": {"address": "192.0.2.5", "port": 10001}});
        for (spec, in_2_13, in_2_14, in_3_0) in [
            (json!({}), None, None, None),
            (json!({"proxy": "gateway"}), None, None, None),
            (builtin, None, None, Some(BuiltinGateway)),
            (ingress(json!({})), None, None, None),
            (ingress(nlb), None, None, Some(Advertised)),
            (ingress(json!({"scope": "zone"})), None, None, Some(ZoneScope(ZoneProxyKind::Ingress))),
            (ingress(json!({"scope": "mesh"})), Some(MeshScope(ZoneProxyKind::Ingress)), None, None),
        ] {
            let found = [(2, 13), (2, 14), (3, 0)]
                .map(|(major, minor)| role(spec.clone()).inexpressible(KumaRelease::new(major, minor)));
            assert_eq!(found, [in_2_13, in_2_14, in_3_0], "{spec}");
        }
    }
}
