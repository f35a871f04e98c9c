# The operator on Fargate: event queue, EventBridge rules, roles, log group, alarms and service.
# Instructions: docs/how-to/deploy-with-terraform.md. One instance for each operator id.

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}
data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  # The attribute name is deprecated from version 6 of the provider on, and id is the Region in all.
  region = data.aws_region.current.id

  # A source in S3 or Parameter Store without its scheme: BUCKET/PREFIX/, or /PATH.
  manifests_object_path    = startswith(var.manifests_source, "s3://") ? trimprefix(var.manifests_source, "s3://") : null
  manifests_prefix         = local.manifests_object_path == null ? null : trimprefix(local.manifests_object_path, "${split("/", local.manifests_object_path)[0]}/")
  manifests_parameter_path = startswith(var.manifests_source, "ssm:") ? trimsuffix(trimprefix(var.manifests_source, "ssm:"), "/") : null
}
