//! Requests, responses and settings of the control plane.

use super::release::EmulatedRelease;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

/// Mode of the control plane in a multi-zone deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KumaMode {
    /// A zone that is not federated: all types are writable.
    #[default]
    Zone,
    /// A global control plane: Dataplanes and other types of zones are read-only.
    Global,
}

/// Settings of a control plane.
#[derive(Clone, Debug)]
pub struct KumaConfig {
    /// `KUMA_MODE`
    pub mode: KumaMode,
    /// The emulated release, until an upgrade.
    pub release: EmulatedRelease,
    /// `KUMA_API_SERVER_READ_ONLY`: every write returns 405.
    pub read_only: bool,
    /// The name of the zone, a label of all objects.
    pub zone: String,
    /// The bearer token of the administrator; other tokens return 401.
    pub admin_token: Option<String>,
    /// `KUMA_API_SERVER_AUTHN_LOCALHOST_IS_ADMIN`: requests over loopback have administrator rights, with any token.
    pub localhost_is_admin: bool,
    /// The first address of `KUMA_IPAM_MESH_SERVICE_CIDR`, from which MeshServices get their virtual IPs. Sidecars that bind
    /// their outbounds need one in 127.0.0.0/8.
    pub first_service_address: Ipv4Addr,
}

impl Default for KumaConfig {
    fn default() -> Self {
        Self {
            mode: KumaMode::Zone,
            release: EmulatedRelease::V2_14,
            read_only: false,
            zone: "default".to_owned(),
            admin_token: None,
            localhost_is_admin: true,
            first_service_address: Ipv4Addr::new(241, 0, 0, 0),
        }
    }
}

/// The parts of an HTTP request that the control plane reads.
#[derive(Clone, Debug, Default)]
pub struct KumaRequest {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Percent-encoded path with the query, as in the request line.
    pub path_and_query: String,
    /// The `Content-Type` header.
    pub content_type: Option<String>,
    /// The `Host` header, for links to the next page.
    pub host: String,
    /// The token of an `Authorization: Bearer` header.
    pub bearer: Option<String>,
    /// The raw body.
    pub body: Vec<u8>,
}

impl KumaRequest {
    /// A request to the host `kuma` without a token, with a body of JSON or an empty one.
    pub fn json(method: &str, path_and_query: &str, body: Vec<u8>) -> Self {
        Self {
            method: method.to_owned(),
            path_and_query: path_and_query.to_owned(),
            content_type: Some("application/json".to_owned()),
            host: "kuma".to_owned(),
            bearer: None,
            body,
        }
    }
}

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KumaResponse {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type` header.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl KumaResponse {
    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        // Writing these bodies to a Vec cannot fail.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { status, content_type: "application/json", body }
    }

    /// A plain-text response of the router.
    pub(super) fn plain(status: u16, reason: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{status}: {reason}").into_bytes(),
        }
    }
}

/// Decoded path segments and query parameters of a request.
pub(super) struct KumaRequestTarget {
    /// The decoded path.
    pub(super) path: String,
    pub(super) segments: Vec<String>,
    /// Parameters by name, each with its values in the order of the request.
    pub(super) query: BTreeMap<String, Vec<String>>,
}

impl KumaRequestTarget {
    /// `None` if the percent-encoding of the path is invalid.
    pub(super) fn parse(path_and_query: &str) -> Option<Self> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        if !well_encoded(path) {
            return None;
        }
        let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?.into_owned();
        let trimmed = path.trim_matches('/');
        let segments =
            if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').map(str::to_owned).collect() };
        let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            parameters.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Some(Self { path, segments, query: parameters })
    }

    /// The first value of a parameter; empty if absent.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }
}

fn well_encoded(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| {
        let hex = rest.as_bytes();
        hex.len() >= 2 && hex[..2].iter().all(u8::is_ascii_hexdigit)
    })
}
