# A member account whose clusters the operator of example 1 serves. Apply it with credentials of the member account.

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.member_account_id]
}

provider "aws" {
  alias               = "iam_events"
  region              = "us-east-1"
  allowed_account_ids = [var.member_account_id]
}

data "aws_partition" "current" {}

module "member" {
  source = "../../modules/member-account"

  operator_role_arn    = var.operator_role_arn
  external_id          = var.external_id
  watched_cluster_arns = var.watched_cluster_arns
  mesh_role_arns       = ["arn:${data.aws_partition.current.partition}:iam::${var.member_account_id}:role/mesh/*"]
  event_bus_arn        = var.event_bus_arn
}

module "role_events" {
  source    = "../../modules/event-forwarding"
  providers = { aws = aws.iam_events }

  name          = "ecs-mesh-member-roles"
  event_bus_arn = var.event_bus_arn
  role_tags     = true
}
