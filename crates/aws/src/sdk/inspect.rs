//! The calls of the audit with the SDK: complete task definitions, services, and what IAM permits.

use async_trait::async_trait;
use aws_sdk_ecs::types;
use aws_sdk_iam::types as iam;
use percent_encoding::percent_decode_str;

use super::call::CallRunner;
use super::ecs::unreadable;
use crate::aws::{AwsError, ListPage};
use crate::inspect::{
    AttachedPolicies, AuditApi, AuthorizationDetails, ContainerDependency, ContainerHealthCheck,
    FullContainer, FullTaskDefinition, PortMapping, PrincipalDetails, Redacted, SecretVariable,
    SimulationResult, Variable,
};
use ecs_mesh_model::{ClusterArn, RoleArn, Tags, TaskDefinitionArn};

const GET_ROLE: &str = "iam:GetRole";
const DESCRIBE: &str = "ecs:DescribeTaskDefinition";
const SIMULATE: &str = "iam:SimulatePrincipalPolicy";
const SERVICES: &str = "ecs:ListServices";
const AUTHORIZATION: &str = "iam:GetAccountAuthorizationDetails";
/// The largest page of `ListServices`.
const SERVICES_PER_PAGE: i32 = 100;
/// Principals and policies of one page: their documents are long, and a page has a time limit.
const DETAILS_PER_PAGE: i32 = 200;

/// ECS and IAM reads of the audit.
#[derive(Clone)]
pub struct SdkInspect {
    ecs: aws_sdk_ecs::Client,
    iam: aws_sdk_iam::Client,
    calls: CallRunner,
}

impl SdkInspect {
    pub(super) fn new(ecs: aws_sdk_ecs::Client, iam: aws_sdk_iam::Client, calls: CallRunner) -> Self {
        Self { ecs, iam, calls }
    }
}

#[async_trait]
impl AuditApi for SdkInspect {
    async fn definition(&self, arn: &TaskDefinitionArn) -> Result<FullTaskDefinition, AwsError> {
        let call = self
            .ecs
            .describe_task_definition()
            .task_definition(arn.as_str())
            .include(types::TaskDefinitionField::Tags)
            .send();
        let answer = Box::pin(self.calls.run(DESCRIBE, arn.as_str(), call)).await?;
        let tags = super::ecs::tags(answer.tags());
        let found = answer.task_definition.unwrap_or_else(|| types::TaskDefinition::builder().build());
        if found.task_definition_arn() != Some(arn.as_str()) {
            return Err(unreadable(DESCRIBE, arn.as_str(), "the response has another task definition"));
        }
        Ok(FullTaskDefinition {
            arn: Some(arn.clone()),
            family: found.family().unwrap_or_else(|| arn.family()).to_owned(),
            task_role: found.task_role_arn().filter(|role| !role.is_empty()).map(str::to_owned),
            network_mode: found.network_mode().map(|mode| mode.as_str().to_owned()),
            containers: found.container_definitions().iter().map(container).collect(),
            tags: Some(tags),
        })
    }

    async fn services(
        &self,
        cluster: &ClusterArn,
        page: Option<String>,
    ) -> Result<ListPage<String>, AwsError> {
        let call = self
            .ecs
            .list_services()
            .cluster(cluster.as_str())
            .max_results(SERVICES_PER_PAGE)
            .set_next_token(page)
            .send();
        let answer = self.calls.run(SERVICES, cluster.as_str(), call).await?;
        let names = answer.service_arns().iter().filter_map(|arn| arn.rsplit('/').next());
        let next = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
        Ok(ListPage { items: names.map(str::to_owned).collect(), skipped: Vec::new(), next })
    }

    async fn authorization_details(
        &self,
        page: Option<String>,
    ) -> Result<(AuthorizationDetails, Option<String>), AwsError> {
        let call =
            self.iam.get_account_authorization_details().max_items(DETAILS_PER_PAGE).set_marker(page).send();
        let answer = Box::pin(self.calls.run(AUTHORIZATION, "the account", call)).await?;
        let roles = answer.role_detail_list().iter().map(role);
        let users = answer.user_detail_list().iter().map(user);
        let groups = answer.group_detail_list().iter().map(|group| {
            let policies = attached(group.group_policy_list(), group.attached_managed_policies());
            (group.group_name().unwrap_or_default().to_owned(), policies)
        });
        let details = AuthorizationDetails {
            principals: roles.chain(users).collect(),
            groups: groups.collect(),
            managed: answer.policies().iter().filter_map(managed).collect(),
        };
        let next = answer.marker().filter(|marker| answer.is_truncated() && !marker.is_empty());
        Ok((details, next.map(str::to_owned)))
    }

    async fn may_get_own_role(&self, role: &RoleArn) -> Result<SimulationResult, AwsError> {
        let call = self
            .iam
            .simulate_principal_policy()
            .policy_source_arn(role.as_str())
            .action_names(GET_ROLE)
            .resource_arns(role.as_str())
            .send();
        let answer = Box::pin(self.calls.run(SIMULATE, role.as_str(), call)).await?;
        let result = answer.evaluation_results().iter().find(|one| one.eval_action_name() == GET_ROLE);
        let result = result.ok_or_else(|| {
            unreadable(SIMULATE, role.as_str(), "the response has no result for iam:GetRole")
        })?;
        let decision = result.eval_decision().as_str();
        Ok(SimulationResult {
            allowed: decision == "allowed",
            decision: decision.to_owned(),
            missing_context: result.missing_context_values().to_vec(),
            in_organization: result.organizations_decision_detail().is_some(),
        })
    }
}

fn container(found: &types::ContainerDefinition) -> FullContainer {
    let texts = |texts: &[String]| texts.iter().map(Redacted::new).collect();
    FullContainer {
        name: found.name().unwrap_or_default().to_owned(),
        image: found.image().unwrap_or_default().to_owned(),
        environment: found
            .environment()
            .iter()
            .map(|pair| Variable {
                name: pair.name().unwrap_or_default().to_owned(),
                value: Redacted::new(pair.value().unwrap_or_default()),
            })
            .collect(),
        secrets: found
            .secrets()
            .iter()
            .map(|secret| SecretVariable { name: secret.name().to_owned() })
            .collect(),
        environment_files: found.environment_files().iter().map(|_| serde_json::Value::Bool(true)).collect(),
        entry_point: texts(found.entry_point()),
        command: texts(found.command()),
        health_check: found
            .health_check()
            .map(|check| ContainerHealthCheck { command: texts(check.command()) }),
        port_mappings: found
            .port_mappings()
            .iter()
            .map(|mapping| PortMapping {
                container_port: mapping.container_port().and_then(|port| u16::try_from(port).ok()),
            })
            .collect(),
        essential: found.essential(),
        depends_on: found
            .depends_on()
            .iter()
            .map(|one| ContainerDependency { container_name: one.container_name().to_owned() })
            .collect(),
        stop_timeout: found.stop_timeout().and_then(|seconds| u64::try_from(seconds).ok()),
        docker_labels: found
            .docker_labels()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    }
}

fn role(found: &iam::RoleDetail) -> PrincipalDetails {
    let boundary =
        found.permissions_boundary().and_then(iam::AttachedPermissionsBoundary::permissions_boundary_arn);
    PrincipalDetails {
        arn: found.arn().unwrap_or_default().to_owned(),
        tags: tags(found.tags()),
        policies: attached(found.role_policy_list(), found.attached_managed_policies()),
        groups: Vec::new(),
        boundary: boundary.map(str::to_owned),
    }
}

fn user(found: &iam::UserDetail) -> PrincipalDetails {
    let boundary =
        found.permissions_boundary().and_then(iam::AttachedPermissionsBoundary::permissions_boundary_arn);
    PrincipalDetails {
        arn: found.arn().unwrap_or_default().to_owned(),
        tags: tags(found.tags()),
        policies: attached(found.user_policy_list(), found.attached_managed_policies()),
        groups: found.group_list().to_vec(),
        boundary: boundary.map(str::to_owned),
    }
}

fn tags(found: &[iam::Tag]) -> Tags {
    found.iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect()
}

fn attached(inline: &[iam::PolicyDetail], managed: &[iam::AttachedPolicy]) -> AttachedPolicies {
    let inline = inline.iter().map(|policy| {
        (
            policy.policy_name().unwrap_or_default().to_owned(),
            decoded(policy.policy_document().unwrap_or_default()),
        )
    });
    let managed = managed.iter().filter_map(iam::AttachedPolicy::policy_arn).map(str::to_owned);
    AttachedPolicies { inline: inline.collect(), managed: managed.collect() }
}

/// The ARN and the default version of a managed policy.
fn managed(found: &iam::ManagedPolicyDetail) -> Option<(String, String)> {
    let version = found.policy_version_list().iter().find(|version| version.is_default_version())?;
    Some((found.arn()?.to_owned(), decoded(version.document().unwrap_or_default())))
}

/// IAM returns policy documents percent-encoded.
fn decoded(document: &str) -> String {
    percent_decode_str(document).decode_utf8_lossy().into_owned()
}
