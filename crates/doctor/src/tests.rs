//! Printed policies agree with the documentation, and checks of states that the sandbox cannot produce.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::facts::{
    AwsFacts, AwsObservations, ControlPlaneFacts, DoctorFacts, LeaseFacts, QueueFacts, RuleFacts,
};
use super::{CheckResult, CheckStatus, DoctorScope, EventPatterns, IamPolicy, PolicyPrincipal, examine};
use ecs_mesh_api::manifests::{ManifestFinding, ManifestSet};
use ecs_mesh_aws::sdk::{CallerIdentity, CredentialStep, EventRule, EventTarget, FoundCredentials};
use ecs_mesh_consul::{
    AclPermission, AclPermissions, AuthMethod, ClusterNodeInfo, ConsulDiagnostics, ConsulProbes,
    ConsulVersion, LoginTokenCounts, OwnToken,
};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_lease::{HolderId, LeaseRecord, LeaseStoreError, LeaseStoreErrorKind, StoredRecord};
use ecs_mesh_manifests::{ManifestSource, ManifestSources, ManifestStatus as Manifests};
use ecs_mesh_model::OperatorId;

const PAGE: &str = include_str!("../../../docs/reference/permissions.md");
const QUEUE_URL: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/ecs-mesh-events";
const QUEUE: &str = "arn:aws:sqs:eu-west-1:111122223333:ecs-mesh-events";
const PROD: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
const RULE: &str = "arn:aws:events:eu-west-1:111122223333:rule/ecs-mesh-tasks";

fn manifests(clusters: &[&str], more: &str) -> Manifests {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ControlPlane\nmetadata: {{name: kuma}}\n\
         spec: {{type: kuma, kuma: {{address: 'http://127.0.0.1:5681'}}}}\n---\n\
         apiVersion: ecs-mesh.dev/v1alpha1\nkind: MeshBinding\nmetadata: {{name: prod}}\n\
         spec: {{controlPlane: kuma, mesh: default, selector: {{clusters: {}}}{more}}}\n",
        json!(clusters)
    );
    std::fs::write(directory.path().join("all.yaml"), text).unwrap();
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    assert_eq!(loaded.errors, []);
    Manifests::from(&loaded)
}

/// Manifests of a Consul, with these further fields of its connection.
fn consul(more: &str) -> Manifests {
    control_plane("consul", more)
}

/// Manifests of a Kuma, with these further fields of its connection.
fn kuma(more: &str) -> Manifests {
    control_plane("kuma", more)
}

fn control_plane(kind: &str, more: &str) -> Manifests {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ControlPlane\nmetadata: {{name: {kind}}}\n\
         spec: {{type: {kind}, {kind}: {{address: 'http://127.0.0.1:8500'{more}}}}}\n---\n\
         apiVersion: ecs-mesh.dev/v1alpha1\nkind: MeshBinding\nmetadata: {{name: prod}}\n\
         spec: {{controlPlane: {kind}, selector: {{clusters: ['{PROD}']}}}}\n",
    );
    std::fs::write(directory.path().join("all.yaml"), text).unwrap();
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    assert_eq!(loaded.errors, []);
    Manifests::from(&loaded)
}

/// The checks of servers with this version.
fn of_servers(version: &str, more: &str, change: impl FnOnce(&mut ConsulProbes)) -> Vec<CheckResult> {
    let method = AuthMethod { kind: "aws-iam".to_owned(), ..AuthMethod::default() };
    let name = "iam-ecs-service-token".to_owned();
    let mut answers = ConsulProbes {
        acls_are_off: false,
        own_token: Ok(OwnToken::default()),
        namespaces: BTreeMap::new(),
        permissions: Ok(AclPermissions::new()),
        tokens: Ok(LoginTokenCounts::default()),
        methods: BTreeMap::from([(name.clone(), Ok(Some(method)))]),
        rules: BTreeMap::from([(name, Ok(1))]),
        policies: Ok(1),
        roles: Ok(1),
        clusters: BTreeMap::new(),
    };
    change(&mut answers);
    let numbers: Vec<u32> = version.split(['.', '+']).filter_map(|part| part.parse().ok()).collect();
    let version = ConsulVersion { major: numbers[0], minor: numbers[1], text: version.to_owned() };
    let survey = ConsulDiagnostics { version: Ok(Some(version)), probes: Some(answers) };
    let manifests = consul(more);
    let planes = BTreeMap::from([("consul".into(), Ok(ControlPlaneFacts::Consul(Box::new(survey))))]);
    let facts = DoctorFacts { manifests, control_planes: planes, ..facts(QUEUE_URL, "eu-west-1") };
    examine(&facts).checks.into_iter().filter(|check| check.id.starts_with("consul.")).collect()
}

fn status_of(checks: &[CheckResult], id: &str) -> CheckStatus {
    checks.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("no {id} in {checks:?}")).status
}

#[test]
fn consul_version_and_edition_are_checked() {
    let enterprise = ", partition: ecs, namespaces: [team]";
    for (version, given, of_version, of_edition) in [
        ("1.21.4", "", CheckStatus::Ok, CheckStatus::Ok),
        ("1.12.0", "", CheckStatus::Ok, CheckStatus::Ok),
        ("1.11.9", "", CheckStatus::Error, CheckStatus::Ok),
        ("1.8.7", "", CheckStatus::Error, CheckStatus::Ok),
        ("2.0.3", "", CheckStatus::Ok, CheckStatus::Ok),
        ("2.1.0", "", CheckStatus::Error, CheckStatus::Ok),
        ("1.21.4+ent", enterprise, CheckStatus::Ok, CheckStatus::Ok),
        ("1.21.4+ent", "", CheckStatus::Ok, CheckStatus::Ok),
        ("1.21.4", enterprise, CheckStatus::Ok, CheckStatus::Error),
    ] {
        let checks = of_servers(version, given, |_| {});
        let found = (status_of(&checks, "consul.version"), status_of(&checks, "consul.edition"));
        assert_eq!(found, (of_version, of_edition), "{version} {given}");
    }
}

#[test]
fn missing_namespace_error_names_the_manifest_field() {
    let forbidden = MeshError::new(MeshErrorKind::Forbidden, "Permission denied");
    let checks = of_servers("1.21.4+ent", ", namespaces: [here, lost, unseen]", |answers| {
        let found = [("here", Ok(true)), ("lost", Ok(false)), ("unseen", Err(forbidden))];
        answers.namespaces = found.map(|(name, found)| (name.to_owned(), found)).into();
    });
    let of: Vec<_> = checks.iter().filter(|check| check.id == "consul.namespaces").collect();
    assert_eq!(
        [of[0].status, of[1].status, of[2].status],
        [CheckStatus::Ok, CheckStatus::Error, CheckStatus::Unknown]
    );
    let fix = of[1].fix.as_deref().unwrap();
    assert!(of[1].subject.contains("lost") && fix.contains("spec.consul.namespaces"), "{:?}", of[1]);
    assert_eq!(status_of(&of_servers("1.21.4", "", |_| {}), "consul.namespaces"), CheckStatus::Ok);
}

#[test]
fn auth_method_of_another_type_is_an_error() {
    let checks = of_servers("1.21.4", "", |answers| {
        let jwt = AuthMethod { kind: "jwt".to_owned(), ..AuthMethod::default() };
        answers.methods.insert("iam-ecs-service-token".to_owned(), Ok(Some(jwt)));
    });
    assert_eq!(status_of(&checks, "consul.auth-method"), CheckStatus::Error);
    assert_eq!(status_of(&checks, "consul.token"), CheckStatus::Ok);
}

fn lacks(denied: &[AclPermission], allowed: &[AclPermission]) -> AclPermissions {
    let denied = denied.iter().map(|right| (right.clone(), false));
    denied.chain(allowed.iter().map(|right| (right.clone(), true))).collect()
}

#[test]
fn missing_write_permission_fails_the_matching_check() {
    let web = || AclPermission::Service("web".into());
    for (rights, id, status, words) in [
        (
            lacks(&[AclPermission::Acls], &[AclPermission::Services]),
            "consul.tokens",
            CheckStatus::Error,
            "acl = \"write\"",
        ),
        (
            lacks(&[AclPermission::Services], &[AclPermission::Acls]),
            "consul.services",
            CheckStatus::Error,
            "service_prefix \"\" { policy = \"write\" }",
        ),
        (
            lacks(&[AclPermission::Services], &[web()]),
            "consul.services",
            CheckStatus::Warning,
            "service_prefix \"\" { policy = \"write\" }",
        ),
        (
            lacks(&[web()], &[AclPermission::Services]),
            "consul.services",
            CheckStatus::Error,
            "service \"web\" { policy = \"write\" }",
        ),
        (
            lacks(&[AclPermission::Nodes("arn:aws".into())], &[]),
            "consul.node",
            CheckStatus::Warning,
            "node_prefix \"arn:aws\"",
        ),
        (
            lacks(&[AclPermission::Operator], &[]),
            "consul.namespaces",
            CheckStatus::Error,
            "operator = \"write\"",
        ),
    ] {
        let checks = of_servers("1.21.4", "", |answers| answers.permissions = Ok(rights.clone()));
        let bad: Vec<_> = checks.iter().filter(|check| check.status > CheckStatus::Info).collect();
        assert_eq!(
            bad.iter().map(|check| (check.id, check.status)).collect::<Vec<_>>(),
            [(id, status)],
            "{bad:?}"
        );
        let fix = bad[0].fix.as_deref().unwrap();
        assert!(fix.contains(words) && fix.contains("--print-acl-policy"), "{fix}");
    }
    let all = lacks(&[], &[AclPermission::Acls, AclPermission::Services, web()]);
    let checks = of_servers("1.21.4", "", |answers| answers.permissions = Ok(all));
    assert!(checks.iter().all(|check| check.status <= CheckStatus::Info), "{checks:?}");
}

#[test]
fn unknown_permissions_are_not_ok_and_reported_once() {
    let checks = of_servers("1.21.4", "", |answers| {
        let message = "POST /x: Consul responded 404 (no such call); help: check the address".to_owned();
        answers.permissions = Err(MeshError::new(MeshErrorKind::UnexpectedResponse, message));
        let found = ClusterNodeInfo { has_node: Ok(true), services: Ok(1) };
        answers.clusters.insert(ecs_mesh_model::ClusterArn::parse(PROD).unwrap(), found);
    });
    for id in ["consul.token", "consul.tokens"] {
        assert_eq!(status_of(&checks, id), CheckStatus::Unknown, "{checks:?}");
    }
    let services = checks.iter().filter(|check| check.id == "consul.services");
    assert!(services.into_iter().any(|check| check.status == CheckStatus::Unknown), "{checks:?}");
    let with_reason = checks.iter().filter(|check| check.message.contains("no such call"));
    assert_eq!(with_reason.map(|check| check.id).collect::<Vec<_>>(), ["consul.token"]);
}

#[test]
fn unattributed_tokens_have_their_own_check() {
    let tokens = |unattributed| {
        let checks = of_servers("1.21.4", "", |answers| {
            answers.tokens = Ok(LoginTokenCounts { of_tasks: 3, unattributed });
        });
        checks.into_iter().filter(|check| check.id == "consul.tokens").collect::<Vec<_>>()
    };
    assert_eq!(tokens(0).len(), 1);
    let with = tokens(7);
    assert_eq!((with.len(), with[1].status), (2, CheckStatus::Info));
    assert!(with[1].message.contains("7 more") && with[1].message.contains("name no task"), "{with:?}");
}

#[test]
fn manifests_are_counted_by_kind() {
    let manifests = consul("");
    let facts = DoctorFacts { manifests, ..facts(QUEUE_URL, "eu-west-1") };
    let found = &of(&facts, "manifests")[0].message;
    assert_eq!(
        found,
        "1 file: 1 ControlPlane, 0 ConsulAuths, 1 MeshBinding, 0 Workloads, 0 OutboundLists, 0 AwsAccounts"
    );
}

fn place(set: &ManifestSet, queue: Option<&str>, region: Option<&str>) -> DoctorScope {
    DoctorScope::new(set, queue, region).unwrap()
}

/// The blocks of JSON of a section, with the placeholders filled in.
fn blocks(section: &str) -> Vec<Value> {
    let section = PAGE.split(&format!("\n## {section}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = section.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap());
    let filled = blocks.map(|block| {
        let block = block.replace("PARTITION", "aws").replace("REGION", "eu-west-1");
        let block = block.replace("ACCOUNT", "111122223333").replace("CLUSTER", "prod");
        block.replace("BUCKET", "manifests")
    });
    filled.map(|block| serde_json::from_str(&block).unwrap()).collect()
}

/// The statements that the page adds to the operator's policy in the block with this one.
fn added_with(sid: &str) -> Value {
    let all = blocks("The operator's task role").into_iter();
    let mut with =
        all.filter(|block| block.as_array().is_some_and(|all| all.iter().any(|one| one["Sid"] == sid)));
    with.next().unwrap()
}

#[test]
fn iam_policy_lists_secrets_verbatim() {
    let page = PAGE.split("### Secrets of control planes\n").nth(1).unwrap();
    let block = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let block = block
        .replace("PARTITION", "aws-cn")
        .replace("REGION", "cn-north-1")
        .replace("ACCOUNT", "111122223333");
    let whole = "arn:aws-cn:secretsmanager:cn-north-1:111122223333:secret:consul";
    for (token, printed) in [
        ("token-d4E5f6", serde_json::from_str::<Value>(&block).unwrap()["Resource"].clone()),
        ("token", json!([format!("{whole}-ca-a1B2c3"), format!("{whole}-token-??????")])),
        // Key and version belong to the reference, not to the ARN.
        ("token:key::", json!([format!("{whole}-ca-a1B2c3"), format!("{whole}-token-??????")])),
        ("ca-a1B2c3:key::", json!(format!("{whole}-ca-a1B2c3"))),
    ] {
        let fields = format!(", caSecret: '{whole}-ca-a1B2c3', tokenSecret: '{whole}-{token}'");
        for set in [consul(&fields), kuma(&fields)] {
            let place = place(&set.set, None, Some("cn-north-1"));
            for reader in [PolicyPrincipal::Operator, PolicyPrincipal::Doctor] {
                let policy = json!(IamPolicy::new(&place, reader, &["/"]).unwrap());
                let statements = policy["Statement"].as_array().unwrap();
                let of_secrets: Vec<&Value> =
                    statements.iter().filter(|one| one["Sid"] == "ReadControlPlaneSecrets").collect();
                assert_eq!(of_secrets.len(), 1, "{policy}");
                assert_eq!(of_secrets[0]["Action"], "secretsmanager:GetSecretValue");
                assert_eq!(of_secrets[0]["Resource"], printed);
            }
        }
    }
}

const HOLD: &str = ", deployments: {hold: true}";

fn policy(clusters: &[&str], more: &str, reader: PolicyPrincipal) -> Value {
    let set = manifests(clusters, more).set;
    json!(IamPolicy::new(&place(&set, Some(QUEUE_URL), None), reader, &["/mesh/"]).unwrap())
}

#[test]
fn documented_iam_policy_is_the_printed_one() {
    assert_eq!(blocks("The operator's task role")[0], policy(&[PROD], "", PolicyPrincipal::Operator));
}

#[test]
fn iam_policy_names_every_path_of_roles() {
    let scope = place(&manifests(&[PROD], "").set, None, None);
    let paths = ["/mesh/", "/consul-ecs/", "/mesh/"];
    let printed = json!(IamPolicy::new(&scope, PolicyPrincipal::Operator, &paths).unwrap());
    let mut statements = printed["Statement"].as_array().unwrap().iter();
    let roles = statements.find(|statement| statement["Sid"] == "GetTaskRoles").unwrap();
    let arns = ["consul-ecs", "mesh"].map(|path| format!("arn:aws:iam::111122223333:role/{path}/*"));
    assert_eq!(roles["Resource"], json!(arns));
}

#[test]
fn documented_doctor_permissions_are_the_printed_ones() {
    let printed = policy(&[PROD], "", PolicyPrincipal::Doctor);
    let added = blocks("The doctor command").remove(0);
    let statements = printed["Statement"].as_array().unwrap();
    assert_eq!(statements[statements.len() - 3..], *added.as_array().unwrap());
    let operators = policy(&[PROD], "", PolicyPrincipal::Operator);
    let own = operators["Statement"].as_array().unwrap();
    assert_eq!(statements[..statements.len() - 3], own[..own.len() - 1]);
}

#[test]
fn documented_event_patterns_are_the_printed_ones() {
    let set = manifests(&[PROD], HOLD).set;
    let printed = EventPatterns::new(&place(&set, None, None));
    assert_eq!(blocks("The rules"), [printed.tasks, printed.deployments.unwrap(), printed.roles.unwrap()]);
    let set = manifests(&[PROD], "").set;
    assert_eq!(EventPatterns::new(&place(&set, None, None)).deployments, None);
}

#[test]
fn held_deployments_need_what_is_documented() {
    let printed = policy(&[PROD], HOLD, PolicyPrincipal::Operator);
    let added = added_with("ProtectTasks");
    let statements = printed["Statement"].as_array().unwrap();
    let added = added.as_array().unwrap();
    assert!(added.iter().all(|statement| statements.contains(statement)), "{printed}");
    let without = policy(&[PROD], "", PolicyPrincipal::Operator);
    assert_eq!(without["Statement"].as_array().unwrap().len() + added.len(), statements.len());
    let readers = policy(&[PROD], HOLD, PolicyPrincipal::Doctor).to_string();
    assert!(readers.contains("ecs:GetTaskProtection") && !readers.contains("ecs:UpdateTaskProtection"));
}

#[test]
fn host_mode_needs_what_is_documented() {
    let scope = place(&manifests(&[PROD], "").set, None, None);
    let scope = DoctorScope { reads_hosts: true, ..scope };
    let added = added_with("DescribeInstances");
    for principal in [PolicyPrincipal::Operator, PolicyPrincipal::Doctor] {
        let printed = serde_json::to_value(IamPolicy::new(&scope, principal, &["/mesh/"]).unwrap()).unwrap();
        let statements = printed["Statement"].as_array().unwrap();
        assert!(added.as_array().unwrap().iter().all(|one| statements.contains(one)), "{printed}");
    }
    assert!(!policy(&[PROD], "", PolicyPrincipal::Operator).to_string().contains("ec2:"));
}

fn remote_sources(sources: &[&str]) -> Vec<ManifestSource> {
    sources.iter().map(|source| source.parse().unwrap()).collect()
}

#[test]
fn manifests_in_s3_and_ssm_need_what_is_documented() {
    let set = manifests(&[PROD], "").set;
    let mut blocks = blocks("The operator's task role").into_iter();
    let added = blocks.find(|block| block.to_string().contains("ListManifests")).unwrap();
    let statements = |sources: &[&str], principal| {
        let scope = place(&set, Some(QUEUE_URL), None);
        let scope = DoctorScope { manifest_sources: remote_sources(sources), ..scope };
        json!(IamPolicy::new(&scope, principal, &["/mesh/"]).unwrap())["Statement"]
            .as_array()
            .unwrap()
            .clone()
    };
    for principal in [PolicyPrincipal::Operator, PolicyPrincipal::Doctor] {
        let printed = statements(&["s3://manifests/prod/", "ssm:/mesh/prod"], principal);
        assert!(added.as_array().unwrap().iter().all(|one| printed.contains(one)), "{printed:?}");
    }
    // Each id is there once, and a whole bucket needs no condition.
    let several = ["s3://manifests/a.yaml", "s3://other/", "ssm:/a", "ssm:/b"];
    let printed = statements(&several, PolicyPrincipal::Operator);
    let sids: std::collections::BTreeSet<_> = printed.iter().map(|one| one["Sid"].as_str()).collect();
    assert_eq!(sids.len(), printed.len());
    let list = printed.iter().find(|one| one["Sid"] == "ListManifests").unwrap();
    assert_eq!(list["Resource"], json!(["arn:aws:s3:::manifests", "arn:aws:s3:::other"]));
    assert_eq!(list.get("Condition"), None);
    let read = printed.iter().find(|one| one["Sid"] == "ReadManifests").unwrap();
    assert_eq!(read["Resource"], json!(["arn:aws:s3:::manifests/a.yaml", "arn:aws:s3:::other/*"]));
}

#[test]
fn unreadable_source_of_manifests_is_an_error_with_its_cause() {
    let mut facts = facts(QUEUE_URL, "eu-west-1");
    facts.sources = remote_sources(&["s3://manifests/prod/", "ssm:/mesh/prod"]);
    let file = std::path::Path::new("s3://manifests/prod/a.yaml");
    let finding = ManifestFinding::about_file(file, "AccessDenied: s3:GetObject");
    facts.manifests.errors.push(finding.clone());
    facts.manifests.unread.push(finding);
    let found = of(&facts, "manifests.source");
    assert_eq!((found.len(), found[0].status, found[1].status), (2, CheckStatus::Error, CheckStatus::Ok));
    assert_eq!(
        (found[0].subject.as_str(), found[1].subject.as_str()),
        ("s3://manifests/prod/a.yaml", "ssm:/mesh/prod/")
    );
    assert!(found[0].message.contains("s3:GetObject"));
    assert!(of(&facts, "manifests").is_empty());
}

#[test]
fn stored_tokens_need_what_is_documented() {
    let secrets =
        ", tokens: {issue: true, path: /mesh/prod, kmsKey: 'arn:aws:kms:eu-west-1:111122223333:key/KEY'}";
    let parameters = ", tokens: {issue: true, path: /mesh/prod, store: parameterStore, kmsKey: alias/mesh}";
    for (sid, binding) in [("StoreTokenSecrets", secrets), ("StoreTokenParameters", parameters)] {
        let printed = policy(&[PROD], binding, PolicyPrincipal::Operator);
        let added = added_with(sid);
        let statements = printed["Statement"].as_array().unwrap();
        assert!(added.as_array().unwrap().iter().all(|one| statements.contains(one)), "{printed}");
        let readers = policy(&[PROD], binding, PolicyPrincipal::Doctor).to_string();
        for write in
            ["CreateSecret", "PutSecretValue", "PutParameter", "TagResource", "AddTags", "Delete", "kms:"]
        {
            assert!(!readers.contains(write), "{readers}");
        }
        // Tokens are never read.
        assert!(
            !printed.to_string().contains("GetSecretValue")
                && !printed.to_string().contains("ssm:GetParameter")
        );
    }
}

#[test]
fn cluster_glob_becomes_policy_and_event_pattern() {
    let clusters = ["arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*", "*:cluster/st?ge"];
    let printed = policy(&clusters, "", PolicyPrincipal::Operator);
    assert_eq!(printed["Statement"][0]["Action"], "ecs:ListClusters");
    let arns = [
        "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*",
        "arn:aws:ecs:eu-west-1:111122223333:cluster/st?ge",
    ];
    assert_eq!(printed["Statement"][1]["Resource"], json!(arns));
    assert_eq!(printed["Statement"][2]["Condition"], json!({"ArnLike": {"ecs:cluster": arns}}));
    let set = manifests(&clusters, "").set;
    let rules = EventPatterns::new(&place(&set, None, Some("eu-west-1")));
    let allowed = json!([{"wildcard": "*:cluster/st*ge"}, {"wildcard": clusters[0]}]);
    assert_eq!(rules.tasks["detail"]["clusterArn"], allowed);
}

#[test]
fn wildcard_cluster_needs_no_filter() {
    let off = ", roleTags: {mode: 'off'}";
    let printed = policy(&["*"], off, PolicyPrincipal::Operator).to_string();
    assert!(!printed.contains("iam:"), "{printed}");
    let set = manifests(&["*"], off).set;
    let rules = json!(EventPatterns::new(&place(&set, None, None)));
    assert_eq!(
        rules,
        json!({"ecs-mesh-tasks": {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]}})
    );
}

#[test]
fn partition_comes_from_clusters_or_region() {
    for (cluster, region, partition) in [
        ("arn:aws-us-gov:ecs:us-gov-west-1:111122223333:cluster/prod", None, "arn:aws-us-gov:"),
        ("*:cluster/prod", Some("cn-north-1"), "arn:aws-cn:"),
        ("arn:aws-cn:ecs:*:*:cluster/*", None, "arn:aws-cn:"),
        ("*", Some("eu-west-1"), "arn:aws:"),
    ] {
        let set = manifests(&[cluster], "").set;
        let printed =
            json!(IamPolicy::new(&place(&set, None, region), PolicyPrincipal::Operator, &["/"]).unwrap())
                .to_string();
        let all = printed.matches("arn:").count();
        assert_eq!(printed.matches(partition).count(), all, "{printed}");
    }
}

#[test]
fn policy_without_queue_region_names_the_flag() {
    let set = manifests(&["*"], "").set;
    let place = place(&set, Some("http://127.0.0.1:1/111122223333/q"), None);
    let error = IamPolicy::new(&place, PolicyPrincipal::Operator, &["/"]).unwrap_err();
    assert!(error.contains("--region"), "{error}");
}

/// Valid facts, in the Region of IAM's events, so that nothing is forwarded.
fn facts(queue_url: &str, region: &str) -> DoctorFacts {
    facts_with(queue_url, region, "")
}

/// As [`facts`], with more fields of the binding.
fn facts_with(queue_url: &str, region: &str, binding: &str) -> DoctorFacts {
    let cluster = PROD.replace("eu-west-1", region);
    let manifests = manifests(&[&cluster], binding);
    let place = DoctorScope::new(&manifests.set, Some(queue_url), Some(region));
    let arn = place.as_ref().unwrap().queue_arn().unwrap();
    let policy = json!({"Statement": [{
        "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": arn, "Condition": {"StringEquals": {"aws:SourceAccount": "111122223333"}},
    }, {
        "Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": arn,
        "Condition": {"ArnNotEquals": {"aws:SourceArn": RULE}},
    }]});
    let attributes = BTreeMap::from([("Policy".to_owned(), policy.to_string())]);
    let pattern = json!({"source": ["aws.ecs", "aws.iam"]}).to_string();
    let rule = EventRule { name: "all".into(), arn: RULE.into(), enabled: true, pattern: Some(pattern) };
    let target = EventTarget { id: "q".into(), arn, ..EventTarget::default() };
    let seen = AwsObservations {
        queue: Some(QueueFacts { attributes: Ok(attributes), dead_letters: None }),
        rules: Some(Ok(vec![RuleFacts { name: "all".into(), rule: Ok(rule), targets: Ok(vec![target]) }])),
        ..AwsObservations::default()
    };
    let caller = CallerIdentity {
        arn: "arn:aws:sts::111122223333:assumed-role/op/1".into(),
        account: "111122223333".into(),
    };
    let aws = AwsFacts {
        region: region.to_owned(),
        credentials: Ok(FoundCredentials { step: CredentialStep::Container, expiry: None }),
        caller: Ok(caller),
        observations: Some(seen),
    };
    DoctorFacts {
        manifests,
        queue_url: Some(queue_url.to_owned()),
        scope: place,
        sources: Vec::new(),
        aws: Ok(aws),
        control_planes: BTreeMap::new(),
        lease: None,
        team_events: None,
        more_queues: Vec::new(),
    }
}

fn of(facts: &DoctorFacts, id: &str) -> Vec<CheckResult> {
    examine(facts).checks.into_iter().filter(|check| check.id == id).collect()
}

/// Replaces the pattern of the only rule.
fn set_pattern(facts: &mut DoctorFacts, pattern: &serde_json::Value) {
    let rules = facts.aws.as_mut().unwrap().observations.as_mut().unwrap().rules.as_mut().unwrap();
    rules.as_mut().unwrap()[0].rule.as_mut().unwrap().pattern = Some(pattern.to_string());
}

#[test]
fn rule_for_deployments_is_expected_where_they_are_held() {
    assert!(of(&facts(QUEUE_URL, "eu-west-1"), "events.deployments").is_empty());
    let mut facts = facts_with(QUEUE_URL, "eu-west-1", HOLD);
    assert_eq!(of(&facts, "events.deployments")[0].status, CheckStatus::Ok);
    set_pattern(&mut facts, &json!({"detail-type": ["ECS Task State Change"]}));
    let check = of(&facts, "events.deployments").remove(0);
    assert_eq!(check.status, CheckStatus::Warning);
    assert!(check.fix.unwrap().contains("--name ecs-mesh-deployments"));
    set_pattern(&mut facts, &json!({"detail": {"eventName": ["SERVICE_DEPLOYMENT_COMPLETED"]}}));
    assert_eq!(of(&facts, "events.deployments")[0].status, CheckStatus::Warning);
}

fn target_of(facts: &mut DoctorFacts) -> &mut EventTarget {
    let rules = facts.aws.as_mut().unwrap().observations.as_mut().unwrap().rules.as_mut().unwrap();
    &mut rules.as_mut().unwrap()[0].targets.as_mut().unwrap()[0]
}

#[test]
fn fifo_queue_is_an_error() {
    let facts = facts(&format!("{QUEUE_URL}.fifo"), "eu-west-1");
    assert_eq!(of(&facts, "queue.exists")[0].status, CheckStatus::Error);
}

#[test]
fn input_transformer_on_target_is_an_error() {
    for setting in ["Input", "InputPath", "InputTransformer"] {
        let mut facts = facts(QUEUE_URL, "eu-west-1");
        assert_eq!(of(&facts, "events.target")[0].status, CheckStatus::Ok);
        target_of(&mut facts).rewritten_by = vec![setting];
        let check = of(&facts, "events.target").remove(0);
        assert_eq!(check.status, CheckStatus::Error);
        assert!(check.message.starts_with(setting), "{check:?}");
    }
}

#[test]
fn short_retry_and_target_role_are_warnings() {
    let mut facts = facts(QUEUE_URL, "eu-west-1");
    target_of(&mut facts).retried_for = Some(60);
    assert_eq!(of(&facts, "events.target")[0].status, CheckStatus::Warning);
    *target_of(&mut facts) =
        EventTarget { role: Some("r".into()), arn: QUEUE.into(), ..EventTarget::default() };
    assert_eq!(of(&facts, "events.target")[0].status, CheckStatus::Warning);
}

#[test]
fn queue_in_another_region_is_an_error() {
    let mut facts = facts(QUEUE_URL, "eu-west-1");
    facts.aws.as_mut().unwrap().region = "eu-central-1".to_owned();
    let message: Vec<CheckStatus> = of(&facts, "aws.scope").iter().map(|check| check.status).collect();
    assert_eq!(message, [CheckStatus::Error], "the queue");
}

#[test]
fn iam_region_needs_no_forwarding() {
    let url = QUEUE_URL.replace("eu-west-1", "us-east-1");
    assert_eq!(of(&facts(&url, "us-east-1"), "events.roles").len(), 1);
}

#[test]
fn aws_managed_kms_key_fails_and_customer_key_warns() {
    for (key, status) in [
        ("alias/aws/sqs", CheckStatus::Error),
        ("arn:aws:kms:eu-west-1:111122223333:key/1", CheckStatus::Info),
    ] {
        let mut facts = facts(QUEUE_URL, "eu-west-1");
        let queue = facts.aws.as_mut().unwrap().observations.as_mut().unwrap().queue.as_mut().unwrap();
        queue.attributes.as_mut().unwrap().insert("KmsMasterKeyId".to_owned(), key.to_owned());
        assert_eq!(of(&facts, "queue.encryption")[0].status, status, "{key}");
    }
}

#[test]
fn lease_policy_covers_the_own_item_alone() {
    let page = PAGE.split("### Lease\n").nth(1).unwrap();
    let block = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let block =
        block.replace("PARTITION", "aws").replace("REGION", "eu-west-1").replace("ACCOUNT", "111122223333");
    let block = block.replace("TABLE", "leases").replace("OPERATOR-ID", "prod");
    let mut scope = place(&manifests(&[PROD], "").set, Some(QUEUE_URL), None);
    scope.lease = Some(("leases".to_owned(), OperatorId::parse("prod").unwrap()));
    let of_lease = |reader| {
        let policy = json!(IamPolicy::new(&scope, reader, &["/"]).unwrap());
        let mut all = policy["Statement"].as_array().unwrap().clone();
        all.retain(|one| one["Resource"].as_str().is_some_and(|resource| resource.contains(":dynamodb:")));
        all
    };
    assert_eq!(of_lease(PolicyPrincipal::Operator), [serde_json::from_str::<Value>(&block).unwrap()]);
    assert_eq!(of_lease(PolicyPrincipal::Doctor)[0]["Action"], "dynamodb:GetItem");
}

#[test]
fn unusable_lease_store_is_an_error_with_a_fix() {
    let stored = |holder: Option<&str>| {
        let record = LeaseRecord {
            holder: holder.map(HolderId::recorded),
            epoch: 1,
            duration: std::time::Duration::from_secs(15),
        };
        Ok(Some(StoredRecord { record, version: 1 }))
    };
    let failed = |kind| Err(LeaseStoreError::new(kind, "reading the lease: denied; help: do this"));
    for (record, status, message, fix) in [
        (Ok(None), CheckStatus::Ok, "no copy leads", ""),
        (stored(Some("task_1")), CheckStatus::Ok, "task_1 leads", ""),
        (failed(LeaseStoreErrorKind::AccessDenied), CheckStatus::Error, "denied", "do this"),
        (failed(LeaseStoreErrorKind::TableMissing), CheckStatus::Error, "denied", "do this"),
        (failed(LeaseStoreErrorKind::Unreachable), CheckStatus::Unknown, "denied", "do this"),
    ] {
        let lease = Some(LeaseFacts { location: "dynamodb:leases".to_owned(), record });
        let facts = DoctorFacts { lease, ..facts(QUEUE_URL, "eu-west-1") };
        let check = of(&facts, "lease.store").remove(0);
        assert_eq!(check.status, status, "{check:?}");
        assert!(
            check.message.contains(message) && check.fix.as_deref().unwrap_or_default() == fix,
            "{check:?}"
        );
    }
    assert_eq!(of(&facts(QUEUE_URL, "eu-west-1"), "lease.store").len(), 0);
}
