//! The connection settings of Kuma: names, ports and how a token is sent.

use ecs_mesh_api::KumaConnection;
use ecs_mesh_control_plane::http::{ConnectionSettings, Credential, Product, TextSources};

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

/// The transport's settings for the control plane of this manifest.
pub fn settings(spec: &KumaConnection) -> ConnectionSettings {
    ConnectionSettings {
        product: PRODUCT,
        address: spec.address.clone(),
        ca: TextSources { file: spec.ca_file.clone(), env: spec.ca_env.clone(), secret: None },
        token: TextSources { file: spec.token_file.clone(), env: spec.token_env.clone(), secret: None },
        timeout: spec.timeout.0,
    }
}
