//! Every kind of check, in the order of the report. A test compares the rows of `docs/reference/doctor.md` with it.

use super::report::CheckKind;

macro_rules! catalogue {
    ($($const:ident $name:literal $expected:literal;)*) => {
        $(
            #[doc = concat!("The check `", $name, "`.")]
            pub const $const: CheckKind = CheckKind { name: $name, expected: $expected };
        )*
        /// All checks, in the order of the report.
        pub const ALL: &[CheckKind] = &[$($const),*];
    };
}

catalogue! {
    MANIFESTS "manifests" "manifests that load without an error, with a ControlPlane and a MeshBinding";
    MANIFEST_SOURCES "manifests.source" "S3 prefixes and SSM paths of --manifests that the caller can read";
    REGION "aws.region" "an AWS Region, from --region, AWS_REGION or the profile";
    CERTIFICATES "aws.certificates" "CA certificates on this system, to verify AWS endpoints";
    CREDENTIALS "aws.credentials" "AWS credentials that the SDK's default chain finds";
    IDENTITY "aws.identity" "an identity that AWS accepts";
    SCOPE "aws.scope" "clusters and a queue that the caller can read: of its account, or of accounts that an AwsAccount declares";
    ASSUME_ROLE "aws.assume-role" "a role that the caller may assume in each account that an AwsAccount declares";
    QUEUE "queue.exists" "a standard queue that the caller can read";
    QUEUE_RECEIVE "queue.receive" "sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue";
    QUEUE_POLICY "queue.policy" "a policy that allows events.amazonaws.com to send for these rules only";
    QUEUE_SENDERS "queue.senders" "a Deny of sqs:SendMessage, and of no other action, to all but the declared rules and topics";
    QUEUE_ENCRYPTION "queue.encryption" "encryption that EventBridge can use";
    QUEUE_VISIBILITY "queue.visibility" "a visibility time-out from 10 s to 15 min";
    QUEUE_RETENTION "queue.retention" "a retention of at least an hour";
    QUEUE_DEAD_LETTERS "queue.dead-letters" "a redrive policy with 3 or more receives, to a queue that exists and keeps messages longer";
    QUEUE_DEPTH "queue.depth" "no backlog of messages";
    EVENTS_TASKS "events.tasks" "an enabled rule that sends every task state change of each bound cluster to the queue";
    EVENTS_DEPLOYMENTS "events.deployments" "an enabled rule that sends deployment events to the queue, where a binding holds deployments";
    EVENTS_ROLES "events.roles" "an enabled rule that sends changes of role tags to the queue";
    EVENTS_TARGET "events.target" "a target that sends events as they are";
    EVENTS_DEAD_LETTERS "events.dead-letters" "a dead-letter queue at the rule's target";
    LIST_CLUSTERS "permissions.list-clusters" "ecs:ListClusters, where a binding selects clusters by a pattern";
    DESCRIBE_CLUSTERS "permissions.describe-clusters" "ecs:DescribeClusters on each bound cluster";
    LIST_TASKS "permissions.list-tasks" "ecs:ListTasks on each bound cluster";
    DESCRIBE_TASKS "permissions.describe-tasks" "ecs:DescribeTasks on the tasks of each bound cluster";
    DESCRIBE_DEFINITIONS "permissions.describe-task-definition" "ecs:DescribeTaskDefinition";
    DESCRIBE_SERVICES "permissions.describe-services" "ecs:DescribeServices on the services of each bound cluster, where a binding holds deployments";
    READ_PROTECTION "permissions.get-task-protection" "ecs:GetTaskProtection on the tasks of each bound cluster, where a binding holds deployments";
    SET_PROTECTION "permissions.update-task-protection" "ecs:UpdateTaskProtection on the tasks of each bound cluster, where a binding holds deployments";
    DESCRIBE_HOSTS "permissions.describe-container-instances" "ecs:DescribeContainerInstances on the instances of each bound cluster, where tasks run in network mode host";
    DESCRIBE_INSTANCES "permissions.describe-instances" "ec2:DescribeInstances, where tasks run in network mode host";
    GET_ROLE "permissions.get-role" "iam:GetRole on the tasks' roles";
    LIST_TOKENS "permissions.list-tokens" "secretsmanager:ListSecrets or ssm:DescribeParameters, where a binding stores tokens";
    READ_TOKEN_TAGS "permissions.read-token-tags" "secretsmanager:DescribeSecret or ssm:ListTagsForResource on the stored tokens";
    STORE_TOKENS "permissions.store-tokens" "the calls that create, change, tag and remove secrets or parameters below the path of tokens";
    LEASE_STORE "lease.store" "a store of the lease that the operator can read, where --lease names one";
    TEAM_EVENT_BUS "team-events.bus" "the event bus of --team-events-bus, where one is named";
    PLANE_REACHED "control-plane.reached" "a Kuma control plane that answers at the address";
    PLANE_VERSION "control-plane.version" "a version from 2.7 to 2.14, or 3.0";
    PLANE_MODE "control-plane.mode" "a zone control plane that accepts writes";
    PLANE_IDENTITY "control-plane.identity" "proxies that authenticate, by AWS IAM with reloadable tokens and the accounts of the manifests";
    PLANE_TOKEN "control-plane.token" "a token that the control plane accepts";
    PLANE_TOKENS "control-plane.tokens" "a server that issues data plane tokens to the operator, where a binding issues them";
    PLANE_LIST "control-plane.dataplanes" "permission to list Dataplanes";
    PLANE_MESH "control-plane.mesh" "each bound mesh";
    PLANE_WORKLOADS "control-plane.workloads" "Workloads that the control plane's version can express";
    PLANE_SIDECARS "control-plane.sidecars" "container definitions of sidecars that fit their workloads";
    CONSUL_REACHED "consul.reached" "Consul servers that answer at the address";
    CONSUL_VERSION "consul.version" "Consul 1.12 or a later 1.x, or 2.0; logins by AWS IAM came with 1.12";
    CONSUL_EDITION "consul.edition" "partition and namespaces with Consul Enterprise only";
    CONSUL_NAMESPACES "consul.namespaces" "each configured namespace";
    CONSUL_ACLS "consul.acls" "ACLs that are on";
    CONSUL_TOKEN "consul.token" "a valid ACL token for the operator";
    CONSUL_TOKENS "consul.tokens" "permission to list and remove login tokens";
    CONSUL_METHOD "consul.auth-method" "the auth method by which tasks log in, of type aws-iam";
    CONSUL_RULES "consul.binding-rules" "permission to read the auth method's binding rules, and at least one rule";
    CONSUL_POLICIES "consul.policies" "permission to read policies";
    CONSUL_ROLES "consul.roles" "permission to read roles";
    CONSUL_NODE "consul.node" "a node for each bound cluster, and with a ConsulAuth permission to register it";
    CONSUL_SERVICES "consul.services" "permission to read and remove the services of each bound cluster";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn doctor_page_lists_exactly_all_checks() {
        let page = include_str!("../../../docs/reference/doctor.md");
        let checks = page.split("## Manifests and AWS").nth(1).and_then(|rest| rest.split("## JSON").next());
        let on_page: Vec<&str> =
            checks.unwrap().lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let known: Vec<&str> = ALL.iter().map(|id| id.name).collect();
        assert_eq!(on_page, known);
        assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len(), "a name is there twice");
    }
}
