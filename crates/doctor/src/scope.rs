//! Account, Region and clusters, as far as manifests, queue URL and Region show them without calls to AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{MeshBindingSpec, RoleTagMode, TokenStoreKind};
use ecs_mesh_audit::member_accounts;
use ecs_mesh_aws::sdk::{queue_host, region_of_queue_host};
use ecs_mesh_manifests::ManifestSource;
use ecs_mesh_model::{ClusterArn, EventBusRef, Glob, MeshName, OperatorId, RoleArn, SecretRef};

/// The queue, by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLocation {
    /// The Region, if the URL is an AWS URL.
    pub region: Option<String>,
    /// The account id, 12 digits.
    pub account: String,
    /// The name; that of a FIFO queue ends in `.fifo`.
    pub name: String,
}

impl QueueLocation {
    /// Reads `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`, or that path behind another host.
    pub fn parse(url: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "{:?} is not the URL of an SQS queue: expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
                url.chars().take(200).collect::<String>()
            )
        };
        let host = queue_host(url).ok_or_else(error)?;
        let mut path = url.rsplit('/');
        let (name, account) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let region = region_of_queue_host(host).map(str::to_owned);
        Ok(Self { region, account: account.to_owned(), name: name.to_owned() })
    }
}

/// The parts of a cluster ARN or pattern. A part that the pattern does not fix is the known value, or `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterLocation {
    /// As written.
    pub glob: Glob,
    region: String,
    account: String,
    name: String,
}

/// Where a binding stores data plane tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenStoreScope {
    /// The store.
    pub kind: TokenStoreKind,
    /// The path.
    pub path: String,
    /// The KMS key.
    pub kms_key: Option<String>,
    /// The mesh, which follows the path in each name.
    pub mesh: MeshName,
}

impl TokenStoreScope {
    fn all(set: &ManifestSet) -> BTreeSet<Self> {
        let of = |spec: &MeshBindingSpec| {
            let tokens = &spec.tokens;
            let (path, kms_key) = (tokens.path.clone()?, tokens.kms_key.clone());
            Some(Self { kind: tokens.store, path, kms_key, mesh: spec.mesh.clone() })
        };
        set.bindings.values().filter_map(|binding| of(&binding.spec)).collect()
    }
}

/// Known account, Region and clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorScope {
    /// `aws`, `aws-cn`, `aws-us-gov`, …
    pub partition: String,
    /// The Region, if known.
    pub region: Option<String>,
    /// The account, if known.
    pub account: Option<String>,
    /// The queue.
    pub queue: Option<QueueLocation>,
    /// Further queues, by the caller's word: their permissions are printed.
    pub more_queues: Vec<QueueLocation>,
    /// Clusters that bindings select.
    pub clusters: Vec<ClusterLocation>,
    /// Whether any binding checks role tags.
    pub reads_roles: bool,
    /// Whether any binding holds deployments.
    pub holds_deployments: bool,
    /// Whether tasks run in network mode `host`, which only task definitions show: by the caller's word.
    pub reads_hosts: bool,
    /// Where bindings store data plane tokens.
    pub token_stores: BTreeSet<TokenStoreScope>,
    /// The table of the lease and the operator whose item it is, where the caller names one.
    pub lease: Option<(String, OperatorId)>,
    /// The bus of events to teams, where the caller names one.
    pub team_events_bus: Option<EventBusRef>,
    /// The control planes' secrets.
    pub secrets: BTreeSet<SecretRef>,
    /// The manifests' remote sources: by the caller's word, like network mode `host`.
    pub manifest_sources: Vec<ManifestSource>,
    /// The roles to assume in the accounts that the manifests declare, by account.
    pub member_roles: BTreeMap<String, RoleArn>,
}

impl DoctorScope {
    /// Whether the name is below the path of a binding with this store.
    pub fn stores_token(&self, kind: TokenStoreKind, name: &str) -> bool {
        let mut stores = self.token_stores.iter().filter(|store| store.kind == kind);
        stores.any(|store| name.strip_prefix(&store.path).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Derives the scope; `region`: from the flag or the environment.
    pub fn new(set: &ManifestSet, queue_url: Option<&str>, region: Option<&str>) -> Result<Self, String> {
        let queue = queue_url.map(QueueLocation::parse).transpose()?;
        let mut globs: Vec<&Glob> = set.bindings.values().flat_map(|b| &b.spec.selector.clusters).collect();
        globs.sort_unstable();
        globs.dedup();
        let literal =
            globs.iter().find_map(|glob| ClusterArn::parse(glob.as_str()).ok().filter(|_| glob.is_literal()));
        let region = queue
            .as_ref()
            .and_then(|queue| queue.region.clone())
            .or_else(|| region.map(str::to_owned))
            .or_else(|| literal.as_ref().map(|cluster| cluster.region().to_owned()));
        let account = queue
            .as_ref()
            .map(|queue| queue.account.clone())
            .or_else(|| literal.as_ref().map(|cluster| cluster.account().to_owned()));
        let partition = literal
            .map(|cluster| cluster.partition().to_owned())
            .or_else(|| globs.iter().find_map(|glob| fixed_partition(glob)))
            .unwrap_or_else(|| partition_of(region.as_deref().unwrap_or_default()).to_owned());
        let clusters =
            globs.into_iter().map(|glob| parse_pattern(glob, region.as_deref(), account.as_deref()));
        let clusters = clusters.collect();
        let reads_roles = set.bindings.values().any(|b| b.spec.role_tags.mode != RoleTagMode::Off);
        let holds_deployments = set.bindings.values().any(|b| b.spec.deployments.hold);
        let secrets = secrets(set);
        let token_stores = TokenStoreScope::all(set);
        Ok(Self {
            partition,
            region,
            account,
            queue,
            more_queues: Vec::new(),
            clusters,
            reads_roles,
            holds_deployments,
            reads_hosts: false,
            token_stores,
            lease: None,
            team_events_bus: None,
            secrets,
            manifest_sources: Vec::new(),
            member_roles: member_roles(set),
        })
    }

    /// The scope of the role in an account that an `AwsAccount` declares: it reads the account's clusters, and nothing else.
    ///
    /// # Errors
    /// If no `AwsAccount` declares the account.
    pub fn of_member(&self, set: &ManifestSet, account: &str) -> Result<Self, String> {
        let Some((_, spec)) = set.aws_account(account) else {
            let all: Vec<&str> = self.member_roles.keys().map(String::as_str).collect();
            return Err(format!(
                "no AwsAccount declares account {account}; declared accounts: {}",
                if all.is_empty() { "none".to_owned() } else { all.join(", ") }
            ));
        };
        let globs = self.clusters.iter().map(|cluster| &cluster.glob);
        let locations = globs.flat_map(|glob| {
            spec.regions.iter().filter_map(move |region| {
                let location = parse_pattern(glob, Some(region), Some(account));
                let is_there = Glob::new(location.account.clone()).matches(account)
                    && Glob::new(location.region.clone()).matches(region);
                is_there.then_some(location)
            })
        });
        let clusters: BTreeSet<ClusterLocation> = locations.collect();
        Ok(Self {
            partition: self.member_roles.get(account).map_or("aws", RoleArn::partition).to_owned(),
            region: None,
            account: Some(account.to_owned()),
            queue: None,
            more_queues: Vec::new(),
            clusters: clusters.into_iter().collect(),
            token_stores: BTreeSet::new(),
            lease: None,
            secrets: BTreeSet::new(),
            manifest_sources: Vec::new(),
            member_roles: BTreeMap::new(),
            team_events_bus: None,
            ..self.clone()
        })
    }

    /// The scope of one of several queues: the clusters of its Region, whose events it receives. A queue whose URL has no
    /// Region has all clusters.
    #[must_use]
    pub fn of_one_queue(mut self) -> Self {
        if let Some(region) = self.queue.as_ref().and_then(|queue| queue.region.clone()) {
            self.clusters.retain(|cluster| Glob::new(cluster.region.clone()).matches(&region));
        }
        self
    }

    /// The clusters that are read with the caller's own credentials.
    pub fn own_clusters(&self) -> impl Iterator<Item = &ClusterLocation> {
        self.clusters.iter().filter(|cluster| !self.member_roles.contains_key(&cluster.account))
    }

    /// The queue's ARN, once a Region is known.
    pub fn queue_arn(&self) -> Option<String> {
        self.arn_of_queue(self.queue.as_ref()?)
    }

    /// The ARNs of all queues, once their Regions are known.
    pub fn queue_arns(&self) -> Option<Vec<String>> {
        self.queue.iter().chain(&self.more_queues).map(|queue| self.arn_of_queue(queue)).collect()
    }

    fn arn_of_queue(&self, queue: &QueueLocation) -> Option<String> {
        let region = queue.region.as_ref().or(self.region.as_ref())?;
        Some(format!("arn:{}:sqs:{region}:{}:{}", self.partition, queue.account, queue.name))
    }

    /// An ARN of this account and Region, with `*` where these are not known.
    pub fn arn(&self, service: &str, resource: &str) -> String {
        let part = |known: &Option<String>| known.as_deref().unwrap_or("*").to_owned();
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition, part(&self.region), part(&self.account))
    }
}

impl ClusterLocation {
    /// The ARN (pattern) of the cluster.
    pub fn arn(&self, partition: &str) -> String {
        format!("arn:{partition}:ecs:{}:{}:cluster/{}", self.region, self.account, self.name)
    }

    /// The ARN pattern of all its container instances.
    pub fn container_instances(&self, partition: &str) -> String {
        format!("arn:{partition}:ecs:{}:{}:container-instance/{}/*", self.region, self.account, self.name)
    }

    /// The ARN pattern of all its services.
    pub fn services(&self, partition: &str) -> String {
        format!("arn:{partition}:ecs:{}:{}:service/{}/*", self.region, self.account, self.name)
    }

    /// The ARN pattern of all its tasks.
    pub fn tasks(&self, partition: &str) -> String {
        format!("arn:{partition}:ecs:{}:{}:task/{}/*", self.region, self.account, self.name)
    }
}

impl fmt::Display for ClusterLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.glob, f)
    }
}

fn member_roles(set: &ManifestSet) -> BTreeMap<String, RoleArn> {
    let roles = member_accounts(set).into_iter();
    roles.map(|member| (member.role.account().to_owned(), member.role)).collect()
}

fn secrets(set: &ManifestSet) -> BTreeSet<SecretRef> {
    let named = set.control_planes.values().flat_map(|spec| {
        let kuma = spec.kuma.iter().flat_map(|kuma| [&kuma.ca_secret, &kuma.token_secret]);
        let consul = spec.consul.iter().flat_map(|consul| [&consul.ca_secret, &consul.token_secret]);
        kuma.chain(consul)
    });
    named.flatten().cloned().collect()
}

/// The literal clusters of a selector.
pub(super) fn named_clusters(selector: &[Glob]) -> impl Iterator<Item = ClusterArn> {
    let literal = selector.iter().filter(|glob| glob.is_literal());
    literal.filter_map(|glob| ClusterArn::parse(glob.as_str()).ok())
}

/// An ARN has five colons and a cluster's has one `/`: a pattern with just as many is taken apart where they are;
/// in one with fewer, a `*` spans them.
fn parse_pattern(glob: &Glob, region: Option<&str>, account: Option<&str>) -> ClusterLocation {
    let text = glob.as_str();
    let name = text.rsplit_once('/').map_or("*", |(_, name)| name);
    let parts: Vec<&str> = text.split(':').collect();
    let part = |index: usize, known: Option<&str>| match parts.get(index) {
        Some(part) if parts.len() == 6 && *part != "*" => (*part).to_owned(),
        _ => known.unwrap_or("*").to_owned(),
    };
    ClusterLocation {
        glob: glob.clone(),
        region: part(3, region),
        account: part(4, account),
        name: name.to_owned(),
    }
}

fn fixed_partition(glob: &Glob) -> Option<String> {
    let mut parts = glob.as_str().split(':');
    let (arn, partition) = (parts.next()?, parts.next()?);
    let fixed = arn == "arn" && partition.starts_with("aws") && !partition.contains(['*', '?']);
    fixed.then(|| partition.to_owned())
}

/// The partition of a Region. Source: <https://docs.aws.amazon.com/general/latest/gr/rande.html>.
pub(super) fn partition_of(region: &str) -> &'static str {
    const PREFIXES: [(&str, &str); 6] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    PREFIXES.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| partition)
}

/// The Region of the events of a partition's IAM, if known.
pub(super) fn iam_region(partition: &str) -> Option<&'static str> {
    match partition {
        "aws" => Some("us-east-1"),
        "aws-cn" => Some("cn-north-1"),
        "aws-us-gov" => Some("us-gov-west-1"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_is_scoped_as_far_as_it_is_fixed() {
        for (glob, expected) in [
            (
                "arn:aws:ecs:eu-west-1:111122223333:cluster/prod",
                "arn:aws:ecs:eu-west-1:111122223333:cluster/prod",
            ),
            ("arn:aws:ecs:eu-*:*:cluster/prod-*", "arn:aws:ecs:eu-*:444455556666:cluster/prod-*"),
            ("*:cluster/prod-?", "arn:aws:ecs:us-east-2:444455556666:cluster/prod-?"),
            ("arn:aws:ecs:eu-west-1:*/prod", "arn:aws:ecs:us-east-2:444455556666:cluster/prod"),
            ("*", "arn:aws:ecs:us-east-2:444455556666:cluster/*"),
        ] {
            let location = parse_pattern(&Glob::new(glob), Some("us-east-2"), Some("444455556666"));
            assert_eq!(location.arn("aws"), expected, "{glob}");
        }
    }

    #[test]
    fn queue_url_has_account_and_region() {
        let queue = QueueLocation::parse("https://sqs.cn-north-1.amazonaws.com.cn/111122223333/q").unwrap();
        assert_eq!((queue.region.as_deref(), queue.name.as_str()), (Some("cn-north-1"), "q"));
        let queue = QueueLocation::parse("http://127.0.0.1:4566/111122223333/q").unwrap();
        assert_eq!((queue.region, queue.account.as_str()), (None, "111122223333"));
        for bad in ["https://sqs.eu-west-1.amazonaws.com/q", "q", "https://sqs.eu-west-1.amazonaws.com/1/q"] {
            assert!(QueueLocation::parse(bad).unwrap_err().contains("ACCOUNT/NAME"), "{bad}");
        }
    }
}
