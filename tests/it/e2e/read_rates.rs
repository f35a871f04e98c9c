//! All copies of an operator together read AWS below the configured rates, as the sandbox counts the requests.

use std::time::Instant;

use ecs_mesh_model::Tags;
use ecs_mesh_sandbox::aws::{CreateRole, CreateService, RegisterTaskDefinition};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};

use super::harness::{Harness, OperatorProcess, POLL_INTERVAL, binding, control_plane, document};
use crate::lease::create_table;

/// Families, each with a definition, a role and a task.
const FAMILIES: u64 = 40;
const RATE: u32 = 3;
/// Operations, the rate in calls a second, and how many seconds of it each copy may save up (docs/how-to/replicas.md).
const GROUPS: [(&[&str], u32, u32); 3] = [
    (&["ecs.ListTasks", "ecs.DescribeTasks", "ecs.DescribeContainerInstances"], RATE, 5),
    (&["ecs.DescribeTaskDefinition"], RATE, 4),
    (&["iam.GetRole"], RATE, 4),
];

struct Copies {
    endpoints: Endpoints,
    harness: Harness,
    began: Instant,
    started: u32,
}

impl Copies {
    async fn prepare() -> Self {
        let endpoints = Endpoints::start(EndpointOptions::default()).await.unwrap();
        endpoints.front.with(|cloud, now| {
            let account = cloud.config().account.clone();
            for n in 0..FAMILIES {
                let family = format!("app-{n}");
                let tags =
                    [("kuma.io/type", "dataplane"), ("kuma.io/mesh", "default"), ("kuma.io/service", "app")];
                let tags: Tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
                cloud.create_role(CreateRole::for_tasks(&family, tags), now).unwrap();
                let role = format!("arn:aws:iam::{account}:role/{family}");
                let definition = RegisterTaskDefinition::fargate(&family, Some(&role), 8080);
                cloud.register_task_definition(definition, now).unwrap();
                cloud.create_service(CreateService::awsvpc("sandbox", &family, &family, 1), now).unwrap();
            }
        });
        let harness = Harness::with_endpoints(endpoints.environment());
        create_table(harness.variable("AWS_ENDPOINT_URL")).await;
        let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
        let workload =
            format!("{{selector: {{families: [\"app-*\"]}}, service: app, inbounds: [{inbound}]}}");
        let manifests = [
            control_plane("kuma", harness.variable("KUMA_API_URL"), ", timeout: 5s"),
            binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
            document("Workload", "app", &workload),
        ];
        harness.manifest("all.yaml", &manifests.concat());
        Self { endpoints, harness, began: Instant::now(), started: 0 }
    }

    /// Starts a copy. The leader and the one standby have half of the rates each.
    fn start(&mut self, name: &str) -> OperatorProcess {
        self.started += 1;
        let rate = RATE.to_string();
        let arguments = [
            &["--ecs-reads-per-second", &rate, "--definition-reads-per-second", &rate][..],
            &["--role-reads-per-second", &rate, "--standby-reads-percent", "50", "--max-standbys", "1"],
            &["--lease", "dynamodb:leases", "--lease-duration", "10s", "--lease-renew-deadline", "6s"],
            &["--lease-retry-period", "500ms"],
        ];
        self.harness.operator_with(name, &self.harness.environment, &arguments.concat())
    }

    /// The requests of a group so far, which never exceed the rate since the start and what each copy may save up.
    fn count(&self, (operations, rate, seconds): (&[&str], u32, u32)) -> u64 {
        let calls = self.endpoints.front.calls();
        let count: u64 = operations.iter().filter_map(|operation| calls.get(*operation)).sum();
        // The clock is read after the requests were counted, so a slow machine only widens the bound.
        let elapsed = self.began.elapsed();
        let bound = elapsed.as_secs_f64() * f64::from(rate) + f64::from(self.started * rate * seconds);
        #[allow(clippy::cast_precision_loss)] // a small number
        let is_within = count as f64 <= bound;
        assert!(is_within, "{count} of {operations:?} in {elapsed:?}: more than {bound}");
        count
    }

    /// Waits until this many copies have read all definitions and roles.
    async fn read_by(&self, copies: u64) {
        let end = Instant::now() + 2 * super::harness::TIMEOUT;
        loop {
            let [_, definitions, roles] = GROUPS.map(|group| self.count(group));
            if definitions.min(roles) >= copies * FAMILIES {
                return;
            }
            assert!(Instant::now() < end, "{definitions} definitions and {roles} roles are read");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

#[tokio::test]
async fn copies_together_stay_below_the_read_rates() {
    let mut copies = Copies::prepare().await;
    let leader = copies.start("leader");
    leader.line(&[("message", "acquired the lease; this copy leads")]).await;
    let standby = copies.start("standby");
    standby.line(&[("message", "another copy leads; standing by")]).await;
    copies.read_by(2).await;

    // A takeover, and another standby.
    leader.signal("KILL");
    standby.line(&[("message", "acquired the lease; this copy leads")]).await;
    let next = copies.start("next");
    copies.read_by(3).await;
    drop((leader, next));
}
