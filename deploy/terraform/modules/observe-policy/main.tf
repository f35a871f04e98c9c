# What the operator calls in an account: it reads clusters, tasks and role tags. As in docs/reference/permissions.md; a test
# compares both. Used by the modules operator and member-account.

locals {
  has_patterns = anytrue([for arn in var.watched_cluster_arns : can(regex("[*?]", arn))])
}

data "aws_iam_policy_document" "this" {
  dynamic "statement" {
    for_each = local.has_patterns ? [1] : []

    content {
      sid       = "ListClusters"
      actions   = ["ecs:ListClusters"]
      resources = ["*"]
    }
  }

  statement {
    sid       = "DescribeClusters"
    actions   = ["ecs:DescribeClusters"]
    resources = var.watched_cluster_arns
  }

  statement {
    sid     = "ListTasks"
    actions = ["ecs:ListTasks"]
    # The resource type is the container instance, which Fargate tasks lack; the condition limits the clusters.
    resources = ["*"]

    condition {
      test     = local.has_patterns ? "ArnLike" : "ArnEquals"
      variable = "ecs:cluster"
      values   = var.watched_cluster_arns
    }
  }

  statement {
    sid       = "DescribeTasks"
    actions   = ["ecs:DescribeTasks"]
    resources = [for arn in var.watched_cluster_arns : "${replace(arn, ":cluster/", ":task/")}/*"]
  }

  statement {
    sid     = "DescribeTaskDefinitions"
    actions = ["ecs:DescribeTaskDefinition"]
    # The call has no resource types.
    resources = ["*"]
  }

  statement {
    sid       = "GetTaskRoles"
    actions   = ["iam:GetRole"]
    resources = var.mesh_role_arns
  }

  # The protection of old tasks while a deployment replaces them.
  dynamic "statement" {
    for_each = var.hold_deployments ? [1] : []

    content {
      sid       = "DescribeServices"
      actions   = ["ecs:DescribeServices"]
      resources = [for arn in var.watched_cluster_arns : "${replace(arn, ":cluster/", ":service/")}/*"]
    }
  }

  dynamic "statement" {
    for_each = var.hold_deployments ? [1] : []

    content {
      sid       = "ProtectTasks"
      actions   = ["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"]
      resources = [for arn in var.watched_cluster_arns : "${replace(arn, ":cluster/", ":task/")}/*"]
    }
  }

  # The addresses of the instances that tasks in network mode host run on.
  dynamic "statement" {
    for_each = var.host_mode ? [1] : []

    content {
      sid       = "DescribeContainerInstances"
      actions   = ["ecs:DescribeContainerInstances"]
      resources = [for arn in var.watched_cluster_arns : "${replace(arn, ":cluster/", ":container-instance/")}/*"]
    }
  }

  dynamic "statement" {
    for_each = var.host_mode ? [1] : []

    content {
      sid     = "DescribeInstances"
      actions = ["ec2:DescribeInstances"]
      # The call has no resource types.
      resources = ["*"]
    }
  }
}
