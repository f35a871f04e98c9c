//! Audits of running tasks at Kuma: the sandbox's world, its AWS and its Kuma.

use std::collections::BTreeMap;
use std::time::Duration;

use ecs_mesh_model::Tags;
use ecs_mesh_operator::sandbox::manifest_options;
use ecs_mesh_sandbox::aws::CreateRole;
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::kuma::{EmulatedRelease, KumaRequest};
use ecs_mesh_sandbox::world::{Naming, Rollouts, World, WorldConfig, manifests, role_name};
use serde_json::json;
use tempfile::TempDir;

use super::{AuditRun, audit};

/// The tasks of the world's services.
const TASKS: usize = 6;

struct KumaAuditSetup {
    endpoints: Endpoints,
    directory: TempDir,
    environment: BTreeMap<String, String>,
}

impl KumaAuditSetup {
    /// A world with sidecars, and its manifests.
    async fn new(release: EmulatedRelease) -> Self {
        let options = EndpointOptions { kuma_release: release, ..EndpointOptions::default() };
        let endpoints = Endpoints::start(options).await.unwrap();
        // The world's own events, such as a revoked role, come later.
        let never = (Duration::from_hours(1), Duration::from_hours(1));
        let config = WorldConfig {
            tasks: TASKS,
            seed: 7,
            interval: never,
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Kuma,
            revoked_for: never,
            rollouts: Rollouts::Ordered,
            host_mode: false,
        };
        let services = endpoints
            .with(|cloud, kuma, now| World::start(config, cloud, kuma, now).unwrap().services().to_vec());
        let text = manifests(&manifest_options(&endpoints, ""), &services);
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("mesh.yaml"), text).unwrap();
        let end = std::time::Instant::now() + Duration::from_mins(1);
        // The services' tasks, and the batch task.
        while endpoints.with(|cloud, _, _| cloud.all_tasks().count()) < TASKS + 1 {
            assert!(std::time::Instant::now() < end, "the services have no tasks");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let environment =
            endpoints.environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { endpoints, directory, environment }
    }

    async fn report(&self, more: &[&str]) -> AuditRun {
        let arguments: Vec<&str> =
            ["--manifests", "mesh.yaml", "--output", "json"].iter().chain(more).copied().collect();
        audit(&self.environment, self.directory.path(), &arguments).await
    }

    /// Registers a Dataplane as a sidecar in template mode does.
    fn put_dataplane_of(&self, service: &str, release: EmulatedRelease) {
        let tags =
            if release < EmulatedRelease::V3_0 { json!({"kuma.io/service": service}) } else { json!({}) };
        let dataplane = json!({
            "type": "Dataplane", "mesh": "default", "name": service, "labels": {"kuma.io/workload": service},
            "networking": {"address": "10.9.9.9", "inbound": [{"port": 15_000, "servicePort": 80, "tags": tags}]},
        });
        let path = format!("/meshes/default/dataplanes/{service}");
        let request = KumaRequest::json("PUT", &path, dataplane.to_string().into_bytes());
        let status = self.endpoints.with(|_, kuma, now| kuma.handle(now, &request).status);
        assert_eq!(status, 201, "{release}");
    }

    fn declare(&self, text: &str) {
        let path = self.directory.path().join("mesh.yaml");
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{before}---\napiVersion: ecs-mesh.dev/v1alpha1\n{text}\n")).unwrap();
    }
}

#[tokio::test]
async fn world_at_kuma_passes_its_own_audit() {
    for release in [EmulatedRelease::V2_14, EmulatedRelease::V3_0] {
        let setup = KumaAuditSetup::new(release).await;
        let run = setup.report(&[]).await;
        assert_eq!((run.code, run.found()), (Some(0), vec![]), "{release}: {}\n{}", run.out, run.err);
        assert!(run.json()["summary"]["definitions"].as_u64() >= Some(3), "{}", run.out);
    }
}

#[tokio::test]
async fn service_without_a_workload_is_found_at_every_release() {
    for release in [EmulatedRelease::V2_14, EmulatedRelease::V3_0] {
        let setup = KumaAuditSetup::new(release).await;
        setup.put_dataplane_of("legacy", release);
        setup.declare(
            "kind: OutboundList\nmetadata: {name: legacy}\n\
             spec: {workloads: [kv], outbounds: [{service: legacy, targetPort: 15000, listen: {port: 6400}}, \
             {service: legacyy, targetPort: 15000, listen: {port: 6401}}]}",
        );
        let end = std::time::Instant::now() + Duration::from_secs(30);
        // The control plane generates MeshServices a while after their Dataplanes.
        let messages = loop {
            let run = setup.report(&[]).await;
            let report = run.json();
            let findings = report["findings"].as_array().unwrap();
            let messages: Vec<String> =
                findings.iter().map(|one| one["message"].as_str().unwrap().to_owned()).collect();
            if messages.len() <= 1 || std::time::Instant::now() > end {
                break messages;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        assert_eq!(messages.len(), 1, "{release}: {messages:?}");
        assert!(messages[0].contains("outbound to legacyy"), "{release}: {messages:?}");
    }
}

#[tokio::test]
async fn audit_finds_what_is_wrong_at_kuma() {
    let setup = KumaAuditSetup::new(EmulatedRelease::V2_14).await;
    setup.endpoints.with(|cloud, _, now| {
        cloud.untag_role(&role_name("kv"), &["kuma.io/mesh".to_owned()], now).unwrap();
        let unused = Tags::from([("kuma.io/mesh".to_owned(), "old".to_owned())]);
        cloud.create_role(CreateRole::for_tasks("old-task", unused), now).unwrap();
        cloud.create_role(CreateRole::for_tasks("admin", Tags::new()), now).unwrap();
        let everything = json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
        cloud.put_role_policy("admin", "everything", &everything.to_string()).unwrap();
    });
    setup.declare(
        "kind: Workload\nmetadata: {name: unused}\n\
         spec: {selector: {services: [unused]}, service: unused, \
         outbounds: [{service: rediss, targetPort: 16379, listen: {port: 6379}}]}",
    );
    let run = setup.report(&[]).await;
    let found: Vec<(String, String)> = run.found();
    let wanted = [
        ("KUMA-ROLE-TAG", "error"),
        ("KUMA-OUTBOUND-NOWHERE", "warning"),
        ("KUMA-ROLE-TAG-UNUSED", "warning"),
        ("MESH-TAGS-UNRESTRICTED", "warning"),
        ("WORKLOAD-UNUSED", "warning"),
    ];
    let wanted = wanted.map(|(rule, severity)| (rule.to_owned(), severity.to_owned()));
    assert_eq!((run.code, found), (Some(1), wanted.to_vec()), "{}\n{}", run.out, run.err);
}

#[tokio::test]
async fn audit_of_an_upgrade_has_the_blockers_of_the_plan() {
    let setup = KumaAuditSetup::new(EmulatedRelease::V2_14).await;
    let run = setup.report(&["--target-version", "3.0"]).await;
    assert_eq!(run.code, Some(2), "{}\n{}", run.out, run.err);
    assert!(run.has("KUMA-UPGRADE-BLOCKED", "warning"), "{}", run.out);
    let places: Vec<String> = run.json()["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["location"]["resource"].as_str().unwrap().to_owned())
        .collect();
    // Services of the mesh are tags, which 3.0 does not have.
    assert!(places.contains(&"kuma/kuma/Mesh".to_owned()), "{places:?}");
}
