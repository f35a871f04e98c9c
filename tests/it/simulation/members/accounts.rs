//! Sends each call to the account of its ARN, as the operator's clients do.

use std::sync::Arc;

use async_trait::async_trait;
use ecs_mesh_aws::aws::{
    AwsError, ClusterStatus, DescribeContainerInstancesOutput, DescribeServicesOutput, DescribeTasksOutput,
    Ecs, Iam, ListPage, MemberAccount, MemberAccounts, TaskProtectionOutput,
};
use ecs_mesh_model::{
    AccountRegion, ClusterArn, ContainerInstanceArn, DesiredStatus, RoleArn, Tags, TaskArn, TaskDefinition,
    TaskDefinitionArn, TaskId,
};

use super::super::aws::SimAws;
use super::MemberAccess;

/// Both accounts. Each call goes to the account of its ARN.
pub(in super::super) struct SimAccounts {
    pub(in super::super) own: SimAws,
    pub(in super::super) member: SimAws,
    pub(in super::super) access: Arc<MemberAccess>,
}

impl SimAccounts {
    async fn of(&self, place: &AccountRegion, operation: &'static str) -> Result<&SimAws, AwsError> {
        if *place.account == *self.own.env.cluster.account() {
            return Ok(&self.own);
        }
        let entered = self.access.enter(place, operation).await;
        if let Err(error) = &entered {
            self.access.env.record(|| format!("{operation} in {place} {}", error.kind.label()));
        }
        entered.map(|()| &self.member)
    }

    async fn of_cluster(&self, cluster: &ClusterArn, operation: &'static str) -> Result<&SimAws, AwsError> {
        self.of(&AccountRegion::of(cluster), operation).await
    }
}

impl MemberAccounts for SimAccounts {
    fn set_members(&self, members: Vec<MemberAccount>) {
        self.access.declare(&members);
    }
}

#[async_trait]
impl Ecs for SimAccounts {
    async fn list_clusters(&self, page: Option<String>) -> Result<ListPage<ClusterArn>, AwsError> {
        self.own.list_clusters(page).await
    }

    async fn list_clusters_in(
        &self,
        place: &AccountRegion,
        page: Option<String>,
    ) -> Result<ListPage<ClusterArn>, AwsError> {
        self.of(place, "ecs:ListClusters").await?.list_clusters(page).await
    }

    async fn describe_cluster(&self, cluster: &ClusterArn) -> Result<ClusterStatus, AwsError> {
        self.of_cluster(cluster, "ecs:DescribeClusters").await?.describe_cluster(cluster).await
    }

    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        desired: DesiredStatus,
        page: Option<String>,
    ) -> Result<ListPage<TaskArn>, AwsError> {
        self.of_cluster(cluster, "ecs:ListTasks").await?.list_tasks(cluster, desired, page).await
    }

    async fn describe_tasks(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<DescribeTasksOutput, AwsError> {
        self.of_cluster(cluster, "ecs:DescribeTasks").await?.describe_tasks(cluster, tasks).await
    }

    async fn describe_task_definition(&self, arn: &TaskDefinitionArn) -> Result<TaskDefinition, AwsError> {
        let place = AccountRegion::new(arn.account(), arn.region());
        self.of(&place, "ecs:DescribeTaskDefinition").await?.describe_task_definition(arn).await
    }

    async fn describe_services(
        &self,
        cluster: &ClusterArn,
        names: &[String],
    ) -> Result<DescribeServicesOutput, AwsError> {
        self.of_cluster(cluster, "ecs:DescribeServices").await?.describe_services(cluster, names).await
    }

    async fn describe_container_instances(
        &self,
        cluster: &ClusterArn,
        instances: &[ContainerInstanceArn],
    ) -> Result<DescribeContainerInstancesOutput, AwsError> {
        let account = self.of_cluster(cluster, "ecs:DescribeContainerInstances").await?;
        account.describe_container_instances(cluster, instances).await
    }

    async fn task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
    ) -> Result<TaskProtectionOutput, AwsError> {
        self.of_cluster(cluster, "ecs:GetTaskProtection").await?.task_protection(cluster, tasks).await
    }

    async fn update_task_protection(
        &self,
        cluster: &ClusterArn,
        tasks: &[TaskId],
        minutes: Option<u16>,
    ) -> Result<TaskProtectionOutput, AwsError> {
        let account = self.of_cluster(cluster, "ecs:UpdateTaskProtection").await?;
        account.update_task_protection(cluster, tasks, minutes).await
    }
}

#[async_trait]
impl Iam for SimAccounts {
    async fn role_tags(&self, role: &RoleArn) -> Result<Tags, AwsError> {
        self.of(&AccountRegion::new(role.account(), ""), "iam:GetRole").await?.role_tags(role).await
    }
}
