//! What others have left at Consul, in shapes that are easily taken for a dead task's; and what a dead task did leave.

use serde_json::{Value, json};

use super::bootstrap::{CLIENT_METHOD, ConsulBootstrap, human_token, put};
use crate::aws::Cloud;
use crate::consul::ConsulServer;
use ecs_mesh_model::Timestamp;

/// A task of the cluster that stopped so long ago that ECS has forgotten it.
const FORGOTTEN: &str = "0badc0de0badc0de0badc0de0badc0de";
/// A task of nobody here.
const ELSEWHERE: &str = "feedfacefeedfacefeedfacefeedface";
/// The auth method of another operator's tasks.
const OTHERS_METHOD: &str = "iam-ecs-of-another-team";
/// On each object of another operator.
const OTHERS_MARK: &str = "[ecs-mesh:another]";
/// A node that is no cluster's.
const MACHINE: &str = "legacy-vm";

/// Something that has to stay as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignFixture {
    /// What it is, for people.
    pub what: &'static str,
    /// The node of a service; none for a token.
    node: Option<String>,
    /// The accessor, or the service's id.
    id: String,
    /// As it was.
    before: Value,
}

impl ForeignFixture {
    fn token(what: &'static str, token: &Value, consul: &ConsulServer) -> Self {
        Self::look(what, None, token["AccessorID"].as_str().unwrap_or_default(), consul)
    }

    fn look(what: &'static str, node: Option<&str>, id: &str, consul: &ConsulServer) -> Self {
        let fixtures = Self { what, node: node.map(str::to_owned), id: id.to_owned(), before: Value::Null };
        Self { before: fixtures.is(consul).unwrap_or_default(), ..fixtures }
    }

    /// The node that it is on, if it is a service; a token is on none.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// The accessor, or the service's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it is what this id names.
    pub fn has_id(&self, id: &str) -> bool {
        match &self.node {
            Some(node) => {
                id.strip_prefix(node.as_str()).and_then(|rest| rest.strip_prefix(' ')) == Some(&self.id)
            }
            None => self.id == id,
        }
    }

    /// Whether it is as it was.
    pub fn is_unmodified(&self, consul: &ConsulServer) -> bool {
        self.is(consul).as_ref() == Some(&self.before)
    }

    fn is(&self, consul: &ConsulServer) -> Option<Value> {
        match &self.node {
            Some(node) => consul.services(node).remove(&self.id),
            None => consul.tokens().find(|token| token["AccessorID"] == *self.id),
        }
    }
}

/// Leaves it all. `role` is one that may log in; `name` its service.
///
/// # Errors
/// In words, as Consul refuses it.
pub(in crate::world) fn plant(
    bootstrap: &ConsulBootstrap,
    cloud: &mut Cloud,
    consul: &mut ConsulServer,
    role: &str,
    name: &str,
    now: Timestamp,
) -> Result<Vec<ForeignFixture>, String> {
    let person = human_token(consul, now)?;
    let mut fixtures = tokens(bootstrap, cloud, consul, (role, &person), now)?;
    fixtures.push(foreign_objects(bootstrap, cloud, consul, (role, &person), now)?);
    fixtures.extend(services(bootstrap, consul, &person, now)?);
    // This one may go.
    let meta = ConsulBootstrap::meta(&bootstrap.cluster, FORGOTTEN);
    bootstrap.log_in(cloud, consul, role, &meta, now)?;
    bootstrap.log_in_by(CLIENT_METHOD, cloud, consul, (role, &meta), now)?;
    for body in [
        bootstrap.service(name, FORGOTTEN, "10.254.0.1", 8_080, "passing"),
        bootstrap.sidecar(name, FORGOTTEN, "10.254.0.1", "passing"),
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
    let says = json!({
        "consul.hashicorp.com/cluster": bootstrap.cluster, "consul.hashicorp.com/task-id": FORGOTTEN,
    });
    let by_hand = json!({
        "Description": format!("token created via login: {says}"), "ServiceIdentities": [{"ServiceName": "legacy"}],
    });
    let token = put(consul, now, person, "/v1/acl/token", &by_hand)?;
    fixtures.push(ForeignFixture::token("a token that a person made", &token, consul));
    let other = format!("{}-of-another-team", bootstrap.cluster);
    let no_task: [(&'static str, &[(&str, &str)]); 4] = [
        ("the token of another cluster's task", &ConsulBootstrap::meta(&other, ELSEWHERE)),
        ("a login's token that names no task", &[]),
        ("a login's token whose task is none", &ConsulBootstrap::meta(&bootstrap.cluster, "../etc/passwd")),
        ("a login's token that names a cluster and no task", &ConsulBootstrap::meta(&bootstrap.cluster, "")[..1]),
    ];
    for (what, meta) in no_task {
        let token = bootstrap.log_in(cloud, consul, role, meta, now)?;
        fixtures.push(ForeignFixture::token(what, &token, consul));
    }
    bootstrap.enable_login(consul, CLIENT_METHOD, "AWS IAM auth method for ECS client tokens", role, now)?;
    let token = bootstrap.log_in_by(CLIENT_METHOD, cloud, consul, (role, &[]), now)?;
    fixtures.push(ForeignFixture::token("the token of a client, which names no task", &token, consul));
    Ok(fixtures)
}

/// What another operator keeps: objects that bear its mark, and a token that says just what one of ours would say.
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
            json!({"Name": "another-gateway", "Rules": "", "Description": format!("Gateways {OTHERS_MARK}")}),
        ),
        (
            "/v1/acl/auth-method",
            json!({
                "Name": OTHERS_METHOD, "Type": "aws-iam", "Description": format!("Logins {OTHERS_MARK}"),
                "Config": {
                    "BoundIAMPrincipalARNs": [format!("{bound}/*")], "EnableIAMEntityDetails": true,
                    "STSEndpoint": bootstrap.aws, "IAMEndpoint": bootstrap.aws,
                },
            }),
        ),
        (
            "/v1/acl/binding-rule",
            json!({
                "AuthMethod": OTHERS_METHOD, "BindType": "service", "BindName": "legacy",
                "Description": OTHERS_MARK,
            }),
        ),
    ];
    for (path, body) in &objects {
        put(consul, now, person, path, body)?;
    }
    let meta = ConsulBootstrap::meta(&bootstrap.cluster, FORGOTTEN);
    let token = bootstrap.log_in_by(OTHERS_METHOD, cloud, consul, (role, &meta), now)?;
    Ok(ForeignFixture::token("a token of another auth method", &token, consul))
}

fn services(
    bootstrap: &ConsulBootstrap,
    consul: &mut ConsulServer,
    person: &str,
    now: Timestamp,
) -> Result<Vec<ForeignFixture>, String> {
    let other = format!(
        "{}/{ELSEWHERE}",
        bootstrap.cluster.replacen(":cluster/", ":task/", 1).replace("sandbox", "other")
    );
    let elsewhere = format!("{}-of-another-team", bootstrap.cluster);
    let shapes = [
        (
            "a service on another cluster's node",
            elsewhere.as_str(),
            "of-another-cluster",
            json!({"source": "consul-ecs", "task-id": FORGOTTEN}),
        ),
        ("a service that a person made", bootstrap.cluster.as_str(), "by-hand", Value::Null),
        ("a service without a task's id", &bootstrap.cluster, "no-task", json!({"source": "consul-ecs"})),
        (
            "a service whose task is none",
            &bootstrap.cluster,
            "bad-task",
            json!({"source": "consul-ecs", "task-id": "not/a/task"}),
        ),
        (
            "a service that names two tasks",
            &bootstrap.cluster,
            "two-tasks",
            json!({"source": "consul-ecs", "task-id": FORGOTTEN, "task-arn": other}),
        ),
        (
            "a service of something that is not consul-ecs",
            &bootstrap.cluster,
            "other-source",
            json!({"source": "nomad", "task-id": FORGOTTEN}),
        ),
        (
            "a service on a machine's node",
            MACHINE,
            "on-a-machine",
            json!({"source": "consul-ecs", "task-id": FORGOTTEN}),
        ),
    ];
    let mut fixtures = Vec::new();
    for (what, node, id, meta) in shapes {
        let body = json!({
            "Node": node, "Address": "127.0.0.1",
            "NodeMeta": if node == MACHINE { Value::Null } else { json!({"synthetic-node": "true"}) },
            "Service": {"ID": id, "Service": "legacy", "Address": "10.254.0.9", "Port": 9_090, "Meta": meta},
        });
        put(consul, now, person, "/v1/catalog/register", &body)?;
        fixtures.push(ForeignFixture::look(what, Some(node), id, consul));
    }
    Ok(fixtures)
}
