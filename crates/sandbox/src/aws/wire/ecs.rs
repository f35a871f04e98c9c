//! The operations of ECS.

use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use crate::aws::cloud::tags_from;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, DescribeFailure, ListTasks};
use ecs_mesh_model::{Tags, Timestamp};

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    match request.operation.as_str() {
        "RunTask" | "StopTask" | "ListTasks" | "DescribeTasks" => tasks(cloud, request, now),
        "CreateService" | "UpdateService" | "DeleteService" | "ListServices" | "DescribeServices" => {
            services(cloud, request, now)
        }
        "CreateCluster" | "DeleteCluster" | "ListClusters" | "DescribeClusters" => clusters(cloud, request),
        "RegisterTaskDefinition" | "DescribeTaskDefinition" | "ListTaskDefinitions" => {
            definitions(cloud, request, now)
        }
        "TagResource" | "UntagResource" | "ListTagsForResource" => tags(cloud, request, now),
        // Container instances are not emulated.
        "ListContainerInstances" => Ok(json!({"containerInstanceArns": []})),
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
    let cluster = request.text("cluster");
    Ok(match request.operation.as_str() {
        "CreateService" => {
            json!({"service": cloud.create_service(request.read_as()?, now)?.to_api_json(true)})
        }
        "UpdateService" => {
            json!({"service": cloud.update_service(&request.read_as()?, now)?.to_api_json(true)})
        }
        "DeleteService" => {
            let force = request.body["force"].as_bool().unwrap_or(false);
            let service = cloud.delete_service(cluster, request.text("service"), force, now)?;
            json!({"service": service.to_api_json(true)})
        }
        "ListServices" => {
            // Unlike other lists, the default page size is 10.
            let size =
                if request.body["maxResults"].is_null() { 10 } else { request.limit("maxResults", 100) };
            let (arns, next) = cloud.list_services(cluster, request.optional("nextToken"), size)?;
            page("serviceArns", arns, "nextToken", next)
        }
        _ => {
            let (found, missing) = cloud.describe_services(cluster, &request.texts("services"))?;
            let with_tags = includes_tags(request);
            let shown: Vec<_> = found.iter().map(|service| service.to_api_json(with_tags)).collect();
            json!({"services": shown, "failures": failures(&missing)})
        }
    })
}

fn clusters(cloud: &mut Cloud, request: &AwsRequest) -> AwsApiResult<Value> {
    Ok(match request.operation.as_str() {
        "CreateCluster" => {
            let name = request.optional("clusterName").unwrap_or("default");
            let cluster = cloud.create_cluster(name, given_tags(request)?)?;
            json!({"cluster": cloud.describe_cluster(&cluster.arn, true)?})
        }
        "DeleteCluster" => {
            let mut shown = cloud.describe_cluster(request.text("cluster"), true)?;
            cloud.delete_cluster(request.text("cluster"))?;
            shown["status"] = json!("INACTIVE");
            json!({"cluster": shown})
        }
        "ListClusters" => {
            let (arns, next) =
                cloud.list_clusters(request.optional("nextToken"), request.limit("maxResults", 100));
            page("clusterArns", arns, "nextToken", next)
        }
        _ => {
            let mut named = request.texts("clusters");
            if named.is_empty() {
                named.push("default".into());
            }
            let with_tags = includes_tags(request);
            let (mut shown, mut missing) = (Vec::new(), Vec::new());
            for name in named {
                match cloud.describe_cluster(&name, with_tags) {
                    Ok(cluster) => shown.push(cluster),
                    Err(_) => missing.push(json!({"arn": name, "reason": "MISSING"})),
                }
            }
            json!({"clusters": shown, "failures": missing})
        }
    })
}

fn definitions(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let named = request.text("taskDefinition");
    Ok(match request.operation.as_str() {
        "RegisterTaskDefinition" => {
            let record = cloud.register_task_definition(request.read_as()?, now)?;
            json!({"taskDefinition": record.to_api_json(), "tags": tag_list(&record.tags)})
        }
        "DescribeTaskDefinition" => {
            let record = cloud.describe_task_definition(named)?;
            let mut answer = json!({"taskDefinition": record.to_api_json()});
            if includes_tags(request) {
                answer["tags"] = tag_list(&record.tags);
            }
            answer
        }
        _ => {
            let (arns, next) = cloud.list_task_definitions(
                request.text("familyPrefix"),
                request.optional("nextToken"),
                request.limit("maxResults", 100),
            );
            page("taskDefinitionArns", arns, "nextToken", next)
        }
    })
}

fn tags(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let arn = request.text("resourceArn");
    match request.operation.as_str() {
        "TagResource" => cloud.tag_resource(arn, &given_tags(request)?, now)?,
        "UntagResource" => cloud.untag_resource(arn, &request.texts("tagKeys"), now)?,
        _ => return Ok(json!({"tags": tag_list(&cloud.list_tags_for_resource(arn)?)})),
    }
    Ok(json!({}))
}

fn given_tags(request: &AwsRequest) -> AwsApiResult<Tags> {
    tags_from(&request.body["tags"])
        .map_err(|error| AwsApiError::new("SerializationException", format!("tags: {error}")))
}

fn tag_list(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

fn includes_tags(request: &AwsRequest) -> bool {
    request.texts("include").iter().any(|included| included == "TAGS")
}

fn failures(failures: &[DescribeFailure]) -> Value {
    failures.iter().map(|failure| json!({"arn": failure.arn, "reason": failure.reason})).collect()
}
