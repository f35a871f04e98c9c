//! The calls of the audit with the SDK: complete task definitions, and IAM's policy simulator.

use async_trait::async_trait;
use aws_sdk_ecs::types;

use super::call::CallRunner;
use super::ecs::unreadable;
use crate::aws::AwsError;
use crate::inspect::{
    AuditApi, FullContainer, FullTaskDefinition, PortMapping, Redacted, SecretVariable, SimulationResult,
    Variable,
};
use ecs_mesh_model::{RoleArn, TaskDefinitionArn};

const GET_ROLE: &str = "iam:GetRole";
const DESCRIBE: &str = "ecs:DescribeTaskDefinition";
const SIMULATE: &str = "iam:SimulatePrincipalPolicy";

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
        health_check: found.health_check().is_some(),
        port_mappings: found
            .port_mappings()
            .iter()
            .map(|mapping| PortMapping {
                container_port: mapping.container_port().and_then(|port| u16::try_from(port).ok()),
            })
            .collect(),
    }
}
