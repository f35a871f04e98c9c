output "queue_url" {
  description = "Event queue, for --queue-url."
  value       = aws_sqs_queue.events.url
}

output "queue_arn" {
  description = "ARN of the event queue."
  value       = aws_sqs_queue.events.arn
}

output "event_dead_letters_url" {
  description = "Queue of the events that the operator did not handle."
  value       = aws_sqs_queue.event_dead_letters.url
}

output "rule_dead_letters_url" {
  description = "Queue of the events that EventBridge could not deliver."
  value       = aws_sqs_queue.rule_dead_letters.url
}

output "event_bus_arn" {
  description = "The default event bus of the operator's Region, to which other Regions and accounts forward their events."
  value       = "arn:${local.partition}:events:${local.region}:${local.account}:event-bus/default"
}

output "log_group_name" {
  description = "Log group, for aws logs tail."
  value       = aws_cloudwatch_log_group.this.name
}

output "task_role_arn" {
  description = "Task role of the operator. Roles of member accounts trust it."
  value       = aws_iam_role.task.arn
}

output "task_role_name" {
  description = "Name of the operator's task role, to attach further policies."
  value       = aws_iam_role.task.name
}

output "execution_role_arn" {
  description = "Execution role of the operator's task."
  value       = aws_iam_role.execution.arn
}

output "service_name" {
  description = "The ECS service."
  value       = aws_ecs_service.this.name
}

output "task_definition_arn" {
  description = "The task definition's revision."
  value       = aws_ecs_task_definition.this.arn
}

output "lease_table_name" {
  description = "The DynamoDB table of the lease; null without create_lease_table."
  value       = one(aws_dynamodb_table.leases[*].name)
}
