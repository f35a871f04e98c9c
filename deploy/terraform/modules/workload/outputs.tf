output "task_role_arn" {
  description = "The task role, for task_role_arn of the task definition."
  value       = aws_iam_role.task.arn
}

output "task_role_name" {
  description = "Name of the task role, to attach policies of the app."
  value       = aws_iam_role.task.name
}

output "sidecar_containers" {
  description = "Container definitions of the sidecars, to join with those of the app in container_definitions."
  value       = [for container in concat(local.kuma_containers, local.consul_containers) : jsondecode(container)]
}

output "app_container_settings" {
  description = "Settings to merge into each container of the app: it starts after the sidecar is ready, and stops before it."
  value = {
    essential   = true
    dependsOn   = [{ containerName = local.is_kuma ? "sidecar" : "consul-dataplane", condition = "HEALTHY" }]
    stopTimeout = var.app_stop_timeout
  }
}

output "volumes" {
  description = "Names of the volumes that the task definition must have. Empty for Kuma."
  value       = local.is_kuma ? [] : [local.consul_volume, local.consul_bin_volume]
}

output "task_tags" {
  description = "Tags of the task definition, which its tasks must have too: propagate_tags = \"TASK_DEFINITION\" in the service. Empty for Kuma."
  value = local.is_kuma ? {} : merge(
    { "consul.hashicorp.com/mesh" = "true" },
    var.consul.partition == null ? {} : {
      "consul.hashicorp.com/partition" = var.consul.partition
      "consul.hashicorp.com/namespace" = var.consul.namespace
    },
  )
}

output "secret_arns" {
  description = "Secrets and parameters that the execution role must be allowed to read."
  value       = compact([try(var.kuma.token_secret_arn, null), try(var.consul.ca_secret_arn, null)])
}

output "manifest" {
  description = "The Workload manifest as YAML, for the operator's source of manifests. The ECS service must have the same name as the workload."
  value       = local.is_kuma ? local.kuma_manifest : local.consul_manifest
}

output "discovery_tags" {
  description = "Kuma: the same as tags, instead of the manifest, for a binding with discovery: tags. Tags of the ECS service, with propagate_tags = \"SERVICE\"."
  value       = local.discovery_tags
}
