//! The initial scenario: the counter demo (`demo-app` calls `kv`, with a `redis` beside it), generated services,
//! their roles, and the event queue with its rules.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Rollout, SERVICE_TAG};
use crate::aws::{
    AwsApiResult, Cloud, CloudConfig, CreateRole, CreateService, RegisterTaskDefinition, RuleTarget, RunTask,
    TaskOverrides,
};
use crate::control_planes::ControlPlanes;
use ecs_mesh_api::{ZoneProxyForm, ZoneProxyKind};
use ecs_mesh_model::{Tags, Timestamp};

/// Name of the event queue.
pub const QUEUE: &str = "ecs-mesh-events";
/// Name of its dead-letter queue.
pub const DEAD_LETTERS: &str = "ecs-mesh-events-dead";
/// Name of the cluster.
pub const CLUSTER: &str = "sandbox";
/// Name of the mesh.
pub const MESH: &str = "default";
/// A secret in the environment of a task run by hand, and so in its events. No log, metric or registration may
/// contain it.
pub const SECRET: &str = "planted-5f2c8e1d9b7a4036";
/// Name of another team's Dataplane.
pub const FOREIGN_OPERATOR: &str = "legacy-gateway";

/// The tag with the type of a role's proxy.
const ROLE_TYPE_TAG: &str = "kuma.io/type";

/// A service of the world, with the same name in ECS, IAM and the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioService {
    /// Its name.
    pub name: String,
    /// The sidecar's port.
    pub port: u16,
    /// The app's port.
    pub app_port: u16,
    /// Initial number of tasks.
    pub count: usize,
    /// How its tasks are defined and replaced.
    pub rollout: Rollout,
    /// The operator that the sidecars' templates name. The sidecars then register the Dataplanes.
    pub template_operator: Option<String>,
    /// Whether its sidecars bind their outbounds, and so call the services of [`BOUND_SERVICES`].
    pub binds_outbounds: bool,
    /// Whether a start script of the image hides how the sidecars get their Dataplanes.
    pub hides_start: bool,
    /// The zone proxy that its tasks are, if they are no sidecars, and how it is registered.
    pub zone_proxy: Option<(ZoneProxyKind, ZoneProxyForm)>,
}

/// The services that sidecars bind which bind their outbounds.
pub const BOUND_SERVICES: [&str; 2] = ["kv", "redis"];

/// The docker label of a container whose sidecar has a template. The operator does not read it.
pub(crate) const TEMPLATE_LABEL: &str = "sandbox/template";

impl ScenarioService {
    /// A service with the default rollout.
    pub fn new(name: &str, port: u16, app_port: u16, count: usize) -> Self {
        let (name, rollout) = (name.to_owned(), Rollout::default());
        Self {
            name,
            port,
            app_port,
            count,
            rollout,
            template_operator: None,
            binds_outbounds: false,
            hides_start: false,
            zone_proxy: None,
        }
    }

    /// A service with a task on each of `instances` EC2 instances, in network mode `host`.
    pub fn on_each_instance(instances: usize) -> Self {
        let rollout = Rollout {
            has_sidecar: true,
            host_mode: true,
            is_daemon: true,
            minimum_healthy_percent: 0,
            maximum_percent: 100,
            ..Rollout::default()
        };
        Self { rollout, ..Self::new("node-agent", 15_070, 8_070, instances) }
    }

    /// A service whose sidecars bind their outbounds on the services' own addresses.
    pub fn with_bound_outbounds() -> Self {
        let rollout = Rollout { has_sidecar: true, serving: Duration::from_secs(1), ..Rollout::default() };
        Self { rollout, binds_outbounds: true, ..Self::new("shop", 15_090, 8_090, 2) }
    }

    /// A service of zone proxies.
    pub fn of_zone_proxies(kind: ZoneProxyKind, form: ZoneProxyForm) -> Self {
        let name = match kind {
            ZoneProxyKind::Ingress => "zone-ingress",
            ZoneProxyKind::Egress => "zone-egress",
        };
        Self { zone_proxy: Some((kind, form)), ..Self::new(name, 10_001, 8_080, 1) }
    }

    /// The type of a `ZoneIngress` or `ZoneEgress`, if its tasks are registered so.
    pub(crate) fn zone_resource(&self) -> Option<ZoneProxyKind> {
        self.zone_proxy.filter(|(_, form)| *form == ZoneProxyForm::Resource).map(|(kind, _)| kind)
    }

    /// The tags that admit the role to the meshes.
    pub fn role_tags(&self, control_planes: ControlPlanes) -> Tags {
        let mut tags = role_tags(&self.name, control_planes);
        let role_type = self.zone_resource().map(|kind| match kind {
            ZoneProxyKind::Ingress => "ingress",
            ZoneProxyKind::Egress => "egress",
        });
        tags.extend(role_type.map(|role_type| (ROLE_TYPE_TAG.to_owned(), role_type.to_owned())));
        tags
    }

    /// The tag whose removal revokes the role's access to the mesh.
    pub(super) fn deciding_tag(&self, control_planes: ControlPlanes) -> &'static str {
        match (control_planes.has_kuma(), self.zone_resource()) {
            (true, Some(_)) => ROLE_TYPE_TAG,
            (true, None) => "kuma.io/mesh",
            (false, _) => SERVICE_TAG,
        }
    }

    /// A service whose sidecars register their own Dataplanes, with the labels of this operator.
    pub fn in_template_mode(operator: &str) -> Self {
        Self {
            rollout: Rollout { has_sidecar: true, ..Rollout::default() },
            template_operator: Some(operator.to_owned()),
            ..Self::new("reports", 15_080, 8_080, 2)
        }
    }

    /// The definition of the sidecar's container, if there is one.
    fn sidecar(&self) -> Option<Value> {
        let mut sidecar = self.rollout.sidecar()?;
        if self.template_operator.is_some() {
            sidecar["dockerLabels"][TEMPLATE_LABEL] = json!("true");
        }
        if self.hides_start {
            sidecar["entryPoint"] = json!(["/start.sh"]);
            sidecar["command"] = json!([]);
        } else if self.template_operator.is_some() {
            let command = "kuma-dp run --dataplane-file /etc/mesh/dataplane.yaml --dataplane-var name=\"$TASK_ID\" \
                           --cp-address https://kuma.internal:5678 --auth-type=aws";
            sidecar["command"] = json!([command]);
        } else if self.binds_outbounds {
            let command = sidecar["command"][0].as_str().unwrap_or_default();
            sidecar["command"] = json!([format!("{command} --bind-outbounds")]);
        }
        Some(sidecar)
    }
}

/// The services of a world of about this many tasks.
pub fn services(tasks: usize) -> Vec<ScenarioService> {
    let mut all = vec![
        ScenarioService::new("demo-app", 15_000, 5_000, 2),
        ScenarioService::new("kv", 15_050, 5_050, 2),
        ScenarioService::new("redis", 16_379, 6_379, 1),
    ];
    let mut left = tasks.saturating_sub(5);
    let mut number = 1_u16;
    while left > 0 {
        let count = left.min(usize::from(2 + number % 4)).min(left);
        all.push(ScenarioService::new(&format!("svc-{number:02}"), 20_000 + number, 8_080, count));
        left -= count;
        number += 1;
    }
    all
}

/// IAM path of the task roles. Consul logins are bound to `/consul-ecs/`.
fn role_path(control_planes: ControlPlanes) -> &'static str {
    if control_planes.has_consul() { "/consul-ecs/" } else { "/mesh/" }
}

/// The ARN of a service's role.
pub(super) fn role_arn(cloud: &Cloud, service: &str, control_planes: ControlPlanes) -> String {
    let config = cloud.config();
    let path = role_path(control_planes);
    format!("arn:{}:iam::{}:role{path}{}", config.partition, config.account, role_name(service))
}

/// The name of a service's role.
pub fn role_name(service: &str) -> String {
    format!("{service}-task")
}

/// The tags that admit a service's role to the meshes.
pub fn role_tags(service: &str, control_planes: ControlPlanes) -> Tags {
    let kuma = [(ROLE_TYPE_TAG, "dataplane"), ("kuma.io/mesh", MESH), ("kuma.io/service", service)];
    let kuma = kuma.into_iter().filter(|_| control_planes.has_kuma());
    let consul = [(SERVICE_TAG, service)].into_iter().filter(|_| control_planes.has_consul());
    kuma.chain(consul).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The events that rules send to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutedEvents {
    /// Task state changes and changes of role tags.
    Tasks,
    /// And the state changes of deployments.
    TasksAndDeployments,
}

/// The rule that sends the state changes of deployments to the queue.
const DEPLOYMENTS_RULE: &str = "ecs-mesh-deployments";

/// Switches the rule of [`RoutedEvents::TasksAndDeployments`] on or off.
///
/// # Errors
/// EventBridge's error.
pub fn route_deployments(cloud: &mut Cloud, enabled: bool) -> AwsApiResult<()> {
    cloud.put_rule(DEPLOYMENTS_RULE, &deployments_pattern().to_string(), enabled, None)?;
    Ok(())
}

fn deployments_pattern() -> Value {
    json!({"source": ["aws.ecs"], "detail-type": ["ECS Deployment State Change"]})
}

/// Creates an empty cluster, the queue with its dead-letter queue, and the rules. Returns the cluster's ARN.
///
/// # Errors
/// Fails if the account has resources of these names already.
pub fn create_queue_and_rules(
    cloud: &mut Cloud,
    events: RoutedEvents,
    now: Timestamp,
) -> AwsApiResult<String> {
    let cluster = cloud.create_cluster(CLUSTER, Tags::new())?;
    // Longer than the queue's own retention, since a moved message keeps its age.
    cloud.create_queue(DEAD_LETTERS, attributes([("MessageRetentionPeriod", "1209600")]), now)?;
    let dead = cloud.queue_arn(DEAD_LETTERS)?;
    let redrive = json!({"deadLetterTargetArn": dead, "maxReceiveCount": "5"}).to_string();
    let settings = attributes([("VisibilityTimeout", "30"), ("RedrivePolicy", &redrive)]);
    cloud.create_queue(QUEUE, settings, now)?;
    let queue = cloud.queue_arn(QUEUE)?;
    let roles = json!({
        "source": ["aws.iam"],
        "detail-type": ["AWS API Call via CloudTrail"],
        "detail": {"eventName": ["TagRole", "UntagRole", "DeleteRole"]},
    });
    let mut patterns = vec![
        ("ecs-mesh-tasks", json!({"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]})),
        ("ecs-mesh-roles", roles.clone()),
    ];
    if events == RoutedEvents::TasksAndDeployments {
        patterns.push((DEPLOYMENTS_RULE, deployments_pattern()));
    }
    let dead_letters = json!({"DeadLetterConfig": {"Arn": dead}});
    let mut rules = Vec::new();
    for (name, pattern) in &patterns {
        rules.push(cloud.put_rule(name, &pattern.to_string(), true, None)?);
        cloud.put_targets(name, vec![target("queue", &queue, &dead_letters)])?;
    }
    for (name, arn) in [(QUEUE, &queue), (DEAD_LETTERS, &dead)] {
        let policy = queue_policy(arn, &rules);
        cloud.set_queue_attributes(name, attributes([("Policy", &policy)]), now)?;
    }
    forward_from_iam_region(cloud, &roles)?;
    Ok(cluster.arn)
}

/// Forwards IAM's events, which arrive in one Region only, by a rule of the same pattern. The emulator has one set of
/// rules for all Regions.
fn forward_from_iam_region(cloud: &mut Cloud, pattern: &Value) -> AwsApiResult<()> {
    let name = "ecs-mesh-roles-forward";
    cloud.put_rule(name, &pattern.to_string(), true, None)?;
    let CloudConfig { partition, region, account, .. } = cloud.config();
    let bus = format!("arn:{partition}:events:{region}:{account}:event-bus/default");
    let role = json!({"RoleArn": format!("arn:{partition}:iam::{account}:role/ecs-mesh-roles-forward")});
    cloud.put_targets(name, vec![target("bus", &bus, &role)])
}

fn attributes<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn target(id: &str, arn: &str, rest: &Value) -> RuleTarget {
    let rest = rest.as_object().cloned().unwrap_or_default();
    RuleTarget { id: id.to_owned(), arn: arn.to_owned(), input: None, rest }
}

/// A queue policy that lets EventBridge send for these rules only.
fn queue_policy(queue: &str, rules: &[String]) -> String {
    let statement = json!({
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": rules}},
    });
    let deny = json!({
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnNotEquals": {"aws:SourceArn": rules}},
    });
    json!({"Version": "2012-10-17", "Statement": [statement, deny]}).to_string()
}

/// Registers a new revision of a service's task definition.
///
/// # Errors
/// ECS's error.
pub(super) fn define(
    cloud: &mut Cloud,
    service: &ScenarioService,
    control_planes: ControlPlanes,
    now: Timestamp,
) -> AwsApiResult<String> {
    let role = role_arn(cloud, &service.name, control_planes);
    let mut request = RegisterTaskDefinition::fargate(&service.name, Some(&role), service.app_port);
    if service.rollout.host_mode {
        request.network_mode = Some("host".to_owned());
        request.rest.remove("requiresCompatibilities");
    }
    service.rollout.apply_to(&mut request.container_definitions[0]);
    if control_planes.has_consul() {
        join_consul(&mut request, service, cloud.config());
    }
    request.container_definitions.extend(service.sidecar());
    if service.rollout.host_mode {
        map_inbound(&mut request, service.port);
    }
    Ok(cloud.register_task_definition(request, now)?.arn.clone())
}

/// Maps the sidecar's inbound port, or the app's where the definition has no sidecar: in network mode `host` the operator
/// registers no port that ECS does not keep exclusive.
fn map_inbound(request: &mut RegisterTaskDefinition, port: u16) {
    let mapping = json!({"containerPort": port, "protocol": "tcp"});
    let Some(container) = request.container_definitions.last_mut() else { return };
    match container["portMappings"].as_array_mut() {
        Some(mappings) => mappings.push(mapping),
        None => container["portMappings"] = json!([mapping]),
    }
}

/// The services that a service calls, with the ports on which its sidecar listens for them.
pub(super) fn upstreams(service: &str) -> Vec<(&'static str, u16)> {
    let redis = (service == "demo-app" || service.starts_with("svc-")).then_some(("redis", 6_379));
    let kv = (service == "demo-app").then_some(("kv", 15_051));
    kv.into_iter().chain(redis).collect()
}

/// Adds the init container of consul-ecs, with its configuration in the environment.
fn join_consul(request: &mut RegisterTaskDefinition, service: &ScenarioService, cloud: &CloudConfig) {
    let region = &cloud.region;
    let mut login = json!({"enabled": true});
    if let Some(endpoint) = &cloud.endpoint {
        login["stsEndpoint"] = json!(endpoint);
    }
    let upstreams: Vec<Value> = upstreams(&service.name)
        .into_iter()
        .map(|(name, port)| json!({"destinationName": name, "localBindPort": port}))
        .collect();
    let config = json!({
        "bootstrapDir": "/consul",
        "consulLogin": login,
        "consulServers": {"hosts": "consul.internal"},
        "service": {"name": service.name, "port": service.app_port},
        "proxy": {"upstreams": upstreams},
        "healthSyncContainers": ["app"],
    });
    let ca = format!("arn:aws:secretsmanager:{region}:123456789012:secret:consul-ca");
    let set_up = json!({
        "name": "consul-ecs-mesh-init",
        "image": "public.ecr.aws/hashicorp/consul-ecs:0.10.0",
        "environment": [{"name": "CONSUL_ECS_CONFIG_JSON", "value": config.to_string()}],
        "secrets": [
            {"name": "CONSUL_HTTPS_CACERT_PEM", "valueFrom": ca},
            {"name": "CONSUL_GRPC_CACERT_PEM", "valueFrom": ca},
        ],
    });
    for app in &mut request.container_definitions {
        app["healthCheck"] = json!({"command": ["CMD", "true"], "interval": 10});
    }
    request.container_definitions.push(set_up);
    request.tags = mesh_tags(ControlPlanes::Consul);
}

/// The tags of tasks that consul-ecs looks after.
fn mesh_tags(control_planes: ControlPlanes) -> Tags {
    let tags = [("consul.hashicorp.com/mesh".to_owned(), "true".to_owned())];
    tags.into_iter().filter(|_| control_planes.has_consul()).collect()
}

/// Creates role, task definition and service.
///
/// # Errors
/// The error of ECS or IAM.
pub fn deploy(
    cloud: &mut Cloud,
    service: &ScenarioService,
    control_planes: ControlPlanes,
    now: Timestamp,
) -> AwsApiResult<()> {
    let role = CreateRole {
        path: role_path(control_planes).to_owned(),
        ..CreateRole::for_tasks(&role_name(&service.name), service.role_tags(control_planes))
    };
    let role = cloud.create_role(role, now)?;
    let mut request = CreateService::awsvpc(CLUSTER, &service.name, "", service.count);
    request.deployment_configuration = service.rollout.deployment_configuration();
    if service.rollout.host_mode {
        request.network_configuration = None;
    }
    if control_planes.has_consul() {
        // A login includes a GetRole that the role signs for itself.
        let itself = json!({"Statement": {"Effect": "Allow", "Action": "iam:GetRole", "Resource": role.arn}});
        cloud.put_role_policy(&role.name, "consul-login", &itself.to_string())?;
        request.propagate_tags = Some("TASK_DEFINITION".to_owned());
    }
    if service.rollout.is_daemon {
        request.scheduling_strategy = Some("DAEMON".to_owned());
    }
    request.task_definition = define(cloud, service, control_planes, now)?;
    cloud.create_service(request, now)?;
    Ok(())
}

/// Runs a standalone task with a secret in its environment. Returns its ARN.
///
/// # Errors
/// ECS's error.
pub fn run_batch(
    cloud: &mut Cloud,
    service: &ScenarioService,
    secret: &str,
    control_planes: ControlPlanes,
    now: Timestamp,
) -> AwsApiResult<String> {
    let definition = define(cloud, service, control_planes, now)?;
    let rest =
        json!({"containerOverrides": [{"name": "app", "environment": [{"name": "TOKEN", "value": secret}]}]});
    let overrides =
        TaskOverrides { task_role_arn: None, rest: rest.as_object().cloned().unwrap_or_default() };
    let tags = mesh_tags(control_planes);
    let request = RunTask { overrides, tags, ..RunTask::awsvpc(CLUSTER, &definition) };
    let tasks = cloud.run_task(&request, now)?;
    Ok(tasks.first().map(|task| task.arn.to_string()).unwrap_or_default())
}
