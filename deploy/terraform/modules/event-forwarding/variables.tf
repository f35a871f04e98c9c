variable "name" {
  description = "Prefix of all names. Unique in the account and Region."
  type        = string
  default     = "ecs-mesh-events"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,44}[A-Za-z0-9]$", var.name))
    error_message = "name must be 2 to 46 letters, digits and hyphens."
  }
}

variable "event_bus_arn" {
  description = "ARN of the bus that receives the events: output event_bus_arn of the module operator."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._/-]+$", var.event_bus_arn))
    error_message = "event_bus_arn must be the ARN of an event bus, such as arn:aws:events:eu-west-1:111122223333:event-bus/default."
  }
}

variable "role_tags" {
  description = "Whether to forward changes of role tags. IAM's events appear in one Region of a partition only, us-east-1 in aws, and need a CloudTrail trail that logs management events."
  type        = bool
  default     = false
}

variable "watched_cluster_arns" {
  description = "Clusters of this Region whose task state changes are forwarded. A name may be a pattern: * is any text, ? one character."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.watched_cluster_arns : can(regex("^arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_*?-]{1,255}$", arn))])
    error_message = "watched_cluster_arns must be cluster ARNs, such as arn:aws:ecs:eu-west-1:111122223333:cluster/demo or …:cluster/prod-*."
  }
}

variable "hold_deployments" {
  description = "Whether to forward the deployments of services, for a MeshBinding with deployments.hold."
  type        = bool
  default     = false
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of the role."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
