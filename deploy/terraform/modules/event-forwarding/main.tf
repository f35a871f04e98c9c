# Forwards events to the operator's event bus in another Region or account.

data "aws_caller_identity" "current" {}

locals {
  # EventBridge knows * alone, without repetition. Events of other clusters are counted and deleted by the operator.
  cluster_patterns = [for arn in var.watched_cluster_arns :
    can(regex("[*?]", arn)) ? jsonencode({ wildcard = replace(arn, "/[*?]+/", "*") }) : jsonencode(arn)
  ]

  rules = merge(
    length(var.watched_cluster_arns) == 0 ? {} : {
      tasks = {
        description = "Task state changes of the watched clusters, to ecs-mesh-operator"
        pattern = {
          source      = ["aws.ecs"]
          detail-type = ["ECS Task State Change"]
          detail      = { clusterArn = [for pattern in local.cluster_patterns : jsondecode(pattern)] }
        }
      }
    },
    var.role_tags ? {
      roles = {
        description = "Changes of role tags, to ecs-mesh-operator"
        pattern = {
          source      = ["aws.iam"]
          detail-type = ["AWS API Call via CloudTrail"]
          detail      = { eventName = ["TagRole", "UntagRole", "DeleteRole"] }
        }
      }
    } : {},
    var.hold_deployments ? {
      deployments = {
        description = "Deployments of services, to ecs-mesh-operator"
        pattern = {
          source      = ["aws.ecs"]
          detail-type = ["ECS Deployment State Change"]
        }
      }
    } : {},
  )

  rule_arns = [for rule in aws_cloudwatch_event_rule.this : rule.arn]
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = local.rules

  name          = "${var.name}-${each.key}"
  description   = each.value.description
  event_pattern = jsonencode(each.value.pattern)
  tags          = var.tags
}

resource "aws_cloudwatch_event_target" "bus" {
  for_each = aws_cloudwatch_event_rule.this

  rule      = each.value.name
  target_id = "bus"
  arn       = var.event_bus_arn
  role_arn  = aws_iam_role.forward.arn

  dead_letter_config {
    arn = aws_sqs_queue.dead_letters.arn
  }
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = local.rule_arns
    }
  }
}

resource "aws_iam_role" "forward" {
  name                 = "${var.name}-forward"
  description          = "ecs-mesh-operator - lets EventBridge put events on another bus"
  assume_role_policy   = data.aws_iam_policy_document.assume.json
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  lifecycle {
    precondition {
      condition     = length(local.rules) > 0
      error_message = "Give watched_cluster_arns, role_tags or hold_deployments: otherwise nothing is forwarded."
    }
  }
}

data "aws_iam_policy_document" "forward" {
  statement {
    actions   = ["events:PutEvents"]
    resources = [var.event_bus_arn]
  }
}

resource "aws_iam_role_policy" "forward" {
  name   = "forward"
  role   = aws_iam_role.forward.id
  policy = data.aws_iam_policy_document.forward.json
}

# Events that could not be forwarded.
resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-dead"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
  tags                      = var.tags
}

data "aws_iam_policy_document" "dead_letters" {
  statement {
    sid       = "OnlyTheseRulesSend"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = local.rule_arns
    }
  }

  statement {
    sid       = "DenyOtherSenders"
    effect    = "Deny"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.dead_letters.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "ArnNotEquals"
      variable = "aws:SourceArn"
      values   = local.rule_arns
    }
  }

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.dead_letters.arn]

    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sqs_queue_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.url
  policy    = data.aws_iam_policy_document.dead_letters.json
}
