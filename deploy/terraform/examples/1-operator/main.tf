# The operator for one cluster, with its manifests in a bucket. Instructions: docs/how-to/deploy-with-terraform.md.

provider "aws" {
  region = var.region

  default_tags {
    tags = { project = "ecs-mesh" }
  }
}

# CloudTrail delivers IAM's calls in us-east-1 only.
provider "aws" {
  alias  = "iam_events"
  region = "us-east-1"
}

data "aws_ecs_cluster" "this" {
  cluster_name = var.cluster_name
}

data "aws_secretsmanager_secret" "kuma_token" {
  name = var.kuma_token_secret_name
}

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

# --- Manifests --------------------------------------------------------------------------------------------------------

resource "aws_s3_bucket" "manifests" {
  bucket_prefix = "ecs-mesh-manifests-"
}

# Versions bring a former state back: docs/how-to/deploy-with-terraform.md.
resource "aws_s3_bucket_versioning" "manifests" {
  bucket = aws_s3_bucket.manifests.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "manifests" {
  bucket = aws_s3_bucket.manifests.id

  rule {
    id     = "former-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 365
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  depends_on = [aws_s3_bucket_versioning.manifests]
}

resource "aws_s3_bucket_public_access_block" "manifests" {
  bucket                  = aws_s3_bucket.manifests.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

locals {
  manifests_prefix = "${var.operator_id}/"
  # From the objects, so that the first task finds its manifests. With depends_on instead, each change of an object would plan
  # all of the module anew, and replace the task definition.
  manifests_bucket = one(distinct(values(aws_s3_object.manifests)[*].bucket))
}

resource "aws_s3_object" "manifests" {
  for_each = fileset("${path.module}/manifests", "*.yaml")

  bucket       = aws_s3_bucket.manifests.id
  key          = "${local.manifests_prefix}${each.value}"
  content_type = "application/yaml"

  content = templatefile("${path.module}/manifests/${each.value}", {
    cluster_arn  = data.aws_ecs_cluster.this.arn
    kuma_address = var.kuma_address
    paused       = var.paused
  })

  # The bucket keeps former versions from the first object on.
  depends_on = [aws_s3_bucket_versioning.manifests]
}

# --- Network ----------------------------------------------------------------------------------------------------------

resource "aws_security_group" "operator" {
  name_prefix = "ecs-mesh-operator-"
  description = "ecs-mesh-operator: outbound to AWS and to the control plane"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "operator" {
  for_each = { aws = 443, control-plane = var.kuma_port }

  security_group_id = aws_security_group.operator.id
  description       = each.key
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
  cidr_ipv4         = "0.0.0.0/0"
}

# --- Operator ---------------------------------------------------------------------------------------------------------

module "operator" {
  source = "../../modules/operator"

  operator_id           = var.operator_id
  image                 = var.image
  cpu_architecture      = var.cpu_architecture
  kuma_token_secret_arn = data.aws_secretsmanager_secret.kuma_token.arn
  manifests_source      = "s3://${local.manifests_bucket}/${local.manifests_prefix}"

  watched_cluster_arns = concat([data.aws_ecs_cluster.this.arn], var.member_cluster_arns)
  mesh_role_arns       = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:role/mesh/*"]

  cluster_arn        = data.aws_ecs_cluster.this.arn
  subnet_ids         = var.subnet_ids
  security_group_ids = [aws_security_group.operator.id]

  alarm_topic_arn = var.alarm_topic_arn

  member_account_ids = var.member_account_ids
  member_role_arns   = var.member_role_arns
}

# The operator reacts to changed role tags within seconds instead of minutes.
module "role_events" {
  source    = "../../modules/event-forwarding"
  count     = var.region == "us-east-1" ? 0 : 1
  providers = { aws = aws.iam_events }

  name          = "ecs-mesh-operator-events"
  event_bus_arn = module.operator.event_bus_arn
  role_tags     = true
}
