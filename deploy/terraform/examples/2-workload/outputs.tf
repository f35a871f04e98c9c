output "manifest" {
  description = "The Workload manifest, as the operator reads it."
  value       = module.workload.manifest
}

output "task_role_arn" {
  description = "The task role, whose tags are the identity in the mesh."
  value       = module.workload.task_role_arn
}
