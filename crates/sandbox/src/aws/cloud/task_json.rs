//! The two JSON forms of a task. Events have ISO times, the attachment type `eni`, no tags and no health. The API has
//! epoch seconds, `ElasticNetworkInterface`, health, and tags on request.
//!
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>.

use serde_json::{Map, Value, json};

use super::definitions::text;
use crate::aws::CloudTask;
use ecs_mesh_model::{LastStatus, Timestamp};

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskJsonFormat {
    Event,
    Api,
}

impl CloudTask {
    /// The form of DescribeTasks and `RunTask`.
    pub fn to_api_json(&self, with_tags: bool) -> Value {
        let mut shown = self.shown(TaskJsonFormat::Api);
        shown.insert("healthStatus".into(), json!(self.health().as_str()));
        shown.insert("enableExecuteCommand".into(), json!(false));
        shown.insert("platformFamily".into(), json!("Linux"));
        shown.insert(
            "tags".into(),
            if with_tags { super::ecs_tags::tags_json(&self.tags) } else { json!([]) },
        );
        Value::Object(shown)
    }

    /// The `detail` of an `ECS Task State Change` event.
    pub fn to_event_detail(&self) -> Value {
        let mut shown = self.shown(TaskJsonFormat::Event);
        shown.insert("updatedAt".into(), json!(self.updated_at.to_string()));
        Value::Object(shown)
    }

    fn shown(&self, shape: TaskJsonFormat) -> Map<String, Value> {
        let mut shown = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                shown.insert(name.to_owned(), value);
            }
        };
        put("attachments", self.attachments(shape));
        put("attributes", json!([{"name": "ecs.cpu-architecture", "value": "x86_64"}]));
        put("availabilityZone", json!(self.availability_zone));
        put("clusterArn", json!(self.cluster_arn));
        put(
            "containers",
            self.definition
                .containers
                .iter()
                .enumerate()
                .map(|(i, c)| self.container_json(i, c, shape))
                .collect(),
        );
        for setting in ["cpu", "memory"] {
            let overridden = self.overrides.rest.get(setting).and_then(Value::as_str);
            put(setting, json!(overridden.or(self.definition.setting(setting))));
        }
        put("desiredStatus", json!(self.desired_status.as_str()));
        put("group", json!(self.group));
        put("lastStatus", json!(self.last_status.as_str()));
        put("launchType", json!(self.launch_type));
        put("overrides", self.overrides_json());
        if self.launch_type == "FARGATE" {
            put("platformVersion", json!("1.4.0"));
            put("ephemeralStorage", json!({"sizeInGiB": 20}));
        }
        put("containerInstanceArn", json!(self.container_instance_arn()));
        put("startedBy", json!(self.started_by));
        put("stopCode", json!(self.stop_code.map(super::StopCode::as_str)));
        put("stoppedReason", json!(self.stopped_reason));
        put("taskArn", json!(self.arn));
        put("taskDefinitionArn", json!(self.definition.arn));
        put("version", json!(self.version));
        if self.pull_started_at.is_some() {
            put("connectivity", json!("CONNECTED"));
        }
        for (name, at) in [
            ("connectivityAt", self.pull_started_at),
            ("createdAt", Some(self.created_at)),
            ("pullStartedAt", self.pull_started_at),
            ("pullStoppedAt", self.pull_stopped_at),
            ("startedAt", self.started_at),
            ("stoppingAt", self.stopping_at),
            ("executionStoppedAt", self.execution_stopped_at),
            ("stoppedAt", self.stopped_at),
        ] {
            put(name, at.map_or(Value::Null, |at| time(at, shape)));
        }
        shown
    }

    fn attachments(&self, shape: TaskJsonFormat) -> Value {
        let Some(network) = &self.network else { return json!([]) };
        let status = match self.last_status {
            LastStatus::Provisioning if network.address.is_none() => "PRECREATED",
            LastStatus::Provisioning => "ATTACHING",
            LastStatus::Deprovisioning => "DETACHED",
            LastStatus::Stopped | LastStatus::Deleted => "DELETED",
            _ => "ATTACHED",
        };
        let mut details = vec![json!({"name": "subnetId", "value": network.subnet})];
        if let Some(address) = network.address {
            let dashed = address.to_string().replace('.', "-");
            let region = self.availability_zone.trim_end_matches(|c: char| c.is_ascii_lowercase());
            details.extend([
                json!({"name": "networkInterfaceId", "value": network.interface}),
                json!({"name": "macAddress", "value": network.mac}),
                json!({"name": "privateDnsName", "value": format!("ip-{dashed}.{region}.compute.internal")}),
                json!({"name": "privateIPv4Address", "value": address}),
            ]);
        }
        let kind = if shape == TaskJsonFormat::Event { "eni" } else { "ElasticNetworkInterface" };
        json!([{"id": network.attachment, "type": kind, "status": status, "details": details}])
    }

    fn container_json(&self, index: usize, container: &Value, shape: TaskJsonFormat) -> Value {
        let state = &self.containers[index];
        let container_id = &self.runtime_ids[index];
        let (base, id) = self.arn.split_once(":task/").unwrap_or_default();
        let mut shown = json!({
            "containerArn": format!("{base}:container/{id}/{container_id}"),
            "taskArn": self.arn,
            "name": text(container, "name"),
            "image": text(container, "image"),
            "lastStatus": state.status.as_str(),
            "networkInterfaces": [],
            "cpu": container["cpu"].as_u64().unwrap_or(0).to_string(),
        });
        if shape == TaskJsonFormat::Api {
            shown["healthStatus"] = json!(state.health.as_str());
        }
        for memory in ["memory", "memoryReservation"] {
            if let Some(size) = container[memory].as_u64() {
                shown[memory] = json!(size.to_string());
            }
        }
        if let Some(network) = &self.network {
            let mut interface = json!({"attachmentId": network.attachment});
            if let Some(address) = network.address {
                interface["privateIpv4Address"] = json!(address);
            }
            if let Some(address) = self.v6() {
                interface["ipv6Address"] = json!(address);
            }
            shown["networkInterfaces"] = json!([interface]);
        } else {
            shown["networkBindings"] = json!([]);
        }
        if self.pull_stopped_at.is_some() {
            shown["runtimeId"] = json!(format!("{}-{container_id}", self.id()));
        }
        if let Some(code) = state.exit_code {
            shown["exitCode"] = json!(code);
        }
        shown
    }

    fn overrides_json(&self) -> Value {
        let mut shown = self.overrides.rest.clone();
        let none_named: Value =
            self.definition.containers.iter().map(|container| json!({"name": container["name"]})).collect();
        shown.entry("containerOverrides").or_insert(none_named);
        if let Some(role) = &self.overrides.task_role_arn {
            shown.insert("taskRoleArn".into(), json!(role));
        }
        Value::Object(shown)
    }

    /// The container instance, once the task is placed; `None` on Fargate.
    pub fn container_instance_arn(&self) -> Option<String> {
        // Instances of different kinds are different.
        let kind = match &*self.launch_type {
            "FARGATE" => return None,
            "MANAGED_INSTANCES" => 1,
            "EXTERNAL" => 2,
            _ => 0,
        };
        self.pull_started_at?;
        let base = self.cluster_arn.split(":cluster/").next().unwrap_or_default();
        Some(format!("{base}:container-instance/{}/{kind}{:031x}", self.cluster, self.container_instance))
    }
}

fn time(at: Timestamp, shape: TaskJsonFormat) -> Value {
    match shape {
        TaskJsonFormat::Event => json!(at.to_string()),
        TaskJsonFormat::Api => json!(at.as_secs_f64()),
    }
}
