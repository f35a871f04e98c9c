output "dead_letters_url" {
  description = "Queue of the events that could not be forwarded."
  value       = aws_sqs_queue.dead_letters.url
}

output "rule_arns" {
  description = "ARNs of the rules."
  value       = local.rule_arns
}
