//! Declarations that a version has no form for, as `validate`, the doctor, the audit and a plan show it.

use super::test_fixture::{OperatorFixture, document, workload};
use ecs_mesh_audit::check_workloads;

/// The fields of a workload with two inbounds of these tags.
fn tagged(first: &str, second: &str) -> String {
    format!(
        "inbounds: [{{containerPort: 80, port: 15000, tags: {{{first}}}}}, \
         {{containerPort: 81, port: 15001, tags: {{{second}}}}}]"
    )
}

#[tokio::test(start_paused = true)]
async fn validate_doctor_and_plan_refuse_the_same_in_3_0() {
    let outbound =
        |service: &str| format!("outbounds: [{{service: {service}, targetPort: 1, listen: {{port: 7000}}}}]");
    for (fields, is_refused) in [
        (tagged("version: \"1\"", "version: \"1\""), false),
        (outbound("kv"), false),
        (tagged("\"a:b\": x", "\"a:b\": x"), true),
        (tagged("kuma.io/foo: x", "kuma.io/foo: x"), true),
        (tagged("version: \"1\"", "version: \"2\""), true),
        ("inbounds: [{containerPort: 80, port: 15000, protocol: kafka}]".to_owned(), true),
        (outbound("Foo_bar"), true),
    ] {
        let mut fixture = OperatorFixture::new(&[("a", 1), ("kv", 1)]);
        fixture.kuma.lock().unwrap().upgrade("3.0".parse().unwrap(), fixture.clock.now());
        fixture.connection = ", dialect: 3.x";
        let a = document("Workload", "a", &format!("selector: {{services: [a]}}, service: a, {fields}"));
        fixture.edit(&(a + &workload("kv", "kv")));
        let plan = fixture.plan().await;
        let checked = check_workloads(&fixture.client(), &fixture.loaded_set(), "kuma").await.unwrap();
        let warnings = fixture.manifest_warnings();
        let refused = (
            warnings.iter().any(|warning| warning.contains("Workload/a")),
            checked.inexpressible.iter().any(|one| &*one.workload == "a"),
            plan.summary.not_expressible == 1,
        );
        assert_eq!(refused, (is_refused, is_refused, is_refused), "{fields}: {warnings:?} {checked:?}");
        assert_eq!((checked.count, checked.unread.len()), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn doctor_and_plan_refuse_a_client_before_2_14() {
    let mut fixture = OperatorFixture::new(&[("a", 1)]);
    fixture.kuma.lock().unwrap().upgrade("2.9".parse().unwrap(), fixture.clock.now());
    fixture.edit(&document("Workload", "a", "selector: {services: [a]}, service: a"));
    let checked = check_workloads(&fixture.client(), &fixture.loaded_set(), "kuma").await.unwrap();
    let names: Vec<&str> = checked.inexpressible.iter().map(|one| &*one.workload).collect();
    assert_eq!((names, fixture.plan().await.summary.not_expressible), (vec!["a"], 1));
}
