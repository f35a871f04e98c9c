//! Bearer tokens, which a recording cannot contain: created for a role of the kind in the note.

use ecs_mesh_model::Tags;
use ecs_mesh_sandbox::aws::{AssumeRole, AssumedRole, Cloud, CreateRole};
use ecs_mesh_sandbox::consul::{EntityDetails, SignedLogin};
use serde_json::{Value, json};

use super::server::{ACCOUNT, ConsulReplayServer, REGION};

const SERVICE: &str = "consul.hashicorp.com.service-name";
const KIND: &str = "consul.hashicorp.com.gateway-kind";

type RoleTagPairs = &'static [(&'static str, &'static str)];

/// Notes with the role's path, name and tags. Any other note means the service `web`.
const ROLES: &[(&str, &str, &str, RoleTagPairs)] = &[
    ("outside the bound path", "/other/", "outside", &[(SERVICE, "web")]),
    ("without the service-name tag", "/consul-ecs/", "untagged", &[]),
    ("invalid service name", "/consul-ecs/", "misnamed", &[(SERVICE, "web app")]),
    ("mesh gateway", "/consul-ecs/", "gateway", &[(SERVICE, "mesh-gw"), (KIND, "mesh-gateway")]),
    ("", "/consul-ecs/", "web", &[(SERVICE, "web")]),
];

impl ConsulReplayServer {
    /// A login body with a bearer token.
    pub(super) fn login(&self, note: &str, body: &str) -> String {
        let mut body: Value = serde_json::from_str(body).unwrap();
        // Brackets mark values that the recording omits.
        if !body["BearerToken"].as_str().is_some_and(|token| token.starts_with('(')) {
            return body.to_string();
        }
        let (_, path, name, tags) = ROLES.iter().find(|(mark, ..)| note.contains(mark)).unwrap();
        let credentials = self.cloud.with(|cloud, now| {
            role(cloud, "/consul-ecs/", "another", &[], now);
            role(cloud, path, name, tags, now)
        });
        let entity = if note.contains("without entity") {
            EntityDetails::Left
        } else if note.contains("of another role") {
            EntityDetails::Of("another")
        } else {
            EntityDetails::Own
        };
        let login = SignedLogin {
            auth_method: "",
            credentials: &credentials,
            region: REGION,
            sts_endpoint: Some(&self.aws_url),
            iam_endpoint: Some(&self.aws_url),
            server_id: None,
            entity,
            meta: &[],
        };
        body["BearerToken"] = json!(login.bearer_token(self.now()).unwrap());
        body.to_string()
    }
}

fn role(
    cloud: &mut Cloud,
    path: &str,
    name: &str,
    tags: &[(&str, &str)],
    now: ecs_mesh_model::Timestamp,
) -> AssumedRole {
    let tags: Tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let request = CreateRole { path: path.to_owned(), ..CreateRole::for_tasks(name, tags) };
    // Later logins of the same kind find the role.
    drop(cloud.create_role(request, now));
    let role_arn = format!("arn:aws:iam::{ACCOUNT}:role{path}{name}");
    let request = AssumeRole { role_arn, session_name: "task".into(), ..AssumeRole::default() };
    cloud.assume_role(&request, now).unwrap()
}
