variable "name" {
  description = "Name of the role. The operator's module needs it in member_role_arns."
  type        = string
  default     = "ecs-mesh-member"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,38}[A-Za-z0-9]$", var.name))
    error_message = "name must be 2 to 40 letters, digits and hyphens."
  }
}

variable "operator_role_arn" {
  description = "ARN of the operator's task role: output task_role_arn of the module operator. It must exist."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-)+->@-~]+$", var.operator_role_arn))
    error_message = "operator_role_arn must be a role ARN without wildcards."
  }
}

variable "external_id" {
  description = "The external id that the operator sends, as in its manifests. One for each member account."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@:/_-]+$", var.external_id)) && length(var.external_id) >= 2 && length(var.external_id) <= 1224
    error_message = "external_id must be 2 to 1224 letters, digits and characters of +=,.@:/_-."
  }
}

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

variable "event_bus_arn" {
  description = "ARN of the bus that receives the account's events: output event_bus_arn of the module operator. Without it, changes are found by sweeps."
  type        = string
  default     = null

  validation {
    condition     = var.event_bus_arn == null || can(regex("^arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+$", var.event_bus_arn))
    error_message = "event_bus_arn must be the ARN of an event bus."
  }
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of the roles."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
