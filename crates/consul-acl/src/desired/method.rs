//! An auth method of type `aws-iam`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{DesiredObjectsBuilder, DesiredState, Edition, ObjectId, templates};
use ecs_mesh_api::{LoginSettings, TokenLocality};
use ecs_mesh_model::GoDuration;

impl DesiredObjectsBuilder<'_> {
    /// `tags`: the role tags that rules may use.
    pub(super) fn method(
        &mut self,
        id: &ObjectId,
        description: &str,
        login: LoginSettings<'_>,
        tags: &[&str],
    ) {
        let mut body = Map::new();
        body.insert("Name".to_owned(), json!(&*id.name));
        body.insert("Type".to_owned(), json!("aws-iam"));
        body.insert("Description".to_owned(), json!(self.with_mark(description)));
        let locality = match login.token_locality {
            // Consul's default, which it does not return.
            TokenLocality::Local => "",
            TokenLocality::Global => "global",
        };
        body.insert("TokenLocality".to_owned(), json!(locality));
        if let Some(ttl) = login.token_ttl {
            body.insert("MaxTokenTTL".to_owned(), json!(ttl_text(ttl.0)));
        }
        let namespaces = match self.context.edition {
            Edition::Enterprise { .. } if !tags.is_empty() => json!([templates::namespace_rule()]),
            // Foreign entries are removed. An empty value is not sent, since other editions refuse the field.
            _ => json!([]),
        };
        body.insert("NamespaceRules".to_owned(), namespaces);
        body.insert("Config".to_owned(), config(login, tags));
        self.add(id.clone(), DesiredState::Present { body: Value::Object(body), needs: Vec::new() });
    }
}

fn config(login: LoginSettings<'_>, tags: &[&str]) -> Value {
    let mut config = json!({
        "BoundIAMPrincipalARNs": login.bound_principals,
        "EnableIAMEntityDetails": login.entity_details,
        "IAMEntityTags": tags,
        // The endpoint decides identities, so an undeclared one is removed.
        "STSEndpoint": login.sts_endpoint.unwrap_or_default(),
        "IAMEndpoint": login.iam_endpoint.unwrap_or_default(),
        "AllowedSTSHeaderValues": login.allowed_sts_headers,
    });
    if let Some(value) = login.server_id_header_value {
        config["ServerIDHeaderValue"] = json!(value);
    }
    config
}

/// The duration in Consul's format: `1h30m0s`. Empty for no limit.
fn ttl_text(ttl: Duration) -> String {
    if ttl.is_zero() { String::new() } else { GoDuration::from(ttl).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_has_consul_format() {
        for (millis, text) in [
            (0, ""),
            (60_000, "1m0s"),
            (3_600_000, "1h0m0s"),
            (86_400_000, "24h0m0s"),
            (5_400_500, "1h30m0.5s"),
        ] {
            assert_eq!(ttl_text(Duration::from_millis(millis)), text);
        }
    }
}
