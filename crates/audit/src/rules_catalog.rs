//! Every rule, in the order of the reference.
//!
//! A test generates the rules section of `docs/reference/audit.md` from this catalogue and compares it.

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
const KONG_IAM: &str = "https://developer.konghq.com/mesh/iam-authentication/";
const KONG_ECS: &str = "https://developer.konghq.com/mesh/ecs/";
const KUMA_UPGRADE: &str = "https://github.com/kumahq/kuma/blob/master/UPGRADE.md";
const KUMA_DATAPLANE: &str =
    "https://github.com/kumahq/kuma/blob/master/pkg/core/resources/apis/mesh/dataplane_validator.go";
const KUMA_DP_CONFIG: &str = "https://github.com/kumahq/kuma/blob/master/pkg/config/app/kuma-dp/config.go";
const KUMA_SERVICES: &str = "https://kuma.io/docs/latest/networking/meshservice/";
const DATAPLANE_OWNER: &str =
    concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/how-to/dataplane-owner.md");
const ZONE_PROXIES: &str =
    concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/how-to/gateways-and-zone-proxies.md");
const MANIFESTS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/reference/manifests.md");
const ROLE_TAG_CONDITIONS: &str = "https://docs.aws.amazon.com/IAM/latest/UserGuide/access_tags.html";
const SECRETS: &str =
    "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/specifying-sensitive-data.html";

macro_rules! catalogue {
    ($($group:literal {
        $($const:ident $id:literal $severity:ident $title:literal $rationale:literal $fix:literal $source:ident;)*
    })*) => {
        $($(
            #[doc = concat!("The rule `", $id, "`.")]
            pub const $const: AuditRule = AuditRule {
                id: $id,
                group: $group,
                severity: Severity::$severity,
                title: $title,
                rationale: $rationale,
                fix: $fix,
                source: $source,
            };
        )*)*
        /// All rules, in the order of the reference.
        pub const ALL: &[AuditRule] = &[$($($const,)*)*];
    };
}

catalogue! {
    "Input" {
        DEFINITION_UNREADABLE "TASK-DEFINITION-UNREADABLE" Error
            "a task definition cannot be read"
            "an unreadable task definition is not checked"
            "give the JSON that `aws ecs register-task-definition --cli-input-json` takes or `aws ecs describe-task-definition` prints"
            TASK_DEFINITION;
        MANIFEST_INVALID "MANIFEST-INVALID" Error
            "a manifest has an error"
            "an invalid manifest has no effect, here and in the operator"
            "correct the field that the message names"
            CONFIG;
        NOT_IN_MESH "NOT-IN-MESH" Info
            "a task definition has no sign of Kuma or Consul"
            "no rule applies to the task definition"
            "nothing; if the task should be in the mesh, add the sidecar, and a MeshBinding or the consul-ecs containers"
            MANUAL;
        AWS_UNKNOWN "AUDIT-AWS-NO-ANSWER" Unknown
            "ECS or IAM did not answer"
            "roles, their tags and running tasks are not checked"
            "set a Region and credentials, and run the audit again"
            TASK_ROLE;
        PLANE_UNKNOWN "AUDIT-CONTROL-PLANE-NO-ANSWER" Unknown
            "Kuma or Consul did not answer, or the manifests name neither"
            "facts that are read there are checked against the manifests alone, or not at all: services, versions and upgrades at Kuma; auth methods, binding rules, policies and nodes at Consul"
            "give --manifests with a ControlPlane, a token that may read (at Consul also ACLs), and a MeshBinding"
            AWS_IAM;
    }
    "Configuration of consul-ecs" {
        CONFIG_MISSING "CONSUL-CONFIG-MISSING" Error
            "CONSUL_ECS_CONFIG_JSON is missing or empty in a task of the mesh"
            "consul-ecs takes all its settings from it and exits without it, so the task never starts"
            "set CONSUL_ECS_CONFIG_JSON in `environment` of the consul-ecs containers"
            CONFIG;
        CONFIG_NOT_JSON "CONSUL-CONFIG-NOT-JSON" Error
            "CONSUL_ECS_CONFIG_JSON is not a JSON object"
            "consul-ecs refuses the value and exits, so the task never starts"
            "write one JSON object, encoded as one string"
            CONFIG;
        CONFIG_DIFFERS "CONSUL-CONFIG-DUPLICATED" Error
            "CONSUL_ECS_CONFIG_JSON is set more than once, with different values"
            "registration, health sync and logout then use different settings"
            "give every consul-ecs container the same value, once"
            CONFIG;
        CONFIG_FIELD "CONSUL-CONFIG-FIELD" Error
            "a field of CONSUL_ECS_CONFIG_JSON is unknown, missing or of the wrong kind"
            "consul-ecs validates the value against its schema first and exits on an error"
            "correct the field according to the schema"
            CONFIG;
        SERVICE_NAME "CONSUL-SERVICE-NAME" Error
            "the service's name is not one that a login can get"
            "Consul makes service identities in lower case only: letters, digits, - and _, with a letter or digit at both ends"
            "set service.name (or gateway.name) to such a name, or rename the family that is used instead"
            CONFIG;
        SERVICE_META "CONSUL-SERVICE-META" Error
            "service.meta replaces keys that clean-up needs, or Consul refuses it"
            "task-id, task-arn and source name the task of a registration; if they are replaced, the registration is never removed"
            "choose other keys: letters, digits, - and _, at most 128 characters, values at most 512"
            CONFIG;
    }
    "Login" {
        LOGIN_DISABLED "CONSUL-LOGIN-DISABLED" Error
            "consulLogin.enabled is not true while ACLs are on"
            "without a login the task has no token, and every registration is refused"
            "set consulLogin.enabled to true"
            CONFIG;
        LOGIN_STATIC "CONSUL-LOGIN-STATIC-TOKEN" Warning
            "CONSUL_HTTP_TOKEN is set in a task's consul-ecs container"
            "consul-ecs then skips the login: all tasks share one token, which no task revokes at its end"
            "remove CONSUL_HTTP_TOKEN and let the task log in"
            CONFIG;
        LOGIN_METHOD "CONSUL-LOGIN-METHOD" Error
            "consulLogin.method names an auth method that neither exists nor is declared"
            "Consul refuses the login, and the task never starts"
            "correct consulLogin.method (default: iam-ecs-service-token), or create the auth method"
            AWS_IAM;
        LOGIN_META "CONSUL-LOGIN-META" Error
            "the login's metadata replaces the task's id or cluster"
            "clean-up finds a token's task by consul.hashicorp.com/task-id and /cluster alone: with other values the token outlives its task, or another task's token is removed"
            "remove these keys from consulLogin.meta: consul-ecs sets both"
            CONFIG;
        LOGIN_FLAGS "CONSUL-LOGIN-FLAGS" Error
            "consulLogin.extraLoginFlags changes the kind or the target of the login"
            "flags come last and win: another -meta breaks clean-up; another -type, -method or -partition logs in elsewhere"
            "keep only flags that change none of -type, -method, -meta, -token-sink-file and -partition"
            MANUAL;
        LOGIN_ENTITY "CONSUL-LOGIN-ENTITY" Error
            "consulLogin.includeEntity does not fit the auth method's EnableIAMEntityDetails"
            "an auth method that needs the role's details refuses a login without them; without details no tag is used"
            "leave out consulLogin.includeEntity (default: true), and set EnableIAMEntityDetails on the auth method"
            CONFIG;
        LOGIN_STS "CONSUL-LOGIN-STS" Error
            "consulLogin.stsEndpoint, region or serverIdHeaderValue does not fit the auth method"
            "the server sends the signed request to its own STS endpoint and checks its own header: a request signed for others is refused"
            "give the same stsEndpoint and serverIdHeaderValue here and in the auth method, and the endpoint's Region"
            CONFIG;
    }
    "Consul servers' address" {
        SERVERS_ADDRESS "CONSUL-SERVERS-ADDRESS" Error
            "the address of the Consul servers is not valid"
            "consulServers.hosts is one IP address, one DNS name or exec=COMMAND, without scheme, port or list; a task's own loopback is no server"
            "give the servers' name or address alone; ports are consulServers.http.port and grpc.port"
            CONFIG;
        SERVERS_TLS "CONSUL-SERVERS-TLS" Warning
            "TLS is on for one of HTTP and gRPC, or the port does not fit"
            "a token crosses the network unencrypted, or the handshake fails and the task never starts"
            "set consulServers.defaults.tls and http.https alike, with ports 8501 and 8503 for TLS, 8500 and 8502 without"
            CONFIG;
        SERVERS_CA "CONSUL-SERVERS-CA" Warning
            "TLS and CA do not fit together"
            "with TLS and no CA only certificates of public CAs are trusted; a CA without TLS protects nothing"
            "give CONSUL_HTTPS_CACERT_PEM and CONSUL_GRPC_CACERT_PEM under `secrets` of the consul-ecs containers, or caCertFile, for both HTTP and gRPC"
            CONFIG;
        SERVERS_NAME "CONSUL-SERVERS-NAME" Info
            "TLS is on without a server name, and the servers are found by address"
            "the certificate must then name the addresses themselves"
            "set consulServers.defaults.tlsServerName to a name in the certificate, such as server.dc1.consul"
            CONFIG;
    }
    "Task definition" {
        TASK_ROLE_MISSING "TASK-ROLE-MISSING" Error
            "the task definition has no task role"
            "a sidecar or a login proves the task role's identity, which a task without a role does not have"
            "set taskRoleArn to the service's own role (the execution role does not count)"
            TASK_ROLE;
        NETWORK_MODE "NETWORK-MODE" Error
            "the network mode is not awsvpc"
            "the mesh registers the task's own address, which only awsvpc gives it"
            "set networkMode to awsvpc"
            MANUAL;
        SECRET_IN_PLAIN "SECRET-IN-PLAIN-TEXT" Error
            "the task definition contains a probable token or key in plain text"
            "everyone who may describe task definitions can read it, as long as the revision exists"
            "move it to Secrets Manager or Parameter Store, reference it under `secrets`, and rotate the exposed value"
            SECRETS;
        HEALTH_SYNC "CONSUL-HEALTH-SYNC-CONTAINER" Error
            "healthSyncContainers names a container that is missing or has no health check"
            "the container's check in Consul starts critical and stays critical: the service never gets traffic"
            "name containers of this task definition that have a healthCheck"
            CONFIG;
        TAG_MESH "CONSUL-TASK-TAG-MESH" Warning
            "the task has no tag consul.hashicorp.com/mesh=true"
            "the consul-ecs controller skips tasks without it, or removes their tokens and services"
            "set the tag on the task definition, and propagateTags to TASK_DEFINITION on the service"
            MANUAL;
        TAG_PARTITION "CONSUL-TASK-TAG-PARTITION" Error
            "consul.hashicorp.com/partition and /namespace are incomplete, or differ from the configuration"
            "clean-up looks for the task's token in the tagged partition and namespace; the consul-ecs controller refuses one tag alone"
            "set both tags or neither, equal to service.partition and service.namespace"
            MANUAL;
        UPSTREAM_NAME "CONSUL-UPSTREAM-NAME" Error
            "an upstream's name is not a possible service name"
            "services of logged-in tasks have lower-case names: an upstream with another name never gets an endpoint"
            "correct proxy.upstreams[].destinationName"
            CONFIG;
        UPSTREAM_DUPLICATE "CONSUL-UPSTREAM-DUPLICATE" Error
            "two upstreams have the same destination"
            "Consul refuses the proxy's registration"
            "keep one upstream for each destination"
            CONFIG;
        UPSTREAM_PORT "CONSUL-UPSTREAM-PORT" Error
            "an upstream's local port is not a port"
            "the sidecar cannot listen there"
            "choose a free port from 1 to 65535 for proxy.upstreams[].localBindPort"
            CONFIG;
        PORT_CLASH "PORT-CLASH" Error
            "two listeners of a task have the same port"
            "all containers of a task share one network: the second listener cannot bind, and no control plane says so"
            "give one of them another port: an outbound, an upstream, an inbound, the app or the sidecar"
            KUMA_DATAPLANE;
    }
    "Sidecar" {
        SIDECAR_AUTHENTICATION "KUMA-SIDECAR-AUTHENTICATION" Error
            "the sidecar proves its identity neither by the task role nor by a token"
            "a control plane that authenticates sidecars refuses it, and one that does not lets every client join as any service"
            "start kuma-dp with --auth-type=aws (Kong Mesh), or with --dataplane-token-file or KUMA_DATAPLANE_RUNTIME_TOKEN from a secret"
            KONG_ECS;
        SIDECAR_NAME "KUMA-SIDECAR-NAME" Error
            "the sidecar has no name, or the same one in every task"
            "a Dataplane is registered for each task by MeshBinding.spec.dataplaneName, and the sidecar connects to the one that --name names: several tasks would share it"
            "start kuma-dp with --name and the task's id, which a shell reads from $ECS_CONTAINER_METADATA_URI_V4/task"
            KONG_ECS;
        SIDECAR_MESH "KUMA-SIDECAR-MESH" Error
            "the sidecar joins another mesh than the MeshBinding's"
            "the control plane does not find the sidecar's Dataplane in the other mesh: the sidecar retries for 5 minutes and exits"
            "give --mesh or KUMA_DATAPLANE_MESH the mesh of the MeshBinding (default: default)"
            KUMA_DP_CONFIG;
        SIDECAR_OWNER "KUMA-SIDECAR-OWNER" Error
            "the sidecar gets its Dataplane in another way than dataplanes says"
            "a sidecar with a template overwrites the Dataplane of the operator, which holds the task; one that starts by name waits 5 minutes for a Dataplane that the operator does not create, and exits"
            "set dataplanes of the Workload or the MeshBinding to sidecar where the sidecar has a template, and to operator where it starts by name"
            DATAPLANE_OWNER;
        SIDECAR_REACH "KUMA-SIDECAR-REACH" Warning
            "the sidecar gets its outbounds in another way than Workload.spec.reach says"
            "a sidecar with --bind-outbounds ignores declared listeners, and one without it binds no service"
            "set Workload.spec.reach to bindOutbounds where the sidecar has --bind-outbounds, and to outbounds where it has not"
            MANIFESTS;
        SIDECAR_HEALTH_CHECK "KUMA-SIDECAR-HEALTH-CHECK" Warning
            "the sidecar's health check asks Envoy's admin port"
            "since 2.14 Envoy's admin API is a Unix domain socket by default: the check fails, and ECS stops the task"
            "ask kuma-dp's readiness port: 9902, or the one in KUMA_READINESS_PORT"
            KUMA_UPGRADE;
        SIDECAR_STOP "KUMA-SIDECAR-STOP-TIMEOUT" Warning
            "the sidecar is killed before its connections have drained"
            "kuma-dp drains for 30 seconds after SIGTERM, or for --drain-time, and ECS sends SIGKILL after stopTimeout: open requests are cut"
            "raise stopTimeout of the sidecar (at most 120 on Fargate), or lower --drain-time"
            KUMA_DP_CONFIG;
        SIDECAR_ESSENTIAL "SIDECAR-NOT-ESSENTIAL" Warning
            "a container of the mesh is not essential"
            "when it stops, the task goes on without the mesh and ECS does not replace it: calls fail, or its health is not updated any more. HashiCorp's Terraform module sets essential to false for Consul's containers, so for these the finding is information"
            "set essential to true, or give the container a health check that an essential container depends on"
            TASK_DEFINITION;
        SIDECAR_ORDER "SIDECAR-ORDER" Warning
            "an app container does not depend on its sidecar"
            "the app starts before its outbounds exist, and at the task's end the sidecar may stop first, which cuts requests"
            "add the sidecar to the app's dependsOn, with the condition HEALTHY, or START if it has no healthCheck"
            TASK_DEFINITION;
    }
    "Consul client agents" {
        AGENT_LOGIN "CONSUL-AGENT-LOGIN" Error
            "the consul-client container's `consul login` lacks flags that the auth method or clean-up needs"
            "without -type aws-iam and the role's details the login is refused; without the task's id and cluster as -meta the token is never cleaned up"
            "use `consul login -type aws-iam -method … -aws-auto-bearer-token -aws-include-entity -meta consul.hashicorp.com/task-id=… -meta consul.hashicorp.com/cluster=…`"
            MANUAL;
        AGENT_ACL "CONSUL-AGENT-ACL" Error
            "the consul-client container's agent has ACLs off while the servers have them on"
            "such an agent sends no token, and the servers refuse its requests"
            "set acl.enabled = true in the agent's configuration"
            ACL_OF_AGENTS;
        AGENT_TOKEN "CONSUL-AGENT-TOKEN" Error
            "the agent has ACLs on and no acl.tokens.agent"
            "the agent uses the anonymous token and cannot register its node"
            "set acl.tokens.agent to the token of the login, not to a fixed one"
            ACL_OF_AGENTS;
        AGENT_POLICY "CONSUL-AGENT-DEFAULT-POLICY" Warning
            "the agent's acl.default_policy is allow"
            "while the servers are unreachable, the agent allows every request"
            "set acl.default_policy = \"deny\""
            ACL_OF_AGENTS;
        AGENT_CA "CONSUL-AGENT-CA" Warning
            "the agent has no CA, or does not check the servers' certificates"
            "without ca_file and verify_outgoing the agent's traffic is unencrypted, or it trusts any server"
            "set tls.defaults.ca_file (before 1.12: ca_file) and verify_outgoing = true"
            TLS_OF_AGENTS;
        AGENT_PARTITION "CONSUL-AGENT-PARTITION" Error
            "the agent's partition is not that of the task's service"
            "a client serves one partition: registrations for another are refused"
            "set the same partition for the agent, the login and service.partition"
            MANUAL;
        AGENT_AUDIT "CONSUL-AGENT-AUDIT" Warning
            "the agent's audit stanza logs nothing, or not reliably"
            "Enterprise's audit log needs `enabled = true` and a sink of type file with format json, a path and a delivery guarantee; the open-source agent does not know the stanza"
            "complete the sink, or remove the stanza"
            AUDIT_LOG;
    }
    "Task role" {
        ROLE_MISSING "ROLE-MISSING" Error
            "the task role does not exist"
            "ECS cannot start the task"
            "create the role, or correct taskRoleArn"
            TASK_ROLE;
        ROLE_UNREADABLE "ROLE-UNREADABLE" Unknown
            "the task role could not be read"
            "the role's tags are the service's identity and were not checked"
            "allow the caller iam:GetRole on the tasks' roles"
            TASK_ROLE;
        ROLE_SERVICE "CONSUL-ROLE-TAG-SERVICE" Error
            "the role's tag consul.hashicorp.com.service-name is missing or names another service"
            "the login binds the token to the tag's value in lower case: without the tag the login fails, with another value the task may not register its own service"
            "aws iam tag-role --role-name ROLE --tags Key=consul.hashicorp.com.service-name,Value=SERVICE"
            AWS_IAM;
        ROLE_NAMESPACE "CONSUL-ROLE-TAG-NAMESPACE" Error
            "the role's tag consul.hashicorp.com.namespace is not the service's namespace"
            "the login's token is created in the tag's namespace, or the default one, and is valid in no other"
            "aws iam tag-role --role-name ROLE --tags Key=consul.hashicorp.com.namespace,Value=NAMESPACE"
            MANUAL;
        ROLE_GATEWAY "CONSUL-ROLE-TAG-GATEWAY" Error
            "the role's tag consul.hashicorp.com.gateway-kind is unknown or not the gateway's kind"
            "the gateway's rights come from this tag: api-gateway, terminating-gateway or mesh-gateway"
            "set the tag to gateway.kind, or remove it if the task is no gateway"
            AWS_IAM;
        ROLE_PATH "CONSUL-ROLE-PATH" Error
            "the role is outside the auth method's bound principals"
            "Consul does not trust the role and refuses the login"
            "create the role under the bound path (default: /consul-ecs/), or add it to BoundIAMPrincipalARNs"
            AWS_IAM;
        ROLE_ACCOUNT "ROLE-ACCOUNT" Error
            "the role belongs to another account than the task"
            "ECS gives a task roles of its own account only"
            "use a role of the task's account"
            TASK_ROLE;
        ROLE_GET_ROLE "CONSUL-ROLE-GET-ROLE" Error
            "the role may not read itself"
            "the login includes an iam:GetRole request that the role signs for itself: if that is denied, the login fails"
            "allow the role iam:GetRole on its own ARN"
            AWS_IAM;
        ROLE_SHARED "CONSUL-ROLE-SHARED" Warning
            "several services share a task role"
            "the role's tag names one service: tasks of the others cannot log in as themselves"
            "give each service a role of its own"
            MANUAL;
    }
    "Role tags at Kuma" {
        KUMA_ROLE_TAG "KUMA-ROLE-TAG" Error
            "a task role lacks a tag that its tasks need, or has another value"
            "Kong Mesh's aws-iam authentication refuses the sidecar, and the operator does not register the task. In a MeshBinding with roleTags.mode warn, it is a warning"
            "tag the role with kuma.io/type, kuma.io/mesh and, if the role is for one service, kuma.io/service"
            KONG_IAM;
        KUMA_ROLE_ACCOUNT "KUMA-ROLE-ACCOUNT" Error
            "the task role belongs to an account that the MeshBinding does not authorise"
            "Kong Mesh accepts roles of its authorised accounts only, and so does the operator"
            "add the account to spec.roleTags.authorizedAccounts of the MeshBinding, and to KMESH_AWSIAM_AUTHORIZEDACCOUNTIDS"
            KONG_IAM;
        KUMA_ROLE_TAG_UNUSED "KUMA-ROLE-TAG-UNUSED" Warning
            "a role has a mesh tag that no MeshBinding and no Workload allows"
            "every task with this role can be in that mesh as that service, which the manifests do not ask for; or the tag is misspelt, and does nothing"
            "aws iam untag-role, correct the tag, or add the MeshBinding or Workload that is missing"
            KONG_IAM;
    }
    "Permissions" {
        MESH_TAGS_UNRESTRICTED "MESH-TAGS-UNRESTRICTED" Warning
            "principals may give any role the tags of the mesh"
            "the tags of a task's role are its identity in the mesh: who may set them can put any task into the mesh as any service. Where the account belongs to an organisation, it is information, since service control policies are not read"
            "deny iam:TagRole, iam:CreateRole and iam:UntagRole with these keys in aws:TagKeys to all but the pipeline that sets them (how-to/protect-role-tags.md)"
            ROLE_TAG_CONDITIONS;
    }
    "Workloads" {
        WORKLOAD_UNUSED "WORKLOAD-UNUSED" Warning
            "a Workload selects no task and no service"
            "it is a leftover, or a slip in its selector keeps tasks out of the mesh"
            "correct spec.selector, or remove the Workload"
            MANIFESTS;
        WORKLOAD_AMBIGUOUS "WORKLOAD-AMBIGUOUS" Error
            "several MeshBindings or Workloads select the same tasks"
            "the operator leaves the registrations of such tasks as they are, and registers no new ones"
            "narrow the selectors so that one MeshBinding and one Workload select a task"
            MANIFESTS;
        WORKLOAD_TAGS "WORKLOAD-TAGS" Error
            "ECS tags or docker labels describe a task wrongly"
            "the operator registers no such task, and leaves existing registrations as they are"
            "correct the tag or label that the finding names (how-to/describe-tasks-by-tags.md), and deploy"
            MANIFESTS;
        WORKLOAD_CLAIM "WORKLOAD-CLAIM" Error
            "tags claim a service that the task may not have"
            "the operator does not register the task, and withdraws it where it is registered"
            "correct the tag, or let the task's role path or account claim the service by spec.claims of the MeshBinding"
            MANIFESTS;
        KUMA_OUTBOUND_NOWHERE "KUMA-OUTBOUND-NOWHERE" Warning
            "an outbound calls a service or port that nothing in the mesh provides"
            "the app gets no connection, and Kuma accepts such an outbound without an error"
            "correct spec.outbounds[].service and targetPort (the inbound's port, not its containerPort)"
            KUMA_SERVICES;
        KUMA_NOT_EXPRESSIBLE "KUMA-NOT-EXPRESSIBLE" Error
            "the version of Kuma has no form for a Workload"
            "the operator does not register its tasks, since Kuma would drop a part without an error"
            "change the Workload, or upgrade Kuma"
            KUMA_UPGRADE;
        KUMA_INGRESS_ADDRESS "KUMA-INGRESS-ADDRESS" Warning
            "a zone ingress with a listener has no MeshZoneAddress in its mesh"
            "other zones do not find the ingress, and the services of this zone have no endpoints there. Kuma creates the address on Kubernetes alone"
            "create a MeshZoneAddress with the address of the load balancer in front of the ingress (how-to/gateways-and-zone-proxies.md)"
            ZONE_PROXIES;
        KUMA_UPGRADE_BLOCKED "KUMA-UPGRADE-BLOCKED" Warning
            "something blocks the upgrade of Kuma"
            "it works today, and breaks or loses traffic with the version of --target-version"
            "change it before the upgrade (how-to/upgrade-kuma.md); `plan --target-version` shows what a run would change"
            KUMA_UPGRADE;
    }
    "Consul" {
        ACLS_OFF "CONSUL-ACLS-OFF" Error
            "ACLs are off although tasks log in or a ConsulAuth is declared"
            "logins are impossible, and every client that reaches the servers may do everything"
            "turn ACLs on (acl.enabled, default_policy deny); or, if ACLs are off on purpose, set consulLogin.enabled to false and leave out the ConsulAuth"
            ACL_OF_AGENTS;
        SERVER_VERSION "CONSUL-SERVER-VERSION" Error
            "the Consul server is older than 1.12"
            "auth methods of type aws-iam came with 1.12"
            "upgrade the servers"
            AWS_IAM;
        METHOD_MISSING "CONSUL-AUTH-METHOD-MISSING" Error
            "there is no auth method of type aws-iam"
            "no task can log in"
            "declare a ConsulAuth, or run `consul acl auth-method create -type aws-iam`"
            AWS_IAM;
        METHOD_TYPE "CONSUL-AUTH-METHOD-TYPE" Error
            "the tasks' auth method is not of type aws-iam"
            "other types do not accept consul-ecs's logins"
            "delete it (which deletes its tokens) and create one of type aws-iam, or name another in consulLogin.method"
            AWS_IAM;
        METHOD_TAGS "CONSUL-AUTH-METHOD-TAGS" Error
            "IAMEntityTags lacks a tag that a rule's name or namespace uses"
            "the name is empty, and the login fails"
            "add the tag to IAMEntityTags"
            AWS_IAM;
        METHOD_WILDCARD "CONSUL-AUTH-METHOD-WILDCARD" Error
            "a bound principal has a wildcard that never matches"
            "a wildcard works only with EnableIAMEntityDetails, once, at the end"
            "set EnableIAMEntityDetails to true and write one * at the end"
            AWS_IAM;
        METHOD_WHOLE_ACCOUNT "CONSUL-AUTH-METHOD-WHOLE-ACCOUNT" Warning
            "a bound principal is every role of an account"
            "everyone who may create or tag a role there can join the mesh as any service"
            "bind a dedicated path, such as role/consul-ecs/*, and protect it"
            AWS_IAM;
        METHOD_FOREIGN "CONSUL-AUTH-METHOD-FOREIGN-ACCOUNT" Warning
            "a bound principal belongs to an account without a bound cluster"
            "that account's roles can join the mesh, and their tasks are not visible here"
            "remove the principal, or bind the account's clusters"
            AWS_IAM;
        RULE_NONE "CONSUL-BINDING-RULE-MISSING" Error
            "the auth method has no rule that binds services"
            "a login that no rule matches is refused"
            "create a rule of type service with the name ${entity_tags.consul.hashicorp.com.service-name}"
            BINDING_RULES;
        RULE_SELECTOR "CONSUL-BINDING-RULE-SELECTOR" Error
            "a binding rule selects by a tag that is not in IAMEntityTags"
            "the tag is then always empty: the rule matches nothing, or everything"
            "add the tag to IAMEntityTags, or correct the selector"
            BINDING_RULES;
        RULE_ROLE "CONSUL-BINDING-RULE-ROLE" Error
            "a binding rule binds a role that does not exist"
            "Consul accepts the rule and omits the role at login: the token lacks its permissions"
            "create the role, or correct the rule's BindName"
            BINDING_RULES;
        RULE_DUPLICATE "CONSUL-BINDING-RULE-DUPLICATE" Warning
            "a binding rule exists twice"
            "a change of one leaves the other in force"
            "delete all but one"
            BINDING_RULES;
        ANONYMOUS "CONSUL-ANONYMOUS-POWER" Error
            "the anonymous token may write, or read ACLs or the operator's settings"
            "every client that reaches the servers without a token has these permissions"
            "leave the anonymous token at most node and service read, which federation by mesh gateways needs"
            ACL_RULES;
        NODE_MISSING "CONSUL-NODE-MISSING" Error
            "a bound cluster has no node in the catalog"
            "tasks register on the node and may not create it: new tasks are refused"
            "run the operator, or register a node named as the cluster's ARN with the meta synthetic-node=true"
            ARCHITECTURE;
        OUTBOUND_UNREACHED "CONSUL-OUTBOUND-UNREACHED" Warning
            "the manifests allow a call to a service that the task's proxy.upstreams lack"
            "the sidecar listens for its own upstreams only: the app gets no connection"
            "add the upstream to the task definition, or remove the outbound from the OutboundList"
            CONFIG;
        UPSTREAM_UNLISTED "CONSUL-UPSTREAM-UNLISTED" Warning
            "the task has an upstream that no OutboundList of its workload names"
            "the manifests do not show that the task calls this service"
            "add the outbound to an OutboundList, or remove the upstream"
            CONFIG;
    }
}

/// The rule with this id.
pub fn by_id(id: &str) -> Option<&'static AuditRule> {
    ALL.iter().find(|rule| rule.id == id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;
    use crate::report::sentence;

    /// The rules section of the page: an index for each group, then a section for each rule.
    fn rules_section() -> String {
        let mut section = String::new();
        for group in ALL.chunk_by(|a, b| a.group == b.group) {
            writeln!(section, "### {}\n\n| rule | severity | finding |\n|---|---|---|", group[0].group)
                .unwrap();
            for rule in group {
                let (anchor, title) = (rule.id.to_lowercase(), rule.title.replace('|', "\\|"));
                writeln!(section, "| [`{}`](#{anchor}) | {} | {title} |", rule.id, rule.severity.as_str())
                    .unwrap();
            }
            section.push('\n');
        }
        section.push_str("### Details\n");
        for rule in ALL {
            let is_command = ["aws ", "consul "].iter().any(|program| rule.fix.starts_with(program));
            let fix = if is_command { format!("`{}`", rule.fix) } else { sentence(rule.fix) };
            write!(
                section,
                "\n#### {}\n\n**{}**: {}\n\n**Why:** {}\n\n**Fix:** {fix}\n\n[Reference]({})\n",
                rule.id,
                rule.severity.as_str(),
                end_sentence(rule.title),
                sentence(rule.rationale),
                rule.source
            )
            .unwrap();
        }
        section
    }

    fn end_sentence(text: &str) -> String {
        if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
    }

    #[test]
    fn reference_page_lists_every_rule_in_order() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/audit.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = ("<!-- rules -->\n", "<!-- /rules -->");
        let (before, rest) = page.split_once(begin).unwrap();
        let (found, after) = rest.split_once(end).unwrap();
        let expected = rules_section();
        if std::env::var("INSTA_UPDATE").as_deref() == Ok("always") {
            std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        } else {
            assert_eq!(found, expected, "docs/reference/audit.md is out of date: make golden");
        }
    }

    #[test]
    fn rule_links_have_headings() {
        let section = rules_section();
        let headings: BTreeSet<String> =
            section.lines().filter_map(|line| line.strip_prefix("#### ")).map(str::to_lowercase).collect();
        let mut links = 0;
        for link in section.split("](#").skip(1).filter_map(|rest| rest.split_once(')')) {
            assert!(headings.contains(link.0), "{}", link.0);
            links += 1;
        }
        assert_eq!(links, ALL.len());
    }

    #[test]
    fn rules_have_unique_ids_and_complete_texts() {
        assert_eq!(ALL.iter().map(|rule| rule.id).collect::<BTreeSet<_>>().len(), ALL.len());
        let groups: Vec<_> = ALL.chunk_by(|a, b| a.group == b.group).map(|group| group[0].group).collect();
        assert_eq!(groups.iter().collect::<BTreeSet<_>>().len(), groups.len(), "a group is in one piece");
        for rule in ALL {
            assert!(rule.id.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'), "{}", rule.id);
            assert!(![rule.title, rule.rationale, rule.fix].contains(&""), "{}", rule.id);
            assert!(rule.source.starts_with("https://"), "{}", rule.id);
        }
    }
}
