# A service of the mesh: its task role with the mesh's tags, and the sidecar containers of its task definition.

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  # The attribute name is deprecated from version 6 of the provider on, and id is the Region in all.
  region = data.aws_region.current.id

  is_kuma       = var.kuma != null
  role_name     = coalesce(var.role_name, "${var.name}-task")
  role_path     = coalesce(var.role_path, local.is_kuma ? "/mesh/" : "/consul-ecs/")
  kuma_workload = local.is_kuma ? coalesce(var.kuma.workload, var.name) : null
  # Stops after the app, with time to drain its connections.
  sidecar_stop_timeout = min(var.app_stop_timeout + 30, 120)

  # The identity of the task in the mesh.
  mesh_tags = local.is_kuma ? merge(
    { "kuma.io/type" = "dataplane", "kuma.io/mesh" = var.kuma.mesh },
    var.kuma.restrict_role_by == "service" ? { "kuma.io/service" = var.name } : { "kuma.io/workload" = local.kuma_workload },
    ) : merge(
    { "consul.hashicorp.com.service-name" = var.name },
    try(var.consul.namespace, null) == null ? {} : { "consul.hashicorp.com.namespace" = var.consul.namespace },
  )
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${local.partition}:ecs:${local.region}:${local.account}:*"]
    }
  }
}

resource "aws_iam_role" "task" {
  name                 = local.role_name
  path                 = local.role_path
  description          = "Task role of ${var.name}. Its tags are the identity in the mesh"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = merge(var.tags, local.mesh_tags)

  lifecycle {
    precondition {
      condition     = (var.kuma == null) != (var.consul == null)
      error_message = "Give either kuma or consul."
    }
    precondition {
      condition     = local.is_kuma || length(var.inbounds) + length(var.outbounds) == 0
      error_message = "inbounds and outbounds are for Kuma. At Consul, use consul.port and consul.upstreams."
    }
  }
}

# The login at Consul proves the role by a signed iam:GetRole, which Consul sends for the task.
data "aws_iam_policy_document" "login" {
  count = local.is_kuma ? 0 : 1

  statement {
    sid       = "LogInToConsul"
    actions   = ["iam:GetRole"]
    resources = [aws_iam_role.task.arn]
  }
}

resource "aws_iam_role_policy" "login" {
  count = local.is_kuma ? 0 : 1

  name   = "consul-login"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.login[0].json
}

resource "aws_iam_role_policy_attachment" "task" {
  for_each = var.role_policy_arns

  role       = aws_iam_role.task.name
  policy_arn = each.value
}
