//! `AWS API Call via CloudTrail` of IAM: a role's tags changed, or the role was deleted.
//!
//! The event only invalidates cached tags. It is no source of tags, since it may arrive late and IAM is eventually
//! consistent. Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/cloudtrail-integration.html>.

use serde::Deserialize;

use super::envelope::EventEnvelope;
use super::json::{self, BorrowedText, given, need};
use super::poison::{PoisonMessage, PoisonReason};
use super::{Decoded, RoleEvent};

/// The Regions to which IAM, a global service, sends its events: one per partition.
///
/// Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/cloudtrail-integration.html>.
const IAM_REGIONS: [&str; 3] = ["us-east-1", "us-gov-west-1", "cn-north-1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CloudTrailDetail<'a> {
    #[serde(borrow)]
    event_name: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    event_time: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    error_code: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    request_parameters: Option<RequestParameters<'a>>,
}

#[derive(Deserialize)]
struct RequestParameters<'a> {
    #[serde(rename = "roleName", borrow)]
    role_name: Option<BorrowedText<'a>>,
}

/// Reads the role whose tags are stale. Failed calls and other calls are ignored.
pub(super) fn read(envelope: &EventEnvelope<'_>) -> Result<Decoded, PoisonMessage> {
    let detail: CloudTrailDetail<'_> = envelope.detail()?;
    let Some(event) = RoleEvent::parse(need(detail.event_name.as_ref(), "detail.eventName")?) else {
        return Ok(Decoded::Ignored { detail_type: "iam_call" });
    };
    if given(detail.error_code.as_ref()).is_some() {
        return Ok(Decoded::Ignored { detail_type: "iam_call_failed" });
    }
    if !IAM_REGIONS.contains(&envelope.region()?) {
        return Err(PoisonMessage::new(PoisonReason::OriginMismatch, "region"));
    }
    Ok(Decoded::RoleChange {
        role_name: role_name(&detail)?,
        account: envelope.account()?.to_owned(),
        event,
        at: match json::time(detail.event_time.as_ref(), "detail.eventTime")? {
            Some(at) => Some(at),
            None => envelope.time()?,
        },
    })
}

/// IAM's rule: letters, digits and `+=,.@-_`, at most 64.
fn role_name(detail: &CloudTrailDetail<'_>) -> Result<String, PoisonMessage> {
    let path = "detail.requestParameters.roleName";
    let field = detail.request_parameters.as_ref().and_then(|parameters| parameters.role_name.as_ref());
    let name = need(field, path)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b);
    if name.len() > 64 || !name.bytes().all(allowed) {
        return Err(PoisonMessage::new(PoisonReason::InvalidName, path));
    }
    Ok(name.to_owned())
}
