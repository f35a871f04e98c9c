//! Objects of other owners at Consul that resemble those of a stopped task, and the leftovers of a task that ECS has
//! forgotten.

use serde_json::{Value, json};

use super::bootstrap::{CLIENT_METHOD, ConsulBootstrap, admin_token, put};
use crate::aws::Cloud;
use crate::consul::ConsulServer;
use ecs_mesh_model::Timestamp;

/// A task of the cluster that ECS has forgotten.
const FORGOTTEN_TASK: &str = "0badc0de0badc0de0badc0de0badc0de";
/// A task of another cluster.
const FOREIGN_TASK: &str = "feedfacefeedfacefeedfacefeedface";
/// The auth method of another operator.
const FOREIGN_METHOD: &str = "iam-ecs-of-another-team";
/// The ownership marker of another operator.
const FOREIGN_MARKER: &str = "[ecs-mesh:another]";
/// A node that does not belong to a cluster.
const EXTERNAL_NODE: &str = "legacy-vm";

/// An object that must stay unmodified.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignFixture {
    /// Description for messages.
    pub description: &'static str,
    /// The node of a service; `None` for a token.
    node: Option<String>,
    /// Accessor of a token, or id of a service.
    id: String,
    /// Its content when it was created.
    before: Value,
}

impl ForeignFixture {
    fn token(description: &'static str, token: &Value, consul: &ConsulServer) -> Self {
        Self::capture(description, None, token["AccessorID"].as_str().unwrap_or_default(), consul)
    }

    fn capture(description: &'static str, node: Option<&str>, id: &str, consul: &ConsulServer) -> Self {
        let fixture =
            Self { description, node: node.map(str::to_owned), id: id.to_owned(), before: Value::Null };
        Self { before: fixture.current(consul).unwrap_or_default(), ..fixture }
    }

    /// The node of a service; `None` for a token.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Accessor of a token, or id of a service.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a journal entry with this id is about the object.
    pub fn has_id(&self, id: &str) -> bool {
        match &self.node {
            Some(node) => {
                id.strip_prefix(node.as_str()).and_then(|rest| rest.strip_prefix(' ')) == Some(&self.id)
            }
            None => self.id == id,
        }
    }

    /// Whether the object still exists unmodified.
    pub fn is_unmodified(&self, consul: &ConsulServer) -> bool {
        self.current(consul).as_ref() == Some(&self.before)
    }

    fn current(&self, consul: &ConsulServer) -> Option<Value> {
        match &self.node {
            Some(node) => consul.services(node).remove(&self.id),
            None => consul.tokens().find(|token| token["AccessorID"] == *self.id),
        }
    }
}

/// Creates the objects. `role` may log in, and `name` is its service.
///
/// # Errors
/// Consul's error.
pub(in crate::world) fn create_fixtures(
    bootstrap: &ConsulBootstrap,
    cloud: &mut Cloud,
    consul: &mut ConsulServer,
    role: &str,
    name: &str,
    now: Timestamp,
) -> Result<Vec<ForeignFixture>, String> {
    let person = admin_token(consul, now)?;
    let mut fixtures = tokens(bootstrap, cloud, consul, (role, &person), now)?;
    fixtures.push(foreign_objects(bootstrap, cloud, consul, (role, &person), now)?);
    fixtures.extend(services(bootstrap, consul, &person, now)?);
    // The operator removes the objects of the forgotten task, so they are no fixtures.
    let meta = ConsulBootstrap::meta(&bootstrap.cluster, FORGOTTEN_TASK);
    bootstrap.log_in(cloud, consul, role, &meta, now)?;
    bootstrap.log_in_by(CLIENT_METHOD, cloud, consul, (role, &meta), now)?;
    for body in [
        bootstrap.service(name, FORGOTTEN_TASK, "10.254.0.1", 8_080, "passing"),
        bootstrap.sidecar(name, FORGOTTEN_TASK, "10.254.0.1", "passing"),
    ] {
        put(consul, now, &person, "/v1/catalog/register", &body)?;
    }
    Ok(fixtures)
}

fn tokens(
    bootstrap: &ConsulBootstrap,
    cloud: &mut Cloud,
    consul: &mut ConsulServer,
    (role, person): (&str, &str),
    now: Timestamp,
) -> Result<Vec<ForeignFixture>, String> {
    let mut fixtures = Vec::new();
    let login_meta = json!({
        "consul.hashicorp.com/cluster": bootstrap.cluster, "consul.hashicorp.com/task-id": FORGOTTEN_TASK,
    });
    let by_hand = json!({
        "Description": format!("token created via login: {login_meta}"), "ServiceIdentities": [{"ServiceName": "legacy"}],
    });
    let token = put(consul, now, person, "/v1/acl/token", &by_hand)?;
    fixtures.push(ForeignFixture::token("a token that a person made", &token, consul));
    let other = format!("{}-of-another-team", bootstrap.cluster);
    let no_task: [(&'static str, &[(&str, &str)]); 4] = [
        ("the token of another cluster's task", &ConsulBootstrap::meta(&other, FOREIGN_TASK)),
        ("a login's token that names no task", &[]),
        (
            "a login's token with an invalid task id",
            &ConsulBootstrap::meta(&bootstrap.cluster, "../etc/passwd"),
        ),
        (
            "a login's token that names a cluster and no task",
            &ConsulBootstrap::meta(&bootstrap.cluster, "")[..1],
        ),
    ];
    for (description, meta) in no_task {
        let token = bootstrap.log_in(cloud, consul, role, meta, now)?;
        fixtures.push(ForeignFixture::token(description, &token, consul));
    }
    bootstrap.enable_login(consul, CLIENT_METHOD, "AWS IAM auth method for ECS client tokens", role, now)?;
    let token = bootstrap.log_in_by(CLIENT_METHOD, cloud, consul, (role, &[]), now)?;
    fixtures.push(ForeignFixture::token("the token of a client, which names no task", &token, consul));
    Ok(fixtures)
}

/// Objects with another operator's marker, and a token that differs from a task's token in its auth method only.
fn foreign_objects(
    bootstrap: &ConsulBootstrap,
    cloud: &mut Cloud,
    consul: &mut ConsulServer,
    (role, person): (&str, &str),
    now: Timestamp,
) -> Result<ForeignFixture, String> {
    let bound = role.rsplit_once('/').map_or(role, |(path, _)| path);
    let objects = [
        (
            "/v1/acl/policy",
            json!({"Name": "another-gateway", "Rules": "", "Description": format!("Gateways {FOREIGN_MARKER}")}),
        ),
        (
            "/v1/acl/auth-method",
            json!({
                "Name": FOREIGN_METHOD, "Type": "aws-iam", "Description": format!("Logins {FOREIGN_MARKER}"),
                "Config": {
                    "BoundIAMPrincipalARNs": [format!("{bound}/*")], "EnableIAMEntityDetails": true,
                    "STSEndpoint": bootstrap.aws, "IAMEndpoint": bootstrap.aws,
                },
            }),
        ),
        (
            "/v1/acl/binding-rule",
            json!({
                "AuthMethod": FOREIGN_METHOD, "BindType": "service", "BindName": "legacy",
                "Description": FOREIGN_MARKER,
            }),
        ),
    ];
    for (path, body) in &objects {
        put(consul, now, person, path, body)?;
    }
    let meta = ConsulBootstrap::meta(&bootstrap.cluster, FORGOTTEN_TASK);
    let token = bootstrap.log_in_by(FOREIGN_METHOD, cloud, consul, (role, &meta), now)?;
    Ok(ForeignFixture::token("a token of another auth method", &token, consul))
}

fn services(
    bootstrap: &ConsulBootstrap,
    consul: &mut ConsulServer,
    person: &str,
    now: Timestamp,
) -> Result<Vec<ForeignFixture>, String> {
    let other = format!(
        "{}/{FOREIGN_TASK}",
        bootstrap.cluster.replacen(":cluster/", ":task/", 1).replace("sandbox", "other")
    );
    let elsewhere = format!("{}-of-another-team", bootstrap.cluster);
    let shapes = [
        (
            "a service on another cluster's node",
            elsewhere.as_str(),
            "of-another-cluster",
            json!({"source": "consul-ecs", "task-id": FORGOTTEN_TASK}),
        ),
        ("a service that a person made", bootstrap.cluster.as_str(), "by-hand", Value::Null),
        ("a service without a task's id", &bootstrap.cluster, "no-task", json!({"source": "consul-ecs"})),
        (
            "a service with an invalid task id",
            &bootstrap.cluster,
            "bad-task",
            json!({"source": "consul-ecs", "task-id": "not/a/task"}),
        ),
        (
            "a service that names two tasks",
            &bootstrap.cluster,
            "two-tasks",
            json!({"source": "consul-ecs", "task-id": FORGOTTEN_TASK, "task-arn": other}),
        ),
        (
            "a service of something that is not consul-ecs",
            &bootstrap.cluster,
            "other-source",
            json!({"source": "nomad", "task-id": FORGOTTEN_TASK}),
        ),
        (
            "a service on a machine's node",
            EXTERNAL_NODE,
            "on-a-machine",
            json!({"source": "consul-ecs", "task-id": FORGOTTEN_TASK}),
        ),
    ];
    let mut fixtures = Vec::new();
    for (description, node, id, meta) in shapes {
        let body = json!({
            "Node": node, "Address": "127.0.0.1",
            "NodeMeta": if node == EXTERNAL_NODE { Value::Null } else { json!({"synthetic-node": "true"}) },
            "Service": {"ID": id, "Service": "legacy", "Address": "10.254.0.9", "Port": 9_090, "Meta": meta},
        });
        put(consul, now, person, "/v1/catalog/register", &body)?;
        fixtures.push(ForeignFixture::capture(description, Some(node), id, consul));
    }
    Ok(fixtures)
}
