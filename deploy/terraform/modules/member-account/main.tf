# A member account: the role that the operator assumes, and the rules that forward the account's events to it.
# Apply it with a provider of the member account, in the Region of its clusters.

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = [var.operator_role_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "sts:ExternalId"
      values   = [var.external_id]
    }
  }
}

resource "aws_iam_role" "this" {
  name                 = var.name
  description          = "ecs-mesh-operator - assumed by the operator of the central account"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags
}

module "observe_policy" {
  source = "../observe-policy"

  watched_cluster_arns = var.watched_cluster_arns
  mesh_role_arns       = var.mesh_role_arns
  hold_deployments     = var.hold_deployments
  host_mode            = var.host_mode
}

resource "aws_iam_role_policy" "observe" {
  name   = "observe"
  role   = aws_iam_role.this.id
  policy = module.observe_policy.json
}

module "events" {
  source = "../event-forwarding"
  count  = var.event_bus_arn == null ? 0 : 1

  name                     = "${var.name}-events"
  event_bus_arn            = var.event_bus_arn
  watched_cluster_arns     = var.watched_cluster_arns
  hold_deployments         = var.hold_deployments
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}
