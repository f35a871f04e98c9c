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

# --- The operator's own calls, as in docs/reference/permissions.md; a test compares both ------------------------------

resource "aws_iam_role" "task" {
  name                 = "${var.name}-${local.region}"
  description          = "ecs-mesh-operator - task role, for the operator's calls to AWS"
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
  role   = aws_iam_role.task.id
  policy = module.observe_policy.json
}

data "aws_iam_policy_document" "queue_consumer" {
  statement {
    sid = "ConsumeQueue"
    actions = [
      "sqs:ReceiveMessage",
      "sqs:DeleteMessage",
      "sqs:ChangeMessageVisibility",
      "sqs:GetQueueAttributes",
    ]
    resources = [aws_sqs_queue.events.arn]
  }
}

resource "aws_iam_role_policy" "queue" {
  name   = "queue"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.queue_consumer.json
}

# Events to teams, of the operator's source alone.
data "aws_iam_policy_document" "team_events" {
  count = var.team_events_bus_arn == null ? 0 : 1

  statement {
    sid       = "SendTeamEvents"
    actions   = ["events:PutEvents"]
    resources = [var.team_events_bus_arn]

    condition {
      test     = "StringEquals"
      variable = "events:source"
      values   = ["ecs-mesh.dev"]
    }
  }
}

resource "aws_iam_role_policy" "team_events" {
  count = var.team_events_bus_arn == null ? 0 : 1

  name   = "team-events"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.team_events[0].json
}

# The secrets that ControlPlanes of Consul name by tokenSecret and caSecret.
locals {
  consul_secret_arns = compact([var.consul_ca_secret_arn, var.consul_token_secret_arn])
}

data "aws_iam_policy_document" "consul_secrets" {
  count = length(local.consul_secret_arns) > 0 ? 1 : 0

  statement {
    sid       = "ReadControlPlaneSecrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = local.consul_secret_arns
  }

  dynamic "statement" {
    for_each = var.secret_kms_key_arn == null ? [] : [1]

    content {
      sid       = "DecryptThem"
      actions   = ["kms:Decrypt"]
      resources = [var.secret_kms_key_arn]
    }
  }
}

resource "aws_iam_role_policy" "consul_secrets" {
  count = length(local.consul_secret_arns) > 0 ? 1 : 0

  name   = "consul-secrets"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.consul_secrets[0].json
}

# The token of the read API's readers.
data "aws_iam_policy_document" "api_token" {
  count = var.api_token_secret_arn == null ? 0 : 1

  statement {
    sid       = "ReadApiToken"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.api_token_secret_arn]
  }

  dynamic "statement" {
    for_each = var.secret_kms_key_arn == null ? [] : [1]

    content {
      sid       = "DecryptApiToken"
      actions   = ["kms:Decrypt"]
      resources = [var.secret_kms_key_arn]
    }
  }
}

resource "aws_iam_role_policy" "api_token" {
  count = var.api_token_secret_arn == null ? 0 : 1

  name   = "api-token"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.api_token[0].json
}

# Data plane tokens below token_path. The operator writes tokens and never reads one.
data "aws_iam_policy_document" "token_secrets" {
  count = var.token_path != null && var.token_store == "secretsManager" ? 1 : 0

  statement {
    sid     = "ListTokenSecrets"
    actions = ["secretsmanager:ListSecrets"]
    # The call has no resource types.
    resources = ["*"]
  }

  statement {
    sid = "StoreTokenSecrets"
    actions = [
      "secretsmanager:DescribeSecret",
      "secretsmanager:CreateSecret",
      "secretsmanager:PutSecretValue",
      "secretsmanager:TagResource",
      "secretsmanager:DeleteSecret",
    ]
    resources = ["arn:${local.partition}:secretsmanager:${local.region}:${local.account}:secret:${var.token_path}/*"]
  }

  dynamic "statement" {
    for_each = var.token_kms_key_arn[*]

    content {
      sid       = "EncryptTokenSecrets"
      actions   = ["kms:GenerateDataKey", "kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["secretsmanager.${local.region}.${data.aws_partition.current.dns_suffix}"]
      }
    }
  }
}

# The same as parameters.
data "aws_iam_policy_document" "token_parameters" {
  count = var.token_path != null && var.token_store == "parameterStore" ? 1 : 0

  statement {
    sid     = "ListTokenParameters"
    actions = ["ssm:DescribeParameters"]
    # The call has no resource types.
    resources = ["*"]
  }

  statement {
    sid       = "StoreTokenParameters"
    actions   = ["ssm:ListTagsForResource", "ssm:PutParameter", "ssm:AddTagsToResource", "ssm:DeleteParameter"]
    resources = ["arn:${local.partition}:ssm:${local.region}:${local.account}:parameter${var.token_path}/*"]
  }

  dynamic "statement" {
    for_each = var.token_kms_key_arn[*]

    content {
      sid       = "EncryptTokenParameters"
      actions   = ["kms:Encrypt"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["ssm.${local.region}.${data.aws_partition.current.dns_suffix}"]
      }
    }
  }
}

resource "aws_iam_role_policy" "tokens" {
  count = var.token_path == null ? 0 : 1

  name   = "tokens"
  role   = aws_iam_role.task.id
  policy = one(concat(data.aws_iam_policy_document.token_secrets[*].json, data.aws_iam_policy_document.token_parameters[*].json))
}

# Manifests in S3 or Parameter Store.
locals {
  has_remote_manifests = local.manifests_object_path != null || local.manifests_parameter_path != null
}

data "aws_iam_policy_document" "manifests" {
  count = local.has_remote_manifests ? 1 : 0

  dynamic "statement" {
    for_each = local.manifests_object_path[*]

    content {
      sid       = "ListManifests"
      actions   = ["s3:ListBucket"]
      resources = ["arn:${local.partition}:s3:::${split("/", statement.value)[0]}"]

      # The prefix of a whole bucket is empty.
      dynamic "condition" {
        for_each = compact([local.manifests_prefix])

        content {
          test     = "StringEquals"
          variable = "s3:prefix"
          values   = [condition.value]
        }
      }
    }
  }

  dynamic "statement" {
    for_each = local.manifests_object_path[*]

    content {
      sid       = "ReadManifests"
      actions   = ["s3:GetObject"]
      resources = ["arn:${local.partition}:s3:::${statement.value}*"]
    }
  }

  dynamic "statement" {
    for_each = local.manifests_parameter_path[*]

    content {
      sid     = "ReadManifestParameters"
      actions = ["ssm:GetParametersByPath"]
      resources = [
        "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter${statement.value}",
        "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter${statement.value}/*",
      ]
    }
  }

  dynamic "statement" {
    for_each = local.manifests_object_path == null ? [] : var.manifests_kms_key_arn[*]

    content {
      sid       = "DecryptManifests"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = local.manifests_parameter_path == null ? [] : var.manifests_kms_key_arn[*]

    content {
      sid       = "DecryptManifestParameters"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["ssm.${local.region}.${data.aws_partition.current.dns_suffix}"]
      }
      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:PARAMETER_ARN"
        values   = ["arn:${local.partition}:ssm:${local.region}:${local.account}:parameter${local.manifests_parameter_path}/*"]
      }
    }
  }
}

resource "aws_iam_role_policy" "manifests" {
  count = local.has_remote_manifests ? 1 : 0

  name   = "manifests"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.manifests[0].json
}

data "aws_iam_policy_document" "member_accounts" {
  count = length(var.member_role_arns) > 0 ? 1 : 0

  statement {
    sid       = "AssumeMemberRoles"
    actions   = ["sts:AssumeRole"]
    resources = var.member_role_arns
  }
}

resource "aws_iam_role_policy" "member_accounts" {
  count = length(var.member_role_arns) > 0 ? 1 : 0

  name   = "member-accounts"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.member_accounts[0].json
}

# The collector has the task role of the operator, as all containers of a task.
data "aws_iam_policy_document" "collector" {
  count = var.prometheus_workspace_arn == null ? 0 : 1

  statement {
    sid       = "WriteMetrics"
    actions   = ["aps:RemoteWrite"]
    resources = [var.prometheus_workspace_arn]
  }
}

resource "aws_iam_role_policy" "collector" {
  count = var.prometheus_workspace_arn == null ? 0 : 1

  name   = "collector"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.collector[0].json
}

resource "aws_iam_role_policy_attachment" "task" {
  for_each = var.task_role_policy_arns

  role       = aws_iam_role.task.name
  policy_arn = each.value
}

# --- For ECS to start the task: pull the image, read Kuma's token, write the log --------------------------------------

resource "aws_iam_role" "execution" {
  name                 = "${var.name}-execution-${local.region}"
  description          = "ecs-mesh-operator - execution role, for ECS to start the operator"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags
}

data "aws_iam_policy_document" "start" {
  statement {
    sid     = "LogInToTheRegistry"
    actions = ["ecr:GetAuthorizationToken"]
    # The call has no resource types.
    resources = ["*"]
  }

  statement {
    sid     = "PullTheImage"
    actions = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
    # The image is free text and need not be in ECR, so this allows reading all images of this account.
    resources = ["arn:${local.partition}:ecr:${local.region}:${local.account}:repository/*"]
  }

  statement {
    sid       = "WriteTheLog"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.this.arn}:*"]
  }

  dynamic "statement" {
    for_each = var.kuma_token_secret_arn[*]

    content {
      sid       = "ReadTheToken"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [statement.value]
    }
  }

  dynamic "statement" {
    for_each = var.kuma_token_secret_arn == null ? [] : var.secret_kms_key_arn[*]

    content {
      sid       = "DecryptTheToken"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role_policy" "start" {
  name   = "start"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.start.json
}
