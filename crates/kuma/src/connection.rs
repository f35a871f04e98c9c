//! The connection settings of Kuma: names, ports and how a token is sent.

use ecs_mesh_api::{AllowList, ControlPlaneProxy, KumaConnection};
use ecs_mesh_control_plane::http::{ConnectionSettings, Credential, Product, TextSources};
use ecs_mesh_controller::ProxyVariables;

/// Kuma and Kong Mesh.
pub const PRODUCT: Product = Product {
    name: "Kuma",
    block: "spec.kuma",
    ports: (5681, 5682),
    token: "a user token",
    credential: Credential::Bearer,
    client_certificate_help: "configure the server to accept user tokens",
    max_concurrent_calls: Some(16),
};

/// The transport's settings for the control plane of this manifest, which may name what is `allowed`.
pub fn settings(spec: &KumaConnection, allowed: &AllowList) -> ConnectionSettings {
    let KumaConnection { ca_file, ca_env, ca_secret, token_file, token_env, token_secret, .. } = spec.clone();
    ConnectionSettings {
        product: PRODUCT,
        address: spec.address.clone(),
        tls_server_name: spec.tls_server_name.clone(),
        ca: TextSources { file: ca_file, env: ca_env, secret: ca_secret },
        token: TextSources { file: token_file, env: token_env, secret: token_secret },
        allowed: allowed.clone(),
        proxy: (spec.proxy == ControlPlaneProxy::Environment)
            .then(ProxyVariables::from_environment)
            .flatten(),
        timeout: spec.timeout.0,
    }
}
