//! The envelope that EventBridge puts around every event, and the one that SNS may put around that.

use serde::Deserialize;

use super::json::{BorrowedText, need, time};
use super::poison::{PoisonMessage, PoisonReason};
use ecs_mesh_model::Timestamp;

/// The fields that say what an event is. `detail` is skipped here and read by the event's own file.
#[derive(Deserialize)]
pub(super) struct EventEnvelope<'a> {
    #[serde(rename = "detail-type", borrow)]
    detail_type: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    source: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    account: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    time: Option<BorrowedText<'a>>,
    #[serde(rename = "Type", borrow)]
    sns_type: Option<BorrowedText<'a>>,
    #[serde(rename = "Message", borrow)]
    sns_message: Option<BorrowedText<'a>>,
}

impl EventEnvelope<'_> {
    /// The event within, where an SNS topic without raw delivery has wrapped it.
    pub(super) fn sns_message(&self) -> Option<&str> {
        let notification = self.sns_type.as_deref().is_some_and(|kind| kind == "Notification");
        self.sns_message.as_deref().filter(|_| notification && self.detail_type.is_none())
    }

    pub(super) fn detail_type(&self) -> Result<&str, PoisonMessage> {
        need(self.detail_type.as_ref(), "detail-type")
    }

    pub(super) fn source(&self) -> Result<&str, PoisonMessage> {
        need(self.source.as_ref(), "source")
    }

    /// The account in which the event happened, 12 digits.
    pub(super) fn account(&self) -> Result<&str, PoisonMessage> {
        let account = need(self.account.as_ref(), "account")?;
        let sane = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        if sane { Ok(account) } else { Err(PoisonMessage::new(PoisonReason::InvalidName, "account")) }
    }

    pub(super) fn time(&self) -> Result<Option<Timestamp>, PoisonMessage> {
        time(self.time.as_ref(), "time")
    }
}
