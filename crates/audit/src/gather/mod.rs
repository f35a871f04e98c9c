//! Reads files, AWS and the control planes, each call with a time limit. Changes nothing.

mod aws;
mod consul;
mod kuma;

pub use kuma::check_workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::facts::{AuditFacts, AuditedAuthMethod, AuditedControlPlane, AuditedKumaPlane, Fetched};
use super::parse::definition;
use super::report::FindingLocation;
use super::sidecar_report::SidecarReport;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{
    AllowList, AwsAccountSpec, ConsulAuthSpec, ControlPlaneSpec, ControlPlaneType, KumaRelease,
    LoginSettings, Presence,
};
use ecs_mesh_aws::aws::{MemberAccount, MemberAccounts as _};
use ecs_mesh_aws::inspect::Redacted;
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, SdkAccounts};
use ecs_mesh_consul_acl::desired::ROLE_TAGS;
use ecs_mesh_controller::{NoSecrets, Secrets, read_file};
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{ClusterArn, RoleArn};
use tokio::time::Instant;

/// Time limit of the set-up of AWS clients: the SDK may request the Region from the EC2 instance, in several steps.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Limit of a file; ECS allows 64 KiB.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Sources that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcesAllowed {
    /// Files and manifests only.
    Offline,
    /// Also AWS and the control planes of the manifests.
    All,
}

/// The scope of an audit.
#[derive(Clone, Debug)]
pub struct AuditRequest {
    /// Files with task definitions.
    pub files: Vec<PathBuf>,
    /// The manifests, if any.
    pub manifests: Option<ManifestStatus>,
    /// Clusters whose running tasks are audited, in addition to bound clusters if no file is given.
    pub clusters: BTreeSet<ClusterArn>,
    /// The Region, if given.
    pub region: Option<String>,
    /// Sources that may be read.
    pub sources: SourcesAllowed,
    /// The files and environment variables that the manifests may name.
    pub allowed: AllowList,
    /// The version of Kuma to which an upgrade is checked, if any.
    pub target: Option<KumaRelease>,
}

/// Gathers all facts. Always ends; one failure does not prevent other reads.
pub async fn gather(request: AuditRequest) -> AuditFacts {
    let AuditRequest { files, manifests, clusters, region, sources, allowed, target } = request;
    let set = manifests.as_ref().map(|status| Arc::clone(&status.set)).unwrap_or_default();
    let mut facts = AuditFacts {
        control_planes: planes(&set),
        kuma: kuma_planes(&set),
        upgrade_requested: target.is_some(),
        manifests,
        ..AuditFacts::default()
    };
    let has_files = !files.is_empty();
    let reading =
        tokio::task::spawn_blocking(move || files.iter().map(|path| read(path)).collect::<Vec<_>>()).await;
    let names: Vec<Arc<str>> = facts.control_planes.keys().cloned().collect();
    for result in reading.unwrap_or_default() {
        match result {
            Ok(definition) => {
                facts
                    .definitions
                    .push(super::facts::AuditedDefinition { control_planes: names.clone(), ..definition });
            }
            Err(unreadable) => facts.unreadable.push(unreadable),
        }
    }
    if sources == SourcesAllowed::Offline {
        return facts;
    }
    let mut secrets: Arc<dyn Secrets> = Arc::new(NoSecrets);
    if facts.manifests.is_some() || !clusters.is_empty() {
        let options = AwsOptions { region, ..AwsOptions::default() };
        match tokio::time::timeout(CONNECT_DEADLINE, AwsClients::connect(options)).await {
            Ok(Ok(clients)) => {
                facts.aws = Some(Ok(()));
                let scope = aws::AuditScope { set: &set, named: &clusters, running_tasks: !has_files };
                aws::ask(&accounts(&clients, &set), &scope, &mut facts).await;
                secrets = Arc::new(clients.secrets.clone());
            }
            Ok(Err(error)) => facts.aws = Some(Err(error.to_string())),
            Err(_) => facts.aws = Some(Err(format!("no Region was found within {CONNECT_DEADLINE:?}"))),
        }
    }
    let request = kuma::KumaAuditScope { set: &set, allowed: &allowed, secrets: &secrets, target };
    let (consul, kuma) = (&mut facts.control_planes, &mut facts.kuma);
    tokio::join!(ask_planes(&set, &allowed, consul, &secrets), kuma::ask_all(&request, kuma));
    facts
}

/// Reads the definitions of running tasks at Kuma until `end`, and applies the rules of sidecars to them.
pub async fn check_sidecars(clients: &AwsClients, manifests: &ManifestStatus, end: Instant) -> SidecarReport {
    let set = Arc::clone(&manifests.set);
    let mut facts =
        AuditFacts { kuma: kuma_planes(&set), manifests: Some(manifests.clone()), ..AuditFacts::default() };
    let accounts = accounts(clients, &set);
    let (unread, failure) = aws::ask_until(&accounts, &set, end, &mut facts).await;
    SidecarReport { unread, failure, ..SidecarReport::of(&facts) }
}

/// The caller's account and those that the manifests declare.
fn accounts(clients: &AwsClients, set: &ManifestSet) -> SdkAccounts {
    let accounts = SdkAccounts::new(clients.clone(), "audit");
    accounts.set_members(member_accounts(set));
    accounts
}

/// The accounts that the set declares, as the clients of AWS take them.
pub fn member_accounts(set: &ManifestSet) -> Vec<MemberAccount> {
    let member = |spec: &Arc<AwsAccountSpec>| {
        Some(MemberAccount {
            // Assembling the set has checked it.
            role: RoleArn::parse(&spec.assume_role).ok()?,
            external_id: spec.external_id.clone(),
            regions: spec.regions.iter().cloned().collect(),
        })
    };
    set.aws_accounts.values().filter_map(member).collect()
}

fn read(path: &Path) -> Result<super::facts::AuditedDefinition, (FindingLocation, String)> {
    let file = path.display().to_string();
    let at = || FindingLocation { file: Some(Arc::from(file.as_str())), ..FindingLocation::default() };
    let bytes =
        read_file(path, MAX_FILE_BYTES).map_err(|error| (at(), format!("reading the file: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| (at(), "reading the file: not UTF-8 text".to_owned()))?;
    definition::read(&file, &text)
        .map_err(|error| (FindingLocation { line: error.line, field: error.field, ..at() }, error.message))
}

/// Control planes of type `consul`, with the clusters that bindings name literally.
fn planes(set: &ManifestSet) -> BTreeMap<Arc<str>, AuditedControlPlane> {
    of_type(set, ControlPlaneType::Consul, |name, clusters| AuditedControlPlane {
        clusters,
        declared: declared(set, name),
        response: None,
    })
}

/// Control planes of type `kuma`, with the clusters that bindings name literally.
fn kuma_planes(set: &ManifestSet) -> BTreeMap<Arc<str>, AuditedKumaPlane> {
    of_type(set, ControlPlaneType::Kuma, |_, clusters| AuditedKumaPlane { clusters, response: None })
}

fn of_type<T>(
    set: &ManifestSet,
    kind: ControlPlaneType,
    plane: impl Fn(&str, BTreeSet<ClusterArn>) -> T,
) -> BTreeMap<Arc<str>, T> {
    let planes = set.control_planes.iter().filter(|(_, spec)| spec.kind == kind);
    planes
        .map(|(name, _)| {
            let bindings = set.bindings.values().filter(|binding| binding.spec.control_plane == **name);
            let globs = bindings.flat_map(|binding| &binding.spec.selector.clusters);
            let literal = globs.filter(|glob| glob.is_literal());
            let clusters = literal.filter_map(|glob| ClusterArn::parse(glob.as_str()).ok()).collect();
            (Arc::clone(name), plane(name, clusters))
        })
        .collect()
}

/// The auth methods that the manifests declare for the control plane.
fn declared(set: &ManifestSet, name: &str) -> Option<Vec<AuditedAuthMethod>> {
    let spec = set.consul_auths.values().find(|spec| spec.control_plane == name)?;
    if spec.state == Presence::Absent {
        return None;
    }
    let ConsulAuthSpec { service_tokens, client_tokens, .. } = &**spec;
    let services = service_tokens.iter().filter(|tokens| tokens.state == Presence::Present);
    let clients = client_tokens.iter().filter(|tokens| tokens.state == Presence::Present);
    let services = services.map(|tokens| method(&tokens.login(), &ROLE_TAGS));
    Some(services.chain(clients.map(|tokens| method(&tokens.login(), &[]))).collect())
}

fn method(login: &LoginSettings<'_>, tags: &[&str]) -> AuditedAuthMethod {
    let server_id = login.server_id_header_value;
    AuditedAuthMethod {
        name: login.auth_method.to_owned(),
        kind: "aws-iam".to_owned(),
        principals: login.bound_principals.to_vec(),
        entity_details: login.entity_details,
        entity_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        sts_endpoint: login.sts_endpoint.map(str::to_owned),
        server_id: server_id.filter(|value| !value.is_empty()).map(Redacted::new),
        // Without the field, the current value stays.
        server_id_is_known: server_id.is_some(),
        namespace_rules: Vec::new(),
    }
}

async fn ask_planes(
    set: &ManifestSet,
    allowed: &AllowList,
    control_planes: &mut BTreeMap<Arc<str>, AuditedControlPlane>,
    secrets: &Arc<dyn Secrets>,
) {
    let mut reads = tokio::task::JoinSet::new();
    for (name, plane) in control_planes.iter() {
        let Some(spec) = set.control_planes.get(name) else { continue };
        let (name, spec, clusters) = (Arc::clone(name), Arc::clone(spec), plane.clusters.clone());
        let (allowed, secrets) = (allowed.clone(), Arc::clone(secrets));
        reads.spawn(async move { (name, ask_plane(&spec, allowed, &clusters, secrets).await) });
    }
    for (name, response) in reads.join_all().await {
        if let Some(plane) = control_planes.get_mut(&name) {
            plane.response = Some(response);
        }
    }
}

async fn ask_plane(
    spec: &ControlPlaneSpec,
    allowed: AllowList,
    clusters: &BTreeSet<ClusterArn>,
    secrets: Arc<dyn Secrets>,
) -> Fetched<super::facts::ConsulFacts> {
    let connection = spec.consul.as_ref().ok_or("spec.consul is missing")?;
    consul::ask(connection, allowed, clusters, secrets).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_unreadable_when_it_is_no_small_file() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, large) = (directory.path().join("fifo.json"), directory.path().join("large.json"));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::fs::File::create(&large).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        for (path, found) in [
            (fifo, "not a regular file but a FIFO"),
            ("/dev/zero".into(), "not a regular file but a device"),
            (large, "larger than 4 MiB"),
        ] {
            let (at, message) = read(&path).unwrap_err();
            assert_eq!(at.file.as_deref(), path.to_str());
            assert!(message.contains(found), "{message}");
        }
    }
}
