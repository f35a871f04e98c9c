//! What a connection to Consul has of its own: the names, the ports, and how it takes a token.

use ecs_mesh_api::ConsulConnection;
use ecs_mesh_control_plane::http::{Credential, Product, ConnectionSettings, TextSources};

/// Consul, open source and Enterprise.
///
/// Its servers take 200 connections from an address and refuse everybody there beyond that, tasks and other tools
/// included. Four calls at a time make a handful of connections, which are kept and used again.
pub const PRODUCT: Product = Product {
    name: "Consul",
    block: "spec.consul",
    ports: (8500, 8501),
    token: "an ACL token",
    credential: Credential::ConsulToken,
    instead_of_certificate: "let the servers' HTTPS port not verify incoming connections (tls.https.verify_incoming)",
    most_calls: Some(4),
};

/// How the transport connects to the control plane of this manifest.
pub fn settings(spec: &ConsulConnection) -> ConnectionSettings {
    let ConsulConnection { ca_file, ca_env, ca_secret, token_file, token_env, token_secret, .. } =
        spec.clone();
    ConnectionSettings {
        product: PRODUCT,
        address: spec.address.clone(),
        ca: TextSources { file: ca_file, env: ca_env, secret: ca_secret },
        token: TextSources { file: token_file, env: token_env, secret: token_secret },
        timeout: spec.timeout.0,
    }
}
