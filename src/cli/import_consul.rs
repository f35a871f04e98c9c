//! Reads the ACL objects of a live Consul for `import consul`. Reads only.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::allow::AllowArgs;
use super::manifest_args::{aws_access, load, sources};
use ecs_mesh_api::{AllowList, ConsulAuthSpec, ConsulConnection, GatewayKind};
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions};
use ecs_mesh_consul::{AuthConfig, ConsulControlPlane};
use ecs_mesh_consul_acl::desired::{
    AclContext, DatacenterRole, DesiredObjects, DesiredState, Edition, ObjectOwner, OperatorIds, RuleKey,
    WellKnownRule, allows_extra_policies, desired, owner, rule_name,
};
use ecs_mesh_control_plane::{MeshError, NoObserver};
use ecs_mesh_controller::{NoSecrets, Secrets};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_import::{ConsulAuthPart, ConsulSetUp, FoundAclObject};
use ecs_mesh_manifests::ManifestSource;
use ecs_mesh_model::{ClusterArn, OperatorId};
use serde_json::{Value, json};

/// Arguments of `import consul`.
#[derive(clap::Args)]
pub(super) struct ConsulArgs {
    /// Environment variable with Consul's ACL token, for `consul`
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,

    /// File with Consul's ACL token, for `consul`
    #[arg(long, value_name = "FILE", conflicts_with = "token_env")]
    token_file: Option<PathBuf>,

    /// PEM file with the CA of Consul's servers, for `consul`
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Manifests that have the `ControlPlane`, instead of `--address`, for `consul`
    #[arg(long, value_name = "SOURCE", value_delimiter = ',')]
    manifests: Vec<ManifestSource>,

    /// AWS Region of sources and secrets of `--manifests` [default: from the environment]
    #[arg(long)]
    region: Option<String>,

    #[command(flatten)]
    allow: AllowArgs,
}

impl ConsulArgs {
    /// The set-up of the Consul at the address, or else of the control plane that the manifests name.
    pub(super) async fn read(
        &self,
        address: Option<&str>,
        control_plane: &str,
        clusters: &[String],
    ) -> Result<ConsulSetUp, String> {
        let (connection, allowed) = match address {
            Some(address) => self.given(address),
            None => (self.declared(control_plane).await?, self.allow.list()),
        };
        let named: BTreeSet<ClusterArn> =
            clusters.iter().filter_map(|cluster| ClusterArn::parse(cluster).ok()).collect();
        let secrets = self.secrets(&connection).await?;
        let operator = OperatorId::parse("import").map_err(|error| error.to_string())?;
        let client =
            ConsulControlPlane::connect(&connection, &allowed, operator, Arc::new(NoObserver), secrets)
                .map_err(|error| format!("connecting to Consul: {error}"))?;
        let read = client.read_auth_config(&named).await;
        let config = read.map_err(|error| format!("reading Consul: {}", error.message))?;
        set_up(connection, config)
    }

    /// The connection that the flags describe, and the permission to read the files and variables that they name.
    fn given(&self, address: &str) -> (ConsulConnection, AllowList) {
        let connection = ConsulConnection {
            ca_file: self.ca_file.clone(),
            token_file: self.token_file.clone(),
            token_env: self.token_env.clone(),
            ..ConsulConnection::new(address)
        };
        let files = [&self.ca_file, &self.token_file].into_iter().flatten();
        let directories = files.filter_map(|file| Some(file.parent()?.to_owned()));
        let allowed = AllowList::new(self.token_env.as_deref(), directories.collect::<Vec<_>>());
        (connection, allowed)
    }

    async fn declared(&self, control_plane: &str) -> Result<ConsulConnection, String> {
        if self.manifests.is_empty() {
            return Err(
                "--address is missing: give it, or --control-plane NAME and --manifests SOURCE".to_owned()
            );
        }
        let aws = aws_access(&self.manifests, self.region.as_deref()).await;
        let status = load(sources(&self.manifests, None, &aws)).await?;
        let found = status.set.control_planes.get(control_plane);
        let connection = found.and_then(|spec| spec.consul.clone());
        connection.ok_or_else(|| {
            let errors: Vec<String> = status.errors.iter().map(|error| format!("\n  {error}")).collect();
            format!("--manifests: no valid ControlPlane {control_plane} of type consul{}", errors.concat())
        })
    }

    async fn secrets(&self, connection: &ConsulConnection) -> Result<Arc<dyn Secrets>, String> {
        if connection.token_secret.is_none() && connection.ca_secret.is_none() {
            return Ok(Arc::new(NoSecrets));
        }
        let options = AwsOptions { region: self.region.clone(), ..AwsOptions::default() };
        let clients = AwsClients::connect(options).await.map_err(|error| error.to_string())?;
        Ok(Arc::new(clients.secrets))
    }
}

/// The objects with what the operator would make of them. A list that cannot be read is an error: what is unknown must not
/// be left out.
fn set_up(connection: ConsulConnection, config: AuthConfig) -> Result<ConsulSetUp, String> {
    let AuthConfig { version: _, acls, methods, rules, roles, anonymous, nodes } = config;
    if acls == Ok(false) {
        return Err("reading Consul: ACLs are disabled, so there is nothing to import".to_owned());
    }
    let made = MadeByOperator::of(&connection)?;
    Ok(ConsulSetUp {
        methods: list("auth methods", methods)?.into_iter().map(|body| made.method(body)).collect(),
        rules: list("binding rules", rules)?.into_iter().map(|body| made.rule(body)).collect(),
        roles: list("roles", roles)?.into_iter().map(|body| made.role(body)).collect(),
        anonymous: list("the anonymous token's policies", anonymous)?
            .into_iter()
            .map(|body| made.anonymous(body))
            .collect(),
        nodes: nodes
            .map_err(|error| format!("reading nodes: {}", error.message))?
            .iter()
            .map(|cluster| cluster.as_str().to_owned())
            .collect(),
        connection,
    })
}

fn list<T: serde::Serialize>(what: &str, read: Result<Vec<T>, MeshError>) -> Result<Vec<Value>, String> {
    let found = read.map_err(|error| format!("reading {what}: {}", error.message))?;
    let json = found.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    json.map_err(|error| format!("reading {what}: {error}"))
}

/// The objects that the operator makes where everything is declared, by which existing ones are recognised.
struct MadeByOperator {
    objects: DesiredObjects,
    operators: OperatorIds,
}

impl MadeByOperator {
    fn of(connection: &ConsulConnection) -> Result<Self, String> {
        let failed = |error: serde_json::Error| format!("declaring every object: {error}");
        let kinds = GatewayKind::ALL.map(GatewayKind::as_str);
        let everything = json!({
            "controlPlane": "consul",
            "serviceTokens": {"boundPrincipals": ["arn:aws:iam::111122223333:role/a"], "gateways": kinds},
            "clientTokens": {"boundPrincipals": ["arn:aws:iam::111122223333:role/b"]},
            "anonymousPolicy": "present",
        });
        let spec: ConsulAuthSpec = serde_json::from_value(everything).map_err(failed)?;
        let operators = OperatorIds::new(OperatorId::parse("import").map_err(|error| error.to_string())?);
        let edition = Edition::of(connection, &BTreeSet::new());
        let context = AclContext {
            operators: &operators,
            clusters: &BTreeSet::new(),
            edition,
            datacenter: DatacenterRole::Primary,
        };
        let objects = desired(&spec, &context);
        Ok(Self { objects, operators })
    }

    fn object(&self, kind: ObjectKind, body: Value, name: String) -> FoundAclObject {
        let owner = match owner(kind, &body, &self.operators) {
            ObjectOwner::Unmarked => None,
            ObjectOwner::Ours => Some(self.operators.current().as_str().to_owned()),
            ObjectOwner::Other(other) => Some(other),
        };
        FoundAclObject { body, name, owner, part: None, selector: None, policies: None }
    }

    fn method(&self, body: Value) -> FoundAclObject {
        let name = text(&body, "Name");
        self.object(ObjectKind::AuthMethod, body, name)
    }

    fn rule(&self, body: Value) -> FoundAclObject {
        let known = RuleKey::all_well_known(&text(&body, "AuthMethod"));
        let by_text = known.iter().find(|made| made.key.matches_text(&body));
        let made = by_text.or_else(|| known.iter().find(|made| made.key.binds(&body)));
        let (part, selector) = (made.and_then(part), made.map(|made| made.selector.clone()));
        let name = rule_name(&body);
        FoundAclObject { part, selector, ..self.object(ObjectKind::BindingRule, body, name) }
    }

    fn role(&self, body: Value) -> FoundAclObject {
        let name = text(&body, "Name");
        let known = RuleKey::all_well_known("");
        let made = known.iter().find(|made| (made.key.bind.0, &*made.key.bind.1) == ("role", name.as_str()));
        let policies = if allows_extra_policies(&name) { None } else { Some(self.policies_of(&name)) };
        let part = made.and_then(part);
        FoundAclObject { part, policies, ..self.object(ObjectKind::Role, body, name) }
    }

    fn anonymous(&self, body: Value) -> FoundAclObject {
        let name = text(&body, "Name");
        let is_made = self.objects.objects.iter().any(|object| match &object.state {
            DesiredState::PolicyLinks { attach, .. } => attach.iter().any(|policy| *policy.name == *name),
            _ => false,
        });
        let part = is_made.then_some(ConsulAuthPart::Anonymous);
        FoundAclObject { part, ..self.object(ObjectKind::Policy, body, name) }
    }

    /// The policies of a role that the operator makes.
    fn policies_of(&self, role: &str) -> Vec<String> {
        let made = self
            .objects
            .objects
            .iter()
            .find(|object| object.id.kind == ObjectKind::Role && *object.id.name == *role);
        let Some(DesiredState::Present { body, .. }) = made.map(|object| &object.state) else {
            return Vec::new();
        };
        let links = body["Policies"].as_array().into_iter().flatten();
        links.map(|link| text(link, "Name")).collect()
    }
}

fn part(made: &WellKnownRule) -> Option<ConsulAuthPart> {
    match made.what {
        "service" => Some(ConsulAuthPart::Service),
        "client" => Some(ConsulAuthPart::Client),
        what => GatewayKind::ALL.into_iter().find(|kind| kind.as_str() == what).map(ConsulAuthPart::Gateway),
    }
}

fn text(body: &Value, key: &str) -> String {
    body[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::*;
    use clap::Parser as _;
    use ecs_mesh_api::manifests::{ManifestScope, ManifestSet, assemble, read_file};
    use ecs_mesh_consul_acl::backend::{AclBackend as _, ConsulAclBackend};
    use ecs_mesh_consul_acl::plan::{AclAction, plan_objects};
    use ecs_mesh_import::{FieldFate, ImportOptions, Imported, import_consul};
    use ecs_mesh_sandbox::control_planes::ControlPlanes;
    use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
    use ecs_mesh_sandbox::world::MANAGEMENT_TOKEN;

    async fn put(url: &str, path: &str, body: Value) {
        let request = reqwest::Client::new().put(format!("{url}{path}"));
        let answer = request.header("X-Consul-Token", MANAGEMENT_TOKEN).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }

    /// Consul as consul-ecs and a person set it up: a mesh gateway, and a rule, a role and a method of others.
    async fn consul() -> (Endpoints, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let control_planes = ControlPlanes::Consul;
        let endpoints =
            Endpoints::start(EndpointOptions { control_planes, ..EndpointOptions::default() }).await.unwrap();
        let url = endpoints.consul.as_ref().unwrap().url.clone();
        let policy = json!({"Name": "consul-ecs-mesh-gateway-policy", "Rules": "mesh = \"write\"\npeering = \"read\"\n"});
        put(&url, "/v1/acl/policy", policy).await;
        let role = json!({"Name": "consul-ecs-mesh-gateway-role", "Description": "Mesh Gateway Role for ECS",
            "Policies": [{"Name": "consul-ecs-mesh-gateway-policy"}]});
        put(&url, "/v1/acl/role", role).await;
        put(
            &url,
            "/v1/acl/role",
            json!({"Name": "team", "Policies": [{"Name": "consul-ecs-mesh-gateway-policy"}]}),
        )
        .await;
        for rule in [
            json!({"AuthMethod": "iam-ecs-service-token", "BindType": "role", "BindName": "consul-ecs-mesh-gateway-role",
                "Description": "Bind a Consul role from IAM role tag for ECS based mesh gateways", "Selector": ""}),
            json!({"AuthMethod": "iam-ecs-service-token", "BindType": "role", "BindName": "team", "Selector": ""}),
        ] {
            put(&url, "/v1/acl/binding-rule", rule).await;
        }
        (endpoints, url)
    }

    async fn import(url: &str, cluster: &str) -> Imported {
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, MANAGEMENT_TOKEN).unwrap();
        let arguments = Arguments::parse_from(["import", "--token-file", token_file.to_str().unwrap()]);
        let clusters = [cluster.to_owned()];
        let found = Box::pin(arguments.consul.read(Some(url), "consul", &clusters)).await.unwrap();
        let clusters = vec![ecs_mesh_model::Glob::new(cluster)];
        let options =
            ImportOptions { control_plane: "consul".to_owned(), clusters, ..ImportOptions::default() };
        import_consul(&found, &options).unwrap()
    }

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        consul: ConsulArgs,
    }

    fn set(imported: &Imported) -> ManifestSet {
        let mut manifests = Vec::new();
        for manifest in &imported.manifests {
            let (read, errors) =
                read_file(&std::path::Path::new(&manifest.file_name()).into(), &manifest.text);
            assert!(errors.is_empty(), "{errors:?}");
            manifests.extend(read);
        }
        assemble(manifests, ManifestScope::Complete).set
    }

    /// The objects that a run would change once they are adopted, with the fields.
    async fn changes(url: &str, spec: &ConsulAuthSpec, cluster: &str) -> Vec<(String, Vec<String>)> {
        let operator = OperatorId::parse("op").unwrap();
        let connection: ConsulConnection = serde_json::from_value(json!({"address": url})).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let token_file = directory.path().join("token");
        std::fs::write(&token_file, MANAGEMENT_TOKEN).unwrap();
        let connection = ConsulConnection { token_file: Some(token_file), ..connection };
        let allowed = AllowList::new(Vec::<String>::new(), [directory.path()]);
        let client = ConsulControlPlane::connect(
            &connection,
            &allowed,
            operator.clone(),
            Arc::new(NoObserver),
            Arc::new(NoSecrets),
        );
        let clusters = [ClusterArn::parse(cluster).unwrap()].into();
        let operators = OperatorIds::new(operator);
        let context = AclContext {
            operators: &operators,
            clusters: &clusters,
            edition: Edition::Community,
            datacenter: DatacenterRole::Primary,
        };
        let desired = desired(spec, &context);
        let snapshot = ConsulAclBackend::new(Arc::new(client.unwrap())).snapshot(&context, &desired).await;
        let steps = plan_objects(&desired, &snapshot.actual, &operators);
        let changed = steps.iter().filter_map(|step| match &step.action {
            AclAction::Unchanged | AclAction::Unmanaged => None,
            AclAction::Update { fields, .. } => {
                Some((step.id.name.to_string(), fields.iter().map(|field| field.path.clone()).collect()))
            }
            other => panic!("{:?}: {other:?}", step.id),
        });
        changed.collect()
    }

    #[tokio::test]
    async fn import_adopts_what_a_live_consul_has() {
        let (endpoints, url) = consul().await;
        let cluster = endpoints.cluster.clone();
        let imported = Box::pin(import(&url, &cluster)).await;
        let set = set(&imported);
        let spec = &set.consul_auths["ecs"];
        let tokens = spec.service_tokens.as_ref().unwrap();
        assert_eq!(tokens.gateways, [GatewayKind::MeshGateway]);
        assert_eq!(tokens.sts_endpoint.as_deref(), Some(endpoints.aws_url.as_str()));
        assert!(tokens.bound_principals[0].ends_with(":role/consul-ecs/*"));
        let adopted: Vec<&str> = spec.adopt.iter().map(ecs_mesh_model::Glob::as_str).collect();
        for name in [
            "iam-ecs-service-token",
            "iam-ecs-service-token/service",
            "iam-ecs-service-token/mesh-gateway",
            "consul-ecs-mesh-gateway-role",
            "consul-ecs-mesh-gateway-policy",
            &cluster,
        ] {
            assert!(adopted.contains(&name), "{name}: {adopted:?}");
        }
        let lost: Vec<&str> = imported
            .report
            .of_fate(FieldFate::NoCounterpart)
            .filter(|entry| entry.action)
            .map(|entry| &*entry.subject)
            .collect();
        assert_eq!(lost, ["BindingRule iam-ecs-service-token/team"]);

        let changed = changes(&url, spec, &cluster).await;
        let of = |name: &str| &changed.iter().find(|(changed, _)| changed == name).unwrap().1;
        assert_eq!(of("consul-ecs-mesh-gateway-role"), &["Description"]);
        assert_eq!(of("iam-ecs-service-token/mesh-gateway"), &["Description", "Selector"]);
        endpoints.stop().await;
    }

    #[test]
    fn import_of_an_empty_consul_is_an_error() {
        let connection: ConsulConnection =
            serde_json::from_value(json!({"address": "http://consul:8500"})).unwrap();
        let none = ConsulSetUp {
            connection,
            methods: Vec::new(),
            rules: Vec::new(),
            roles: Vec::new(),
            anonymous: Vec::new(),
            nodes: Vec::new(),
        };
        let error = import_consul(&none, &ImportOptions::default()).unwrap_err().to_string();
        assert!(error.contains("no auth method of type aws-iam"), "{error}");
    }
}
