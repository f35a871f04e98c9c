locals {
  alarms = var.alarm_topic_arn == null ? {} : {
    events-wait = {
      description = "Events have waited for over two minutes: the operator is down or cannot read the queue. Dataplanes of new tasks are delayed. Check the service's events and the log."
      metric      = "ApproximateAgeOfOldestMessage"
      queue       = aws_sqs_queue.events.name
      period      = 60
      evaluations = 3
      threshold   = 120
    }
    event-dead-letters = {
      description = "The operator did not handle some events in five tries. The next sweep finds the changes; the log has the reason."
      metric      = "ApproximateNumberOfMessagesVisible"
      queue       = aws_sqs_queue.event_dead_letters.name
      period      = 300
      evaluations = 1
      threshold   = 0
    }
    rule-dead-letters = {
      description = "EventBridge could not deliver events to the operator's queue. Check whether its policy or encryption was changed."
      metric      = "ApproximateNumberOfMessagesVisible"
      queue       = aws_sqs_queue.rule_dead_letters.name
      period      = 300
      evaluations = 1
      threshold   = 0
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/SQS"
  metric_name         = each.value.metric
  dimensions          = { QueueName = each.value.queue }
  statistic           = "Maximum"
  period              = each.value.period
  evaluation_periods  = each.value.evaluations
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.alarm_topic_arn]
  # A dead-letter queue is emptied by hand, which needs no message.
  ok_actions = each.key == "events-wait" ? [var.alarm_topic_arn] : []
  tags       = var.tags
}
