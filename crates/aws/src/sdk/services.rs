//! Reads the answers of DescribeServices and of the calls about task protection.

use std::sync::Arc;

use aws_sdk_ecs::types;

use super::ecs::{failure_text, last_part, nearest_millisecond};
use crate::aws::{DescribeServicesOutput, TaskProtectionOutput};
use ecs_mesh_model::{EcsDeployment, EcsRollout, EcsServiceState, TaskId, intern};

/// `maximumPercent` where a service has none.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html>.
const DEFAULT_MAXIMUM_PERCENT: i32 = 200;

/// Classifies each requested service as found, missing or failed. A service without an answer has failed.
pub(super) fn classify(
    requested: &[String],
    services: &[types::Service],
    failures: &[types::Failure],
) -> DescribeServicesOutput {
    let mut described = DescribeServicesOutput::default();
    for name in requested {
        let found = services.iter().find(|service| service.service_name() == Some(name));
        let failure = failures.iter().find(|failure| last_part(failure.arn()) == name);
        match (found.map(service), failure) {
            (Some(Ok(state)), _) => drop(described.services.insert(name.clone(), state)),
            (Some(Err(reason)), _) => drop(described.failed.insert(name.clone(), reason)),
            (None, Some(failure)) if failure.reason() == Some("MISSING") => {
                described.missing.insert(name.clone());
            }
            (None, Some(failure)) => {
                let reason = failure_text(failure.reason().unwrap_or_default(), failure.detail());
                described.failed.insert(name.clone(), reason);
            }
            (None, None) => {
                described.failed.insert(name.clone(), "the response does not mention the service".to_owned());
            }
        }
    }
    described
}

/// A service. An error names the unreadable field.
fn service(found: &types::Service) -> Result<EcsServiceState, String> {
    let configuration = found.deployment_configuration();
    let is_ecs = found
        .deployment_controller()
        .is_none_or(|controller| *controller.r#type() == types::DeploymentControllerType::Ecs);
    let strategy = configuration.and_then(types::DeploymentConfiguration::strategy);
    let maximum = configuration.and_then(types::DeploymentConfiguration::maximum_percent);
    let count = |field: &str, value: i32| usize::try_from(value).map_err(|_| format!("{field}: negative"));
    Ok(EcsServiceState {
        active: found.status() == Some("ACTIVE"),
        daemon: found.scheduling_strategy() == Some(&types::SchedulingStrategy::Daemon),
        rolling: is_ecs && strategy.is_none_or(|strategy| *strategy == types::DeploymentStrategy::Rolling),
        desired_count: count("desiredCount", found.desired_count())?,
        maximum_percent: count("maximumPercent", maximum.unwrap_or(DEFAULT_MAXIMUM_PERCENT))?,
        deployments: found.deployments().iter().map(deployment).collect::<Result<_, _>>()?,
    })
}

fn deployment(found: &types::Deployment) -> Result<EcsDeployment, String> {
    let id: Arc<str> = found.id().map(intern).ok_or_else(|| "deployments[].id: missing".to_owned())?;
    let rollout = match found.rollout_state() {
        Some(types::DeploymentRolloutState::Completed) => EcsRollout::Completed,
        Some(types::DeploymentRolloutState::Failed) => EcsRollout::Failed,
        _ => EcsRollout::InProgress,
    };
    Ok(EcsDeployment { id, primary: found.status() == Some("PRIMARY"), rollout })
}

/// Task ids for a request.
pub(super) fn ids(tasks: &[TaskId]) -> Vec<String> {
    tasks.iter().map(|id| id.as_str().to_owned()).collect()
}

/// The protection of each requested task. A protected task without an expiry has failed: whose protection it is can't be
/// known.
pub(super) fn protections(
    requested: &[TaskId],
    shown: &[types::ProtectedTask],
    failures: &[types::Failure],
) -> TaskProtectionOutput {
    let mut output = TaskProtectionOutput::default();
    for id in requested {
        let task = shown.iter().find(|task| last_part(task.task_arn()) == id.as_str());
        let failure = failures.iter().find(|failure| last_part(failure.arn()) == id.as_str());
        if let Some(task) = task {
            match (task.protection_enabled(), task.expiration_date()) {
                (false, _) => drop(output.tasks.insert(id.clone(), None)),
                (true, Some(at)) => drop(output.tasks.insert(id.clone(), Some(nearest_millisecond(at)))),
                (true, None) => {
                    output.failed.insert(id.clone(), "expirationDate: missing".to_owned());
                }
            }
        } else if let Some(failure) = failure {
            let reason = failure_text(failure.reason().unwrap_or_default(), failure.detail());
            output.failed.insert(id.clone(), reason);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::primitives::DateTime;

    use super::*;
    use ecs_mesh_model::Timestamp;

    fn found() -> types::builders::ServiceBuilder {
        let deployment = |id: &str, status: &str, rollout| {
            types::Deployment::builder().id(id).status(status).rollout_state(rollout).build()
        };
        types::Service::builder()
            .service_name("web")
            .status("ACTIVE")
            .desired_count(3)
            .deployments(deployment("ecs-svc/2", "PRIMARY", types::DeploymentRolloutState::InProgress))
            .deployments(deployment("ecs-svc/1", "ACTIVE", types::DeploymentRolloutState::Completed))
    }

    #[test]
    fn service_is_read_with_its_deployments() {
        let state = service(&found().build()).unwrap();
        assert!(state.active && state.rolling && !state.daemon);
        assert_eq!((state.desired_count, state.maximum_percent), (3, 200));
        let primary =
            EcsDeployment { id: "ecs-svc/2".into(), primary: true, rollout: EcsRollout::InProgress };
        assert_eq!((state.deployments.len(), state.primary()), (2, Some(&primary)));
        let strategy = |strategy| {
            types::DeploymentConfiguration::builder().strategy(strategy).maximum_percent(150).build()
        };
        for (kind, rolling) in
            [(types::DeploymentStrategy::Rolling, true), (types::DeploymentStrategy::BlueGreen, false)]
        {
            let state = service(&found().deployment_configuration(strategy(kind)).build()).unwrap();
            assert_eq!((state.rolling, state.maximum_percent), (rolling, 150));
        }
        let external =
            types::DeploymentController::builder().r#type(types::DeploymentControllerType::CodeDeploy);
        let state = service(&found().deployment_controller(external.build().unwrap()).build()).unwrap();
        assert!(!state.rolling);
        let daemon =
            found().scheduling_strategy(types::SchedulingStrategy::Daemon).status("DRAINING").build();
        let state = service(&daemon).unwrap();
        assert!(state.daemon && !state.active);
    }

    #[test]
    fn each_service_is_found_missing_or_failed() {
        let failure = |arn: &str, reason: &str| types::Failure::builder().arn(arn).reason(reason).build();
        let failures =
            [failure("arn:aws:ecs:eu-west-1:1:service/c/gone", "MISSING"), failure("odd", "OTHER")];
        let negative = found().service_name("bad").desired_count(-1).build();
        let names = ["web", "gone", "odd", "bad", "silent"].map(str::to_owned);
        let described = classify(&names, &[found().build(), negative], &failures);
        assert_eq!(described.services.keys().collect::<Vec<_>>(), ["web"]);
        assert_eq!(described.missing.iter().collect::<Vec<_>>(), ["gone"]);
        assert_eq!(described.failed.keys().collect::<Vec<_>>(), ["bad", "odd", "silent"]);
    }

    #[test]
    fn protection_is_read_with_its_expiry() {
        let task = |id: &str, until: Option<i64>| {
            let arn = format!("arn:aws:ecs:eu-west-1:111122223333:task/c/{id}");
            let until = until.map(DateTime::from_millis);
            types::ProtectedTask::builder()
                .task_arn(arn)
                .protection_enabled(id != "none")
                .set_expiration_date(until)
        };
        let shown = [task("own", Some(1_145)).build(), task("none", None).build(), task("odd", None).build()];
        let failure = types::Failure::builder().arn("arn:…/lost").reason("TASK_NOT_VALID").build();
        let ids = ["own", "none", "odd", "lost", "silent"].map(|id| TaskId::parse(id).unwrap());
        let output = protections(&ids, &shown, &[failure]);
        assert_eq!(output.tasks.get(&ids[0]), Some(&Some(Timestamp(1_145))));
        assert_eq!(output.tasks.get(&ids[1]), Some(&None));
        assert_eq!(output.failed.keys().collect::<Vec<_>>(), [&ids[3], &ids[2]]);
        assert_eq!(output.failed[&ids[3]], "TASK_NOT_VALID");
    }
}
