//! Rules of an `AwsAccount`, and of the accounts whose clusters bindings name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Assembly, FindingCollector, ManifestScope};
use crate::manifests::finding::quoted;
use crate::{AwsAccountSpec, limits};
use ecs_mesh_model::{AccountRegion, ClusterArn, RoleArn, partition_of_region};

pub(super) fn check(spec: &AwsAccountSpec, report: &mut FindingCollector<'_>) {
    if !is_account(&spec.account) {
        let message = format!("{} is not an AWS account id: write its 12 digits", quoted(&spec.account));
        report.add("spec.account", message);
    }
    check_role(spec, report);
    if let Some(id) = spec.external_id.as_deref().filter(|id| !is_external_id(id)) {
        let message = format!("{} is not an external id: write {}", quoted(id), limits::EXTERNAL_ID_RULE);
        report.add("spec.externalId", message);
    }
    check_regions(spec, report);
    let rates = spec.reads_per_second;
    for (field, rate) in [("ecs", rates.ecs), ("definitions", rates.definitions), ("roles", rates.roles)] {
        if let Some(rate) = rate {
            report.number(&format!("spec.readsPerSecond.{field}"), &rate, &limits::READS_PER_SECOND);
        }
    }
}

fn check_role(spec: &AwsAccountSpec, report: &mut FindingCollector<'_>) {
    const PATH: &str = "spec.assumeRole";
    match RoleArn::parse(&spec.assume_role) {
        Err(error) => report.add(PATH, error.to_string()),
        Ok(role) if is_account(&spec.account) && role.account() != spec.account => {
            let message = format!(
                "the role is in account {}, and spec.account is {}: name a role of that account",
                role.account(),
                spec.account
            );
            report.add(PATH, message);
        }
        Ok(role) => {
            let other = spec.regions.iter().find(|region| partition_of_region(region) != role.partition());
            if let Some(region) = other {
                let message = format!(
                    "the role is in partition {}, and {region} is in {}: credentials are valid in one partition alone",
                    role.partition(),
                    partition_of_region(region)
                );
                report.add(PATH, message);
            }
        }
    }
}

fn check_regions(spec: &AwsAccountSpec, report: &mut FindingCollector<'_>) {
    const PATH: &str = "spec.regions";
    if spec.regions.is_empty() {
        report.add(PATH, "is empty: name at least one Region, such as eu-west-1");
    }
    let mut seen = BTreeSet::new();
    for (index, region) in spec.regions.iter().enumerate() {
        let path = format!("{PATH}[{index}]");
        if !is_region(region) {
            report.add(path, format!("{} is not a Region: write one such as eu-west-1", quoted(region)));
        } else if !seen.insert(region) {
            report.add(path, format!("{region} is given twice: keep it once"));
        }
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// `eu-west-1`, `us-gov-west-1`: parts of lower-case letters, and a number.
fn is_region(text: &str) -> bool {
    let Some((area, number)) = text.rsplit_once('-') else { return false };
    let parts: Vec<&str> = area.split('-').collect();
    (2..=4).contains(&parts.len())
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase()))
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

/// IAM's rule: 2 to 1,224 characters of `[\w+=,.@:\/-]`.
///
/// Source: <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
fn is_external_id(text: &str) -> bool {
    (2..=1_224).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b))
}

impl Assembly {
    /// Warns of clusters that cannot be read: of accounts without an `AwsAccount`, of which at most one can be the operator's
    /// own, and of Regions that the `AwsAccount` does not list.
    pub(super) fn warn_of_unread_clusters(&mut self) {
        if self.scope == ManifestScope::Partial {
            return;
        }
        let mut undeclared: BTreeSet<String> = BTreeSet::new();
        let mut without = Vec::new();
        let mut warnings = Vec::new();
        for (name, binding) in &self.set.bindings {
            for (index, glob) in binding.spec.selector.clusters.iter().enumerate() {
                // The account and the Region may be known although the cluster's name is a pattern.
                let Some(place) = place_of(glob.as_str()) else { continue };
                let Some((account, spec)) = self.set.aws_account(&place.account) else {
                    undeclared.insert(place.account.to_string());
                    without.push((Arc::clone(name), index));
                    continue;
                };
                if !spec.regions.iter().any(|region| **region == *place.region) {
                    let message = format!(
                        "AwsAccount {account} does not list {}: add it to its regions, or its clusters are not read",
                        place.region
                    );
                    let field = format!("spec.selector.clusters[{index}]");
                    warnings.push(self.binding_origins[name].finding(field, message));
                }
            }
        }
        if undeclared.len() > 1 {
            let all = undeclared.into_iter().collect::<Vec<_>>().join(", ");
            for (name, index) in without {
                let message = format!(
                    "accounts {all} have no AwsAccount, and at most one of them is the operator's own: declare the others, \
                     or their clusters are not read"
                );
                let field = format!("spec.selector.clusters[{index}]");
                warnings.push(self.binding_origins[&name].finding(field, message));
            }
        }
        self.warnings.extend(warnings);
    }
}

/// The account and Region of a cluster's ARN, whose name alone may be a pattern.
fn place_of(pattern: &str) -> Option<AccountRegion> {
    let (place, _) = pattern.split_once(":cluster/")?;
    if place.contains(['*', '?']) {
        return None;
    }
    Some(AccountRegion::of(&ClusterArn::parse(&format!("{place}:cluster/any")).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_has_words_and_a_number() {
        for (text, expected) in [
            ("eu-west-1", true),
            ("us-gov-west-1", true),
            ("us-isob-east-1", true),
            ("eusc-de-east-1", true),
            ("eu-west", false),
            ("EU-WEST-1", false),
            ("eu-west-1a", false),
            ("*", false),
            ("west-1", false),
        ] {
            assert_eq!(is_region(text), expected, "{text}");
        }
    }

    #[test]
    fn account_and_region_are_known_where_only_the_name_varies() {
        let of = |pattern| place_of(pattern).map(|place| place.to_string());
        assert_eq!(
            of("arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*").as_deref(),
            Some("111122223333 in eu-west-1")
        );
        assert_eq!(of("arn:aws:ecs:*:111122223333:cluster/prod"), None);
        assert_eq!(of("*:cluster/prod"), None);
    }
}
