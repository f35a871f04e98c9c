variable "watched_cluster_arns" {
  description = "ARNs of the watched clusters, the same as in the MeshBindings. A name may be a pattern: * is any text, ? one character."
  type        = list(string)

  validation {
    condition     = length(var.watched_cluster_arns) > 0 && alltrue([for arn in var.watched_cluster_arns : can(regex("^arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_*?-]{1,255}$", arn))])
    error_message = "watched_cluster_arns must be cluster ARNs, such as arn:aws:ecs:eu-west-1:111122223333:cluster/demo or …:cluster/prod-*."
  }
}

variable "mesh_role_arns" {
  description = "ARN patterns of the services' task roles, such as arn:aws:iam::111122223333:role/mesh/*. The operator may read the tags of these roles. role/* means every role of the account."
  type        = list(string)

  validation {
    condition     = length(var.mesh_role_arns) > 0 && alltrue([for arn in var.mesh_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]+$", arn))])
    error_message = "mesh_role_arns must be role ARNs or patterns, such as arn:aws:iam::111122223333:role/mesh/*."
  }
}

variable "hold_deployments" {
  description = "Whether a MeshBinding has deployments.hold. The operator may then protect tasks of the watched clusters from deployments and scale-in."
  type        = bool
  default     = false
}

variable "host_mode" {
  description = "Whether tasks of the watched clusters run in network mode host. The operator may then read container instances and the addresses of EC2 instances."
  type        = bool
  default     = false
}
