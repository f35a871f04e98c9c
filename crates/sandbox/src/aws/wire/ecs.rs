//! The operations of ECS.

use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use crate::aws::cloud::{tags_from, tags_json};
use crate::aws::{AwsApiError, AwsApiResult, Cloud, DescribeFailure, ListTasks, ProtectedTask};
use ecs_mesh_model::{Tags, Timestamp};

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    match request.operation.as_str() {
        "RunTask" | "StopTask" | "ListTasks" | "DescribeTasks" => tasks(cloud, request, now),
        "UpdateTaskProtection" | "GetTaskProtection" => protection(cloud, request, now),
        "CreateService" | "UpdateService" | "DeleteService" => services(cloud, request, now),
        "DescribeServices" => describe_services(cloud, request),
        "ListServices" => {
            let (cluster, after) = (request.text("cluster"), request.optional("nextToken"));
            let (arns, next) = cloud.list_services(cluster, after, request.limit("maxResults", 100))?;
            Ok(page("serviceArns", arns, "nextToken", next))
        }
        "DescribeContainerInstances" => container_instances(cloud, request),
        "CreateCluster" | "DeleteCluster" | "ListClusters" | "DescribeClusters" => clusters(cloud, request),
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
        "UpdateService" => cloud.update_service(&request.read_as()?, now)?,
        _ => {
            let force = request.body["force"] == true;
            cloud.delete_service(request.text("cluster"), request.text("service"), force, now)?
        }
    };
    Ok(json!({"service": service.to_api_json()}))
}

fn describe_services(cloud: &Cloud, request: &AwsRequest) -> AwsApiResult<Value> {
    let (services, missing) = cloud.describe_services(request.text("cluster"), &request.texts("services"))?;
    let with_tags = includes_tags(request);
    let shown: Vec<Value> = services
        .into_iter()
        .map(|service| {
            let mut shown = service.to_api_json();
            if !with_tags {
                shown.as_object_mut().map(|fields| fields.remove("tags"));
            }
            shown
        })
        .collect();
    Ok(json!({"services": shown, "failures": failures(&missing)}))
}

fn container_instances(cloud: &Cloud, request: &AwsRequest) -> AwsApiResult<Value> {
    let asked = request.texts("containerInstances");
    let (found, missing) = cloud.describe_container_instances(request.text("cluster"), &asked)?;
    Ok(json!({"containerInstances": found, "failures": failures(&missing)}))
}

fn protection(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let answer = match request.operation.as_str() {
        "UpdateTaskProtection" => cloud.update_task_protection(&request.read_as()?, now)?,
        _ => cloud.task_protection(request.text("cluster"), &request.texts("tasks"))?,
    };
    let tasks: Vec<Value> = answer.tasks.iter().map(ProtectedTask::to_api_json).collect();
    Ok(json!({"protectedTasks": tasks, "failures": failures(&answer.failures)}))
}

fn clusters(cloud: &mut Cloud, request: &AwsRequest) -> AwsApiResult<Value> {
    if request.operation == "CreateCluster" {
        let name = request.optional("clusterName").unwrap_or("default");
        let cluster = cloud.create_cluster(name, given_tags(request)?)?;
        return Ok(json!({"cluster": cloud.cluster_json(&cluster.arn)?}));
    }
    if request.operation == "DeleteCluster" {
        let mut deleted = cloud.cluster_json(request.text("cluster"))?;
        cloud.delete_cluster(request.text("cluster"))?;
        deleted["status"] = "INACTIVE".into();
        return Ok(json!({"cluster": deleted}));
    }
    if request.operation == "DescribeClusters" {
        let (found, missing) = cloud.describe_clusters(&request.texts("clusters"));
        return Ok(json!({"clusters": found, "failures": failures(&missing)}));
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

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method, Uri};

    use super::*;
    use crate::aws::{CloudConfig, CreateService, RegisterTaskDefinition};
    use std::time::Duration;

    /// Calls an operation as a client does.
    fn call(cloud: &mut Cloud, operation: &str, body: &Value, now: Timestamp) -> AwsApiResult<Value> {
        let mut headers = HeaderMap::new();
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        headers.insert("x-amz-target", HeaderValue::from_str(&target).unwrap());
        headers.insert("authorization", HeaderValue::from_static("AWS4-HMAC-SHA256 Credential=key/x"));
        let request =
            AwsRequest::read(&Method::POST, &Uri::from_static("/"), &headers, body.to_string().as_bytes())
                .unwrap();
        perform(cloud, &request, now)
    }

    /// An account with the service `kv` of two running tasks, and their ARNs.
    fn service() -> (Cloud, Vec<String>, Timestamp) {
        let now = Timestamp(1_800_000_000_000);
        let mut cloud = Cloud::new(CloudConfig::default(), now);
        cloud.create_cluster("prod", Tags::new()).unwrap();
        cloud.register_task_definition(RegisterTaskDefinition::fargate("kv", None, 80), now).unwrap();
        let tags = Tags::from([("team".to_owned(), "kv".to_owned())]);
        let request = CreateService { tags, ..CreateService::awsvpc("prod", "kv", "kv", 2) };
        cloud.create_service(request, now).unwrap();
        let now = now.plus(Duration::from_secs(5));
        cloud.step(now);
        let tasks = cloud.all_tasks().map(|task| task.arn.to_string()).collect();
        (cloud, tasks, now)
    }

    #[test]
    fn describe_services_shows_deployments_and_tags_on_request() {
        let (mut cloud, _, now) = service();
        let body = json!({"cluster": "prod", "services": ["kv", "none"]});
        let shown = call(&mut cloud, "DescribeServices", &body, now).unwrap();
        let deployment = &shown["services"][0]["deployments"][0];
        assert_eq!(
            (&deployment["status"], &deployment["rolloutState"]),
            (&json!("PRIMARY"), &json!("COMPLETED"))
        );
        assert_eq!(shown["failures"][0]["reason"], "MISSING");
        assert!(shown["services"][0].get("tags").is_none());
        let body = json!({"cluster": "prod", "services": ["kv"], "include": ["TAGS"]});
        let shown = call(&mut cloud, "DescribeServices", &body, now).unwrap();
        assert_eq!(shown["services"][0]["tags"], json!([{"key": "team", "value": "kv"}]));
    }

    #[test]
    fn task_protection_is_set_and_read() {
        let (mut cloud, tasks, now) = service();
        let body =
            json!({"cluster": "prod", "tasks": [tasks[0]], "protectionEnabled": true, "expiresInMinutes": 5});
        let shown = call(&mut cloud, "UpdateTaskProtection", &body, now).unwrap();
        let until = now.plus(Duration::from_mins(5)).as_secs_f64();
        let expected = json!({"taskArn": tasks[0], "protectionEnabled": true, "expirationDate": until});
        assert_eq!(shown, json!({"protectedTasks": [expected.clone()], "failures": []}));
        let body = json!({"cluster": "prod", "tasks": tasks});
        let shown = call(&mut cloud, "GetTaskProtection", &body, now).unwrap();
        let other = json!({"taskArn": tasks[1], "protectionEnabled": false});
        assert_eq!(shown["protectedTasks"], json!([expected, other]));
        let body = json!({"cluster": "prod", "tasks": [tasks[0]]});
        let error = call(&mut cloud, "UpdateTaskProtection", &body, now).unwrap_err();
        assert_eq!(error.code, "InvalidParameterException");
    }

    #[test]
    fn delete_service_needs_force_while_it_has_tasks() {
        let (mut cloud, _, now) = service();
        let mut body = json!({"cluster": "prod", "service": "kv"});
        let error = call(&mut cloud, "DeleteService", &body, now).unwrap_err();
        assert_eq!(error.code, "InvalidParameterException");
        body["force"] = json!(true);
        let shown = call(&mut cloud, "DeleteService", &body, now).unwrap();
        assert_eq!(
            (&shown["service"]["status"], &shown["service"]["desiredCount"]),
            (&json!("DRAINING"), &json!(0))
        );
    }
}
