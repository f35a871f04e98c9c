//! The least-privilege IAM policies of the operator and of the `doctor` command.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::scope::DoctorScope;
use ecs_mesh_api::TokenStoreKind;
use ecs_mesh_manifests::ManifestSource;
use ecs_mesh_model::{RoleArn, SecretRef};

/// The principal of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PolicyPrincipal {
    /// The operator's task role.
    #[default]
    Operator,
    /// The caller of `doctor`: the operator's reads, and the EventBridge rules.
    Doctor,
}

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IamPolicy {
    version: &'static str,
    statement: Vec<IamStatement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct IamStatement {
    sid: &'static str,
    effect: &'static str,
    action: OneOrMany,
    resource: OneOrMany,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn of<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Self {
        let mut items: Vec<String> = items.into_iter().map(Into::into).collect();
        match items.len() {
            1 => Self::One(items.remove(0)),
            _ => Self::Many(items),
        }
    }
}

fn statement<A: Into<String>, R: Into<String>>(
    sid: &'static str,
    actions: impl IntoIterator<Item = A>,
    resources: impl IntoIterator<Item = R>,
) -> IamStatement {
    let (action, resource) = (OneOrMany::of(actions), OneOrMany::of(resources));
    IamStatement { sid, effect: "Allow", action, resource, condition: None }
}

impl IamPolicy {
    /// The principal's permissions. `role_paths` are the IAM paths of the tasks' roles: `/`, or `/mesh/` and others.
    ///
    /// # Errors
    /// If the queue's Region is unknown, or no cluster is bound.
    pub fn new(scope: &DoctorScope, reader: PolicyPrincipal, role_paths: &[&str]) -> Result<Self, String> {
        if scope.clusters.is_empty() {
            return Err(
                "no MeshBinding in the manifests selects a cluster to which the policy could be restricted"
                    .to_owned(),
            );
        }
        let mut statements = Vec::new();
        // All clusters may be in other accounts.
        if scope.own_clusters().next().is_some() {
            statements.extend(clusters(scope));
            if scope.holds_deployments {
                statements.extend(deployments(scope, reader));
            }
            if scope.reads_hosts {
                statements.extend(hosts(scope));
            }
            if scope.reads_roles {
                statements.push(roles(scope, role_paths));
            }
        }
        if !scope.member_roles.is_empty() {
            let roles = scope.member_roles.values().map(RoleArn::as_str);
            statements.push(statement("AssumeMemberRoles", ["sts:AssumeRole"], roles));
        }
        statements.extend(tokens(scope, reader));
        statements.extend(lease(scope, reader));
        statements.extend(team_events(scope, reader));
        if !scope.secrets.is_empty() {
            let secrets = unique(scope.secrets.iter().map(full_secret_arn));
            statements.push(statement("ReadControlPlaneSecrets", ["secretsmanager:GetSecretValue"], secrets));
        }
        statements.extend(manifests(scope));
        if let Some(queue) = &scope.queue {
            let arns = scope.queue_arns().ok_or("the queue's Region is not known: give --region")?;
            let read = ["sqs:GetQueueAttributes"];
            let work = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", read[0]];
            statements.push(match reader {
                PolicyPrincipal::Operator => statement("ConsumeQueue", work, arns),
                // Includes the dead-letter queue, which by convention has the queue's name as prefix.
                PolicyPrincipal::Doctor => {
                    let family = scope.arn("sqs", &format!("{}*", queue.name));
                    statement("ReadQueues", read, [family])
                }
            });
            if reader == PolicyPrincipal::Doctor {
                statements.extend(rules(scope));
            }
        }
        Ok(Self { version: "2012-10-17", statement: statements })
    }
}

/// The full ARN of a secret, without key and version: a read may omit its six random characters, a policy may not.
fn full_secret_arn(secret: &SecretRef) -> String {
    let arn = secret.arn();
    let name = arn.rsplit(':').next().unwrap_or_default();
    let tail = name.rsplit_once('-').map_or("", |(_, tail)| tail);
    let is_full = tail.len() == 6 && tail.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_full { arn.to_owned() } else { format!("{arn}-??????") }
}

fn clusters(scope: &DoctorScope) -> Vec<IamStatement> {
    let partition = &scope.partition;
    let arns = unique(scope.own_clusters().map(|cluster| cluster.arn(partition)));
    let patterns = scope.own_clusters().any(|cluster| !cluster.glob.is_literal());
    let operator = if patterns { "ArnLike" } else { "ArnEquals" };
    let mut statements = Vec::new();
    if patterns {
        statements.push(statement("ListClusters", ["ecs:ListClusters"], ["*"]));
    }
    statements.push(statement("DescribeClusters", ["ecs:DescribeClusters"], &arns));
    let mut list = statement("ListTasks", ["ecs:ListTasks"], ["*"]);
    list.condition = Some(serde_json::json!({ operator: {"ecs:cluster": OneOrMany::of(arns)} }));
    statements.push(list);
    let tasks = unique(scope.own_clusters().map(|cluster| cluster.tasks(partition)));
    statements.push(statement("DescribeTasks", ["ecs:DescribeTasks"], tasks));
    statements.push(statement("DescribeTaskDefinitions", ["ecs:DescribeTaskDefinition"], ["*"]));
    statements
}

/// Only the operator protects tasks.
fn deployments(scope: &DoctorScope, reader: PolicyPrincipal) -> [IamStatement; 2] {
    let partition = &scope.partition;
    let services = unique(scope.own_clusters().map(|cluster| cluster.services(partition)));
    let tasks = unique(scope.own_clusters().map(|cluster| cluster.tasks(partition)));
    let (sid, actions) = match reader {
        PolicyPrincipal::Operator => {
            ("ProtectTasks", ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"].as_slice())
        }
        PolicyPrincipal::Doctor => ("ReadTaskProtection", ["ecs:GetTaskProtection"].as_slice()),
    };
    let protection = statement(sid, actions.iter().copied(), tasks);
    [statement("DescribeServices", ["ecs:DescribeServices"], services), protection]
}

/// The addresses of container instances. `ec2:DescribeInstances` has no resource types.
fn hosts(scope: &DoctorScope) -> [IamStatement; 2] {
    let instances = unique(scope.own_clusters().map(|cluster| cluster.container_instances(&scope.partition)));
    [
        statement("DescribeContainerInstances", ["ecs:DescribeContainerInstances"], instances),
        statement("DescribeInstances", ["ec2:DescribeInstances"], ["*"]),
    ]
}

/// The operator's own item of the lease's table.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html>.
fn lease(scope: &DoctorScope, reader: PolicyPrincipal) -> Option<IamStatement> {
    let (table, operator) = scope.lease.as_ref()?;
    let (sid, actions) = match reader {
        PolicyPrincipal::Operator => ("HoldLease", ["dynamodb:GetItem", "dynamodb:PutItem"].as_slice()),
        PolicyPrincipal::Doctor => ("ReadLease", ["dynamodb:GetItem"].as_slice()),
    };
    let keys = serde_json::json!({"dynamodb:LeadingKeys": [operator.as_str()]});
    let condition = Some(serde_json::json!({"ForAllValues:StringEquals": keys}));
    let table = scope.arn("dynamodb", &format!("table/{table}"));
    Some(IamStatement { condition, ..statement(sid, actions.iter().copied(), [table]) })
}

/// The bus of events to teams, for events of the operator's source alone.
///
/// Source: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-conditions.html>.
fn team_events(scope: &DoctorScope, reader: PolicyPrincipal) -> Option<IamStatement> {
    let bus = scope.team_events_bus.as_ref()?;
    let arn = match bus.region() {
        Some(_) => bus.to_string(),
        None => scope.arn("events", &format!("event-bus/{}", bus.name())),
    };
    if reader == PolicyPrincipal::Doctor {
        return Some(statement("ReadTeamEventBus", ["events:DescribeEventBus"], [arn]));
    }
    let condition = Some(serde_json::json!({"StringEquals": {"events:source": "ecs-mesh.dev"}}));
    Some(IamStatement { condition, ..statement("SendTeamEvents", ["events:PutEvents"], [arn]) })
}

/// Stored tokens. Lists have no resource types. Only the operator writes, and neither reads a token.
fn tokens(scope: &DoctorScope, reader: PolicyPrincipal) -> Vec<IamStatement> {
    let writes = reader == PolicyPrincipal::Operator;
    let mut statements = Vec::new();
    for store in [SECRETS, PARAMETERS] {
        let used: Vec<_> = scope.token_stores.iter().filter(|one| one.kind == store.kind).collect();
        if used.is_empty() {
            continue;
        }
        let resource = |path: &str| scope.arn(store.service, &format!("{}{path}/*", store.resource));
        let arns = unique(used.iter().map(|one| resource(&one.path)));
        statements.push(statement(store.list.0, [store.list.1], ["*"]));
        if writes {
            statements.push(statement(store.write.0, store.write.1.iter().copied(), arns));
        } else {
            statements.push(statement(store.read.0, [store.read.1], arns));
        }
        let keys = unique(used.iter().filter_map(|one| one.kms_key.clone()));
        for key in keys.into_iter().filter(|_| writes) {
            statements.push(encrypt(scope, store, &key));
        }
    }
    statements
}

/// A store's service, and its statements: the id, and the actions.
#[derive(Clone, Copy)]
struct TokenStoreActions {
    kind: TokenStoreKind,
    service: &'static str,
    /// Before the path in an ARN.
    resource: &'static str,
    list: (&'static str, &'static str),
    read: (&'static str, &'static str),
    write: (&'static str, &'static [&'static str]),
    encrypt: (&'static str, &'static [&'static str]),
}

const SECRETS: TokenStoreActions = TokenStoreActions {
    kind: TokenStoreKind::SecretsManager,
    service: "secretsmanager",
    resource: "secret:",
    list: ("ListTokenSecrets", "secretsmanager:ListSecrets"),
    read: ("ReadTokenSecretTags", "secretsmanager:DescribeSecret"),
    write: (
        "StoreTokenSecrets",
        &[
            "secretsmanager:DescribeSecret",
            "secretsmanager:CreateSecret",
            "secretsmanager:PutSecretValue",
            "secretsmanager:TagResource",
            "secretsmanager:DeleteSecret",
        ],
    ),
    encrypt: ("EncryptTokenSecrets", &["kms:GenerateDataKey", "kms:Decrypt"]),
};

const PARAMETERS: TokenStoreActions = TokenStoreActions {
    kind: TokenStoreKind::ParameterStore,
    service: "ssm",
    resource: "parameter",
    list: ("ListTokenParameters", "ssm:DescribeParameters"),
    read: ("ReadTokenParameterTags", "ssm:ListTagsForResource"),
    write: (
        "StoreTokenParameters",
        &["ssm:ListTagsForResource", "ssm:PutParameter", "ssm:AddTagsToResource", "ssm:DeleteParameter"],
    ),
    encrypt: ("EncryptTokenParameters", &["kms:Encrypt"]),
};

/// The use of a customer key through the store. A policy cannot name an alias as a resource.
fn encrypt(scope: &DoctorScope, store: TokenStoreActions, key: &str) -> IamStatement {
    let alias = key.strip_prefix("alias/").or_else(|| key.split_once(":alias/").map(|(_, name)| name));
    let resource = match alias {
        Some(_) => scope.arn("kms", "key/*"),
        None if key.starts_with("arn:") => key.to_owned(),
        None => scope.arn("kms", &format!("key/{key}")),
    };
    let via = via_service(scope, store.service);
    let mut condition = serde_json::json!({"StringLike": {"kms:ViaService": via}});
    if let Some(name) = alias {
        condition["ForAnyValue:StringEquals"] =
            serde_json::json!({"kms:ResourceAliases": format!("alias/{name}")});
    }
    let (sid, actions) = store.encrypt;
    IamStatement { condition: Some(condition), ..statement(sid, actions.iter().copied(), [resource]) }
}

/// A service in the Region, as the condition `kms:ViaService` names it.
fn via_service(scope: &DoctorScope, service: &str) -> String {
    let region = scope.region.as_deref().unwrap_or("*");
    let suffix = if scope.partition == "aws-cn" { ".cn" } else { "" };
    format!("{service}.{region}.amazonaws.com{suffix}")
}

/// The reads of the manifests: a list is allowed of the source's prefix alone. Parameters are decrypted with the key of each,
/// which the context of the encryption bounds to the path.
///
/// Sources: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/list-keys-policy-example.html>,
/// <https://docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html>.
fn manifests(scope: &DoctorScope) -> Vec<IamStatement> {
    let mut buckets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut paths = BTreeSet::new();
    for source in &scope.manifest_sources {
        match source {
            ManifestSource::S3(at) => drop(buckets.entry(&at.bucket).or_default().insert(&at.prefix)),
            ManifestSource::Ssm(path) => drop(paths.insert(path)),
            ManifestSource::Path(_) => {}
        }
    }
    let arn = |bucket: &str| format!("arn:{}:s3:::{bucket}", scope.partition);
    let object = |bucket: &str, prefix: &str| {
        let any = if prefix.is_empty() || prefix.ends_with('/') { "*" } else { "" };
        format!("{}/{prefix}{any}", arn(bucket))
    };
    let objects =
        buckets.iter().flat_map(|(bucket, prefixes)| prefixes.iter().map(|one| object(bucket, one)));
    let objects: Vec<String> = objects.collect();
    let mut statements = Vec::new();
    if !objects.is_empty() {
        let mut list =
            statement("ListManifests", ["s3:ListBucket"], buckets.keys().map(|bucket| arn(bucket)));
        let prefixes: BTreeSet<&str> = buckets.values().flatten().copied().collect();
        // The prefix of a whole bucket is empty.
        if !prefixes.contains("") {
            let prefixes = OneOrMany::of(prefixes);
            list.condition = Some(serde_json::json!({"StringEquals": {"s3:prefix": prefixes}}));
        }
        statements.push(list);
        statements.push(statement("ReadManifests", ["s3:GetObject"], objects));
    }
    if !paths.is_empty() {
        let below = |path: &&String| scope.arn("ssm", &format!("parameter{path}/*"));
        let arns: Vec<String> = paths.iter().map(below).collect();
        let read = paths.iter().map(|path| scope.arn("ssm", &format!("parameter{path}"))).chain(arns.clone());
        statements.push(statement("ReadManifestParameters", ["ssm:GetParametersByPath"], read));
        let condition = serde_json::json!({"StringLike": {
            "kms:ViaService": via_service(scope, "ssm"),
            "kms:EncryptionContext:PARAMETER_ARN": OneOrMany::of(arns),
        }});
        let decrypt = statement("DecryptManifestParameters", ["kms:Decrypt"], [scope.arn("kms", "key/*")]);
        statements.push(IamStatement { condition: Some(condition), ..decrypt });
    }
    statements
}

fn roles(scope: &DoctorScope, role_paths: &[&str]) -> IamStatement {
    let account = scope.account.as_deref().unwrap_or("*");
    let arn = |path: &str| format!("arn:{}:iam::{account}:role{path}*", scope.partition);
    statement("GetTaskRoles", ["iam:GetRole"], unique(role_paths.iter().map(|path| arn(path))))
}

/// The rules of the queue's Region, and of the Region of IAM's events.
fn rules(scope: &DoctorScope) -> [IamStatement; 2] {
    let account = scope.account.as_deref().unwrap_or("*");
    let rules = format!("arn:{}:events:*:{account}:rule/*", scope.partition);
    [
        statement("ListRulesOfQueue", ["events:ListRuleNamesByTarget"], ["*"]),
        statement("DescribeRules", ["events:DescribeRule", "events:ListTargetsByRule"], [rules]),
    ]
}

fn unique(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut items: Vec<String> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}
