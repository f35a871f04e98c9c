//! Output of `doctor`: report, exit code, policies and event patterns, without secrets.

use std::collections::{BTreeMap, BTreeSet};

use ecs_mesh_sandbox::kuma::KumaConfig;
use ecs_mesh_sandbox::world::QUEUE;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{AWS_SECRET, DoctorSetup, TOKEN, UNUSED, assert_found, catalogue, document, kuma, run_doctor};

#[tokio::test]
async fn healthy_setup_passes_every_check() {
    let setup = DoctorSetup::new().await;
    let run = setup.report().await;
    assert_eq!(run.code, Some(0), "{}", run.out);
    let report = run.json();
    assert_eq!(
        (&report["summary"]["error"], &report["summary"]["warning"]),
        (&json!(0), &json!(0)),
        "{report}"
    );
    let of_kuma = catalogue()
        .filter(|id| !id.starts_with("consul.") && !UNUSED.contains(&id.as_str()))
        .collect::<BTreeSet<_>>();
    assert_eq!(run.ids(), of_kuma);
}

#[tokio::test]
async fn doctor_only_reads_and_receives_no_message() {
    let setup = DoctorSetup::new().await;
    let before = setup.endpoints.front.calls();
    setup.report().await;
    let calls = setup.endpoints.front.calls();
    let made: Vec<&String> =
        calls.iter().filter(|(name, count)| before.get(*name) != Some(count)).map(|(name, _)| name).collect();
    assert!(made.len() >= 9, "{made:?}");
    for call in made {
        let operation = call.split('.').nth(1).unwrap();
        let reads = ["List", "Describe", "Get"].iter().any(|verb| operation.starts_with(verb));
        assert!(reads, "{call}");
    }
    let writes = setup.endpoints.with(|_, kuma, _| kuma.take_journal().len());
    assert_eq!(writes, 0);
}

#[tokio::test]
async fn invalid_manifests_do_not_hide_other_checks() {
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    let wrong = document("Workload", "app", "{selector: {families: [app]}, servce: app}");
    std::fs::write(setup.directory.path().join("wrong.yaml"), wrong).unwrap();
    let run = setup.report().await;
    assert_found(&run, &healthy, "manifests", "error", &["wrong.yaml:4", "spec.servce"], &[]);
    assert_eq!(run.code, Some(1));
}

#[tokio::test]
async fn output_contains_no_secret_at_any_log_level() {
    let setup = DoctorSetup::new().await;
    let guarded = KumaConfig {
        localhost_is_admin: false,
        admin_token: Some(TOKEN.to_owned()),
        ..KumaConfig::default()
    };
    let token = setup.directory.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let more = format!(", tokenFile: '{}'", token.display());
    setup.manifests(&setup.endpoints.cluster, &kuma(guarded).await, &more);
    for output in ["text", "json"] {
        let run = setup.doctor(&["--operator-id", "x", "--output", output, "--log", "trace"]).await;
        assert_eq!(run.code, Some(0), "{}", run.out);
        for secret in [AWS_SECRET, TOKEN] {
            assert!(!run.out.contains(secret) && !run.err.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn text_report_is_plain_without_a_terminal() {
    let setup = DoctorSetup::new().await;
    setup.attribute(QUEUE, "RedrivePolicy", "");
    let run = setup.doctor(&["--operator-id", "x"]).await;
    assert_eq!(run.code, Some(2));
    assert!(!run.out.contains('\u{1b}'), "{}", run.out);
    let warning = run.out.lines().position(|line| line.starts_with("warning  queue.dead-letters ")).unwrap();
    let below: Vec<&str> = run
        .out
        .lines()
        .skip(warning + 1)
        .take_while(|line| line.starts_with(' '))
        .map(str::trim_start)
        .collect();
    for label in ["expected: ", "fix:      "] {
        assert!(below.iter().any(|line| line.starts_with(label)), "{below:?}");
    }
    assert!(run.out.lines().any(|line| line.starts_with("0 errors, 1 warning, 0 unknown, ")), "{}", run.out);
}

#[tokio::test]
async fn json_fields_match_the_reference() {
    let setup = DoctorSetup::new().await;
    setup.attribute(QUEUE, "RedrivePolicy", "");
    let report = setup.report().await.json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(keys(&report), set(&["checks", "status", "summary"]));
    assert_eq!(keys(&report["summary"]), set(&["ok", "info", "unknown", "warning", "error"]));
    assert_eq!(report["status"], "warning");
    for check in report["checks"].as_array().unwrap() {
        let mut expected = set(&["id", "subject", "status", "message", "expected"]);
        let has_fix = !["ok", "info"].iter().any(|status| check["status"] == *status);
        expected.extend(has_fix.then(|| "fix".to_owned()));
        assert_eq!(keys(check), expected, "{check}");
    }
}

#[tokio::test]
async fn policy_and_rules_are_printed_without_aws() {
    let directory = TempDir::new().unwrap();
    let text = [
        document("ControlPlane", "kuma", "{type: kuma, kuma: {address: 'http://kuma.invalid:5681'}}"),
        document(
            "MeshBinding",
            "here",
            "{controlPlane: kuma, mesh: default, selector: {clusters: ['arn:aws-cn:ecs:cn-north-1:111122223333:cluster/c']}}",
        ),
    ];
    std::fs::write(directory.path().join("all.yaml"), text.concat()).unwrap();
    let queue = "https://sqs.cn-north-1.amazonaws.com.cn/111122223333/q";
    let nothing = BTreeMap::new();
    let run = run_doctor(&nothing, directory.path(), &["--queue-url", queue, "--print-iam-policy"]).await;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    let policy = run.json();
    assert_eq!(policy["Statement"][5]["Resource"], "arn:aws-cn:sqs:cn-north-1:111122223333:q");
    assert!(!run.out.contains("arn:aws:"), "{}", run.out);
    let run = run_doctor(&nothing, directory.path(), &["--print-event-patterns"]).await;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    let rules = run.json();
    let clusters = &rules["ecs-mesh-tasks"]["detail"]["clusterArn"];
    assert_eq!(*clusters, json!(["arn:aws-cn:ecs:cn-north-1:111122223333:cluster/c"]));
    assert_eq!(rules["ecs-mesh-roles"]["source"], json!(["aws.iam"]));
    // Incomplete manifests would give an incomplete policy.
    std::fs::write(directory.path().join("wrong.yaml"), "kind: Nothing\n").unwrap();
    let run = run_doctor(&nothing, directory.path(), &["--print-iam-policy"]).await;
    assert_eq!(run.code, Some(1));
    assert!(run.out.is_empty() && run.err.contains("wrong.yaml"), "{}", run.err);
}

#[tokio::test]
async fn doctor_requires_an_operator_id() {
    let setup = DoctorSetup::new().await;
    let run = setup.doctor(&[]).await;
    assert!(run.err.contains("--operator-id") && run.out.is_empty(), "{}", run.err);
    assert_ne!(run.code, Some(0));
}
