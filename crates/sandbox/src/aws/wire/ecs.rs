//! The operations of ECS.

use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use crate::aws::cloud::{tags_from, tags_json};
use crate::aws::{AwsApiError, AwsApiResult, Cloud, DescribeFailure, ListTasks};
use ecs_mesh_model::{Tags, Timestamp};

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    match request.operation.as_str() {
        "RunTask" | "StopTask" | "ListTasks" | "DescribeTasks" => tasks(cloud, request, now),
        "CreateService" | "UpdateService" => services(cloud, request, now),
        "CreateCluster" | "ListClusters" => clusters(cloud, request),
        "RegisterTaskDefinition" | "DescribeTaskDefinition" => definitions(cloud, request, now),
        _ => Err(request.unknown_operation()),
    }
}

fn tasks(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    Ok(match request.operation.as_str() {
        "RunTask" => {
            let started = cloud.run_task(&request.read_as()?, now)?;
            json!({"tasks": started.iter().map(|task| task.to_api_json(true)).collect::<Vec<_>>(), "failures": []})
        }
        "StopTask" => {
            let (cluster, task, reason) =
                (request.text("cluster"), request.text("task"), request.text("reason"));
            json!({"task": cloud.stop_task(cluster, task, reason, now)?.to_api_json(true)})
        }
        "ListTasks" => {
            let listed = cloud.list_tasks(&request.read_as::<ListTasks>()?)?;
            page("taskArns", listed.arns, "nextToken", listed.next_token)
        }
        _ => {
            let described = cloud.describe_tasks(request.text("cluster"), &request.texts("tasks"))?;
            let with_tags = includes_tags(request);
            let shown: Vec<_> = described.tasks.iter().map(|task| task.to_api_json(with_tags)).collect();
            json!({"tasks": shown, "failures": failures(&described.failures)})
        }
    })
}

fn services(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let service = match request.operation.as_str() {
        "CreateService" => cloud.create_service(request.read_as()?, now)?,
        _ => cloud.update_service(&request.read_as()?, now)?,
    };
    Ok(json!({"service": service.to_api_json()}))
}

fn clusters(cloud: &mut Cloud, request: &AwsRequest) -> AwsApiResult<Value> {
    if request.operation == "CreateCluster" {
        let name = request.optional("clusterName").unwrap_or("default");
        let cluster = cloud.create_cluster(name, given_tags(request)?)?;
        return Ok(json!({"cluster": cloud.cluster_json(&cluster.arn)?}));
    }
    let (arns, next) = cloud.list_clusters(request.optional("nextToken"), request.limit("maxResults", 100));
    Ok(page("clusterArns", arns, "nextToken", next))
}

fn definitions(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    if request.operation == "RegisterTaskDefinition" {
        let record = cloud.register_task_definition(request.read_as()?, now)?;
        return Ok(json!({"taskDefinition": record.to_api_json(), "tags": tags_json(&record.tags)}));
    }
    let record = cloud.describe_task_definition(request.text("taskDefinition"))?;
    let mut answer = json!({"taskDefinition": record.to_api_json()});
    if includes_tags(request) {
        answer["tags"] = tags_json(&record.tags);
    }
    Ok(answer)
}

fn given_tags(request: &AwsRequest) -> AwsApiResult<Tags> {
    tags_from(&request.body["tags"])
        .map_err(|error| AwsApiError::new("SerializationException", format!("tags: {error}")))
}

fn includes_tags(request: &AwsRequest) -> bool {
    request.texts("include").iter().any(|included| included == "TAGS")
}

fn failures(failures: &[DescribeFailure]) -> Value {
    failures.iter().map(|failure| json!({"arn": failure.arn, "reason": failure.reason})).collect()
}
