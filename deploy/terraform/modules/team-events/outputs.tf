output "topic_arn" {
  description = "The topic, for subscriptions."
  value       = aws_sns_topic.this.arn
}

output "dead_letters_url" {
  description = "Queue of the events that could not be forwarded."
  value       = aws_sqs_queue.dead_letters.url
}

output "rule_arn" {
  description = "ARN of the rule."
  value       = aws_cloudwatch_event_rule.this.arn
}
