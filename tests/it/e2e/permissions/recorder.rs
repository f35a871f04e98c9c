//! The calls that reach an account of the sandbox, as the permissions that they need.
//!
//! Source: <https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>.

use std::collections::BTreeSet;
use std::sync::Mutex;

use ecs_mesh_sandbox::aws::{AwsCall, AwsFault, AwsFaults};
use serde_json::Value;

use super::policy::NeededPermission;

/// The access key of the clients of tests.
const TEST_KEY: &str = "AKIDTEST";

/// Records the permissions that the calls to one account in `eu-west-1` need, those of the test aside.
pub(super) struct CallRecorder {
    account: &'static str,
    needed: Mutex<BTreeSet<NeededPermission>>,
}

impl CallRecorder {
    pub(super) fn of(account: &'static str) -> Self {
        Self { account, needed: Mutex::default() }
    }

    pub(super) fn needed(&self) -> BTreeSet<NeededPermission> {
        self.needed.lock().unwrap().clone()
    }
}

impl AwsFaults for CallRecorder {
    fn decide(&self, _service: &str, _operation: &str) -> AwsFault {
        AwsFault::None
    }

    fn on_call(&self, call: &AwsCall<'_>) {
        if call.access_key_id != TEST_KEY {
            let permissions = CallReader { account: self.account, call }.permissions();
            self.needed.lock().unwrap().extend(permissions);
        }
    }
}

struct CallReader<'a> {
    account: &'static str,
    call: &'a AwsCall<'a>,
}

impl CallReader<'_> {
    fn permissions(&self) -> Vec<NeededPermission> {
        let AwsCall { service, operation, .. } = *self.call;
        let bucket = || format!("arn:aws:s3:::{}", self.text("Bucket"));
        match (service, operation) {
            // It needs no permission.
            ("sts", "GetCallerIdentity") => Vec::new(),
            ("sts", _) => self.on([self.text("RoleArn").to_owned()]),
            ("iam", _) => self.on([format!("arn:aws:iam::{}:role/{}", self.account, self.text("RoleName"))]),
            ("ecs", "ListTasks") => self.within("*".to_owned(), "ecs:cluster", self.text("cluster")),
            ("ecs", "DescribeClusters") => self.on(self.texts("clusters")),
            ("ecs", "DescribeServices") => self.on(self.of_cluster("service", "services")),
            ("ecs", "DescribeContainerInstances") => {
                self.on(self.of_cluster("container-instance", "containerInstances"))
            }
            ("ecs", "DescribeTasks" | "GetTaskProtection" | "UpdateTaskProtection") => {
                self.on(self.of_cluster("task", "tasks"))
            }
            ("dynamodb", _) => {
                let table = self.arn(&format!("table/{}", self.text("TableName")));
                let item = if operation == "GetItem" { "Key" } else { "Item" };
                let key = &self.call.parameters[item]["operatorId"]["S"];
                self.within(table, "dynamodb:LeadingKeys", key.as_str().unwrap())
            }
            ("events", "PutEvents") => self.events(),
            ("events", "DescribeEventBus") => {
                self.on([self.arn(&format!("event-bus/{}", self.text("Name")))])
            }
            ("events", "DescribeRule") => self.on([self.arn(&format!("rule/{}", self.text("Name")))]),
            ("events", "ListTargetsByRule") => self.on([self.arn(&format!("rule/{}", self.text("Rule")))]),
            ("s3", "ListObjectsV2") => self.within(bucket(), "s3:prefix", self.text("prefix")),
            ("s3", _) => self.on([format!("{}/{}", bucket(), self.text("Key"))]),
            ("secretsmanager", "CreateSecret") => self.on([self.secret(self.text("Name"))]),
            ("ssm", "GetParametersByPath") => self.on([self.parameter(self.text("Path"))]),
            ("ssm", "PutParameter" | "DeleteParameter") => self.on([self.parameter(self.text("Name"))]),
            ("ssm", "AddTagsToResource" | "ListTagsForResource") => {
                self.on([self.parameter(self.text("ResourceId"))])
            }
            ("secretsmanager", _) if !self.text("SecretId").is_empty() => {
                self.on([self.secret(self.text("SecretId"))])
            }
            ("sqs", _) => self.on([self.arn(self.text("QueueUrl").rsplit('/').next().unwrap_or_default())]),
            // The others have no resource types.
            _ => self.on(["*".to_owned()]),
        }
    }

    /// The actions of the call on these resources.
    fn on(&self, resources: impl IntoIterator<Item = String>) -> Vec<NeededPermission> {
        let needed = |resource: String| {
            let needed =
                move |action| NeededPermission { action, resource: resource.clone(), context: [].into() };
            self.actions().into_iter().map(needed)
        };
        resources.into_iter().flat_map(needed).collect()
    }

    /// The actions of the call on this resource, with a condition key.
    fn within(&self, resource: String, key: &'static str, value: &str) -> Vec<NeededPermission> {
        let mut needed = self.on([resource]);
        needed.iter_mut().for_each(|one| drop(one.context.insert(key, vec![value.to_owned()])));
        needed
    }

    fn events(&self) -> Vec<NeededPermission> {
        let entries = self.call.parameters["Entries"].as_array().unwrap().iter();
        let of = |entry: &Value| {
            let bus = self.arn(&format!("event-bus/{}", entry["EventBusName"].as_str().unwrap()));
            self.within(bus, "events:source", entry["Source"].as_str().unwrap())
        };
        entries.flat_map(of).collect()
    }

    /// A call that also sets tags needs the permission of the call that does so alone.
    fn actions(&self) -> Vec<String> {
        let AwsCall { service, operation, .. } = *self.call;
        let name = match operation {
            "ListObjectsV2" => "ListBucket",
            other => other.trim_end_matches("Batch"),
        };
        let tagging = match operation {
            "CreateSecret" => Some("TagResource"),
            "PutParameter" => Some("AddTagsToResource"),
            _ => None,
        };
        let tagging = tagging.filter(|_| self.call.parameters["Tags"].is_array());
        [Some(name), tagging].into_iter().flatten().map(|name| format!("{service}:{name}")).collect()
    }

    fn text(&self, name: &str) -> &str {
        self.call.parameters[name].as_str().unwrap_or_default()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let items = self.call.parameters[name].as_array().into_iter().flatten();
        items.map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The ARNs of tasks, services or instances of the cluster, which a call may give by their names.
    fn of_cluster(&self, kind: &str, parameter: &str) -> Vec<String> {
        let cluster = self.text("cluster").replace(":cluster/", &format!(":{kind}/"));
        let arn = |name: String| if name.starts_with("arn:") { name } else { format!("{cluster}/{name}") };
        self.texts(parameter).into_iter().map(arn).collect()
    }

    fn arn(&self, resource: &str) -> String {
        format!("arn:aws:{}:eu-west-1:{}:{resource}", self.call.service, self.account)
    }

    fn parameter(&self, name: &str) -> String {
        self.arn(&format!("parameter{}", name.trim_end_matches('/')))
    }

    /// The ARN of a secret ends in six characters that its name does not have.
    fn secret(&self, id: &str) -> String {
        if id.starts_with("arn:") { id.to_owned() } else { self.arn(&format!("secret:{id}-a1B2c3")) }
    }
}
