//! Guarantees that each call goes to the account and Region of its ARN, with the credentials of that account, and that an
//! account that cannot be reached fails its own calls alone.
//!
//! | account | Region | session |
//! |---|---|---|
//! | declared by an `AwsAccount` | in its `regions` | the assumed role |
//! | declared by an `AwsAccount` | another one | none: the call fails |
//! | the operator's own, or not known to be another | any | the operator's credentials |
//! | another one | any | none: the call fails |
//!
//! A call without a session fails with [`AwsErrorKind::Denied`], which proves nothing about what it was to read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::AwsClients;
use crate::aws::{
    AwsError, AwsErrorKind, ClusterStatus, DescribeContainerInstancesOutput, DescribeServicesOutput,
    DescribeTasksOutput, Ec2, Ecs, Iam, ListPage, MemberAccount, MemberAccounts, TaskProtectionOutput,
};
use crate::inspect::{AuditApi, AuthorizationDetails, FullTaskDefinition, SimulationResult};
use ecs_mesh_model::{
    AccountRegion, ClusterArn, ContainerInstanceArn, DesiredStatus, InterfaceAddresses, RoleArn, Tags,
    TaskArn, TaskDefinition, TaskDefinitionArn, TaskId,
};

/// Most sessions with the operator's own credentials that are kept. There are fewer Regions; a forged event may name any.
const MAX_OWN_SESSIONS: usize = 128;

/// Pause between two calls that ask for the operator's own account, while they fail.
const OWN_ACCOUNT_RETRY: Duration = Duration::from_secs(30);

/// The operator's own account and those that manifests declare. Shared by its clones.
#[derive(Clone)]
pub struct SdkAccounts {
    own: AwsClients,
    session: Arc<str>,
    state: Arc<Mutex<Sessions>>,
    /// When the operator's own account was asked for last.
    asked: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

#[derive(Default)]
struct Sessions {
    members: BTreeMap<String, MemberAccount>,
    open: BTreeMap<AccountRegion, AwsClients>,
}

impl SdkAccounts {
    /// The operator's own account, with these clients. Sessions in other accounts are named `ecs-mesh-NAME`.
    pub fn new(own: AwsClients, name: &str) -> Self {
        Self { own, session: session_name(name).into(), state: Arc::default(), asked: Arc::default() }
    }

    /// The operator's own clients.
    pub fn own(&self) -> &AwsClients {
        &self.own
    }

    /// The clients of an account and Region.
    ///
    /// # Errors
    /// `Denied` where the operator has no way to read the account in this Region.
    pub async fn clients(&self, place: &AccountRegion) -> Result<AwsClients, AwsError> {
        self.clients_for(place, "sts:AssumeRole").await
    }

    async fn clients_for(
        &self,
        place: &AccountRegion,
        operation: &'static str,
    ) -> Result<AwsClients, AwsError> {
        if self.lock().must_know_own_account(place) {
            self.ask_own_account().await;
        }
        let mut sessions = self.lock();
        if let Some(clients) = sessions.open.get(place) {
            return Ok(clients.clone());
        }
        let clients = match sessions.members.get(&*place.account) {
            Some(member) if member.regions.contains(&*place.region) => {
                self.own.member(member, &self.session, &place.region)
            }
            Some(_) => return Err(unlisted_region(operation, place)),
            None if !sessions.members.is_empty()
                && self.own.account().is_some_and(|own| own != &*place.account) =>
            {
                return Err(undeclared_account(operation, place));
            }
            None if self.own.region() == &*place.region => self.own.clone(),
            None => self.own.in_region(&place.region),
        };
        sessions.keep(place, &clients);
        Ok(clients)
    }

    /// Asks STS for the operator's own account, if it is not known: it decides whose credentials a call is made with.
    async fn ask_own_account(&self) {
        let mut asked = self.asked.lock().await;
        if self.own.account().is_some() || asked.is_some_and(|at| at.elapsed() < OWN_ACCOUNT_RETRY) {
            return;
        }
        if let Err(error) = self.own.setup.caller().await {
            tracing::debug!(%error, "cannot read the operator's own account");
        }
        *asked = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clients for a service without Regions: those of any Region of the account will do.
    async fn of_account(&self, account: &str, operation: &'static str) -> Result<AwsClients, AwsError> {
        let declared = self.lock().members.get(account).and_then(|member| member.regions.first().cloned());
        let region = declared.as_deref().unwrap_or(self.own.region());
        self.clients_for(&AccountRegion::new(account, region), operation).await
    }

    /// The declared accounts, in each of their Regions.
    pub fn members(&self) -> Vec<AccountRegion> {
        let sessions = self.lock();
        let places = sessions.members.iter().flat_map(|(account, member)| {
            member.regions.iter().map(|region| AccountRegion::new(account, region))
        });
        places.collect()
    }

    async fn of_cluster(
        &self,
        cluster: &ClusterArn,
        operation: &'static str,
    ) -> Result<AwsClients, AwsError> {
        self.clients_for(&AccountRegion::of(cluster), operation).await
    }
}

impl Sessions {
    /// Keeps a session. Of those with the own credentials all go before one too many comes, since they are made anew without a
    /// call.
    fn keep(&mut self, place: &AccountRegion, clients: &AwsClients) {
        let is_own = |place: &AccountRegion| !self.members.contains_key(&*place.account);
        if is_own(place) && self.open.keys().filter(|open| is_own(open)).count() >= MAX_OWN_SESSIONS {
            let members = &self.members;
            self.open.retain(|open, _| members.contains_key(&*open.account));
        }
        self.open.insert(place.clone(), clients.clone());
    }

    fn must_know_own_account(&self, place: &AccountRegion) -> bool {
        !self.members.is_empty()
            && !self.members.contains_key(&*place.account)
            && !self.open.contains_key(place)
    }
}

impl MemberAccounts for SdkAccounts {
    fn set_members(&self, members: Vec<MemberAccount>) {
        let members: BTreeMap<_, _> =
            members.into_iter().map(|member| (member.role.account().to_owned(), member)).collect();
        let mut sessions = self.lock();
        if sessions.members == members {
            return;
        }
        let before = std::mem::replace(&mut sessions.members, members);
        let Sessions { members, open } = &mut *sessions;
        // A session of the own credentials goes, too: another account may have been taken for the own one.
        open.retain(|place, _| {
            let now = members.get(&*place.account);
            now.is_some_and(|now| {
                before.get(&*place.account) == Some(now) && now.regions.contains(&*place.region)
            })
        });
    }
}

#[async_trait]
impl Ecs for SdkAccounts {
    async fn list_clusters(&self, page: Option<String>) -> Result<ListPage<ClusterArn>, AwsError> {
        self.own.ecs.list_clusters(page).await
    }

    async fn list_clusters_in(
        &self,
        place: &AccountRegion,
        page: Option<String>,
    ) -> Result<ListPage<ClusterArn>, AwsError> {
        self.clients_for(place, "ecs:ListClusters").await?.ecs.list_clusters(page).await
    }

    async fn describe_cluster(&self, cluster: &ClusterArn) -> Result<ClusterStatus, AwsError> {
        self.of_cluster(cluster, "ecs:DescribeClusters").await?.ecs.describe_cluster(cluster).await
    }

    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        desired: DesiredStatus,
        page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError> {
        self.of_cluster(cluster, "ecs:ListTasks").await?.ecs.list_tasks(cluster, desired, page).await
    }

    async fn describe_tasks(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<DescribeTasksOutput, AwsError> {
        self.of_cluster(cluster, "ecs:DescribeTasks").await?.ecs.describe_tasks(cluster, tasks).await
    }

    async fn describe_task_definition(&self, arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError> {
        let place = AccountRegion::new(arn.account(), arn.region());
        let clients = self.clients_for(&place, "ecs:DescribeTaskDefinition").await?;
        clients.ecs.describe_task_definition(arn).await
    }

    async fn describe_services(
        &self,
        cluster: &ClusterArn,
        names: &[String],
    ) -> Result<DescribeServicesOutput, AwsError> {
        self.of_cluster(cluster, "ecs:DescribeServices").await?.ecs.describe_services(cluster, names).await
    }

    async fn describe_container_instances(
        &self,
        cluster: &ClusterArn,
        instances: &[ContainerInstanceArn],
    ) -> Result<DescribeContainerInstancesOutput, AwsError> {
        let clients = self.of_cluster(cluster, "ecs:DescribeContainerInstances").await?;
        clients.ecs.describe_container_instances(cluster, instances).await
    }

    async fn task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<TaskProtectionOutput, AwsError> {
        self.of_cluster(cluster, "ecs:GetTaskProtection").await?.ecs.task_protection(cluster, tasks).await
    }

    async fn update_task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
        minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        let clients = self.of_cluster(cluster, "ecs:UpdateTaskProtection").await?;
        clients.ecs.update_task_protection(cluster, tasks, minutes).await
    }
}

#[async_trait]
impl Ec2 for SdkAccounts {
    async fn instance_addresses(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError> {
        self.own.ec2.instance_addresses(ids).await
    }

    async fn instance_addresses_in(
        &self,
        place: &AccountRegion,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, InterfaceAddresses>, AwsError> {
        self.clients_for(place, "ec2:DescribeInstances").await?.ec2.instance_addresses(ids).await
    }
}

#[async_trait]
impl AuditApi for SdkAccounts {
    async fn definition(&self, arn: &TaskDefinitionArn) -> Result<FullTaskDefinition, AwsError> {
        let place = AccountRegion::new(arn.account(), arn.region());
        self.clients_for(&place, "ecs:DescribeTaskDefinition").await?.inspect.definition(arn).await
    }

    async fn services(
        &self,
        cluster: &ClusterArn,
        page: Option<String>,
    ) -> Result<ListPage<String>, AwsError> {
        self.of_cluster(cluster, "ecs:ListServices").await?.inspect.services(cluster, page).await
    }

    async fn authorization_details(
        &self,
        page: Option<String>,
    ) -> Result<(AuthorizationDetails, Option<String>), AwsError> {
        self.own.inspect.authorization_details(page).await
    }

    async fn may_get_own_role(&self, role: &RoleArn) -> Result<SimulationResult, AwsError> {
        let clients = self.of_account(role.account(), "iam:SimulatePrincipalPolicy").await?;
        clients.inspect.may_get_own_role(role).await
    }
}

#[async_trait]
impl Iam for SdkAccounts {
    async fn role_tags(&self, role: &RoleArn) -> Result<Tags, AwsError> {
        self.of_account(role.account(), "iam:GetRole").await?.iam.role_tags(role).await
    }
}

/// `ecs-mesh-NAME`: 2 to 64 characters.
fn session_name(name: &str) -> String {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(*c);
    "ecs-mesh-".chars().chain(name.chars().filter(allowed)).take(64).collect()
}

fn refused(operation: &'static str, place: &AccountRegion, code: &str, message: String) -> AwsError {
    AwsError {
        kind: AwsErrorKind::Denied,
        operation,
        resource: format!("account {place}"),
        code: code.to_owned(),
        message,
        hint: "",
    }
}

fn undeclared_account(operation: &'static str, place: &AccountRegion) -> AwsError {
    let message = "no AwsAccount declares it, and it is not the operator's own".to_owned();
    AwsError {
        hint: "; declare an AwsAccount with a role that the operator may assume",
        ..refused(operation, place, "UndeclaredAccount", message)
    }
}

fn unlisted_region(operation: &'static str, place: &AccountRegion) -> AwsError {
    let message = format!("the AwsAccount of {} does not list {}", place.account, place.region);
    AwsError { hint: "; add it to spec.regions", ..refused(operation, place, "UnlistedRegion", message) }
}

#[cfg(test)]
impl SdkAccounts {
    /// The sessions that are kept.
    pub(super) fn session_count(&self) -> usize {
        self.lock().open.len()
    }
}
