//! Each possible drift as a row: the change, and the resulting plan.

use serde_json::{Value, json};

use super::fixture::{AclPlanFixture, DEMO, everything};
use ecs_mesh_core::plan::report::ObjectKind::{
    self, AnonymousToken, AuthMethod, BindingRule, Node, Policy, Role,
};

const METHOD: &str = "iam-ecs-service-token";
const CLIENT_METHOD: &str = "iam-ecs-client-token";
const CLIENT_ROLE: &str = "consul-ecs-client-role";
const MESH_ROLE: &str = "consul-ecs-mesh-gateway-role";
const SERVICE: &str = "${entity_tags.consul.hashicorp.com.service-name}";

type CommunityDriftCase = (&'static str, ObjectKind, &'static str, fn(&mut Value), &'static [&'static str]);

/// A change, its object, and the lines of the plan that corrects it.
const DRIFTS: &[CommunityDriftCase] = &[
    (
        "a rule was deleted",
        BindingRule,
        MESH_ROLE,
        |rule| *rule = Value::Null,
        &["create binding rule iam-ecs-service-token/mesh-gateway"],
    ),
    (
        "a selector was emptied",
        BindingRule,
        MESH_ROLE,
        |rule| rule["Selector"] = json!(""),
        &["update binding rule iam-ecs-service-token/mesh-gateway (Selector)"],
    ),
    (
        "a rule binds another role",
        BindingRule,
        MESH_ROLE,
        |rule| rule["BindName"] = json!("admin"),
        &["update binding rule iam-ecs-service-token/mesh-gateway (BindName)"],
    ),
    (
        "a rule's words were changed",
        BindingRule,
        MESH_ROLE,
        |rule| rule["Description"] = json!("mine [ecs-mesh:op]"),
        &["update binding rule iam-ecs-service-token/mesh-gateway (Description)"],
    ),
    (
        "a foreign account may log in",
        AuthMethod,
        METHOD,
        |method| {
            let foreign = json!("arn:aws:iam::999999999999:role/*");
            method["Config"]["BoundIAMPrincipalARNs"].as_array_mut().unwrap().push(foreign);
        },
        &["update auth method iam-ecs-service-token (Config.BoundIAMPrincipalARNs)"],
    ),
    (
        "the principals are one text",
        AuthMethod,
        METHOD,
        |method| method["Config"]["BoundIAMPrincipalARNs"] = json!("arn:aws:iam::000000000000:role/*"),
        &["update auth method iam-ecs-service-token (Config.BoundIAMPrincipalARNs[0])"],
    ),
    (
        "tokens live longer",
        AuthMethod,
        METHOD,
        |method| method["MaxTokenTTL"] = json!("720h0m0s"),
        &["update auth method iam-ecs-service-token (MaxTokenTTL)"],
    ),
    (
        "tokens never expire",
        AuthMethod,
        METHOD,
        |method| drop(method.as_object_mut().unwrap().remove("MaxTokenTTL")),
        &["update auth method iam-ecs-service-token (MaxTokenTTL)"],
    ),
    (
        "another STS is asked",
        AuthMethod,
        METHOD,
        |method| method["Config"]["STSEndpoint"] = json!("https://sts.evil"),
        &["update auth method iam-ecs-service-token (Config.STSEndpoint)"],
    ),
    (
        "an undeclared endpoint is set",
        AuthMethod,
        METHOD,
        |method| method["Config"]["IAMEndpoint"] = json!("https://iam.evil"),
        &["update auth method iam-ecs-service-token (Config.IAMEndpoint)"],
    ),
    (
        "tokens count everywhere",
        AuthMethod,
        METHOD,
        |method| method["TokenLocality"] = json!("global"),
        &["update auth method iam-ecs-service-token (TokenLocality)"],
    ),
    (
        "a tag is not read",
        AuthMethod,
        METHOD,
        |method| method["Config"]["IAMEntityTags"] = json!(["consul.hashicorp.com.service-name"]),
        &["update auth method iam-ecs-service-token (Config.IAMEntityTags)"],
    ),
    (
        "the servers do not read the role any more",
        AuthMethod,
        METHOD,
        |method| method["Config"]["EnableIAMEntityDetails"] = json!(false),
        &["update auth method iam-ecs-service-token (Config.EnableIAMEntityDetails)"],
    ),
    (
        "the servers do not read the role any more, in Consul's other words",
        AuthMethod,
        METHOD,
        |method| method["Config"]["EnableIAMEntityDetails"] = json!("0"),
        &["update auth method iam-ecs-service-token (Config.EnableIAMEntityDetails)"],
    ),
    (
        "further headers may be signed",
        AuthMethod,
        METHOD,
        |method| method["Config"]["AllowedSTSHeaderValues"] = json!(["X-Other"]),
        &["update auth method iam-ecs-service-token (Config.AllowedSTSHeaderValues)"],
    ),
    (
        "another STS is asked, by a key in other letters",
        AuthMethod,
        CLIENT_METHOD,
        |method| method["Config"]["stsendpoint"] = json!("https://sts.evil"),
        &["update auth method iam-ecs-client-token (Config.STSEndpoint)"],
    ),
    (
        "another IAM is asked, by a key in other letters and in a list",
        AuthMethod,
        METHOD,
        |method| method["Config"]["iamEndpoint"] = json!(["https://iam.evil"]),
        &["update auth method iam-ecs-service-token (Config.IAMEndpoint)"],
    ),
    (
        "a declared key is there a second time",
        AuthMethod,
        METHOD,
        |method| method["Config"]["STSENDPOINT"] = json!("https://sts.evil"),
        &["update auth method iam-ecs-service-token (Config.STSENDPOINT)"],
    ),
    (
        "a foreign account may log in, by a key in other letters",
        AuthMethod,
        METHOD,
        |method| {
            let config = method["Config"].as_object_mut().unwrap();
            config.remove("BoundIAMPrincipalARNs");
            config.insert("boundiamprincipalarns".to_owned(), json!("arn:aws:iam::999999999999:role/*"));
        },
        &["update auth method iam-ecs-service-token (Config.BoundIAMPrincipalARNs[0])"],
    ),
    (
        "a method is called the same in other letters, and so are its tokens",
        AuthMethod,
        METHOD,
        |method| method["Name"] = json!("IAM-ECS-Service-Token"),
        &["update auth method iam-ecs-service-token (Name)"],
    ),
    (
        "tokens get into another namespace",
        AuthMethod,
        CLIENT_METHOD,
        |method| method["NamespaceRules"] = json!([{ "Selector": "", "BindNamespace": "admin" }]),
        &["update auth method iam-ecs-client-token (NamespaceRules)"],
    ),
    (
        "client agents may be in a foreign account",
        AuthMethod,
        CLIENT_METHOD,
        |method| {
            let foreign = json!("arn:aws:iam::999999999999:role/*");
            method["Config"]["BoundIAMPrincipalARNs"].as_array_mut().unwrap().push(foreign);
        },
        &["update auth method iam-ecs-client-token (Config.BoundIAMPrincipalARNs)"],
    ),
    (
        "client agents' tokens never expire",
        AuthMethod,
        CLIENT_METHOD,
        |method| method["MaxTokenTTL"] = json!("0s"),
        &["update auth method iam-ecs-client-token (MaxTokenTTL)"],
    ),
    (
        "client agents' logins count for another server",
        AuthMethod,
        CLIENT_METHOD,
        |method| method["Config"]["ServerIDHeaderValue"] = json!("elsewhere"),
        &["update auth method iam-ecs-client-token (Config.ServerIDHeaderValue)"],
    ),
    (
        "client agents' logins count for every server",
        AuthMethod,
        CLIENT_METHOD,
        |method| drop(method["Config"].as_object_mut().unwrap().remove("ServerIDHeaderValue")),
        &["update auth method iam-ecs-client-token (Config.ServerIDHeaderValue)"],
    ),
    (
        "client agents may sign other headers",
        AuthMethod,
        CLIENT_METHOD,
        |method| method["Config"]["AllowedSTSHeaderValues"] = json!(["X-Other"]),
        &["update auth method iam-ecs-client-token (Config.AllowedSTSHeaderValues[0])"],
    ),
    (
        "client agents' policy lets do more",
        Policy,
        "consul-ecs-client-policy",
        |policy| policy["Rules"] = json!("acl = \"write\""),
        &["update policy consul-ecs-client-policy (Rules)"],
    ),
    (
        "client agents' role may do everything",
        Role,
        CLIENT_ROLE,
        |role| role["Policies"] = json!([{ "ID": "1", "Name": "global-management" }]),
        &["update role consul-ecs-client-role (Policies[0].Name)"],
    ),
    (
        "client agents' role is a node",
        Role,
        CLIENT_ROLE,
        |role| role["NodeIdentities"] = json!([{ "NodeName": "a", "Datacenter": "dc1" }]),
        &["update role consul-ecs-client-role (NodeIdentities)"],
    ),
    (
        "some client agents are bound alone",
        BindingRule,
        CLIENT_ROLE,
        |rule| rule["Selector"] = json!("entity_name == \"a\""),
        &["update binding rule iam-ecs-client-token/client (Selector)"],
    ),
    (
        "client agents' rule was deleted",
        BindingRule,
        CLIENT_ROLE,
        |rule| *rule = Value::Null,
        &["create binding rule iam-ecs-client-token/client"],
    ),
    (
        "only the marker of an owned rule is left",
        BindingRule,
        SERVICE,
        |rule| {
            rule["Description"] = json!("[ecs-mesh:op]");
            rule["BindType"] = json!("role");
            rule["BindName"] = json!("admin");
        },
        &["update binding rule iam-ecs-service-token/service (BindName, BindType, Description)"],
    ),
    (
        "a policy was weakened",
        Policy,
        "consul-ecs-mesh-gateway-policy",
        |policy| policy["Rules"] = json!("mesh = \"write\"\npeering = \"read\"\nacl = \"write\""),
        &["update policy consul-ecs-mesh-gateway-policy (Rules)"],
    ),
    (
        "a policy counts in one datacenter alone",
        Policy,
        "consul-ecs-mesh-gateway-policy",
        |policy| policy["Datacenters"] = json!(["dc2"]),
        &["update policy consul-ecs-mesh-gateway-policy (Datacenters)"],
    ),
    (
        "a role may do everything",
        Role,
        MESH_ROLE,
        |role| {
            role["Policies"].as_array_mut().unwrap().push(json!({ "ID": "1", "Name": "global-management" }));
        },
        &["update role consul-ecs-mesh-gateway-role (Policies)"],
    ),
    (
        "a role without a policy may do everything",
        Role,
        "consul-ecs-terminating-gateway-role",
        |role| role["Policies"] = json!([{ "ID": "1", "Name": "global-management" }]),
        &["update role consul-ecs-terminating-gateway-role (Policies)"],
    ),
    (
        "a role is every service",
        Role,
        MESH_ROLE,
        |role| role["ServiceIdentities"] = json!([{ "ServiceName": "web" }]),
        &["update role consul-ecs-mesh-gateway-role (ServiceIdentities)"],
    ),
    (
        "a role lost its policy",
        Role,
        MESH_ROLE,
        |role| drop(role.as_object_mut().unwrap().remove("Policies")),
        &["update role consul-ecs-mesh-gateway-role (Policies)"],
    ),
    (
        "a cluster's node is missing",
        Node,
        DEMO,
        |node| *node = Value::Null,
        &["create node arn:aws:ecs:us-east-1:000000000000:cluster/anchor"],
    ),
    (
        "a node passes for one with an agent",
        Node,
        DEMO,
        |node| drop(node["Meta"].as_object_mut().unwrap().remove("synthetic-node")),
        &["update node arn:aws:ecs:us-east-1:000000000000:cluster/anchor (NodeMeta.synthetic-node)"],
    ),
    (
        "the anonymous token lost its policy",
        AnonymousToken,
        "00000000-0000-0000-0000-000000000002",
        |token| token["Policies"] = json!([{ "Name": "global-management" }]),
        &["update the anonymous token (Policies)"],
    ),
];

#[test]
fn each_drift_is_planned_and_corrected_by_one_run() {
    for (subject, kind, name, change, expected) in DRIFTS {
        let mut world = AclPlanFixture::made(everything());
        world.edit(*kind, name, *change);
        assert_eq!(world.lines(), *expected, "{subject}");
        world.run();
        assert_eq!(world.lines(), Vec::<String>::new(), "{subject}: after a run");
    }
}
