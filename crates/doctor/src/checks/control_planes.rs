//! Control planes: reachable, supported, writable, and with an accepted token. Consul is in `consul`.

use std::collections::BTreeSet;

use super::consul;
use crate::catalogue::{
    CONSUL_REACHED, PLANE_IDENTITY, PLANE_LIST, PLANE_MESH, PLANE_MODE, PLANE_REACHED, PLANE_TOKEN,
    PLANE_TOKENS, PLANE_VERSION, PLANE_WORKLOADS,
};
use crate::facts::{ControlPlaneFacts, DoctorFacts};
use crate::report::{CheckKind, CheckResult};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{
    ControlPlaneSpec, ControlPlaneType, KumaConnection, KumaFeature, KumaRelease, ProxyRole, RoleTagMode,
    WorkloadSpec, ZoneProxyForm, ZoneProxyKind,
};
use ecs_mesh_audit::{CheckedWorkloads, InexpressibleWorkload};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_core::intent::workloads_in;
use ecs_mesh_kuma::{
    CallerInfo, KumaDiagnostics, KumaProbes, KumaVersion, MeshSettings, ProxyAuth, RulesBasis, ServerConfig,
    StaticAccess,
};
use ecs_mesh_model::Glob;

const ADMIN: &str = "mesh-system:admin";
const ANONYMOUS: &str = "mesh-system:unauthenticated";

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let set = &facts.manifests.set;
    let mut checks = Vec::new();
    for (name, diagnostics) in &facts.control_planes {
        let Some(spec) = set.control_planes.get(name) else { continue };
        let reached = match spec.kind {
            ControlPlaneType::Kuma => PLANE_REACHED,
            ControlPlaneType::Consul => CONSUL_REACHED,
        };
        let subject = format!("{name} ({})", address(spec));
        match diagnostics {
            Ok(ControlPlaneFacts::Kuma(facts)) => {
                let expected = expected_accounts(set, name);
                let found = &facts.diagnostics;
                checks.extend(kuma(&subject, spec.kuma.as_ref(), &expected, found));
                checks
                    .extend(found.probes.iter().flat_map(|probes| zone_proxies(set, name, &subject, probes)));
                checks.extend(facts.workloads.iter().flat_map(|checked| workloads(&subject, checked)));
                let configuration =
                    found.probes.as_ref().and_then(|probes| probes.configuration.as_ref().ok());
                let release = found.version.as_ref().ok().and_then(|version| version.release);
                let identity = configuration.zip(release).and_then(|(configuration, release)| {
                    let declared = zone_proxies_of(set, name, release);
                    zone_proxy_identity(&subject, &configuration.proxy_auth, release, &declared)
                });
                checks.extend(identity);
                let answers = found.probes.as_ref().filter(|_| issues_tokens(set, name));
                checks.extend(answers.map(|answers| tokens(&subject, answers)));
            }
            Ok(ControlPlaneFacts::Consul(found)) => {
                checks.extend(consul::check(set, name, &subject, found));
            }
            Err(error) => checks.push(reached.error(subject, error, "correct the ControlPlane manifest")),
        }
    }
    checks
}

fn address(spec: &ControlPlaneSpec) -> &str {
    let kuma = spec.kuma.as_ref().map(|connection| connection.address.as_str());
    kuma.or(spec.consul.as_ref().map(|connection| connection.address.as_str())).unwrap_or_default()
}

fn kuma(
    subject: &str,
    connection: Option<&KumaConnection>,
    accounts: &BTreeSet<String>,
    diagnostics: &KumaDiagnostics,
) -> Vec<CheckResult> {
    let Some(answers) = &diagnostics.probes else {
        return vec![not_reached(PLANE_REACHED, subject, diagnostics.version.as_ref().err())];
    };
    let release = diagnostics.version.as_ref().ok().and_then(|version| version.release);
    let mut checks = vec![
        PLANE_REACHED.ok(subject, "reachable"),
        version(subject, connection, diagnostics),
        mode(subject, answers.configuration.as_ref()),
        identity(subject, accounts, answers.configuration.as_ref()),
        token(subject, connection, answers.caller.as_ref(), diagnostics.version.as_ref().ok()),
        list(subject, answers, release),
    ];
    checks.extend(meshes(subject, answers, release));
    checks
}

pub(super) fn not_reached(id: CheckKind, subject: &str, error: Option<&MeshError>) -> CheckResult {
    let (message, fix) = error.map_or(("no response", None), MeshError::split_help);
    let check_connection = "check that the control plane runs, that this machine may connect to it, and the address in \
                            the ControlPlane manifest";
    id.error(subject, message, fix.unwrap_or(check_connection))
}

fn version(subject: &str, connection: Option<&KumaConnection>, diagnostics: &KumaDiagnostics) -> CheckResult {
    let version = match &diagnostics.version {
        Ok(version) => version,
        Err(error) => return failed(PLANE_VERSION, subject, error),
    };
    let rules = match &diagnostics.rules {
        Some(Ok(rules)) => rules,
        Some(Err(reason)) => {
            let (problem, help) =
                reason.split_once("; help: ").unwrap_or((reason, "use a supported version"));
            return PLANE_VERSION.error(subject, problem, help);
        }
        None => return PLANE_VERSION.unknown(subject, "the version was not read", "run the doctor again"),
    };
    let (text, dialect) = (&version.text, rules.dialect.as_str());
    match (rules.basis, connection.and_then(|connection| connection.dialect)) {
        (RulesBasis::Named, _) => PLANE_VERSION.warning(
            subject,
            format!("{text}, whose version decides nothing: written to by dialect {dialect}, as the manifest says"),
            "verify the first registrations",
        ),
        (RulesBasis::Untested, _) => PLANE_VERSION.warning(
            subject,
            format!(
                "{text}, which is not tested with this operator: written to by dialect {dialect}, and the first write is read \
                 back"
            ),
            "use a version from 2.7 to 2.14 or 3.0, or verify the first registrations",
        ),
        (RulesBasis::Tested, Some(named)) if named != rules.dialect => PLANE_VERSION.warning(
            subject,
            format!("{text}, written to by dialect {dialect}; the manifest names {}", named.as_str()),
            "remove ControlPlane.spec.kuma.dialect, which has no effect for this version",
        ),
        (RulesBasis::Tested, _) => PLANE_VERSION.ok(subject, &**text),
    }
}

fn mode(subject: &str, configuration: Result<&ServerConfig, &MeshError>) -> CheckResult {
    let configuration = match configuration {
        Ok(configuration) => configuration,
        Err(error) if error.kind == MeshErrorKind::Forbidden => {
            let found = "the token may not read GET /config: health discovery is assumed to be on";
            return PLANE_MODE.unknown(
                subject,
                found,
                "use an admin token, or make sure that the address is that of a zone control plane",
            );
        }
        Err(error) => return failed(PLANE_MODE, subject, error),
    };
    if let Some(why) = configuration.refuses_writes {
        let fix =
            "set ControlPlane.spec.kuma.address to that of the zone's own control plane, with writes on";
        return PLANE_MODE.error(subject, why, fix);
    }
    let health = match configuration.health_discovery {
        Some(false) => "health discovery is off: inbounds are registered as ready",
        _ => "health discovery is on",
    };
    PLANE_MODE.ok(subject, format!("mode {}; {health}", configuration.mode))
}

/// The accounts whose roles the bindings of this control plane allow: the declared ones, or those of the clusters, as far as
/// their patterns name one.
fn expected_accounts(set: &ManifestSet, control_plane: &str) -> BTreeSet<String> {
    let bindings = set.bindings.values().filter(|binding| *binding.spec.control_plane == *control_plane);
    let account_of = |cluster: &Glob| Some(cluster.as_str().split(':').nth(4)?.to_owned());
    let is_account = |text: &String| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    bindings
        .filter(|binding| binding.spec.role_tags.mode != RoleTagMode::Off)
        .flat_map(|binding| match &binding.spec.role_tags.authorized_accounts {
            declared if !declared.is_empty() => declared.clone(),
            _ => binding.spec.selector.clusters.iter().filter_map(account_of).filter(is_account).collect(),
        })
        .collect()
}

/// Workloads that the control plane has no form for.
fn workloads(subject: &str, checked: &Result<CheckedWorkloads, String>) -> Vec<CheckResult> {
    let checked = match checked {
        Ok(checked) => checked,
        Err(reason) => return vec![PLANE_WORKLOADS.unknown(subject, reason, "run the doctor again")],
    };
    let unread = checked.unread.iter().map(|mesh| {
        let found = format!("mesh {mesh} could not be read: its Workloads are not checked");
        PLANE_WORKLOADS.unknown(subject, found, "see control-plane.mesh")
    });
    let broken = checked.inexpressible.iter().map(|InexpressibleWorkload { workload, message, fix }| {
        let found = format!("Workload {workload}: {message}; its tasks are not registered");
        PLANE_WORKLOADS.warning(subject, found, fix)
    });
    let found: Vec<CheckResult> = unread.chain(broken).collect();
    if found.is_empty() {
        vec![PLANE_WORKLOADS.ok(subject, format!("{} Workloads", checked.count))]
    } else {
        found
    }
}

/// How proxies authenticate. See <https://developer.konghq.com/mesh/data-plane-proxy-authentication/>.
fn identity(
    subject: &str,
    accounts: &BTreeSet<String>,
    configuration: Result<&ServerConfig, &MeshError>,
) -> CheckResult {
    let Ok(configuration) = configuration else {
        let found = "GET /config could not be read: how proxies authenticate is not known";
        return PLANE_IDENTITY.unknown(subject, found, "see control-plane.mode");
    };
    let auth = &configuration.proxy_auth;
    let zone_proxies = auth.zone_proxies.as_deref().unwrap_or("unknown");
    match auth.dataplanes.as_deref() {
        None => PLANE_IDENTITY.info(subject, "the server does not show how proxies authenticate"),
        Some("none") => PLANE_IDENTITY.warning(
            subject,
            "Dataplanes do not authenticate: any client that reaches the server may be any of them",
            "set KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE to dpToken, or on Kong Mesh to aws-iam",
        ),
        Some("aws-iam") => identity_by_iam(subject, accounts, auth, zone_proxies),
        Some("dpToken") => PLANE_IDENTITY.ok(
            subject,
            format!(
                "Dataplanes authenticate by dpToken, zone proxies by {zone_proxies}; the operator alone checks role tags"
            ),
        ),
        Some(other) => PLANE_IDENTITY
            .info(subject, format!("Dataplanes authenticate by {other}, zone proxies by {zone_proxies}")),
    }
}

/// The Workloads whose zone proxies are resources of their own in the release, with an authentication of their own.
fn zone_proxies_of<'a>(set: &'a ManifestSet, control_plane: &str, release: KumaRelease) -> BTreeSet<&'a str> {
    let form = release.zone_proxy_form();
    let is_one = |workload: &WorkloadSpec| matches!(workload.proxy_role(), ProxyRole::Zone(proxy) if form.of(&proxy) == ZoneProxyForm::Resource);
    let bindings = set.bindings.values().filter(|binding| *binding.spec.control_plane == *control_plane);
    let workloads = bindings.flat_map(|binding| workloads_in(set, binding));
    workloads.filter(|(_, workload)| is_one(workload)).map(|(name, _)| &**name).collect()
}

/// Zone proxies that do not authenticate, or not as their tasks do. In 3.0 they are Dataplanes.
fn zone_proxy_identity(
    subject: &str,
    auth: &ProxyAuth,
    release: KumaRelease,
    declared: &BTreeSet<&str>,
) -> Option<CheckResult> {
    if !release.has(KumaFeature::ZoneProxyResources) {
        return None;
    }
    match (auth.dataplanes.as_deref(), auth.zone_proxies.as_deref()?) {
        (_, "none") => Some(PLANE_IDENTITY.warning(
            subject,
            "zone proxies do not authenticate: any client that reaches the server may be an ingress or egress of the zone",
            "set KUMA_DP_SERVER_AUTHN_ZONE_PROXY_TYPE to zoneToken, or on Kong Mesh to aws-iam",
        )),
        (Some("aws-iam"), other) if other != "aws-iam" && !declared.is_empty() => {
            let names = declared.iter().copied().collect::<Vec<_>>().join(", ");
            let found = format!(
                "Dataplanes authenticate by aws-iam, and zone proxies by {other}: those of {names} cannot connect with \
                 --auth-type=aws"
            );
            Some(PLANE_IDENTITY.warning(subject, found, "set KUMA_DP_SERVER_AUTHN_ZONE_PROXY_TYPE=aws-iam"))
        }
        _ => None,
    }
}

fn identity_by_iam(
    subject: &str,
    accounts: &BTreeSet<String>,
    auth: &ProxyAuth,
    zone_proxies: &str,
) -> CheckResult {
    if auth.reloadable_tokens == Some(false) {
        return PLANE_IDENTITY.warning(
            subject,
            "Dataplanes authenticate by aws-iam, and tokens are not reloadable: a sidecar cannot connect again once \
             its token has expired",
            "set KUMA_DP_SERVER_AUTHN_ENABLE_RELOADABLE_TOKENS=true",
        );
    }
    let authorized = auth.authorized_accounts.as_ref();
    let refused: Vec<&str> = authorized
        .map(|authorized| accounts.difference(authorized).map(String::as_str).collect())
        .unwrap_or_default();
    if !refused.is_empty() {
        let list = refused.join(", ");
        return PLANE_IDENTITY.warning(
            subject,
            format!("the server refuses the roles of accounts that MeshBindings authorise: {list}"),
            format!("add them to KMESH_AWSIAM_AUTHORIZEDACCOUNTIDS: {list}"),
        );
    }
    let shown = match authorized {
        Some(_) => "",
        None => "; it does not show the authorised accounts",
    };
    let found = format!("Dataplanes authenticate by aws-iam, zone proxies by {zone_proxies}{shown}");
    PLANE_IDENTITY.ok(subject, found)
}

fn token(
    subject: &str,
    connection: Option<&KumaConnection>,
    caller: Result<&CallerInfo, &MeshError>,
    version: Option<&KumaVersion>,
) -> CheckResult {
    let given = connection
        .is_some_and(|one| one.token_file.is_some() || one.token_env.is_some() || one.token_secret.is_some());
    let fix = "`kumactl generate user-token --name ecs-mesh-operator --group mesh-system:admin --valid-for 8760h` \
                into the source that ControlPlane.spec.kuma.tokenFile, tokenEnv or tokenSecret names";
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => return failed(PLANE_TOKEN, subject, error),
    };
    let clear = connection.is_some_and(|connection| is_unencrypted_remote(&connection.address));
    if given && clear {
        let found = format!("taken for {}, and the token goes over the network in the clear", caller.name);
        return PLANE_TOKEN.warning(subject, found, "use https:// and port 5682, with caFile");
    }
    let is = |group: &str| caller.groups.iter().any(|one| one == group);
    if is(ADMIN) {
        return PLANE_TOKEN.ok(subject, format!("taken for {}, an administrator", caller.name));
    }
    // Kuma restricts secrets and tokens to administrators, but any caller may write Dataplanes, so this works.
    if is(ANONYMOUS) && !given && version.is_some_and(KumaVersion::is_open_source) {
        let found = "no token is configured, and Kuma allows anonymous callers to write Dataplanes: so may any client that reaches \
                     the address, which the network's rules must keep to those who should";
        return PLANE_TOKEN.info(subject, found);
    }
    if is(ANONYMOUS) {
        let found = if given {
            "a token is configured, but the caller is anonymous"
        } else {
            "no token is configured, so the caller is anonymous: without other access control, every client that reaches \
             the address can write Dataplanes"
        };
        return PLANE_TOKEN.warning(subject, found, fix);
    }
    let found = format!("identified as {}, no administrator: write permission is not tested", caller.name);
    PLANE_TOKEN.info(subject, found)
}

/// Whether a binding of the control plane issues data plane tokens.
fn issues_tokens(set: &ManifestSet, control_plane: &str) -> bool {
    let mut bindings = set.bindings.values();
    bindings.any(|binding| *binding.spec.control_plane == *control_plane && binding.spec.tokens.issue)
}

/// Data plane tokens: the server issues and checks them, and the caller may ask for them and change the list of revoked
/// ones, which administrators may. No token is issued here.
fn tokens(subject: &str, answers: &KumaProbes) -> CheckResult {
    let (configuration, caller) = match (&answers.configuration, &answers.caller) {
        (Ok(configuration), Ok(caller)) => (configuration, caller),
        (Err(error), _) | (_, Err(error)) => return failed(PLANE_TOKENS, subject, error),
    };
    let auth = &configuration.proxy_auth;
    let fix = "set KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE to dpToken, or MeshBinding.spec.tokens.issue to false";
    match auth.dataplanes.as_deref() {
        Some("dpToken") | None => {}
        Some(other) => {
            let found = format!("Dataplanes authenticate by {other}: no sidecar needs the tokens");
            return PLANE_TOKENS.warning(subject, found, fix);
        }
    }
    if auth.issues_tokens == Some(false) {
        let found = "the server issues no data plane tokens";
        let fix = "set KUMA_DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER=true";
        return PLANE_TOKENS.error(subject, found, fix);
    }
    // Kuma has no call that tells whether another one is allowed. Its configuration names who may.
    let is_admin = caller.groups.iter().any(|group| group == ADMIN);
    let may = |rules: Option<&StaticAccess>| rules.map_or(is_admin, |rules| rules.allows(caller));
    let fix = |variable: &str| {
        format!(
            "give the operator a user token of the group {ADMIN}, or of one that KUMA_ACCESS_STATIC_{variable}_GROUPS names"
        )
    };
    if !may(configuration.token_access.as_ref()) {
        let found = format!("{} may not issue data plane tokens, as administrators may", caller.name);
        return PLANE_TOKENS.error(subject, found, fix("GENERATE_DP_TOKEN"));
    }
    if !may(configuration.secret_access.as_ref()) {
        let found = format!(
            "{} may issue data plane tokens, and not revoke them: Secrets are forbidden",
            caller.name
        );
        return PLANE_TOKENS.error(subject, found, fix("ADMIN_RESOURCES"));
    }
    PLANE_TOKENS.ok(subject, "the server issues data plane tokens, and the caller may issue and revoke them")
}

/// A token that is sent there crosses a network in the clear.
pub(super) fn is_unencrypted_remote(address: &str) -> bool {
    let Some(rest) = address.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    !["127.", "localhost", "[::1]"].iter().any(|near| authority.starts_with(near))
}

fn list(subject: &str, probes: &KumaProbes, release: Option<KumaRelease>) -> CheckResult {
    match &probes.owned {
        Ok(count) => {
            let whole = release.is_some_and(|release| !release.has(KumaFeature::LabelFilters));
            let note =
                if whole { "; before 2.10 every sweep reads all Dataplanes, not these alone" } else { "" };
            PLANE_LIST.ok(subject, format!("{count} carry this operator's id{note}"))
        }
        Err(error) => failed(PLANE_LIST, subject, error),
    }
}

/// Lists of zone proxies that cannot be read. One that is forbidden matters only where a Workload needs it.
fn zone_proxies(
    set: &ManifestSet,
    control_plane: &str,
    subject: &str,
    probes: &KumaProbes,
) -> Vec<CheckResult> {
    let check = |(kind, error): (&ZoneProxyKind, &MeshError)| {
        let subject = format!("{} resources on {subject}", kind.resource());
        let is_needed = set.declares_zone_proxy(control_plane, *kind, ZoneProxyForm::Resource);
        if error.kind == MeshErrorKind::Forbidden && !is_needed {
            return PLANE_LIST.info(subject, "the token may not list them; no Workload needs them");
        }
        failed(PLANE_LIST, &subject, error)
    };
    probes.unlisted.iter().map(check).collect()
}

fn meshes(subject: &str, probes: &KumaProbes, release: Option<KumaRelease>) -> Vec<CheckResult> {
    let judge = |(mesh, found): (&ecs_mesh_model::MeshName, &Result<_, MeshError>)| {
        let subject = format!("{mesh} on {subject}");
        match found {
            Ok(settings) => {
                PLANE_MESH.ok(subject, format!("it exists; {}", mesh_settings(settings, release)))
            }
            Err(error) => failed(PLANE_MESH, &subject, error),
        }
    };
    probes.meshes.iter().map(judge).collect()
}

/// A Mesh's settings of mTLS and services, as far as the release has such fields.
fn mesh_settings(settings: &MeshSettings, release: Option<KumaRelease>) -> String {
    let has = |feature| release.is_none_or(|release| release.has(feature));
    let mtls = match &settings.mtls {
        _ if !has(KumaFeature::MeshMtls) => "mTLS by MeshIdentity".to_owned(),
        Some(backend) => format!("mTLS by {backend}"),
        None => "mTLS is off".to_owned(),
    };
    if !has(KumaFeature::TagServices) {
        return format!("{mtls}; services are MeshServices");
    }
    let services = settings.mesh_services.as_deref().unwrap_or("Disabled");
    format!("{mtls}; meshServices.mode {services}")
}

/// The message of a mesh error ends with what to do.
pub(super) fn failed(id: CheckKind, subject: &str, error: &MeshError) -> CheckResult {
    let (message, fix) = error.split_help();
    let fix = fix.unwrap_or_default();
    match error.kind {
        MeshErrorKind::Unreachable | MeshErrorKind::Throttled | MeshErrorKind::Conflict => {
            id.unknown(subject, message, if fix.is_empty() { "run the doctor again" } else { fix })
        }
        _ => id.error(subject, message, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CheckStatus;

    fn check_token(product: &str, token: &str, group: &str) -> CheckResult {
        let version = serde_json::json!({"product": product, "version": "2.11.0"});
        let mut connection = serde_json::json!({"address": "https://kuma:5682"});
        if !token.is_empty() {
            connection[token] = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:kuma".into();
        }
        let caller = CallerInfo { name: group.to_owned(), groups: vec![group.to_owned()] };
        super::token(
            "kuma",
            Some(&serde_json::from_value(connection).unwrap()),
            Ok(&caller),
            KumaVersion::read(&version).ok().as_ref(),
        )
    }

    #[test]
    fn anonymous_caller_is_the_default_on_kuma_only() {
        for (product, token, status) in [
            ("Kuma", "", CheckStatus::Info),
            ("Kong Mesh", "", CheckStatus::Warning),
            ("Kuma", "tokenFile", CheckStatus::Warning),
            ("Kuma", "tokenSecret", CheckStatus::Warning),
        ] {
            let check = check_token(product, token, ANONYMOUS);
            assert_eq!(check.status, status, "{product} {token:?}: {check:?}");
            assert!(check.message.contains("anonymous"), "{check:?}");
        }
        assert_eq!(check_token("Kuma", "", ADMIN).status, CheckStatus::Ok);
    }

    fn check_version(version: &str, named: Option<&str>) -> CheckResult {
        let index = serde_json::json!({"product": "Kuma", "version": version});
        let connection = serde_json::json!({"address": "https://kuma:5682", "dialect": named});
        let connection: KumaConnection = serde_json::from_value(connection).unwrap();
        let version = KumaVersion::read(&index).unwrap();
        let rules = Some(version.rules(connection.dialect).map_err(std::sync::Arc::new));
        let diagnostics = KumaDiagnostics { version: Ok(version), rules, probes: None };
        super::version("kuma", Some(&connection), &diagnostics)
    }

    #[test]
    fn version_check_names_the_dialect_and_its_basis() {
        for (version, named, status, words) in [
            ("2.14.3", None, CheckStatus::Ok, "Kuma 2.14.3"),
            ("3.0.1", Some("3.x"), CheckStatus::Ok, "Kuma 3.0.1"),
            ("3.0.1", Some("2.x"), CheckStatus::Warning, "dialect 3.x; the manifest names 2.x"),
            ("2.15.0", None, CheckStatus::Warning, "not tested"),
            ("3.0.0-dev", None, CheckStatus::Warning, "dialect 3.x, and the first write is read back"),
            ("unknown", Some("3.x"), CheckStatus::Warning, "dialect 3.x, as the manifest says"),
            ("unknown", None, CheckStatus::Error, "is not supported"),
            ("2.6.9", None, CheckStatus::Error, "supported: 2.7 to 2.14, 3.0"),
        ] {
            let check = check_version(version, named);
            assert_eq!(check.status, status, "{version} {named:?}: {check:?}");
            assert!(check.message.contains(words), "{version} {named:?}: {check:?}");
        }
    }

    #[test]
    fn mesh_check_has_no_settings_that_3_0_removed() {
        let describe = |release: Option<(u32, u32)>| {
            let release = release.map(|(major, minor)| KumaRelease::new(major, minor));
            mesh_settings(&MeshSettings::default(), release)
        };
        assert_eq!(describe(Some((2, 14))), "mTLS is off; meshServices.mode Disabled");
        assert_eq!(describe(Some((3, 0))), "mTLS by MeshIdentity; services are MeshServices");
    }

    fn status(auth: ProxyAuth, accounts: &[&str]) -> CheckStatus {
        let configuration = ServerConfig { proxy_auth: auth, ..ServerConfig::default() };
        let accounts = accounts.iter().map(|account| (*account).to_owned()).collect();
        identity("kuma", &accounts, Ok(&configuration)).status
    }

    fn by(dataplanes: &str) -> ProxyAuth {
        ProxyAuth {
            dataplanes: Some(dataplanes.to_owned()),
            zone_proxies: Some(dataplanes.to_owned()),
            reloadable_tokens: Some(true),
            issues_tokens: None,
            authorized_accounts: Some(["111122223333".to_owned()].into()),
        }
    }

    #[test]
    fn authentication_of_proxies_is_checked() {
        assert_eq!(status(by("aws-iam"), &["111122223333"]), CheckStatus::Ok);
        assert_eq!(status(by("dpToken"), &["444455556666"]), CheckStatus::Ok, "tokens know no accounts");
        assert_eq!(status(by("none"), &[]), CheckStatus::Warning);
        assert_eq!(status(by("spiffe"), &[]), CheckStatus::Info);
        assert_eq!(status(ProxyAuth::default(), &[]), CheckStatus::Info);
    }

    #[test]
    fn authentication_of_zone_proxies_is_checked_up_to_2_14() {
        let check = |dataplanes: &str, zone_proxies: &str, release: (u32, u32), declared: &[&str]| {
            let zone_proxies = Some(zone_proxies.to_owned());
            let auth = ProxyAuth { zone_proxies, ..by(dataplanes) };
            let release = KumaRelease::new(release.0, release.1);
            let declared = declared.iter().copied().collect();
            zone_proxy_identity("kuma", &auth, release, &declared).map(|check| check.status)
        };
        let warning = Some(CheckStatus::Warning);
        for (dataplanes, zone_proxies, release, declared, expected) in [
            ("dpToken", "none", (2, 14), &[][..], warning),
            ("aws-iam", "none", (2, 14), &[], warning),
            ("aws-iam", "zoneToken", (2, 14), &["ingress"], warning),
            ("aws-iam", "zoneToken", (2, 14), &[], None),
            ("dpToken", "zoneToken", (2, 14), &["ingress"], None),
            ("aws-iam", "aws-iam", (2, 14), &["ingress"], None),
            ("aws-iam", "none", (3, 0), &["ingress"], None),
        ] {
            let found = check(dataplanes, zone_proxies, release, declared);
            assert_eq!(found, expected, "{dataplanes} {zone_proxies} {release:?} {declared:?}");
        }
    }

    #[test]
    fn iam_needs_reloadable_tokens_and_the_accounts_of_the_manifests() {
        let fixed = ProxyAuth { reloadable_tokens: Some(false), ..by("aws-iam") };
        assert_eq!(status(fixed, &[]), CheckStatus::Warning);
        assert_eq!(status(by("aws-iam"), &["111122223333", "444455556666"]), CheckStatus::Warning);
        let hidden = ProxyAuth { authorized_accounts: None, ..by("aws-iam") };
        assert_eq!(status(hidden, &["444455556666"]), CheckStatus::Ok);
    }

    fn probes(configuration: ServerConfig, group: &str) -> KumaProbes {
        KumaProbes {
            caller: Ok(CallerInfo { name: "op".to_owned(), groups: vec![group.to_owned()] }),
            configuration: Ok(configuration),
            meshes: std::collections::BTreeMap::new(),
            owned: Ok(0),
            unlisted: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn caller_must_be_allowed_to_issue_and_revoke_tokens() {
        let of =
            |group: &str| Some(StaticAccess { groups: [group.to_owned()].into(), ..StaticAccess::default() });
        let config = |issue: Option<StaticAccess>, revoke: Option<StaticAccess>| ServerConfig {
            token_access: issue,
            secret_access: revoke,
            ..ServerConfig::default()
        };
        for (configuration, group, expected) in [
            (config(None, None), ADMIN, ""),
            (config(None, None), "team", "may not issue"),
            (config(of("team"), of("team")), "team", ""),
            (config(of("team"), of(ADMIN)), "team", "not revoke"),
            (config(of("team"), of("team")), ADMIN, "may not issue"),
        ] {
            let found = tokens("kuma", &probes(configuration.clone(), group));
            let status = if expected.is_empty() { CheckStatus::Ok } else { CheckStatus::Error };
            assert_eq!(found.status, status, "{configuration:?} {group}");
            assert!(found.message.contains(expected), "{found:?}");
        }
    }

    #[test]
    fn forbidden_list_of_zone_proxies_matters_where_a_workload_needs_it() {
        let workload = |proxy: &str| {
            let spec = serde_json::json!({"selector": {"services": ["zi"]}, "service": "zi", "proxy": proxy});
            ManifestSet {
                workloads: [("zi".into(), std::sync::Arc::new(serde_json::from_value(spec).unwrap()))].into(),
                ..ManifestSet::default()
            }
        };
        for (set, kind, expected) in [
            (ManifestSet::default(), MeshErrorKind::Forbidden, CheckStatus::Info),
            (workload("zoneEgress"), MeshErrorKind::Forbidden, CheckStatus::Info),
            (workload("zoneIngress"), MeshErrorKind::Forbidden, CheckStatus::Error),
            (ManifestSet::default(), MeshErrorKind::Unreachable, CheckStatus::Unknown),
        ] {
            let mut probes = probes(ServerConfig::default(), ADMIN);
            probes.unlisted.insert(ZoneProxyKind::Ingress, MeshError::new(kind, "GET /zoneingresses: no"));
            let found = zone_proxies(&set, "kuma", "kuma", &probes);
            assert_eq!(found.iter().map(|one| one.status).collect::<Vec<_>>(), [expected], "{found:?}");
        }
    }

    #[test]
    fn unreadable_configuration_is_unknown() {
        let error = MeshError::new(MeshErrorKind::Forbidden, "403");
        assert_eq!(identity("kuma", &BTreeSet::new(), Err(&error)).status, CheckStatus::Unknown);
    }
}
