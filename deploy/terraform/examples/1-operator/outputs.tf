output "cluster_arn" {
  description = "The watched cluster."
  value       = data.aws_ecs_cluster.this.arn
}

output "event_bus_arn" {
  description = "The bus that receives events of other accounts."
  value       = module.operator.event_bus_arn
}

output "log_group_name" {
  description = "Log group of the operator."
  value       = module.operator.log_group_name
}

output "manifests_bucket" {
  description = "Bucket of the manifests."
  value       = aws_s3_bucket.manifests.id
}

output "manifests_prefix" {
  description = "Prefix of the manifests in the bucket."
  value       = local.manifests_prefix
}

output "operator_role_arn" {
  description = "Task role of the operator."
  value       = module.operator.task_role_arn
}
