//! Consul's setup before any task starts: the auth method of the tasks, its binding rule, and the cluster's node.

use serde_json::{Value, json};

use crate::aws::{AssumeRole, Cloud};
use crate::consul::{
    ConsulConfig, ConsulRequest, ConsulServer, EntityDetails, SignedLogin as ConsulLogin, in_process,
};
use ecs_mesh_model::Timestamp;

/// The auth method of tasks.
pub const LOGIN_METHOD: &str = "iam-ecs-service-token";
/// The auth method of Consul clients in consul-ecs's manual setup.
pub const CLIENT_METHOD: &str = "iam-ecs-client-token";
/// The role tag that names the service of a login's token.
pub const SERVICE_TAG: &str = "consul.hashicorp.com.service-name";
/// The secret of the initial management token. It is valid in this process only.
pub const MANAGEMENT_TOKEN: &str = "5a2db0c5-7c1e-4f60-9d3a-0e6b1f4c8a21";

const CLUSTER_META: &str = "consul.hashicorp.com/cluster";
const TASK_META: &str = "consul.hashicorp.com/task-id";
/// The id of the built-in policy `global-management`.
const GLOBAL_MANAGEMENT_POLICY: &str = "00000000-0000-0000-0000-000000000001";

/// The setup of one ECS cluster at Consul.
#[derive(Clone, Debug)]
pub struct ConsulBootstrap {
    /// The cluster's ARN, which is also the node's name.
    pub cluster: String,
    /// The endpoint of STS and IAM.
    pub aws: String,
    /// The Region.
    pub region: String,
}

impl ConsulBootstrap {
    /// A server that requires a token.
    pub fn server(seed: u64, now: Timestamp) -> ConsulServer {
        let management_token = Some(MANAGEMENT_TOKEN.to_owned());
        ConsulServer::new(ConsulConfig { management_token, seed, ..ConsulConfig::default() }, now)
    }

    /// Creates the auth method, the binding rule and the node.
    ///
    /// # Errors
    /// Describes the request that Consul rejected.
    pub fn configure(&self, consul: &mut ConsulServer, now: Timestamp) -> Result<(), String> {
        let Some(account) = self.cluster.split(':').nth(4) else {
            return Err(format!("{} is not a cluster ARN", self.cluster));
        };
        let partition = self.cluster.split(':').nth(1).unwrap_or("aws");
        let bound = format!("arn:{partition}:iam::{account}:role/consul-ecs/*");
        self.enable_login(consul, LOGIN_METHOD, "AWS IAM auth method for ECS service tokens", &bound, now)?;
        let node = json!({
            "Node": self.cluster, "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"},
        });
        put(consul, now, MANAGEMENT_TOKEN, "/v1/catalog/register", &node)?;
        // The oracle checks later writes only.
        consul.take_journal();
        Ok(())
    }

    /// Creates an auth method whose bound roles get a token of their service.
    ///
    /// # Errors
    /// Consul's error.
    pub(super) fn enable_login(
        &self,
        consul: &mut ConsulServer,
        name: &str,
        description: &str,
        bound: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        let method = json!({
            "Name": name, "Type": "aws-iam", "Description": description,
            "Config": {
                "BoundIAMPrincipalARNs": [bound], "EnableIAMEntityDetails": true, "IAMEntityTags": [SERVICE_TAG],
                "STSEndpoint": self.aws, "IAMEndpoint": self.aws,
            },
        });
        put(consul, now, MANAGEMENT_TOKEN, "/v1/acl/auth-method", &method)?;
        let rule = json!({
            "AuthMethod": name, "BindType": "service", "BindName": format!("${{entity_tags.{SERVICE_TAG}}}"),
        });
        put(consul, now, MANAGEMENT_TOKEN, "/v1/acl/binding-rule", &rule)?;
        Ok(())
    }

    /// The accessor of the initial management token, which the operator uses.
    pub fn operator(consul: &mut ConsulServer, now: Timestamp) -> String {
        let own = call(consul, now, Some(MANAGEMENT_TOKEN), "GET", "/v1/acl/token/self", &Value::Null);
        own.ok().and_then(|own| own["AccessorID"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Logs in with a role's credentials. Returns the token with its secret.
    ///
    /// # Errors
    /// The error of AWS or Consul.
    pub fn log_in(
        &self,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        role: &str,
        meta: &[(&str, &str)],
        now: Timestamp,
    ) -> Result<Value, String> {
        self.log_in_by(LOGIN_METHOD, cloud, consul, (role, meta), now)
    }

    /// As [`Self::log_in`], by another auth method.
    ///
    /// # Errors
    /// The error of AWS or Consul.
    pub fn log_in_by(
        &self,
        auth_method: &str,
        cloud: &mut Cloud,
        consul: &mut ConsulServer,
        (role, meta): (&str, &[(&str, &str)]),
        now: Timestamp,
    ) -> Result<Value, String> {
        let request = AssumeRole {
            role_arn: role.to_owned(),
            session_name: "task".to_owned(),
            ..AssumeRole::default()
        };
        let credentials = cloud.assume_role(&request, now).map_err(|error| error.to_string())?;
        let login = ConsulLogin {
            auth_method,
            credentials: &credentials,
            region: &self.region,
            sts_endpoint: Some(&self.aws),
            iam_endpoint: Some(&self.aws),
            server_id: None,
            entity: EntityDetails::Own,
            meta,
        };
        let request = login.request(now)?;
        let mut send = |call: &_| in_process::send_signed(cloud, now, &self.aws, call);
        let answer = consul.login_with(now, &request, &mut send);
        match answer.status {
            200 => Ok(answer.json()),
            _ => Err(String::from_utf8_lossy(&answer.body).into_owned()),
        }
    }

    /// The login metadata of a task.
    pub fn meta<'a>(cluster: &'a str, task: &'a str) -> [(&'static str, &'a str); 2] {
        [(CLUSTER_META, cluster), (TASK_META, task)]
    }

    /// The catalog registration of a task's service.
    pub(super) fn service(&self, name: &str, task: &str, address: &str, port: u16, status: &str) -> Value {
        let id = format!("{name}-{task}");
        let meta = self.service_meta(task);
        let service = json!({"ID": id, "Service": name, "Address": address, "Port": port, "Meta": meta});
        self.registration(&service, status)
    }

    /// The catalog registration of a task's sidecar proxy.
    pub(super) fn sidecar(&self, name: &str, task: &str, address: &str, status: &str) -> Value {
        let meta = self.service_meta(task);
        let service = json!({
            "ID": format!("{name}-{task}-sidecar-proxy"), "Service": format!("{name}-sidecar-proxy"),
            "Kind": "connect-proxy", "Address": address, "Port": 20_000, "Meta": meta,
            "Proxy": {
                "DestinationServiceName": name, "DestinationServiceID": format!("{name}-{task}"),
                "LocalServicePort": 8_080,
            },
        });
        self.registration(&service, status)
    }

    fn service_meta(&self, task: &str) -> Value {
        let arn = format!("{}/{task}", self.cluster.replacen(":cluster/", ":task/", 1));
        json!({"source": "consul-ecs", "task-id": task, "task-arn": arn})
    }

    fn registration(&self, service: &Value, status: &str) -> Value {
        let check = json!({
            "CheckID": format!("{}-check", service["ID"].as_str().unwrap_or_default()), "Name": "ECS health",
            "Type": "consul-ecs-health-check", "Status": status, "ServiceID": service["ID"],
        });
        json!({
            "Node": self.cluster, "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"},
            "SkipNodeUpdate": true, "Service": service, "Checks": [check],
        })
    }
}

/// Sends a request with this token and returns the body of the response.
pub(super) fn call(
    consul: &mut ConsulServer,
    now: Timestamp,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Value, String> {
    let answer = consul.handle(now, &ConsulRequest::new(method, path, token, body));
    match answer.status {
        200 => Ok(answer.json()),
        status => Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer.body))),
    }
}

pub(super) fn put(
    consul: &mut ConsulServer,
    now: Timestamp,
    token: &str,
    path: &str,
    body: &Value,
) -> Result<Value, String> {
    call(consul, now, Some(token), "PUT", path, body)
}

/// Creates a management token of the platform team and returns its secret.
///
/// # Errors
/// Consul's error.
pub fn admin_token(consul: &mut ConsulServer, now: Timestamp) -> Result<String, String> {
    let body = json!({"Description": "platform team", "Policies": [{"ID": GLOBAL_MANAGEMENT_POLICY}]});
    let token = put(consul, now, MANAGEMENT_TOKEN, "/v1/acl/token", &body)?;
    Ok(token["SecretID"].as_str().unwrap_or_default().to_owned())
}
