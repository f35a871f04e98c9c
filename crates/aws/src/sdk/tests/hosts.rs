//! Reads of container instances and of their addresses.

use std::collections::BTreeSet;

use super::*;
use crate::aws::Ec2;
use ecs_mesh_model::ContainerInstanceArn;

fn instance(id: &str) -> ContainerInstanceArn {
    let arn = format!("arn:aws:ecs:eu-west-1:111122223333:container-instance/prod/{id}");
    ContainerInstanceArn::parse(&arn).unwrap()
}

fn instances(items: &str, next: &str) -> (u16, String) {
    let xml = format!(
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><reservationSet>{items}\
         </reservationSet>{next}</DescribeInstancesResponse>"
    );
    (200, xml)
}

fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn task_has_its_host() {
    let placed = |id: &str, launch_type: &str| {
        let mut task = task(id);
        task["launchType"] = json!(launch_type);
        task["containerInstanceArn"] = json!(instance("c1"));
        task
    };
    let tasks =
        [task("a1"), placed("a2", "EC2"), placed("a3", "MANAGED_INSTANCES"), placed("a4", "EXTERNAL")];
    let world = SdkFixture::answering([ok(&json!({"tasks": tasks, "failures": []}))]).await;
    let described =
        world.aws.ecs.describe_tasks(&cluster(), &["a1", "a2", "a3", "a4"].map(id)).await.unwrap();
    let hosts: Vec<_> = described.tasks.iter().map(|task| task.host.clone()).collect();
    let placed = TaskHost::ContainerInstance(instance("c1"));
    assert_eq!(hosts, [TaskHost::None, placed.clone(), placed, TaskHost::External]);
}

#[tokio::test]
async fn container_instances_have_ec2_ids_or_reasons() {
    let world = SdkFixture::answering([ok(&json!({
        "containerInstances": [
            {"containerInstanceArn": instance("c1"), "ec2InstanceId": "i-0abc"},
            {"containerInstanceArn": instance("c2"), "ec2InstanceId": "mi-0abc"},
        ],
        "failures": [{"arn": instance("c3"), "reason": "MISSING"}],
    }))])
    .await;
    let asked = ["c1", "c2", "c3", "c4"].map(instance);
    let described = world.aws.ecs.describe_container_instances(&cluster(), &asked).await.unwrap();
    assert_eq!(described.ec2_ids, [(instance("c1"), "i-0abc".to_owned())].into());
    let failed: Vec<_> = described.failed.values().map(String::as_str).collect();
    assert_eq!(
        failed,
        ["mi-0abc is no EC2 instance", "MISSING", "the response does not mention the container instance"]
    );
    assert_eq!(world.seen(0), json!({"cluster": CLUSTER, "containerInstances": asked}));
}

#[tokio::test]
async fn instances_of_all_pages_are_read_by_signed_requests() {
    let item = |id: &str, address: &str| {
        format!(
            "<item><instancesSet><item><instanceId>{id}</instanceId><privateIpAddress>{address}</privateIpAddress></item>\
             </instancesSet></item>"
        )
    };
    let world = SdkFixture::answering([
        instances(&item("i-1", "10.0.2.1"), "<nextToken>a/b+c</nextToken>"),
        instances(&item("i-2", "10.0.2.2"), ""),
    ])
    .await;
    let found = world.aws.ec2.instance_addresses(&ids(&["i-1", "i-2"])).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|(id, found)| (id, found.v4().unwrap().to_string())).collect();
    let expected = [("i-1", "10.0.2.1"), ("i-2", "10.0.2.2")];
    assert_eq!(found, expected.map(|(id, address)| (id.to_owned(), address.to_owned())));
    let seen = world.script.seen.lock().unwrap();
    let first = "Action=DescribeInstances&Version=2016-11-15&MaxResults=1000&IncludeManagedResources=true\
                 &Filter.1.Name=instance-id&Filter.1.Value.1=i-1&Filter.1.Value.2=i-2";
    assert_eq!(seen[0].body, first);
    assert_eq!(seen[1].body, format!("{first}&NextToken=a%2Fb%2Bc"));
    let credential = "/eu-west-1/ec2/aws4_request";
    assert!(seen.iter().all(|one| one.authorization.contains(credential)), "{}", seen[0].authorization);
    assert_eq!(world.calls(), [("ec2:DescribeInstances", "success"); 2]);
}

#[tokio::test]
async fn failures_of_ec2_have_kind_and_next_step() {
    let failure = |code: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>Said AWS.\
             </Message></Error></Errors><RequestID>r</RequestID></Response>"
        )
    };
    for (status, body, kind, code, hint) in [
        (
            403,
            failure("UnauthorizedOperation"),
            AwsErrorKind::Denied,
            "UnauthorizedOperation",
            "ec2:DescribeInstances",
        ),
        (503, failure("RequestLimitExceeded"), AwsErrorKind::Throttled, "RequestLimitExceeded", ""),
        (500, failure("InternalError"), AwsErrorKind::Unavailable, "InternalError", ""),
        (401, failure("AuthFailure"), AwsErrorKind::Credentials, "AuthFailure", "credentials"),
        (502, "<html></html>".to_owned(), AwsErrorKind::Unavailable, "HTTP 502", ""),
        (200, "<html></html>".to_owned(), AwsErrorKind::Unavailable, "HTTP 200", ""),
    ] {
        let world = SdkFixture::answering([(status, body)]).await;
        let error = world.aws.ec2.instance_addresses(&ids(&["i-1"])).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (kind, code), "{error}");
        assert!(error.hint.contains(hint), "{error}");
    }
}

#[tokio::test]
async fn pages_without_end_are_an_error() {
    let page = || instances("", "<nextToken>more</nextToken>");
    let world = SdkFixture::answering(std::iter::repeat_with(page).take(10)).await;
    let error = world.aws.ec2.instance_addresses(&ids(&["i-1"])).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (AwsErrorKind::Invalid, "response"));
    assert!(error.to_string().contains("AWS_ENDPOINT_URL_EC2"), "{error}");
}
