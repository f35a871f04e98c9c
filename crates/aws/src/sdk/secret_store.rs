//! Tokens as secrets of Secrets Manager.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType, Tag};

use super::call::CallRunner;
use crate::aws::{AwsError, AwsErrorKind};
use crate::token_store::{EntryDescription, EntryPage, EntryTags, NewEntry, TokenStore};

/// Secrets in a page, the most that is allowed.
const PAGE: i32 = 100;
const DESCRIPTION: &str = "Data plane token of ecs-mesh-operator";

/// Secrets Manager of one account and Region.
#[derive(Clone)]
pub struct SdkSecretStore {
    client: aws_sdk_secretsmanager::Client,
    calls: CallRunner,
}

impl SdkSecretStore {
    pub(super) fn new(config: &SdkConfig, calls: CallRunner) -> Self {
        Self { client: aws_sdk_secretsmanager::Client::new(config), calls }
    }
}

fn sdk_tags(tags: &EntryTags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

#[async_trait]
impl TokenStore for SdkSecretStore {
    async fn list(&self, path: &str, next: Option<String>) -> Result<EntryPage, AwsError> {
        let prefix = format!("{path}/");
        let filter = Filter::builder().key(FilterNameStringType::Name).values(&prefix).build();
        // The tokens of a secret within its recovery window can be valid, and its tags name them.
        let call = self.client.list_secrets().filters(filter).include_planned_deletion(true);
        let call = call.max_results(PAGE).set_next_token(next);
        let page = Box::pin(self.calls.run("secretsmanager:ListSecrets", path, call.send())).await?;
        let names = page.secret_list.unwrap_or_default().into_iter().filter_map(|secret| secret.name);
        Ok(EntryPage {
            names: names.filter(|name| name.starts_with(&prefix)).collect(),
            next: page.next_token.filter(|token| !token.is_empty()),
        })
    }

    async fn list_tagged(&self, key: &str, value: &str, next: Option<String>) -> Result<EntryPage, AwsError> {
        let filter = |kind, text: &str| Filter::builder().key(kind).values(text).build();
        let call = self
            .client
            .list_secrets()
            .filters(filter(FilterNameStringType::TagKey, key))
            .filters(filter(FilterNameStringType::TagValue, value))
            .max_results(PAGE)
            .set_next_token(next);
        let page = Box::pin(self.calls.run("secretsmanager:ListSecrets", key, call.send())).await?;
        // The filters match the beginnings of keys and values.
        let is_tag = |tag: &Tag| tag.key() == Some(key) && tag.value() == Some(value);
        let found = page.secret_list.unwrap_or_default().into_iter();
        let found = found.filter(|secret| secret.tags().iter().any(is_tag));
        Ok(EntryPage {
            names: found.filter_map(|secret| secret.name).collect(),
            next: page.next_token.filter(|token| !token.is_empty()),
        })
    }

    async fn describe(&self, name: &str) -> Result<Option<EntryDescription>, AwsError> {
        let call = self.client.describe_secret().secret_id(name);
        let described =
            match Box::pin(self.calls.run("secretsmanager:DescribeSecret", name, call.send())).await {
                Err(error) if error.kind == AwsErrorKind::NotFound => return Ok(None),
                described => described?,
            };
        // A secret is described until the end of its recovery window.
        let is_deleting = described.deleted_date.is_some();
        let tags = described.tags.unwrap_or_default().into_iter();
        let tags = tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect();
        Ok(Some(EntryDescription { tags, is_deleting }))
    }

    async fn create(&self, entry: NewEntry<'_>) -> Result<(), AwsError> {
        let call = self
            .client
            .create_secret()
            .name(entry.name)
            .description(DESCRIPTION)
            .set_kms_key_id(entry.kms_key.map(str::to_owned))
            .set_tags(Some(sdk_tags(entry.tags)))
            .secret_string(entry.text);
        Box::pin(self.calls.run("secretsmanager:CreateSecret", entry.name, call.send())).await.map(drop)
    }

    /// A secret keeps its key.
    async fn put(&self, name: &str, _kms_key: Option<&str>, text: &str) -> Result<(), AwsError> {
        let call = self.client.put_secret_value().secret_id(name).secret_string(text);
        Box::pin(self.calls.run("secretsmanager:PutSecretValue", name, call.send())).await.map(drop)
    }

    async fn set_tags(&self, name: &str, tags: &EntryTags) -> Result<(), AwsError> {
        let call = self.client.tag_resource().secret_id(name).set_tags(Some(sdk_tags(tags)));
        Box::pin(self.calls.run("secretsmanager:TagResource", name, call.send())).await.map(drop)
    }

    async fn remove(&self, name: &str) -> Result<(), AwsError> {
        // Its tokens have expired. A recovery window would block the name for a week.
        let call = self.client.delete_secret().secret_id(name).force_delete_without_recovery(true);
        match Box::pin(self.calls.run("secretsmanager:DeleteSecret", name, call.send())).await {
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(()),
            removed => removed.map(drop),
        }
    }
}
