//! Task definitions: families with immutable revisions.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::container_spec::ContainerSpec;
use crate::aws::error::client;
use crate::aws::{AwsApiResult, Cloud};
use ecs_mesh_model::{
    ContainerStart, RoleArn, Tags, TaskContainer, TaskDefinition, TaskDefinitionArn, Timestamp,
};

/// Request of `RegisterTaskDefinition`. Fields without an effect are kept in `rest` and returned unchanged.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterTaskDefinition {
    /// The family.
    pub family: String,
    /// The task role.
    pub task_role_arn: Option<String>,
    /// `awsvpc`, `bridge`, `host` or `none`.
    pub network_mode: Option<String>,
    /// The containers of the request.
    pub container_definitions: Vec<Value>,
    /// Tags of the revision.
    #[serde(deserialize_with = "super::ecs_tags::from_pairs")]
    pub tags: Tags,
    /// All other fields.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl RegisterTaskDefinition {
    /// A Fargate definition with one container `app` that listens on `port`.
    pub fn fargate(family: &str, task_role_arn: Option<&str>, port: u16) -> Self {
        let mut rest = Map::new();
        rest.insert("requiresCompatibilities".into(), json!(["FARGATE"]));
        rest.insert("cpu".into(), json!("256"));
        rest.insert("memory".into(), json!("512"));
        Self {
            family: family.to_owned(),
            task_role_arn: task_role_arn.map(str::to_owned),
            network_mode: Some("awsvpc".into()),
            container_definitions: vec![json!({
                "name": "app",
                "image": format!("{family}:latest"),
                "portMappings": [{"containerPort": port, "protocol": "tcp"}],
            })],
            tags: Tags::new(),
            rest,
        }
    }
}

/// A revision.
#[derive(Debug)]
pub struct DefinitionRecord {
    /// Its ARN.
    pub arn: String,
    /// Its family.
    pub family: String,
    /// Its number, from 1.
    pub revision: u64,
    /// The task role.
    pub task_role_arn: Option<String>,
    /// `awsvpc`, `bridge`, `host` or `none`.
    pub network_mode: String,
    /// The containers of the response.
    pub containers: Vec<Value>,
    /// The tags it was registered with.
    pub tags: Tags,
    /// Start order, health checks and stop time-outs of `containers`.
    pub(super) specs: Vec<ContainerSpec>,
    registered_at: Timestamp,
    rest: Map<String, Value>,
}

impl DefinitionRecord {
    /// The response of `DescribeTaskDefinition`, without tags.
    pub fn to_api_json(&self) -> Value {
        let fargate = self.requires("FARGATE");
        let mut shown = self.rest.clone();
        let fixed = json!({
            "taskDefinitionArn": self.arn,
            "family": self.family,
            "revision": self.revision,
            "status": "ACTIVE",
            "networkMode": self.network_mode,
            "containerDefinitions": self.containers,
            "compatibilities": if fargate { json!(["EC2", "FARGATE"]) } else { json!(["EC2"]) },
            "registeredAt": self.registered_at.as_secs_f64(),
        });
        if let Value::Object(fixed) = fixed {
            shown.extend(fixed);
        }
        for list in ["volumes", "placementConstraints", "requiresAttributes"] {
            shown.entry(list).or_insert_with(|| json!([]));
        }
        if let Some(role) = &self.task_role_arn {
            shown.insert("taskRoleArn".into(), json!(role));
        }
        Value::Object(shown)
    }

    /// The revision as the operator's type; `None` if the operator would reject the ARN.
    pub fn to_model(&self) -> Option<TaskDefinition> {
        let containers = self.containers.iter().map(|container| TaskContainer {
            name: text(container, "name").to_owned(),
            docker_labels: serde_json::from_value(container["dockerLabels"].clone()).unwrap_or_default(),
            ports: container["portMappings"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|mapping| u16::try_from(mapping["containerPort"].as_u64()?).ok())
                .collect(),
            essential: container["essential"].as_bool().unwrap_or(true),
            stop_timeout: container["stopTimeout"].as_u64().map(Duration::from_secs),
            sidecar_outbounds: start(container).kuma_sidecar().map(|sidecar| sidecar.outbounds()),
            sidecar_dataplane: start(container).kuma_sidecar().and_then(|sidecar| sidecar.dataplane()),
        });
        Some(TaskDefinition {
            arn: TaskDefinitionArn::parse(&self.arn).ok()?,
            task_role: self.task_role_arn.as_deref().and_then(|role| RoleArn::parse(role).ok()),
            network_mode: Some(self.network_mode.clone()),
            containers: containers.collect(),
        })
    }

    /// Whether `requiresCompatibilities` contains this launch type.
    pub(super) fn requires(&self, launch_type: &str) -> bool {
        requires(&self.rest, launch_type)
    }

    /// A task-level setting, such as `cpu`.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.rest.get(name).and_then(Value::as_str)
    }
}

fn requires(settings: &Map<String, Value>, launch_type: &str) -> bool {
    let compatibilities = settings.get("requiresCompatibilities").and_then(Value::as_array);
    compatibilities.is_some_and(|list| list.iter().any(|item| item == launch_type))
}

pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

impl Cloud {
    /// Registers the next revision of a family.
    pub fn register_task_definition(
        &mut self,
        request: RegisterTaskDefinition,
        now: Timestamp,
    ) -> AwsApiResult<Arc<DefinitionRecord>> {
        let RegisterTaskDefinition { family, task_role_arn, network_mode, container_definitions, tags, rest } =
            request;
        if family.is_empty() || !family.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(client(format!("{family:?} is not a valid family: letters, digits, '-' and '_'")));
        }
        if container_definitions.is_empty() {
            return Err(client("a task definition needs at least one container"));
        }
        let mut containers = Vec::with_capacity(container_definitions.len());
        for container in container_definitions {
            containers.push(normal_container(container)?);
        }
        let fargate = requires(&rest, "FARGATE");
        let specs = ContainerSpec::read_all(&containers, fargate)?;
        let revision = self.definitions.get(&family).map_or(0, Vec::len) as u64 + 1;
        let record = Arc::new(DefinitionRecord {
            arn: self.arn("ecs", &format!("task-definition/{family}:{revision}")),
            family: family.clone(),
            revision,
            task_role_arn: task_role_arn.map(|role| self.role_arn_of(&role)),
            network_mode: network_mode.unwrap_or_else(|| "bridge".into()),
            containers,
            specs,
            tags,
            registered_at: now,
            rest,
        });
        if fargate && record.network_mode != "awsvpc" {
            return Err(client("Fargate tasks need the network mode awsvpc"));
        }
        self.definitions.entry(family).or_default().push(record.clone());
        Ok(record)
    }

    /// Accepts a task role's name or ARN.
    fn role_arn_of(&self, role: &str) -> String {
        if role.starts_with("arn:") {
            return role.to_owned();
        }
        self.roles
            .get(role)
            .map_or_else(|| self.global_arn("iam", &format!("role/{role}")), |r| r.arn.clone())
    }

    /// The revision for a family (the newest one), `family:revision` or an ARN.
    pub fn describe_task_definition(&self, definition: &str) -> AwsApiResult<Arc<DefinitionRecord>> {
        let missing = || client(format!("there is no task definition {definition}"));
        let named =
            definition.strip_prefix(self.arn("ecs", "task-definition/").as_str()).unwrap_or(definition);
        let (family, revision) = match named.rsplit_once(':') {
            Some((family, revision)) => (family, Some(revision.parse::<u64>().map_err(|_| missing())?)),
            None => (named, None),
        };
        let revisions = self.definitions.get(family).ok_or_else(missing)?;
        let found = match revision {
            Some(revision) => revisions.iter().find(|record| record.revision == revision),
            None => revisions.last(),
        };
        found.cloned().ok_or_else(missing)
    }
}

/// Adds the fields that the API always returns for a container.
fn normal_container(mut container: Value) -> AwsApiResult<Value> {
    let Some(fields) = container.as_object_mut() else { return Err(client("a container must be an object")) };
    if fields.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(client("a container needs a name"));
    }
    for (name, value) in [
        ("cpu", json!(0)),
        ("essential", json!(true)),
        ("portMappings", json!([])),
        ("environment", json!([])),
        ("mountPoints", json!([])),
        ("volumesFrom", json!([])),
    ] {
        fields.entry(name).or_insert(value);
    }
    for mapping in fields.get_mut("portMappings").and_then(Value::as_array_mut).into_iter().flatten() {
        if mapping.get("hostPort").is_none() {
            mapping["hostPort"] = mapping["containerPort"].clone();
        }
        if mapping.get("protocol").is_none() {
            mapping["protocol"] = json!("tcp");
        }
    }
    Ok(container)
}

/// How a container of a response is started.
fn start(container: &Value) -> ContainerStart<'_> {
    let items = |field: &str| container[field].as_array().into_iter().flatten();
    let variables =
        items("environment").filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str())));
    let secrets = items("secrets").filter_map(|one| Some((one["name"].as_str()?, None)));
    ContainerStart {
        image: text(container, "image"),
        arguments: items("entryPoint").chain(items("command")).filter_map(Value::as_str).collect(),
        environment: variables.chain(secrets).collect(),
        has_environment_files: items("environmentFiles").next().is_some(),
    }
}
