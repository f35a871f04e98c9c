//! The form of a lease in each store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use async_trait::async_trait;

use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, DynamoDb, ItemAttribute, ItemPut, PutCondition, TableItem};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::ConsulSessionLock;
use ecs_mesh_control_plane::http::{BodySink, HttpMethod, ResponseHead, StreamTransport, TransportError};
use ecs_mesh_model::{OperatorId, Timestamp};

use crate::{
    ConsulLeaseStore, DynamoDbLeaseStore, HolderId, LeaseRecord, LeaseStore, LeaseStoreErrorKind,
    LeaseTiming, LeaseWrite, LeaseWriteKind, StoredRecord,
};

const OPERATOR: &str = "mesh";

/// One table.
#[derive(Default)]
struct FakeTable {
    items: Mutex<BTreeMap<String, TableItem>>,
    failure: Option<AwsErrorKind>,
}

impl FakeTable {
    fn check(&self) -> Result<(), AwsError> {
        match self.failure {
            None => Ok(()),
            Some(kind) => Err(AwsError {
                kind,
                operation: "dynamodb:GetItem",
                resource: "leases".to_owned(),
                code: "Code".to_owned(),
                message: "for a reason".to_owned(),
                hint: "",
            }),
        }
    }
}

fn text_of(item: &TableItem, name: &str) -> Option<String> {
    match item.get(name)? {
        ItemAttribute::Text(text) | ItemAttribute::Number(text) => Some(text.clone()),
    }
}

#[async_trait]
impl DynamoDb for FakeTable {
    async fn get_item(&self, _: &str, key: &TableItem) -> Result<Option<TableItem>, AwsError> {
        self.check()?;
        let key = text_of(key, "operatorId").unwrap();
        Ok(self.items.lock().unwrap().get(&key).cloned())
    }

    async fn put_item(&self, put: &ItemPut<'_>) -> Result<bool, AwsError> {
        self.check()?;
        let mut items = self.items.lock().unwrap();
        let key = text_of(put.item, "operatorId").unwrap();
        let holds = match (&put.condition, items.get(&key)) {
            (PutCondition::Missing(_), found) => found.is_none(),
            (PutCondition::Equals(name, value), found) => {
                found.and_then(|item| item.get(*name)) == Some(value)
            }
        };
        if holds {
            items.insert(key, put.item.clone());
        }
        Ok(holds)
    }
}

fn write(kind: LeaseWriteKind, expected: Option<u64>, holder: Option<&str>, epoch: u64) -> LeaseWrite {
    let record = LeaseRecord {
        holder: holder.map(HolderId::recorded),
        epoch,
        duration: LeaseTiming::default().lease_duration(),
    };
    LeaseWrite { kind, writer: HolderId::recorded("me"), expected, record }
}

fn table(fake: FakeTable) -> DynamoDbLeaseStore<FakeTable> {
    let operator = OperatorId::parse(OPERATOR).unwrap();
    DynamoDbLeaseStore::new(fake, "leases", operator, Clock::simulated(Timestamp(1_800_000_000_000)))
}

#[tokio::test]
async fn item_keeps_holder_epoch_and_version() {
    let store = table(FakeTable::default());
    assert_eq!(store.read().await, Ok(None));
    let acquire = write(LeaseWriteKind::Acquire, None, Some("me"), 1);
    assert_eq!(store.write(&acquire).await, Ok(Some(1)));
    assert_eq!(store.write(&acquire).await, Ok(None), "there is an item now");
    let renew = write(LeaseWriteKind::Renew, Some(1), Some("me"), 1);
    assert_eq!(store.write(&renew).await, Ok(Some(2)));
    assert_eq!(store.write(&renew).await, Ok(None), "the version is another");
    let stored = StoredRecord { record: renew.record.clone(), version: 2 };
    assert_eq!(store.read().await, Ok(Some(stored)));
    let release = write(LeaseWriteKind::Release, Some(2), None, 1);
    assert_eq!(store.write(&release).await, Ok(Some(3)));
    let released = store.read().await.unwrap().unwrap();
    assert_eq!((released.record.holder, released.record.epoch, released.version), (None, 1, 3));
}

#[tokio::test]
async fn failures_of_the_table_are_told_apart() {
    for (kind, expected, has_help) in [
        (AwsErrorKind::NotFound, LeaseStoreErrorKind::TableMissing, true),
        (AwsErrorKind::Denied, LeaseStoreErrorKind::AccessDenied, false),
        (AwsErrorKind::Throttled, LeaseStoreErrorKind::Throttled, false),
        (AwsErrorKind::Unavailable, LeaseStoreErrorKind::Unreachable, false),
    ] {
        let error =
            table(FakeTable { failure: Some(kind), ..FakeTable::default() }).read().await.unwrap_err();
        assert_eq!(error.kind, expected);
        // The call and the resource, which a missing permission names.
        assert!(error.message.contains("dynamodb:GetItem") && error.message.contains("leases"), "{error}");
        assert_eq!(error.message.contains("help: create the table"), has_help, "{error}");
    }
}

#[tokio::test]
async fn item_of_another_form_is_malformed() {
    for (name, value) in [
        ("version", ItemAttribute::Text("1".to_owned())),
        ("epoch", ItemAttribute::Number("-1".to_owned())),
        ("leaseDurationMillis", ItemAttribute::Number("99999999".to_owned())),
    ] {
        let fake = FakeTable::default();
        let mut item = BTreeMap::new();
        for (name, number) in [("epoch", "1"), ("version", "1"), ("leaseDurationMillis", "15000")] {
            item.insert(name.to_owned(), ItemAttribute::Number(number.to_owned()));
        }
        item.insert(name.to_owned(), value);
        fake.items.lock().unwrap().insert(OPERATOR.to_owned(), item);
        let error = table(fake).read().await.unwrap_err();
        assert_eq!(error.kind, LeaseStoreErrorKind::Malformed);
        assert!(error.message.contains(name) && error.message.contains("delete the item"), "{error}");
    }
}

/// Answers in order, and keeps the requests.
#[derive(Default)]
struct ConsulScript {
    answers: Mutex<VecDeque<(u16, String)>>,
    seen: Mutex<Vec<String>>,
}

struct ScriptedConsul(std::sync::Arc<ConsulScript>);

#[async_trait]
impl StreamTransport for ScriptedConsul {
    async fn stream(
        &self,
        method: HttpMethod,
        path_and_query: &str,
        _body: Option<Vec<u8>>,
        sink: &mut dyn BodySink,
    ) -> Result<ResponseHead, TransportError> {
        self.0.seen.lock().unwrap().push(format!("{method} {path_and_query}"));
        let (status, body) = self.0.answers.lock().unwrap().pop_front().expect("an unexpected request");
        let head = ResponseHead { status, ..ResponseHead::default() };
        sink.write(&head, body.as_bytes());
        Ok(head)
    }
}

fn consul(answers: &[(u16, &str)]) -> (ConsulLeaseStore<ScriptedConsul>, std::sync::Arc<ConsulScript>) {
    let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
    let script =
        std::sync::Arc::new(ConsulScript { answers: Mutex::new(answers), ..ConsulScript::default() });
    let spec = serde_json::from_value(serde_json::json!({"address": "http://consul:8500"})).unwrap();
    let lock = ConsulSessionLock::new(ScriptedConsul(script.clone()), &spec, "ecs-mesh/mesh/lease");
    (ConsulLeaseStore::new(lock, LeaseTiming::default()), script)
}

/// `{"holder":"me","epoch":3}`
const VALUE: &str = "eyJob2xkZXIiOiJtZSIsImVwb2NoIjozfQ==";

fn key(session: &str) -> String {
    format!(r#"[{{"Key":"k","Value":"{VALUE}","Session":"{session}","ModifyIndex":9,"LockIndex":1}}]"#)
}

#[tokio::test]
async fn lock_is_acquired_renewed_and_released_by_one_session() {
    let (held, free) = (key("s1"), key(""));
    let (store, script) = consul(&[
        (200, r#"{"ID":"s1"}"#),
        (200, &free),
        (200, "true"),
        (200, "[]"),
        (200, &held),
        (200, "true"),
        (200, "true"),
    ]);
    let acquire = write(LeaseWriteKind::Acquire, Some(9), Some("me"), 4);
    assert_eq!(store.write(&acquire).await, Ok(Some(9)));
    let renew = write(LeaseWriteKind::Renew, Some(9), Some("me"), 4);
    assert_eq!(store.write(&renew).await, Ok(Some(9)));
    let release = write(LeaseWriteKind::Release, Some(9), None, 4);
    assert_eq!(store.write(&release).await, Ok(Some(9)));
    let expected = [
        "PUT /v1/session/create",
        "GET /v1/kv/ecs-mesh/mesh/lease?consistent=",
        "PUT /v1/kv/ecs-mesh/mesh/lease?acquire=s1",
        "PUT /v1/session/renew/s1",
        "GET /v1/kv/ecs-mesh/mesh/lease?consistent=",
        "PUT /v1/kv/ecs-mesh/mesh/lease?release=s1",
        "PUT /v1/session/destroy/s1",
    ];
    assert_eq!(*script.seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn renewal_fails_when_the_session_or_its_lock_is_gone() {
    let (free, other) = (key(""), key("s2"));
    let missing = "unknown session";
    for (status, body, then) in [(404, missing, None), (200, "[]", Some(&free)), (200, "[]", Some(&other))] {
        let mut answers = vec![(200, r#"{"ID":"s1"}"#), (200, free.as_str()), (200, "true"), (status, body)];
        answers.extend(then.map(|body| (200, body.as_str())));
        let (store, _) = consul(&answers);
        store.write(&write(LeaseWriteKind::Acquire, Some(9), Some("me"), 4)).await.unwrap();
        let renew = write(LeaseWriteKind::Renew, Some(9), Some("me"), 4);
        assert_eq!(store.write(&renew).await, Ok(None), "{status} {then:?}");
    }
}

#[tokio::test]
async fn acquisition_waits_for_the_lock_delay_with_the_same_session() {
    let free = key("");
    let (store, script) = consul(&[
        (200, r#"{"ID":"s1"}"#),
        (200, &free),
        (200, "false"),
        (200, "[]"),
        (200, &free),
        (500, "failed: invalid session \"s1\""),
    ]);
    let acquire = write(LeaseWriteKind::Acquire, Some(9), Some("me"), 4);
    assert_eq!(store.write(&acquire).await, Ok(None));
    assert_eq!(store.write(&acquire).await, Ok(None));
    assert!(script.seen.lock().unwrap()[3].starts_with("PUT /v1/session/renew/s1"));
}

#[tokio::test]
async fn key_of_a_free_lock_has_no_holder() {
    let (held, free) = (key("s9"), key(""));
    let (store, _) = consul(&[(200, &held), (200, &free)]);
    let stored = store.read().await.unwrap().unwrap();
    assert_eq!((stored.record.holder, stored.record.epoch), (Some(HolderId::recorded("me")), 3));
    assert_eq!(store.read().await.unwrap().unwrap().record.holder, None);
}

#[tokio::test]
async fn denied_lock_names_the_permission() {
    let (store, _) = consul(&[(403, "Permission denied")]);
    let error = store.write(&write(LeaseWriteKind::Acquire, None, Some("me"), 1)).await.unwrap_err();
    assert_eq!(error.kind, LeaseStoreErrorKind::AccessDenied);
    assert!(error.message.contains("session_prefix"), "{error}");
}
