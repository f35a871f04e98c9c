//! A lease as an item of a DynamoDB table.
//!
//! The table's partition key is `operatorId`, a text, so one table serves many operators. Every write is conditional on the
//! item's `version`. Nothing is compared with `writtenAt`, which is for people.

use std::time::Duration;

use async_trait::async_trait;

use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, DynamoDb, ItemAttribute, ItemPut, PutCondition, TableItem};
use ecs_mesh_clock::Clock;
use ecs_mesh_model::OperatorId;

use crate::election::ExpiryJudge;
use crate::record::{HolderId, LeaseRecord, LeaseWrite, StoredRecord};
use crate::store::{LeaseStore, LeaseStoreError, LeaseStoreErrorKind};

/// The table's partition key.
pub const OPERATOR_ID: &str = "operatorId";
const HOLDER: &str = "holder";
const EPOCH: &str = "epoch";
const VERSION: &str = "version";
const DURATION: &str = "leaseDurationMillis";
const WRITTEN_AT: &str = "writtenAt";

/// A longer duration in a record is not believed: the lease could never be taken.
const MAX_DURATION: Duration = Duration::from_hours(1);

const HELP_TABLE: &str =
    "; help: create the table with the partition key operatorId of type S, in the operator's Region";
const HELP_ITEM: &str = "; help: stop all copies of the operator, delete the item, and start them again";

/// Keeps the lease of one operator in a table.
pub struct DynamoDbLeaseStore<D> {
    dynamodb: D,
    table: String,
    operator: OperatorId,
    clock: Clock,
}

impl<D: DynamoDb> DynamoDbLeaseStore<D> {
    /// The lease of this operator in this table.
    pub fn new(dynamodb: D, table: impl Into<String>, operator: OperatorId, clock: Clock) -> Self {
        Self { dynamodb, table: table.into(), operator, clock }
    }

    fn key(&self) -> TableItem {
        [(OPERATOR_ID.to_owned(), ItemAttribute::Text(self.operator.as_str().to_owned()))].into()
    }

    fn item(&self, record: &LeaseRecord, version: u64) -> TableItem {
        let mut item = self.key();
        let number = |number: u64| ItemAttribute::Number(number.to_string());
        if let Some(holder) = &record.holder {
            item.insert(HOLDER.to_owned(), ItemAttribute::Text(holder.as_str().to_owned()));
        }
        item.insert(EPOCH.to_owned(), number(record.epoch));
        item.insert(VERSION.to_owned(), number(version));
        let millis = u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX);
        item.insert(DURATION.to_owned(), number(millis));
        item.insert(WRITTEN_AT.to_owned(), ItemAttribute::Text(self.clock.wall().to_string()));
        item
    }

    fn malformed(&self, attribute: &str) -> LeaseStoreError {
        let (table, operator) = (&self.table, self.operator.as_str());
        let message = format!(
            "reading the lease of {operator} in the table {table}: the attribute {attribute} is missing or no valid \
             number{HELP_ITEM}"
        );
        LeaseStoreError::new(LeaseStoreErrorKind::Malformed, message)
    }

    fn stored(&self, item: &TableItem) -> Result<StoredRecord, LeaseStoreError> {
        let number = |name: &str| match item.get(name) {
            Some(ItemAttribute::Number(text)) => text.parse::<u64>().map_err(|_| self.malformed(name)),
            _ => Err(self.malformed(name)),
        };
        let holder = match item.get(HOLDER) {
            Some(ItemAttribute::Text(holder)) if !holder.is_empty() => Some(HolderId::recorded(holder)),
            _ => None,
        };
        let duration = Duration::from_millis(number(DURATION)?);
        if duration > MAX_DURATION {
            return Err(self.malformed(DURATION));
        }
        Ok(StoredRecord {
            record: LeaseRecord { holder, epoch: number(EPOCH)?, duration },
            version: number(VERSION)?,
        })
    }
}

#[async_trait]
impl<D: DynamoDb> LeaseStore for DynamoDbLeaseStore<D> {
    fn name(&self) -> &'static str {
        "dynamodb"
    }

    fn judge(&self) -> ExpiryJudge {
        ExpiryJudge::Observer
    }

    async fn read(&self) -> Result<Option<StoredRecord>, LeaseStoreError> {
        let item = self.dynamodb.get_item(&self.table, &self.key()).await.map_err(|error| failure(&error))?;
        item.map(|item| self.stored(&item)).transpose()
    }

    async fn write(&self, write: &LeaseWrite) -> Result<Option<u64>, LeaseStoreError> {
        let version = write.expected.unwrap_or(0).saturating_add(1);
        let condition = match write.expected {
            Some(expected) => PutCondition::Equals(VERSION, ItemAttribute::Number(expected.to_string())),
            None => PutCondition::Missing(OPERATOR_ID),
        };
        let item = self.item(&write.record, version);
        let put = ItemPut { table: &self.table, item: &item, condition };
        let written = self.dynamodb.put_item(&put).await.map_err(|error| failure(&error))?;
        Ok(written.then_some(version))
    }
}

fn failure(error: &AwsError) -> LeaseStoreError {
    let kind = match error.kind {
        AwsErrorKind::NotFound => LeaseStoreErrorKind::TableMissing,
        AwsErrorKind::Denied | AwsErrorKind::Credentials => LeaseStoreErrorKind::AccessDenied,
        AwsErrorKind::Throttled => LeaseStoreErrorKind::Throttled,
        AwsErrorKind::Unavailable => LeaseStoreErrorKind::Unreachable,
        AwsErrorKind::Invalid => LeaseStoreErrorKind::Invalid,
    };
    // DynamoDB answers ValidationException to a key that is not that of the table.
    let is_about_table =
        matches!(kind, LeaseStoreErrorKind::TableMissing) || error.code == "ValidationException";
    let help = if is_about_table { HELP_TABLE } else { "" };
    LeaseStoreError::new(kind, format!("{error}{help}"))
}
