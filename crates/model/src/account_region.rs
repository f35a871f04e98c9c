//! An account and a Region, which together have their own endpoints, quotas and failures.

use std::fmt;
use std::sync::Arc;

use super::{ClusterArn, intern};

/// An AWS account in one Region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountRegion {
    /// The account, 12 digits.
    pub account: Arc<str>,
    /// The Region, such as `eu-west-1`.
    pub region: Arc<str>,
}

impl AccountRegion {
    /// This account in this Region.
    pub fn new(account: &str, region: &str) -> Self {
        Self { account: intern(account), region: intern(region) }
    }

    /// Where the cluster is.
    pub fn of(cluster: &ClusterArn) -> Self {
        Self::new(cluster.account(), cluster.region())
    }
}

impl fmt::Display for AccountRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.account, self.region)
    }
}

/// The partitions whose Regions have a prefix of their own. All other Regions are in `aws`.
///
/// Source: <https://docs.aws.amazon.com/general/latest/gr/rande.html>, and the partitions of AWS's SDKs.
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("eusc-", "aws-eusc"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
];

/// The partition of a Region, as ARNs have it.
pub fn partition_of_region(region: &str) -> &'static str {
    let known = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
    known.map_or("aws", |(_, partition)| partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_follows_from_the_region() {
        for (region, expected) in [
            ("eu-west-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("eusc-de-east-1", "aws-eusc"),
            ("us-isob-east-1", "aws-iso-b"),
        ] {
            assert_eq!(partition_of_region(region), expected);
        }
    }
}
