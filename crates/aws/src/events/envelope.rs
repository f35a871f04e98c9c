//! The envelope of EventBridge, and the optional envelope of SNS around it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{self, BorrowedText, need, time};
use super::poison::{PoisonMessage, PoisonReason};
use ecs_mesh_model::Timestamp;

/// The fields that identify an event. `detail` stays raw JSON for the parser of the event, unless `D` is that event's own.
#[derive(Deserialize)]
#[serde(bound(deserialize = "D: Deserialize<'de>"))]
pub(super) struct EventEnvelope<'a, D = &'a RawValue> {
    #[serde(rename = "detail-type", borrow)]
    detail_type: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    source: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    account: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    region: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    time: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    resources: Option<&'a RawValue>,
    detail: Option<D>,
    #[serde(rename = "Type", borrow)]
    sns_type: Option<BorrowedText<'a>>,
    #[serde(rename = "Message", borrow)]
    sns_message: Option<BorrowedText<'a>>,
}

impl EventEnvelope<'_> {
    /// Reads the field `detail`.
    pub(super) fn detail<'d, D: Deserialize<'d>>(&'d self) -> Result<D, PoisonMessage> {
        let raw = self.detail.ok_or_else(|| PoisonMessage::new(PoisonReason::MissingField, "detail"))?;
        json::read_detail(raw.get())
    }
}

impl<D> EventEnvelope<'_, D> {
    /// The field `detail` as it was read with the envelope.
    pub(super) fn parsed_detail(&self) -> Option<&D> {
        self.detail.as_ref()
    }

    /// The wrapped event, if an SNS topic without raw delivery forwarded it.
    pub(super) fn sns_message(&self) -> Option<&str> {
        let notification = self.sns_type.as_deref().is_some_and(|kind| kind == "Notification");
        self.sns_message.as_deref().filter(|_| notification && self.detail_type.is_none())
    }

    /// Whether this is SNS's request to confirm a subscription.
    ///
    /// Source: <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.
    pub(super) fn is_subscription_confirmation(&self) -> bool {
        self.detail_type.is_none()
            && self.sns_type.as_deref().is_some_and(|kind| kind == "SubscriptionConfirmation")
    }

    pub(super) fn detail_type(&self) -> Result<&str, PoisonMessage> {
        need(self.detail_type.as_ref(), "detail-type")
    }

    pub(super) fn source(&self) -> Result<&str, PoisonMessage> {
        need(self.source.as_ref(), "source")
    }

    /// The first of the field `resources`.
    pub(super) fn resource(&self) -> Result<String, PoisonMessage> {
        let missing = || PoisonMessage::new(PoisonReason::MissingField, "resources[0]");
        let raw = self.resources.ok_or_else(missing)?;
        let resources: Vec<BorrowedText<'_>> = serde_json::from_str(raw.get())
            .map_err(|_| PoisonMessage::new(PoisonReason::WrongType, "resources"))?;
        resources.first().map(|first| (**first).to_owned()).ok_or_else(missing)
    }

    /// The account of the event, 12 digits.
    pub(super) fn account(&self) -> Result<&str, PoisonMessage> {
        let account = need(self.account.as_ref(), "account")?;
        let sane = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if sane { Ok(account) } else { Err(PoisonMessage::new(PoisonReason::InvalidName, "account")) }
    }

    /// The Region of the event.
    pub(super) fn region(&self) -> Result<&str, PoisonMessage> {
        need(self.region.as_ref(), "region")
    }

    pub(super) fn time(&self) -> Result<Option<Timestamp>, PoisonMessage> {
        time(self.time.as_ref(), "time")
    }
}
