# Events are hints. The next sweep finds changes whose events are lost with the queue.
resource "aws_sqs_queue" "events" {
  name                    = "${var.name}-events"
  sqs_managed_sse_enabled = true
  # Sweeps have found older changes already.
  message_retention_seconds  = 86400
  visibility_timeout_seconds = 30
  receive_wait_time_seconds  = 20
  tags                       = var.tags

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.event_dead_letters.arn
    maxReceiveCount     = 5
  })
}

# Messages that the operator received five times and did not delete.
resource "aws_sqs_queue" "event_dead_letters" {
  name                      = "${var.name}-events-dead"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
  tags                      = var.tags
}

# Events that EventBridge could not deliver. Empty unless the queue or its policy was changed by hand.
resource "aws_sqs_queue" "rule_dead_letters" {
  name                      = "${var.name}-rules-dead"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
  tags                      = var.tags
}

locals {
  rule_arns = [for rule in aws_cloudwatch_event_rule.this : rule.arn]
}

# Within the account an identity policy with sqs:SendMessage is enough to send, so every other sender is denied.
data "aws_iam_policy_document" "queue" {
  for_each = {
    events            = aws_sqs_queue.events.arn
    rule_dead_letters = aws_sqs_queue.rule_dead_letters.arn
  }

  statement {
    sid       = "OnlyTheseRulesSend"
    actions   = ["sqs:SendMessage"]
    resources = [each.value]

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
    sid    = "DenyOtherSenders"
    effect = "Deny"
    # No other action: it would cover the operator's own calls.
    actions   = ["sqs:SendMessage"]
    resources = [each.value]

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
    resources = [each.value]

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

data "aws_iam_policy_document" "event_dead_letters" {
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [aws_sqs_queue.event_dead_letters.arn]

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

resource "aws_sqs_queue_policy" "events" {
  queue_url = aws_sqs_queue.events.url
  policy    = data.aws_iam_policy_document.queue["events"].json
}

resource "aws_sqs_queue_policy" "rule_dead_letters" {
  queue_url = aws_sqs_queue.rule_dead_letters.url
  policy    = data.aws_iam_policy_document.queue["rule_dead_letters"].json
}

resource "aws_sqs_queue_policy" "event_dead_letters" {
  queue_url = aws_sqs_queue.event_dead_letters.url
  policy    = data.aws_iam_policy_document.event_dead_letters.json
}

locals {
  # EventBridge knows * alone, without repetition. Events of other clusters are counted and deleted.
  cluster_patterns = [for arn in var.watched_cluster_arns :
    can(regex("[*?]", arn)) ? jsonencode({ wildcard = replace(arn, "/[*?]+/", "*") }) : jsonencode(arn)
  ]

  rules = merge(
    {
      tasks = {
        description = "Task state changes of the watched clusters, for ecs-mesh-operator"
        pattern = {
          source      = ["aws.ecs"]
          detail-type = ["ECS Task State Change"]
          detail      = { clusterArn = [for pattern in local.cluster_patterns : jsondecode(pattern)] }
        }
      }
      # CloudTrail delivers IAM's calls in one Region of a partition only, us-east-1 in aws. Elsewhere, the module
      # event-forwarding forwards them to this Region's bus, which this rule matches.
      roles = {
        description = "Changes of role tags, for ecs-mesh-operator"
        pattern = {
          source      = ["aws.iam"]
          detail-type = ["AWS API Call via CloudTrail"]
          detail      = { eventName = ["TagRole", "UntagRole", "DeleteRole"] }
        }
      }
    },
    # The events name the service, and not its cluster. Those of services that no binding holds are counted and deleted.
    var.hold_deployments ? {
      deployments = {
        description = "Deployments of services, for ecs-mesh-operator"
        pattern = {
          source      = ["aws.ecs"]
          detail-type = ["ECS Deployment State Change"]
        }
      }
    } : {},
  )
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = local.rules

  name          = "${var.name}-${each.key}"
  description   = each.value.description
  event_pattern = jsonencode(each.value.pattern)
  tags          = var.tags
}

resource "aws_cloudwatch_event_target" "queue" {
  for_each = aws_cloudwatch_event_rule.this

  rule      = each.value.name
  target_id = "queue"
  arn       = aws_sqs_queue.events.arn

  dead_letter_config {
    arn = aws_sqs_queue.rule_dead_letters.arn
  }
}

# Member accounts forward their events to this Region's default bus.
resource "aws_cloudwatch_event_permission" "member" {
  for_each = toset(var.member_account_ids)

  principal    = each.value
  statement_id = "${var.name}-${each.value}"
}
