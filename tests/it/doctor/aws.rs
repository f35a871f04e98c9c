//! Faults in the AWS account, one at a time.

use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::world::{DEAD_LETTERS, QUEUE, ScenarioService, deploy};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{DoctorSetup, assert_found, silent};

/// Name of the fault, its cause, the check that finds it, its status, and parts of the message.
type DoctorCase = (&'static str, fn(&DoctorSetup), &'static str, &'static str, &'static [&'static str]);

async fn each_is_found(cases: &[DoctorCase]) {
    for (what, break_setup, id, status, parts) in cases {
        let setup = DoctorSetup::new().await;
        let healthy = setup.healthy().await;
        break_setup(&setup);
        let run = setup.report().await;
        println!("{what}");
        assert_found(&run, &healthy, id, status, parts, &[]);
        assert_eq!(run.code, Some(if *status == "error" { 1 } else { 2 }), "{what}: {}", run.out);
    }
}

fn pattern(setup: &DoctorSetup, pattern: &Value) {
    setup.cloud(|cloud, _| {
        cloud.put_rule("ecs-mesh-tasks", &pattern.to_string(), true, None).unwrap();
    });
}

#[tokio::test]
async fn misconfigured_rule_fails_the_matching_check() {
    each_is_found(&[
        (
            "rule disabled",
            |s| s.cloud(|c, _| c.set_rule_enabled("ecs-mesh-tasks", false).unwrap()),
            "events.tasks",
            "error",
            &["disabled", "aws events enable-rule --name ecs-mesh-tasks"],
        ),
        (
            "pattern of some statuses",
            |s| pattern(s, &json!({"source": ["aws.ecs"], "detail": {"lastStatus": ["RUNNING"]}})),
            "events.tasks",
            "error",
            &["detail.lastStatus", "--print-event-patterns"],
        ),
        (
            "pattern of another cluster",
            |s| {
                pattern(
                    s,
                    &json!({"source": ["aws.ecs"], "detail": {"clusterArn": [{"suffix": "/elsewhere"}]}}),
                );
            },
            "events.tasks",
            "error",
            &["detail.clusterArn", "elsewhere", "cluster/"],
        ),
        (
            "pattern of another kind",
            |s| pattern(s, &json!({"source": ["aws.ecs"], "detail-type": ["ECS Service Action"]})),
            "events.tasks",
            "error",
            &["eu-west-1", "--print-event-patterns"],
        ),
        (
            "no rule for role tags",
            |s| {
                s.cloud(|c, _| {
                    assert_eq!(c.remove_targets("ecs-mesh-roles", &["queue".to_owned()]), Ok(vec![]));
                });
            },
            "events.roles",
            "warning",
            &["roleTags.recheck"],
        ),
        (
            "no rule for deployments, which the binding holds",
            |s| s.cloud(|c, _| c.set_rule_enabled("ecs-mesh-deployments", false).unwrap()),
            "events.deployments",
            "warning",
            &["disabled", "aws events enable-rule --name ecs-mesh-deployments"],
        ),
        (
            "role tags not forwarded",
            |s| s.cloud(|c, _| c.set_rule_enabled("ecs-mesh-roles-forward", false).unwrap()),
            "events.roles",
            "warning",
            &["us-east-1", "disabled"],
        ),
        (
            "a fixed text for the event",
            |s| s.target(|target| target.input = Some("{}".to_owned())),
            "events.target",
            "error",
            &["Input"],
        ),
        (
            "no dead-letter queue at the target",
            |s| s.target(|target| target.rest.clear()),
            "events.dead-letters",
            "warning",
            &["DeadLetterConfig"],
        ),
        (
            "a dead-letter queue that takes nothing",
            |s| s.attribute(DEAD_LETTERS, "Policy", ""),
            "events.dead-letters",
            "warning",
            &["aws:SourceArn"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn misconfigured_queue_fails_the_matching_check() {
    each_is_found(&[
        (
            "no queue policy",
            |s| s.attribute(QUEUE, "Policy", ""),
            "queue.policy",
            "error",
            &["set-queue-attributes", "rule/ecs-mesh-tasks"],
        ),
        (
            "an open queue policy",
            |s| {
                s.attribute(
                    QUEUE,
                    "Policy",
                    &json!({"Statement": [
                        {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"},
                        {"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*",
                         "Condition": {"ArnNotEquals": {"aws:SourceArn": "arn:aws:events:eu-west-1:111122223333:rule/x"}}},
                    ]})
                    .to_string(),
                );
            },
            "queue.policy",
            "error",
            &["forbids the rule"],
        ),
        (
            "other senders of the account",
            |s| {
                s.attribute(
                    QUEUE,
                    "Policy",
                    &json!({"Statement": [{
                        "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"},
                        "Action": "sqs:SendMessage", "Resource": "*",
                        "Condition": {"StringEquals": {"aws:SourceAccount": "111122223333"}},
                    }]})
                    .to_string(),
                );
            },
            "queue.senders",
            "error",
            &["ArnNotEquals", "set-queue-attributes"],
        ),
        (
            "no redrive policy",
            |s| s.attribute(QUEUE, "RedrivePolicy", ""),
            "queue.dead-letters",
            "warning",
            &["maxReceiveCount"],
        ),
        (
            "dead letters that go first",
            |s| s.attribute(DEAD_LETTERS, "MessageRetentionPeriod", "3600"),
            "queue.dead-letters",
            "warning",
            &["1 h", "4 d"],
        ),
        (
            "no such dead-letter queue",
            |s| s.cloud(|c, _| c.delete_queue(DEAD_LETTERS).unwrap()),
            "queue.dead-letters",
            "error",
            &[DEAD_LETTERS],
        ),
        (
            "a key that EventBridge cannot use",
            |s| s.attribute(QUEUE, "KmsMasterKeyId", "alias/aws/sqs"),
            "queue.encryption",
            "error",
            &["alias/aws/sqs"],
        ),
        (
            "messages that come again",
            |s| s.attribute(QUEUE, "VisibilityTimeout", "5"),
            "queue.visibility",
            "warning",
            &["5 s"],
        ),
        (
            "messages that go soon",
            |s| s.attribute(QUEUE, "MessageRetentionPeriod", "60"),
            "queue.retention",
            "warning",
            &["MessageRetentionPeriod"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn missing_queue_does_not_hide_other_checks() {
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    setup.cloud(|cloud, _| cloud.delete_queue(QUEUE).unwrap());
    let run = setup.report().await;
    assert_found(&run, &healthy, "queue.exists", "error", &["NonExistentQueue"], &["queue."]);
    assert_eq!(run.code, Some(1));
}

#[tokio::test]
async fn denied_call_is_reported_with_its_permission() {
    let cases = [
        ("ecs:ListClusters", "permissions.list-clusters", "error", &[][..]),
        ("ecs:DescribeClusters", "permissions.describe-clusters", "error", &[]),
        ("ecs:ListTasks", "permissions.list-tasks", "error", &[]),
        ("ecs:DescribeTasks", "permissions.describe-tasks", "error", &["permissions.get-role"]),
        ("ecs:DescribeTaskDefinition", "permissions.describe-task-definition", "error", &[]),
        ("iam:GetRole", "permissions.get-role", "error", &[]),
        ("sqs:GetQueueAttributes", "queue.exists", "error", &["queue."]),
        ("sts:GetCallerIdentity", "aws.identity", "unknown", &[]),
        ("events:ListRuleNamesByTarget", "events.tasks", "unknown", &["events."]),
        ("events:DescribeRule", "events.tasks", "unknown", &[]),
        ("events:ListTargetsByRule", "events.target", "unknown", &["events.dead-letters"]),
    ];
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    for (operation, id, status, without) in cases {
        *setup.refusing.refused.lock().unwrap() = Some(operation);
        let run = setup.report().await;
        assert_found(&run, &healthy, id, status, &[operation, "AccessDenied"], without);
        assert_eq!(run.code, Some(if status == "error" { 1 } else { 2 }), "{operation}: {}", run.out);
    }
}

#[tokio::test]
async fn host_mode_is_tried_on_a_container_instance() {
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    let mut agent = ScenarioService::new("agent", 15_001, 8_081, 1);
    agent.rollout.host_mode = true;
    setup.cloud(|cloud, now| deploy(cloud, &agent, ControlPlanes::Kuma, now).unwrap());
    let hosts = ["permissions.describe-container-instances", "permissions.describe-instances"];
    let mut run = setup.report().await;
    // The instance is known once the task is placed.
    for _ in 0..100 {
        if run.worst(hosts[1]).0 != "info" {
            break;
        }
        run = setup.report().await;
    }
    assert!(hosts.iter().all(|id| run.worst(id).0 == "ok"), "{}", run.out);
    assert!(run.worst(hosts[1]).1.contains("the addresses of 1 instances"), "{}", run.out);
    for (id, operation, code) in [
        (hosts[0], "ecs:DescribeContainerInstances", "AccessDeniedException"),
        (hosts[1], "ec2:DescribeInstances", "UnauthorizedOperation"),
    ] {
        *setup.refusing.refused.lock().unwrap() = Some(operation);
        let run = setup.report().await;
        assert_found(&run, &healthy, id, "error", &[operation, code], &[]);
        assert_eq!(run.code, Some(1), "{}", run.out);
    }
}

#[tokio::test]
async fn foreign_clusters_are_reported() {
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    for (cluster, parts) in [
        ("arn:aws:ecs:eu-west-1:444455556666:cluster/sandbox", ["account 444455556666", "111122223333"]),
        ("arn:aws-cn:ecs:cn-north-1:111122223333:cluster/sandbox", ["partition aws-cn", "in aws"]),
    ] {
        setup.manifests(cluster, &setup.kuma_url(), "");
        let run = setup.report().await;
        // The Region is unreachable, and another partition has other rules.
        assert_found(&run, &healthy, "aws.scope", "error", &parts, &["permissions.", "events.", "queue."]);
        assert_eq!(run.code, Some(1), "{}", run.out);
    }
}

#[tokio::test]
async fn missing_credentials_do_not_hide_other_checks() {
    let mut setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    setup.environment.retain(|name, _| !name.contains("KEY"));
    let run = setup.report().await;
    assert_found(
        &run,
        &healthy,
        "aws.credentials",
        "error",
        &["task role"],
        &["queue.", "events.", "permissions."],
    );
    assert_eq!(run.worst("queue.exists").0, "unknown");
    assert_eq!((run.worst("control-plane.mesh").0.as_str(), run.code), ("ok", Some(1)));
}

#[tokio::test]
async fn failed_source_of_credentials_is_named() {
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("AWS_PROFILE", "process")], "credentials of the profile \\\"process\\\" (AWS_PROFILE)"),
        (&[("AWS_PROFILE", "gone")], "credentials of the profile \\\"gone\\\" (AWS_PROFILE)"),
        (
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"),
                ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/a"),
            ],
            "credentials of the web identity (AWS_WEB_IDENTITY_TOKEN_FILE)",
        ),
        (
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials")],
            "credentials of the container's credentials",
        ),
    ];
    for (variables, named) in cases {
        let mut setup = DoctorSetup::new().await;
        let config = setup.directory.path().join("config");
        std::fs::write(&config, "[profile process]\ncredential_process = exit 3\n").unwrap();
        setup.environment.retain(|name, _| !name.contains("KEY"));
        setup.environment.insert("AWS_CONFIG_FILE".to_owned(), config.display().to_string());
        let more = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        setup.environment.extend(more);
        let run = setup.report().await;
        let (status, found) = run.worst("aws.credentials");
        assert!(status == "error" && found.contains(named), "{variables:?}: {found}");
    }
}

#[tokio::test]
async fn doctor_checks_control_plane_without_aws() {
    let mut setup = DoctorSetup::new().await;
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    setup.environment.insert("AWS_ENDPOINT_URL".to_owned(), format!("http://{refused}"));
    let run = setup.report().await;
    assert_eq!(run.worst("permissions.list-tasks").0, "unknown", "{}", run.out);
    assert_eq!((run.worst("control-plane.mesh").0.as_str(), run.code), ("ok", Some(2)));
    setup.environment.retain(|name, _| !name.contains("REGION"));
    let run = setup.report().await;
    assert_eq!((run.worst("aws.region").0.as_str(), run.code), ("error", Some(1)), "{}", run.out);
    assert_eq!(run.worst("control-plane.mesh").0, "ok");
}

#[tokio::test]
async fn doctor_checks_control_plane_without_ca() {
    let mut setup = DoctorSetup::new().await;
    let nothing = setup.directory.path().join("nothing");
    std::fs::create_dir(&nothing).unwrap();
    let nothing = nothing.to_str().unwrap().to_owned();
    setup.environment.insert("SSL_CERT_DIR".to_owned(), nothing.clone());
    setup.environment.insert("SSL_CERT_FILE".to_owned(), format!("{nothing}/none.pem"));
    let run = setup.report().await;
    assert_eq!(run.code, Some(0), "an endpoint without TLS needs none: {}", run.out);
    setup.environment.remove("AWS_ENDPOINT_URL");
    let run = setup.report().await;
    let (status, finding) = run.worst("aws.certificates");
    assert_eq!((status.as_str(), run.code), ("error", Some(1)), "{}", run.out);
    assert!(finding.contains("ca-certificates"), "{finding}");
    assert_eq!(run.worst("control-plane.mesh").0, "ok");
}

#[tokio::test]
async fn doctor_checks_control_plane_when_aws_hangs() {
    let mut setup = DoctorSetup::new().await;
    setup.environment.insert("AWS_ENDPOINT_URL".to_owned(), silent().await);
    let run = setup.report().await;
    for id in ["aws.identity", "queue.exists", "events.tasks", "permissions.list-tasks"] {
        let (status, finding) = run.worst(id);
        assert!(status == "unknown" && finding.contains("no answer in time"), "{finding}");
    }
    assert_eq!((run.worst("control-plane.mesh").0.as_str(), run.code), ("ok", Some(2)));
}
