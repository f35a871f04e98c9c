//! Every rule, in the order of the reference. `docs/reference/audit.md` has a row for each, which a test writes and keeps.

use super::report::{AuditRule, Severity};

const CONFIG: &str = "https://developer.hashicorp.com/consul/docs/reference/ecs";
const MANUAL: &str = "https://developer.hashicorp.com/consul/docs/ecs/manual/secure-configuration";
const ARCHITECTURE: &str = "https://developer.hashicorp.com/consul/docs/ecs/architecture";
const AWS_IAM: &str = "https://developer.hashicorp.com/consul/docs/secure/acl/auth-method/aws";
const BINDING_RULES: &str = "https://developer.hashicorp.com/consul/api-docs/acl/binding-rules";
const TLS_OF_AGENTS: &str =
    "https://developer.hashicorp.com/consul/docs/reference/agent/configuration-file/tls";
const ACL_OF_AGENTS: &str =
    "https://developer.hashicorp.com/consul/docs/reference/agent/configuration-file/acl";
const AUDIT_LOG: &str = "https://developer.hashicorp.com/consul/docs/monitor/log/audit";
const ACL_RULES: &str = "https://developer.hashicorp.com/consul/docs/reference/acl/rule";
const TASK_DEFINITION: &str =
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html";
const TASK_ROLE: &str = "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html";
const SECRETS: &str =
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/specifying-sensitive-data.html";

macro_rules! catalogue {
    ($($const:ident $id:literal $severity:ident $title:literal $why:literal $fix:literal $source:ident;)*) => {
        $(
            #[doc = concat!("The rule `", $id, "`.")]
            pub const $const: AuditRule = AuditRule {
                id: $id,
                severity: Severity::$severity,
                title: $title,
                rationale: $why,
                fix: $fix,
                source: $source,
            };
        )*
        /// All of them.
        pub const ALL: &[AuditRule] = &[$($const),*];
    };
}

catalogue! {
    // What is looked at.
    DEFINITION_UNREADABLE "TASK-DEFINITION-UNREADABLE" Error
        "a task definition cannot be read"
        "what cannot be read is not judged"
        "give the JSON that `aws ecs register-task-definition --cli-input-json` takes or `aws ecs describe-task-definition` prints"
        TASK_DEFINITION;
    MANIFEST_INVALID "MANIFEST-INVALID" Error
        "a manifest has an error"
        "what does not load counts for nothing, here and in the operator"
        "correct the manifest: docs/reference/manifests.md has every field"
        CONFIG;
    NOT_CONSUL "CONSUL-NOT-IN-MESH" Info
        "a task definition has no sign of Consul"
        "it was looked at, and no rule applies to it"
        "nothing, unless the task should be in the mesh: then give it the consul-ecs containers"
        MANUAL;
    AWS_UNKNOWN "AUDIT-AWS-NO-ANSWER" Unknown
        "ECS or IAM did not answer"
        "roles, their tags and what runs are then not judged"
        "give a Region and credentials, and run the audit again"
        TASK_ROLE;
    PLANE_UNKNOWN "AUDIT-CONTROL-PLANE-NO-ANSWER" Unknown
        "Consul did not answer, or the manifests name none"
        "auth methods, binding rules, policies and nodes are then judged by the manifests alone, or not at all"
        "give --manifests with a ControlPlane of type consul, whose token may read ACLs, and a MeshBinding of it"
        AWS_IAM;

    // CONSUL_ECS_CONFIG_JSON.
    CONFIG_MISSING "CONSUL-CONFIG-MISSING" Error
        "CONSUL_ECS_CONFIG_JSON is missing or empty in a task of the mesh"
        "consul-ecs takes all its settings from it and ends at once without it, so the task never starts"
        "set CONSUL_ECS_CONFIG_JSON in `environment` of the consul-ecs containers"
        CONFIG;
    CONFIG_NOT_JSON "CONSUL-CONFIG-NOT-JSON" Error
        "CONSUL_ECS_CONFIG_JSON is not a JSON object"
        "consul-ecs refuses it and ends, so the task never starts"
        "write one JSON object, encoded as one string"
        CONFIG;
    CONFIG_DIFFERS "CONSUL-CONFIG-DUPLICATED" Error
        "CONSUL_ECS_CONFIG_JSON is there more than once, and not the same everywhere"
        "what registers the task, what syncs its health and what logs it out then speak of different things"
        "give every consul-ecs container one and the same value, once"
        CONFIG;
    CONFIG_FIELD "CONSUL-CONFIG-FIELD" Error
        "a field of CONSUL_ECS_CONFIG_JSON is unknown, missing or of the wrong kind"
        "consul-ecs checks it against its schema first and ends where it does not fit"
        "correct the field as the schema has it"
        CONFIG;
    SERVICE_NAME "CONSUL-SERVICE-NAME" Error
        "the service's name is not one that a login can earn"
        "Consul makes service identities in lower case only: letters, digits, - and _, with a letter or digit at both ends"
        "set service.name (or gateway.name) to such a name, or rename the family that stands in for it"
        CONFIG;
    SERVICE_META "CONSUL-SERVICE-META" Error
        "service.meta replaces what clean-up goes by, or Consul refuses it"
        "task-id, task-arn and source tell which task a registration belongs to; replaced, nothing removes it when the task dies"
        "choose other keys: letters, digits, - and _, at most 128 characters, values at most 512"
        CONFIG;
    SECRET_IN_PLAIN "CONSUL-SECRET-IN-PLAIN-TEXT" Error
        "the task definition holds in plain text what looks like a token or key"
        "everybody who may describe task definitions reads it, for as long as the revision exists"
        "put it into Secrets Manager or Parameter Store, name it under `secrets`, and replace the token or key, which is known by now"
        SECRETS;

    // The login.
    LOGIN_DISABLED "CONSUL-LOGIN-DISABLED" Error
        "consulLogin.enabled is not true while ACLs are on"
        "without a login the task has no token, and every registration is refused"
        "set consulLogin.enabled to true"
        CONFIG;
    LOGIN_STATIC "CONSUL-LOGIN-STATIC-TOKEN" Warning
        "CONSUL_HTTP_TOKEN is set in a task's consul-ecs container"
        "consul-ecs then skips the login: all tasks share one token, which no task's end takes back"
        "take CONSUL_HTTP_TOKEN out and let the task log in"
        CONFIG;
    LOGIN_METHOD "CONSUL-LOGIN-METHOD" Error
        "consulLogin.method names no auth method that exists or is declared"
        "the login is refused, and the task never starts"
        "correct consulLogin.method (left out it is iam-ecs-service-token), or make the auth method"
        AWS_IAM;
    LOGIN_META "CONSUL-LOGIN-META" Error
        "the login's metadata replaces the task's id or cluster"
        "clean-up knows a token's task by consul.hashicorp.com/task-id and /cluster alone: with others in their place the token outlives its task, or another task's goes"
        "take these keys out of consulLogin.meta: consul-ecs sets both"
        CONFIG;
    LOGIN_FLAGS "CONSUL-LOGIN-FLAGS" Error
        "consulLogin.extraLoginFlags changes what kind of login it is, or whose"
        "flags come last and win: another -meta breaks clean-up, another -type, -method or -partition logs in elsewhere"
        "keep only flags that change none of -type, -method, -meta, -token-sink-file and -partition"
        MANUAL;
    LOGIN_ENTITY "CONSUL-LOGIN-ENTITY" Error
        "consulLogin.includeEntity does not fit the auth method's EnableIAMEntityDetails"
        "an auth method that wants the role's details refuses a login without them; without details no tag counts"
        "leave consulLogin.includeEntity out (it is true then), and set EnableIAMEntityDetails on the auth method"
        CONFIG;
    LOGIN_STS "CONSUL-LOGIN-STS" Error
        "consulLogin.stsEndpoint, region or serverIdHeaderValue does not fit the auth method"
        "the server sends the signed request to its own STS endpoint and checks its own header: what was signed for others is refused"
        "give the same stsEndpoint and serverIdHeaderValue here and in the auth method, and the endpoint's Region"
        CONFIG;

    // The servers.
    SERVERS_ADDRESS "CONSUL-SERVERS-ADDRESS" Error
        "the Consul servers' address cannot be one"
        "consulServers.hosts is one IP address, one DNS name or exec=COMMAND, without scheme, port or list; a task's own loopback is no server"
        "write the servers' name or address alone; ports are consulServers.http.port and grpc.port"
        CONFIG;
    SERVERS_TLS "CONSUL-SERVERS-TLS" Warning
        "TLS is on for one of HTTP and gRPC, or on with the port of the other kind"
        "a token crosses the network in the clear, or the first byte is not understood and the task never starts"
        "set consulServers.defaults.tls and http.https alike, with ports 8501 and 8503 for TLS, 8500 and 8502 without"
        CONFIG;
    SERVERS_CA "CONSUL-SERVERS-CA" Warning
        "TLS and CA do not go together"
        "with TLS and no CA only certificates of public CAs are trusted; a CA without TLS protects nothing"
        "give CONSUL_HTTPS_CACERT_PEM and CONSUL_GRPC_CACERT_PEM under `secrets` of the consul-ecs containers, or caCertFile, for both HTTP and gRPC"
        CONFIG;
    SERVERS_NAME "CONSUL-SERVERS-NAME" Info
        "TLS without a server name, to servers that are found by address"
        "the certificate must then name the addresses themselves"
        "set consulServers.defaults.tlsServerName to a name in the certificate, such as server.dc1.consul"
        CONFIG;

    // The task.
    TASK_ROLE_MISSING "CONSUL-TASK-ROLE-MISSING" Error
        "the task definition has no task role"
        "the login proves the task role's identity: without one there is nothing to prove"
        "set taskRoleArn to a role of the service's own (the execution role does not count)"
        TASK_ROLE;
    NETWORK_MODE "CONSUL-NETWORK-MODE" Error
        "the network mode is not awsvpc"
        "consul-ecs registers the task's own address, which only awsvpc gives it"
        "set networkMode to awsvpc"
        MANUAL;
    HEALTH_SYNC "CONSUL-HEALTH-SYNC-CONTAINER" Error
        "healthSyncContainers names a container that is missing or has no health check"
        "its check in Consul begins critical and stays so: the service never gets traffic"
        "name containers of this task definition that have a healthCheck"
        CONFIG;
    TAG_MESH "CONSUL-TASK-TAG-MESH" Warning
        "the task has no tag consul.hashicorp.com/mesh=true"
        "controllers of consul-ecs skip tasks without it, or take their tokens and services away"
        "set the tag on the task definition, and propagateTags to TASK_DEFINITION on the service"
        MANUAL;
    TAG_PARTITION "CONSUL-TASK-TAG-PARTITION" Error
        "consul.hashicorp.com/partition and /namespace are not both there, or not those of the configuration"
        "clean-up looks for the task's token where the tags say; one tag alone is refused by controllers of consul-ecs"
        "set both tags or neither, equal to service.partition and service.namespace"
        MANUAL;
    UPSTREAM_NAME "CONSUL-UPSTREAM-NAME" Error
        "an upstream's name is not one that a service can have"
        "services of logged-in tasks have names in lower case: an upstream of another name never gets an endpoint"
        "correct proxy.upstreams[].destinationName"
        CONFIG;
    UPSTREAM_DUPLICATE "CONSUL-UPSTREAM-DUPLICATE" Error
        "two upstreams have the same destination or the same local address and port"
        "Consul refuses the proxy's registration"
        "keep one upstream for each destination, on a port of its own"
        CONFIG;
    UPSTREAM_PORT "CONSUL-UPSTREAM-PORT" Error
        "an upstream's local port is no port, or is taken in the task already"
        "all containers of a task share one network: the second listener cannot bind"
        "choose a free port from 1 to 65535 for proxy.upstreams[].localBindPort"
        CONFIG;

    // Tasks of the older set-up, with a Consul client of their own.
    AGENT_LOGIN "CONSUL-AGENT-LOGIN" Error
        "the consul-client container's consul login lacks what the auth method or clean-up needs"
        "without the type aws-iam and the role's details it is refused; without the task's id and cluster as -meta its token is never cleaned up"
        "use `consul login -type aws-iam -method … -aws-auto-bearer-token -aws-include-entity -meta consul.hashicorp.com/task-id=… -meta consul.hashicorp.com/cluster=…`"
        MANUAL;
    AGENT_ACL "CONSUL-AGENT-ACL" Error
        "the consul-client container's agent runs without ACLs while they are on"
        "an agent with acl.enabled off sends no token, and the servers refuse it"
        "set acl.enabled = true in the agent's configuration"
        ACL_OF_AGENTS;
    AGENT_TOKEN "CONSUL-AGENT-TOKEN" Error
        "the agent has ACLs on and no acl.tokens.agent"
        "it acts as the anonymous token and cannot register its node"
        "set acl.tokens.agent to the token of the login, not to a fixed one"
        ACL_OF_AGENTS;
    AGENT_POLICY "CONSUL-AGENT-DEFAULT-POLICY" Warning
        "the agent's acl.default_policy is allow"
        "while the servers cannot be reached the agent lets everybody do everything"
        "set acl.default_policy = \"deny\""
        ACL_OF_AGENTS;
    AGENT_CA "CONSUL-AGENT-CA" Warning
        "the agent has no CA, or does not check the servers' certificates"
        "without ca_file and verify_outgoing it speaks in the clear or believes anybody"
        "set tls.defaults.ca_file (before 1.12: ca_file) and verify_outgoing = true"
        TLS_OF_AGENTS;
    AGENT_PARTITION "CONSUL-AGENT-PARTITION" Error
        "the agent's partition is not that of the task's service"
        "a client serves one partition: registrations for another are refused"
        "set the same partition for the agent, the login and service.partition"
        MANUAL;
    AGENT_AUDIT "CONSUL-AGENT-AUDIT" Warning
        "the agent's audit stanza logs nothing, or not for sure"
        "Enterprise's audit log needs `enabled = true` and a sink of type file with format json, a path and a delivery guarantee; the open-source agent does not know the stanza"
        "complete the sink, or take the stanza out"
        AUDIT_LOG;

    // The role.
    ROLE_MISSING "CONSUL-ROLE-MISSING" Error
        "the task role does not exist"
        "ECS cannot start the task"
        "make the role, or correct taskRoleArn"
        TASK_ROLE;
    ROLE_UNREADABLE "CONSUL-ROLE-UNREADABLE" Unknown
        "the task role could not be read"
        "its tags are the service's identity and were not judged"
        "give whoever runs the audit iam:GetRole on the tasks' roles"
        TASK_ROLE;
    ROLE_SERVICE "CONSUL-ROLE-TAG-SERVICE" Error
        "the role's tag consul.hashicorp.com.service-name is missing or names another service"
        "the login binds the token to the tag's value in lower case: without it the login fails, with another the task may not register its own service"
        "aws iam tag-role --role-name ROLE --tags Key=consul.hashicorp.com.service-name,Value=SERVICE"
        AWS_IAM;
    ROLE_NAMESPACE "CONSUL-ROLE-TAG-NAMESPACE" Error
        "the role's tag consul.hashicorp.com.namespace is not the service's namespace"
        "the login's token is made in the tag's namespace, or the default one, and reaches no other"
        "aws iam tag-role --role-name ROLE --tags Key=consul.hashicorp.com.namespace,Value=NAMESPACE"
        MANUAL;
    ROLE_GATEWAY "CONSUL-ROLE-TAG-GATEWAY" Error
        "the role's tag consul.hashicorp.com.gateway-kind is unknown or not the gateway's kind"
        "the gateway's rights come from this tag: api-gateway, terminating-gateway or mesh-gateway"
        "set the tag to gateway.kind, or take it off where the task is no gateway"
        AWS_IAM;
    ROLE_PATH "CONSUL-ROLE-PATH" Error
        "the role is outside the auth method's bound principals"
        "Consul does not trust it, and refuses the login"
        "make the role under the bound path (by default /consul-ecs/), or add it to BoundIAMPrincipalARNs"
        AWS_IAM;
    ROLE_ACCOUNT "CONSUL-ROLE-ACCOUNT" Error
        "the role is of another account than the task"
        "ECS gives a task roles of its own account only"
        "use a role of the task's account"
        TASK_ROLE;
    ROLE_GET_ROLE "CONSUL-ROLE-GET-ROLE" Error
        "the role may not read itself"
        "the login carries an iam:GetRole call that the role signs for itself: denied, the login fails"
        "allow the role iam:GetRole on its own ARN"
        AWS_IAM;
    ROLE_SHARED "CONSUL-ROLE-SHARED" Warning
        "several services share a task role"
        "the role's tag names one service: tasks of the others cannot log in as themselves"
        "give each service a role of its own"
        MANUAL;

    // The control plane.
    ACLS_OFF "CONSUL-ACLS-OFF" Error
        "ACLs are off, and tasks log in or a ConsulAuth declares whom to let in"
        "there are no logins then, and everybody who reaches the servers may do everything"
        "turn ACLs on (acl.enabled, default_policy deny) or, where that is meant, set consulLogin.enabled to false and leave out the ConsulAuth"
        ACL_OF_AGENTS;
    SERVER_VERSION "CONSUL-SERVER-VERSION" Error
        "the Consul server is older than 1.12"
        "auth methods of type aws-iam came with 1.12"
        "upgrade the servers"
        AWS_IAM;
    METHOD_MISSING "CONSUL-AUTH-METHOD-MISSING" Error
        "there is no auth method of type aws-iam"
        "no task can log in"
        "make one: the operator does from its manifests, or `consul acl auth-method create -type aws-iam`"
        AWS_IAM;
    METHOD_TYPE "CONSUL-AUTH-METHOD-TYPE" Error
        "the auth method that tasks log in to is of another type than aws-iam"
        "it does not understand what consul-ecs sends"
        "delete it (which deletes its tokens) and make one of type aws-iam, or name another in consulLogin.method"
        AWS_IAM;
    METHOD_TAGS "CONSUL-AUTH-METHOD-TAGS" Error
        "IAMEntityTags lacks a tag that a rule's name or namespace is made of"
        "the name comes out empty, and the login fails"
        "add the tag to IAMEntityTags"
        AWS_IAM;
    METHOD_WILDCARD "CONSUL-AUTH-METHOD-WILDCARD" Error
        "a bound principal has a wildcard that never matches"
        "wildcards count only with EnableIAMEntityDetails, once, at the end"
        "set EnableIAMEntityDetails to true and write one * at the end"
        AWS_IAM;
    METHOD_WHOLE_ACCOUNT "CONSUL-AUTH-METHOD-WHOLE-ACCOUNT" Warning
        "a bound principal is every role of an account"
        "whoever may make or tag any role there gets into the mesh as any service"
        "bind a path of its own, such as role/consul-ecs/*, and protect it"
        AWS_IAM;
    METHOD_FOREIGN "CONSUL-AUTH-METHOD-FOREIGN-ACCOUNT" Warning
        "a bound principal is of an account in which no bound cluster is"
        "that account's roles get into the mesh, and nobody here sees their tasks"
        "take the principal out, or bind the account's clusters"
        AWS_IAM;
    RULE_NONE "CONSUL-BINDING-RULE-MISSING" Error
        "the auth method has no rule that binds services"
        "a login that no rule matches is refused"
        "make a rule of type service with the name ${entity_tags.consul.hashicorp.com.service-name}"
        BINDING_RULES;
    RULE_SELECTOR "CONSUL-BINDING-RULE-SELECTOR" Error
        "a binding rule selects by a tag that is not in IAMEntityTags"
        "the tag is then always empty: the rule matches nothing, or everything"
        "add the tag to IAMEntityTags, or correct the selector"
        BINDING_RULES;
    RULE_ROLE "CONSUL-BINDING-RULE-ROLE" Error
        "a binding rule binds a role that does not exist"
        "Consul accepts the rule and leaves the role out at login: the token lacks its rights"
        "make the role, or correct the rule's BindName"
        BINDING_RULES;
    RULE_DUPLICATE "CONSUL-BINDING-RULE-DUPLICATE" Warning
        "a binding rule is there twice"
        "who corrects or deletes one leaves the other in force"
        "delete all but one"
        BINDING_RULES;
    ANONYMOUS "CONSUL-ANONYMOUS-POWER" Error
        "the anonymous token may write, or read ACLs or the operator's settings"
        "anybody who reaches the servers is the anonymous token"
        "leave it node and service read at most, which federation by mesh gateways needs"
        ACL_RULES;
    NODE_MISSING "CONSUL-NODE-MISSING" Error
        "a bound cluster has no node in the catalog"
        "tasks register on it and may not make it: new tasks are refused"
        "run the operator, or register a node named as the cluster's ARN with the meta synthetic-node=true"
        ARCHITECTURE;
    OUTBOUND_UNREACHED "CONSUL-OUTBOUND-UNREACHED" Warning
        "the manifests let the workload call a service that its proxy.upstreams does not have"
        "the sidecar listens only for its own upstreams: the app gets no connection"
        "add the upstream to the task definition, or take the outbound out of the OutboundList"
        CONFIG;
    UPSTREAM_UNLISTED "CONSUL-UPSTREAM-UNLISTED" Warning
        "the task has an upstream that no OutboundList of its workload names"
        "who reads the manifests does not see that it calls this service"
        "add the outbound to an OutboundList, or take the upstream out"
        CONFIG;
}

/// The rule of this id.
pub fn by_id(id: &str) -> Option<&'static AuditRule> {
    ALL.iter().find(|rule| rule.id == id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The rows as they must stand on the page.
    fn rows() -> String {
        let row = |rule: &AuditRule| {
            let [title, why, fix] = [rule.title, rule.rationale, rule.fix].map(|text| text.replace('|', "\\|"));
            format!("| `{}` | {} | {title} | {why} | {fix} |\n", rule.id, rule.severity.as_str())
        };
        ALL.iter().map(row).collect()
    }

    #[test]
    fn rules_page_lists_exactly_all_rules() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/audit.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- rules -->\n", "<!-- /rules -->");
        let (before, rest) = page.split_once(begin).unwrap();
        let (found, after) = rest.split_once(end).unwrap();
        let head =
            "| rule | severity | what is wrong | why it matters | what to do |\n|---|---|---|---|---|\n";
        let wanted = format!("{head}{}", rows());
        if std::env::var("INSTA_UPDATE").as_deref() == Ok("always") {
            std::fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        } else {
            assert_eq!(found, wanted, "docs/reference/audit.md is not current: make golden");
        }
    }

    #[test]
    fn no_id_is_there_twice_and_every_rule_is_explained() {
        assert_eq!(ALL.iter().map(|rule| rule.id).collect::<BTreeSet<_>>().len(), ALL.len());
        for rule in ALL {
            assert!(rule.id.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'), "{}", rule.id);
            assert!(![rule.title, rule.rationale, rule.fix].contains(&""), "{}", rule.id);
            assert!(rule.source.starts_with("https://"), "{}", rule.id);
        }
    }
}
