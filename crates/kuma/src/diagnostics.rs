//! Reads the state of a control plane for diagnostics. Each read fails independently, and nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::capabilities::{self, KumaVersion, WriteRules};
use super::client::KumaControlPlane;
use super::errors::{self, RequestKind};
use ecs_mesh_api::ZoneProxyKind;
use ecs_mesh_control_plane::http::{Transport, quote, quote_name, segment};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_model::MeshName;

/// The diagnostics of a control plane.
#[derive(Clone, Debug)]
pub struct KumaDiagnostics {
    /// `GET /`.
    pub version: Result<KumaVersion, MeshError>,
    /// The rules by which the server is written to, or the reason why it is not. Without a version there is neither.
    pub rules: Option<Result<WriteRules, Arc<String>>>,
    /// The reads of a reachable server; `None` if `GET /` showed that there is none.
    pub probes: Option<KumaProbes>,
}

/// The diagnostics of a reachable control plane.
#[derive(Clone, Debug)]
pub struct KumaProbes {
    /// `GET /who-am-i`.
    pub caller: Result<CallerInfo, MeshError>,
    /// `GET /config`.
    pub configuration: Result<ServerConfig, MeshError>,
    /// `GET /meshes/NAME`.
    pub meshes: BTreeMap<MeshName, Result<MeshSettings, MeshError>>,
    /// The number of registrations with the operator's label.
    pub owned: Result<usize, MeshError>,
    /// The lists of zone proxies that could not be read.
    pub unlisted: BTreeMap<ZoneProxyKind, MeshError>,
}

/// The identity of the operator's token, as the control plane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerInfo {
    /// The user name, such as `mesh-system:admin`.
    pub name: String,
    /// The groups, such as `mesh-system:admin` and `mesh-system:authenticated`.
    pub groups: Vec<String>,
}

/// The relevant part of the server's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerConfig {
    /// `zone`, `global` or (in early 2.x versions) `standalone`.
    pub mode: String,
    /// The reason if the server accepts no Dataplanes.
    pub refuses_writes: Option<&'static str>,
    /// `dpServer.hds.enabled`.
    pub health_discovery: Option<bool>,
    /// How proxies authenticate.
    pub proxy_auth: ProxyAuth,
    /// `access.static.generateDpToken`: who may issue data plane tokens; `None` if the server does not show it.
    pub token_access: Option<StaticAccess>,
    /// `access.static.adminResources`: who may read and change Secrets.
    pub secret_access: Option<StaticAccess>,
}

/// The callers that may do something, by the static rules of the server's configuration. Both are administrators by default.
///
/// Source: `pkg/config/access` in <https://github.com/kumahq/kuma>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticAccess {
    /// The names of users.
    pub users: BTreeSet<String>,
    /// Their groups.
    pub groups: BTreeSet<String>,
}

impl StaticAccess {
    /// Whether the caller may do it.
    pub fn allows(&self, caller: &CallerInfo) -> bool {
        self.users.contains(&caller.name) || caller.groups.iter().any(|group| self.groups.contains(group))
    }
}

/// How proxies authenticate to the server, as far as it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyAuth {
    /// `dpServer.authn.dpProxy.type`: `none`, `dpToken` or, on Kong Mesh, `aws-iam`.
    pub dataplanes: Option<String>,
    /// `dpServer.authn.zoneProxy.type`.
    pub zone_proxies: Option<String>,
    /// `dpServer.authn.enableReloadableTokens`: sidecars read their tokens again.
    pub reloadable_tokens: Option<bool>,
    /// `dpServer.authn.dpProxy.dpToken.enableIssuer`: the server issues data plane tokens.
    pub issues_tokens: Option<bool>,
    /// The AWS accounts whose roles `aws-iam` accepts. Kong Mesh's setting `authorizedAccountIds`, wherever it stands.
    pub authorized_accounts: Option<BTreeSet<String>>,
}

/// The relevant part of a Mesh resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// The backend of `mtls`, if enabled.
    pub mtls: Option<String>,
    /// `meshServices.mode`, if set.
    pub mesh_services: Option<String>,
}

impl<T: Transport> KumaControlPlane<T> {
    /// Reads everything that the setup depends on; writes nothing. Each read takes at most the connection's time limit.
    /// An unreachable server ends the diagnostics after the first read.
    pub async fn diagnose(&self, meshes: &BTreeSet<MeshName>) -> KumaDiagnostics {
        let version = self.load_version().await;
        if let Err(error) = &version
            && matches!(error.kind, MeshErrorKind::Unreachable | MeshErrorKind::UnexpectedResponse)
        {
            return KumaDiagnostics { version, rules: None, probes: None };
        }
        let rules = version.is_ok().then(|| self.known_rules()).flatten();
        let caller = self.get_json("/who-am-i", RequestKind::Server).await.and_then(|body| caller(&body));
        let configuration =
            self.get_json("/config", RequestKind::Server).await.map(|config| configuration(&config));
        let mut mesh_settings = BTreeMap::new();
        for mesh in meshes {
            let resource =
                self.get_json(&format!("/meshes/{}", segment(mesh.as_str())), RequestKind::Mesh).await;
            mesh_settings.insert(mesh.clone(), resource.map(|resource| settings(&resource)));
        }
        let mut owned = BTreeSet::new();
        let listed = self.list_all_owned(&mut |summary| _ = owned.insert(summary.id)).await;
        let mut unlisted = BTreeMap::new();
        let owned = listed.map(|failed| {
            let failed = failed.into_iter();
            unlisted.extend(failed.filter_map(|failed| Some((failed.segment.zone_proxies()?, failed.error))));
            owned.len()
        });
        let probes = KumaProbes { caller, configuration, meshes: mesh_settings, owned, unlisted };
        KumaDiagnostics { version, rules, probes: Some(probes) }
    }
}

fn caller(body: &Value) -> Result<CallerInfo, MeshError> {
    let name = body.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| errors::unexpected("GET /who-am-i", "the response has no name"))?;
    let groups = body.get("groups").and_then(Value::as_array).into_iter().flatten();
    Ok(CallerInfo {
        name: quote_name(name),
        groups: groups.filter_map(Value::as_str).map(quote_name).collect(),
    })
}

fn configuration(config: &Value) -> ServerConfig {
    let mode = config.get("mode").and_then(Value::as_str).unwrap_or("unknown");
    ServerConfig {
        mode: quote(mode),
        refuses_writes: capabilities::refuses_writes(config),
        health_discovery: config.pointer("/dpServer/hds/enabled").and_then(Value::as_bool),
        proxy_auth: proxy_auth(config),
        token_access: static_access(config, "generateDpToken"),
        secret_access: static_access(config, "adminResources"),
    }
}

fn static_access(config: &Value, name: &str) -> Option<StaticAccess> {
    let rules = config.pointer("/access/static")?.get(name)?;
    let names = |field: &str| {
        let names = rules.get(field).and_then(Value::as_array)?;
        Some(names.iter().filter_map(Value::as_str).map(quote_name).collect())
    };
    let (users, groups) = (names("users"), names("groups"));
    // Without either, the server shows it in a form that is not known.
    (users.is_some() || groups.is_some())
        .then(|| StaticAccess { users: users.unwrap_or_default(), groups: groups.unwrap_or_default() })
}

fn proxy_auth(config: &Value) -> ProxyAuth {
    let kind = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).map(quote_name);
    ProxyAuth {
        dataplanes: kind("/dpServer/authn/dpProxy/type"),
        zone_proxies: kind("/dpServer/authn/zoneProxy/type"),
        reloadable_tokens: config.pointer("/dpServer/authn/enableReloadableTokens").and_then(Value::as_bool),
        issues_tokens: config
            .pointer("/dpServer/authn/dpProxy/dpToken/enableIssuer")
            .and_then(Value::as_bool),
        authorized_accounts: find_key(config, "authorizedAccountIds").map(accounts),
    }
}

/// The first value of this key at any depth, whatever its case.
fn find_key<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => {
            let own = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
            own.or_else(|| fields.values().find_map(|value| find_key(value, key)))
        }
        Value::Array(items) => items.iter().find_map(|item| find_key(item, key)),
        _ => None,
    }
}

/// A list, or text with commas.
fn accounts(value: &Value) -> BTreeSet<String> {
    let listed = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    let split = value.as_str().unwrap_or_default().split(',');
    listed.chain(split).map(str::trim).filter(|account| !account.is_empty()).map(quote_name).collect()
}

fn settings(mesh: &Value) -> MeshSettings {
    let text = |pointer: &str| mesh.pointer(pointer).and_then(Value::as_str).map(quote_name);
    MeshSettings { mtls: text("/mtls/enabledBackend"), mesh_services: text("/meshServices/mode") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn access_is_that_of_users_and_groups() {
        let rules = json!({"generateDpToken": {"users": ["ci"], "groups": ["mesh-system:admin", "tokens"]}});
        let config = configuration(&json!({"access": {"type": "static", "static": rules}}));
        let caller = |name: &str, group: &str| CallerInfo { name: name.into(), groups: vec![group.into()] };
        let access = config.token_access.unwrap();
        assert!(access.allows(&caller("ci", "x")) && access.allows(&caller("operator", "tokens")));
        assert!(!access.allows(&caller("operator", "mesh-system:authenticated")));
        assert_eq!(config.secret_access, None);
    }

    #[test]
    fn authentication_is_read_where_the_server_shows_it() {
        let config = json!({
            "mode": "zone",
            "dpServer": {"authn": {
                "dpProxy": {"type": "aws-iam"}, "zoneProxy": {"type": "zoneToken"}, "enableReloadableTokens": true,
            }},
            "kmesh": {"awsIam": {"authorizedAccountIds": ["111122223333", "444455556666"]}},
        });
        let auth = configuration(&config).proxy_auth;
        assert_eq!(auth.dataplanes.as_deref(), Some("aws-iam"));
        assert_eq!(auth.zone_proxies.as_deref(), Some("zoneToken"));
        assert_eq!(auth.reloadable_tokens, Some(true));
        let both = ["111122223333", "444455556666"].map(str::to_owned);
        assert_eq!(auth.authorized_accounts, Some(both.clone().into()));
        assert_eq!(accounts(&json!("111122223333, 444455556666")), both.into());
        assert_eq!(configuration(&json!({"mode": "zone"})).proxy_auth, ProxyAuth::default());
    }
}
