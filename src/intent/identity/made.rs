//! What a set-up may have of ours that its manifest speaks of no more: what is left of a part that was taken off it is
//! told from what somebody else made of an object of ours.

use super::client_tokens::client_key;
use super::service_tokens::{gateway, service_key};
use super::{RuleKey, texts};
use crate::api::GatewayKind;

impl RuleKey {
    /// Every rule that an operator makes for an auth method, each with its selector.
    pub fn ever_made(auth_method: &str) -> Vec<(Self, String)> {
        let gateways = GatewayKind::ALL
            .into_iter()
            .map(|kind| (gateway(kind).key(auth_method), texts::tag_is(texts::GATEWAY_TAG, kind.as_str())));
        let others = [service_key(auth_method), client_key(auth_method)];
        others.into_iter().map(|key| (key, String::new())).chain(gateways).collect()
    }
}

/// Whether people attach policies of their own to the role of this name.
pub fn gets_policies_of_others(role: &str) -> bool {
    GatewayKind::ALL.into_iter().map(gateway).any(|kind| kind.policy.is_none() && kind.role == role)
}
