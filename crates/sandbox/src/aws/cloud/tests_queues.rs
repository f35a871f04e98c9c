//! Queues, rules and roles.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::testing::{CloudFixture, cloud, cloud_with};
use super::{AssumeRole, CreateRole, PutEvent, PutEventOutcome, QueueCounts, ReceiveMessages, SendMessage};
use crate::aws::{CloudConfig, Delivery, RuleTarget};
use ecs_mesh_model::Tags;

const ONE: ReceiveMessages = ReceiveMessages { max: 1, visibility: None };

fn with_queue(attributes: &[(&str, &str)]) -> CloudFixture {
    let mut world = cloud();
    let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    world.cloud.create_queue("work", attributes, world.now).unwrap();
    world
}

fn send(world: &mut CloudFixture, body: &str) {
    world.cloud.send_message("work", SendMessage::of(body), world.now).unwrap();
}

fn receive(world: &mut CloudFixture) -> Option<super::ReceivedMessage> {
    world.cloud.receive_message("work", ONE, world.now).unwrap().pop()
}

#[test]
fn in_flight_message_is_hidden_until_its_timeout() {
    let mut world = with_queue(&[("VisibilityTimeout", "5")]);
    send(&mut world, "a");
    let first = receive(&mut world).unwrap();
    assert!(receive(&mut world).is_none());
    let counts = world.cloud.queue_counts("work", world.now).unwrap();
    assert_eq!(counts, QueueCounts { visible: 0, in_flight: 1, delayed: 0 });
    assert_eq!(world.cloud.next_deadline(), Some(world.now.plus(Duration::from_secs(5))));
    world.run_for_secs(5);
    assert!(world.cloud.take_message_arrived());
    let second = receive(&mut world).unwrap();
    assert_eq!(second.system["ApproximateReceiveCount"], "2");
    assert_eq!(second.system["SentTimestamp"], first.system["SentTimestamp"]);
    world.cloud.delete_message("work", &first.receipt_handle).unwrap();
    let in_flight = world.cloud.queue_counts("work", world.now).unwrap().in_flight;
    assert_eq!(in_flight, 1, "an old handle deletes nothing");
    world.cloud.delete_message("work", &second.receipt_handle).unwrap();
    assert_eq!(world.cloud.queue_counts("work", world.now).unwrap(), QueueCounts::default());
}

#[test]
fn visibility_timeout_zero_releases_the_message() {
    let mut world = with_queue(&[]);
    send(&mut world, "a");
    let message = receive(&mut world).unwrap();
    world.cloud.change_message_visibility("work", &message.receipt_handle, 0, world.now).unwrap();
    let again = world.cloud.change_message_visibility("work", &message.receipt_handle, 0, world.now);
    assert_eq!(again.unwrap_err().code, "MessageNotInflight");
    assert!(receive(&mut world).is_some());
}

#[test]
fn receipt_handle_of_another_queue_is_rejected() {
    let mut world = with_queue(&[]);
    world.task();
    let foreign = world.cloud.receive_message("events", ONE, world.now).unwrap().remove(0).receipt_handle;
    for handle in [foreign.as_str(), "", "AQEB-x"] {
        assert_eq!(world.cloud.delete_message("work", handle).unwrap_err().code, "ReceiptHandleIsInvalid");
    }
}

#[test]
fn message_moves_to_dlq_after_max_receives() {
    let mut world = cloud();
    world.cloud.create_queue("dead", BTreeMap::new(), world.now).unwrap();
    let policy = json!({"deadLetterTargetArn": world.cloud.queue_arn("dead").unwrap(), "maxReceiveCount": 2});
    let attributes = BTreeMap::from([("RedrivePolicy".into(), policy.to_string())]);
    world.cloud.create_queue("work", attributes, world.now).unwrap();
    send(&mut world, "poison");
    send(&mut world, "food");
    let now = ReceiveMessages { max: 1, visibility: Some(Duration::ZERO) };
    for _ in 0..2 {
        assert_eq!(&*world.cloud.receive_message("work", now, world.now).unwrap()[0].body, "poison");
    }
    assert_eq!(&*receive(&mut world).unwrap().body, "food", "poison no longer stands in the way");
    let dead = world.cloud.receive_message("dead", ONE, world.now).unwrap();
    assert_eq!(&*dead[0].body, "poison");
    assert!(dead[0].system["DeadLetterQueueSourceArn"].ends_with(":work"));
}

#[test]
fn delayed_and_expired_messages_are_not_received() {
    let mut world = with_queue(&[("MessageRetentionPeriod", "60")]);
    let late = SendMessage { delay_seconds: Some(10), ..SendMessage::of("late") };
    world.cloud.send_message("work", late, world.now).unwrap();
    assert!(receive(&mut world).is_none());
    assert_eq!(world.cloud.queue_counts("work", world.now).unwrap().delayed, 1);
    world.run_for_secs(10);
    assert_eq!(world.cloud.queue_counts("work", world.now).unwrap().visible, 1);
    world.run_for_secs(50);
    assert!(receive(&mut world).is_none());
}

#[test]
fn queue_attributes_are_checked_and_have_defaults() {
    let mut world = with_queue(&[]);
    let all = world.cloud.get_queue_attributes("work", &["All"], world.now).unwrap();
    assert_eq!(all["VisibilityTimeout"], "30");
    assert_eq!(all["QueueArn"], "arn:aws:sqs:eu-west-1:111122223333:work");
    let set = |world: &mut CloudFixture, name: &str, value: &str| {
        let attributes = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        world.cloud.set_queue_attributes("work", attributes, world.now).map_err(|error| error.code)
    };
    assert_eq!(set(&mut world, "VisibilityTimeout", "43201"), Err("InvalidAttributeValue"));
    assert_eq!(set(&mut world, "Colour", "red"), Err("InvalidAttributeName"));
    assert_eq!(set(&mut world, "VisibilityTimeout", "7"), Ok(()));
    let one = world.cloud.get_queue_attributes("work", &["VisibilityTimeout"], world.now).unwrap();
    assert_eq!(one, BTreeMap::from([("VisibilityTimeout".into(), "7".into())]));
}

#[test]
fn attributes_md5_matches_the_documentation() {
    let attribute = super::MessageAttribute { data_type: "String".into(), string_value: "v".into() };
    let md5 = super::messages::attributes_md5(&BTreeMap::from([("n".into(), attribute)]));
    // Computed by hand: md5(00000001 'n' 00000006 'String' 01 00000001 'v').
    assert_eq!(md5.as_deref(), Some("f4b238699da710fd012839c16c09f1ca"));
}

#[test]
fn delivery_faults_lose_double_delay_and_replay_events() {
    let count = |delivery: Delivery, wait: u64| {
        let mut world = cloud_with(CloudConfig { delivery, ..CloudConfig::default() });
        for _ in 0..100 {
            world.task();
        }
        world.cloud.lose_events_until(world.now.plus(Duration::from_hours(1)));
        world.run_for_millis(wait);
        world.events().len()
    };
    let healthy = Delivery::default();
    assert_eq!(count(healthy.clone(), 0), 100);
    assert_eq!(count(Delivery { lose: 1.0, ..healthy.clone() }, 0), 0);
    assert_eq!(count(Delivery { duplicate: 1.0, ..healthy.clone() }, 0), 200);
    let (delay_min, delay_max) = (Duration::from_secs(1), Duration::from_secs(2));
    assert_eq!(count(Delivery { delay_min, delay_max, ..healthy.clone() }, 999), 0);
    assert_eq!(count(Delivery { delay_min, delay_max, ..healthy.clone() }, 2000), 100);
    let replayed = Delivery { replay: 1.0, replay_after: Duration::from_mins(10), ..healthy.clone() };
    assert_eq!(count(replayed.clone(), 1000), 100);
    assert_eq!(count(replayed, 600_000), 200);
    let some = count(Delivery { lose: 0.5, ..healthy }, 0);
    assert!((20..80).contains(&some), "{some}");
}

#[test]
fn shuffled_queue_reorders_but_loses_nothing() {
    let delivery = Delivery { shuffle: true, ..Delivery::default() };
    let mut world = cloud_with(CloudConfig { delivery, ..CloudConfig::default() });
    let started: Vec<_> = (0..100).map(|_| json!(&*world.task())).collect();
    let mut received: Vec<_> =
        world.events().iter().map(|event| event["detail"]["taskArn"].clone()).collect();
    assert_ne!(received, started);
    received.sort_by_key(ToString::to_string);
    let mut sorted = started;
    sorted.sort_by_key(ToString::to_string);
    assert_eq!(received, sorted);
}

#[test]
fn put_events_rejects_aws_sources_unless_configured() {
    let event = |source: &str| PutEvent {
        source: source.into(),
        detail_type: "t".into(),
        detail: "{}".into(),
        ..PutEvent::default()
    };
    let mut world = cloud();
    let outcomes = world.cloud.put_events(vec![event("aws.ecs"), event("mine")], world.now).unwrap();
    let PutEventOutcome::Refused { error_code, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(*error_code, "NotAuthorizedForSourceException");
    assert!(matches!(outcomes[1], PutEventOutcome::Taken { .. }));
    assert!(world.events().is_empty());
    let mut world = cloud_with(CloudConfig { accept_aws_sources: true, ..CloudConfig::default() });
    world.cloud.put_events(vec![event("aws.ecs")], world.now).unwrap();
    assert_eq!(world.events().len(), 1);
}

#[test]
fn role_tag_changes_emit_cloudtrail_events() {
    let mut world = cloud();
    let tags = Tags::from([("mesh".into(), "a".into())]);
    world.cloud.create_role(CreateRole::for_tasks("kv-task", tags.clone()), world.now).unwrap();
    let created = world.now;
    world.run_for_secs(1);
    world.cloud.tag_role("kv-task", &Tags::from([("team".into(), "kv".into())]), world.now).unwrap();
    let tagged = world.now;
    world.run_for_secs(1);
    world.cloud.untag_role("kv-task", &["mesh".into()], world.now).unwrap();
    world.run_for_secs(1);
    world.cloud.delete_role("kv-task", world.now).unwrap();
    let received: Vec<_> = world
        .events()
        .iter()
        .map(|event| {
            assert_eq!(event["detail-type"], "AWS API Call via CloudTrail");
            assert_eq!(event["region"], "us-east-1");
            assert_eq!(event["detail"]["requestParameters"]["roleName"], "kv-task");
            event["detail"]["eventName"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(received, ["TagRole", "UntagRole", "DeleteRole"]);
    assert_eq!(world.cloud.role_tags_as_of("kv-task", created), Some(tags));
    assert_eq!(world.cloud.role_tags_as_of("kv-task", tagged).unwrap().len(), 2);
    assert_eq!(world.cloud.role_tags_as_of("kv-task", world.now), None);
    assert_eq!(world.cloud.get_role("kv-task").unwrap_err().code, "NoSuchEntity");
}

#[test]
fn assumed_role_credentials_expire() {
    let mut world = cloud();
    let role = world.cloud.create_role(CreateRole::for_tasks("kv-task", Tags::new()), world.now).unwrap();
    let request = AssumeRole {
        role_arn: role.arn,
        session_name: "task1".into(),
        duration_seconds: Some(900),
        ..AssumeRole::default()
    };
    let assumed = world.cloud.assume_role(&request, world.now).unwrap();
    let (arn, id) = world.cloud.caller_identity(&assumed.access_key_id, world.now).unwrap();
    assert_eq!(arn, "arn:aws:sts::111122223333:assumed-role/kv-task/task1");
    assert_eq!(id, format!("{}:task1", role.id));
    world.run_for_secs(900);
    assert_eq!(
        world.cloud.caller_identity(&assumed.access_key_id, world.now).unwrap_err().code,
        "ExpiredToken"
    );
}

#[test]
fn rule_names_by_target_are_paged() {
    let mut world = with_queue(&[]);
    let queue = world.cloud.queue_arn("work").unwrap();
    let bus = "arn:aws:events:eu-west-1:111122223333:event-bus/work";
    for (rule, arn) in [("a", queue.as_str()), ("b", bus), ("c", queue.as_str())] {
        world.cloud.put_rule(rule, r#"{"source": ["shop"]}"#, true, None).unwrap();
        let target =
            RuleTarget { id: "t".into(), arn: arn.into(), input: None, rest: serde_json::Map::new() };
        world.cloud.put_targets(rule, vec![target]).unwrap();
    }
    let (first, next) = world.cloud.list_rule_names_by_target(None, &queue, None, 1);
    assert_eq!((first, next.as_deref()), (vec!["a"], Some("a")));
    assert_eq!(world.cloud.list_rule_names_by_target(None, &queue, Some("a"), 1), (vec!["c"], None));
    assert_eq!(world.cloud.list_rule_names_by_target(None, "arn:aws:sqs:x", None, 1), (vec![], None));
    let event = PutEvent {
        source: "shop".into(),
        detail_type: "x".into(),
        detail: "{}".into(),
        ..PutEvent::default()
    };
    world.cloud.put_events(vec![event], world.now).unwrap();
    assert_eq!(world.cloud.queue_counts("work", world.now).unwrap().visible, 2);
}
