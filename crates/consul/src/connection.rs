//! The connection settings of Consul: names, ports and how a token is sent.

use ecs_mesh_api::{AllowList, ConsulConnection, ControlPlaneProxy};
use ecs_mesh_control_plane::http::{ConnectionSettings, Credential, Product, TextSources};
use ecs_mesh_controller::ProxyVariables;

/// Consul, open source and Enterprise.
///
/// The servers accept 200 connections per source address and reject all others from there, including those of tasks and
/// other tools. Four concurrent calls need few connections, which are reused.
pub const PRODUCT: Product = Product {
    name: "Consul",
    block: "spec.consul",
    ports: (8500, 8501),
    token: "an ACL token",
    credential: Credential::ConsulToken,
    client_certificate_help: "disable verification of incoming connections at the servers' HTTPS port (tls.https.verify_incoming)",
    max_concurrent_calls: Some(4),
};

/// The transport's settings for the control plane of this manifest, which may name what is `allowed`.
pub fn settings(spec: &ConsulConnection, allowed: &AllowList) -> ConnectionSettings {
    let ConsulConnection { ca_file, ca_env, ca_secret, token_file, token_env, token_secret, .. } =
        spec.clone();
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
