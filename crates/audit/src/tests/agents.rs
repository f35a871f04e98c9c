//! Tasks with a Consul client agent (consul-ecs before 0.6).

use serde_json::json;

use super::Severity::{Error, Unknown, Warning};
use super::{AuditCase, AuditFixture, check, findings};

const LOGIN: &str = "consul login -type aws-iam -method iam-ecs-service-token -aws-auto-bearer-token -aws-include-entity \
     -meta \"consul.hashicorp.com/task-id=$TASK_ID\" -meta \"consul.hashicorp.com/cluster=$CLUSTER\"";
const AGENT: &str = "tls {\n defaults {\n  ca_file = \"/consul/ca.pem\"\n  verify_outgoing = true\n }\n}\nacl {\n enabled = true\n \
     default_policy = \"deny\"\n tokens {\n  agent = \"$AGENT_TOKEN\"\n }\n}\n";

fn client(world: &mut AuditFixture, login: &str, agent: &str) {
    let config = world.config.as_object_mut().unwrap();
    config.remove("consulServers");
    config.insert("consulHTTPAddr".to_owned(), json!("https://consul.internal:8501"));
    config.insert("consulCACertFile".to_owned(), json!("/consul/ca.pem"));
    let script = format!(
        "{login}\ncat << EOF > /consul/agent.hcl\n{agent}EOF\nexec consul agent -data-dir /consul/data"
    );
    let container = json!({
        "name": "consul-client",
        "image": "public.ecr.aws/hashicorp/consul:1.13",
        "entryPoint": ["/bin/sh", "-ec"],
        "command": [script],
    });
    world.definition["containerDefinitions"].as_array_mut().unwrap().push(container);
}

pub(super) const CASES: &[AuditCase] = &[
    ("CONSUL-AGENT-LOGIN", Error, "the login lacks -meta consul.hashicorp.com/cluster=…", |world| {
        client(world, LOGIN.split(" -meta \"consul.hashicorp.com/cluster").next().unwrap(), AGENT);
    }),
    ("CONSUL-AGENT-LOGIN", Error, "-type aws-iam, -aws-auto-bearer-token", |world| {
        client(world, "consul login -method iam-ecs-service-token", AGENT);
    }),
    ("CONSUL-AGENT-ACL", Error, "not true", |world| {
        client(world, LOGIN, &AGENT.replace("enabled = true", "enabled = false"));
    }),
    ("CONSUL-AGENT-ACL", Unknown, "neither in the command", |world| client(world, LOGIN, "")),
    ("CONSUL-AGENT-TOKEN", Error, "acl.tokens.agent is absent", |world| {
        client(world, LOGIN, &AGENT.replace("agent =", "replication ="));
    }),
    ("CONSUL-AGENT-DEFAULT-POLICY", Warning, "allow", |world| {
        client(world, LOGIN, &AGENT.replace("\"deny\"", "\"allow\""));
    }),
    ("CONSUL-AGENT-CA", Warning, "ca_file is absent", |world| {
        client(world, LOGIN, &AGENT.replace("ca_file", "cert_file"));
    }),
    ("CONSUL-AGENT-CA", Warning, "verify_outgoing is not true", |world| {
        client(world, LOGIN, &AGENT.replace("verify_outgoing = true", ""));
    }),
    ("CONSUL-AGENT-PARTITION", Error, "the agent's partition is \"p2\"", |world| {
        client(world, LOGIN, &format!("{AGENT}partition = \"p2\"\n"));
    }),
    ("CONSUL-AGENT-PARTITION", Error, "the login's -partition is \"p2\"", |world| {
        client(world, &format!("{LOGIN} -partition p2"), AGENT);
    }),
    ("CONSUL-AGENT-AUDIT", Warning, "no sink is configured", |world| {
        client(world, LOGIN, &format!("{AGENT}audit {{\n enabled = true\n}}\n"));
    }),
    ("CONSUL-AGENT-AUDIT", Warning, "log: delivery_guarantee is absent", |world| {
        let sink = "sink \"log\" {\n type = \"file\"\n format = \"json\"\n path = \"/a.json\"\n}";
        client(world, LOGIN, &format!("{AGENT}audit {{\n enabled = true\n {sink}\n}}\n"));
    }),
    ("CONSUL-LOGIN-METHOD", Error, "the login names \"other\"", |world| {
        client(world, &LOGIN.replace("iam-ecs-service-token", "other"), AGENT);
    }),
];

#[test]
fn each_case_is_found() {
    check(CASES);
}

#[test]
fn documented_client_agent_is_valid() {
    assert_eq!(findings(|world| client(world, LOGIN, AGENT)), []);
    let older = AGENT.replace("tls {\n defaults {\n", "").replace(" }\n}\nacl", "acl");
    assert_eq!(findings(|world| client(world, LOGIN, &older)), [], "{older}");
    let sink = "sink \"log\" {\n type = \"file\"\n format = \"json\"\n path = \"/a\"\n delivery_guarantee = \"best-effort\"\n}";
    let audit = format!("{AGENT}audit {{\n enabled = true\n {sink}\n}}\n");
    assert_eq!(findings(|world| client(world, LOGIN, &audit)), []);
}
