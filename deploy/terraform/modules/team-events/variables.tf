variable "name" {
  description = "Name of the rule and the topic, and prefix of the queue's. Unique in the account and Region."
  type        = string
  default     = "ecs-mesh-team-events"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,57}[A-Za-z0-9]$", var.name))
    error_message = "name must be 2 to 59 letters, digits and hyphens."
  }
}

variable "event_bus_name" {
  description = "The bus that the operator sends to, of team_events_bus_arn of the module operator."
  type        = string
  default     = "default"

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]{1,256}$", var.event_bus_name))
    error_message = "event_bus_name must be the name of an event bus of this account and Region."
  }
}

variable "ecs_service_prefix" {
  description = "Beginning of the names of the team's ECS services. Empty for all services."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{0,255}$", var.ecs_service_prefix))
    error_message = "ecs_service_prefix must be empty, or the beginning of the names of ECS services, such as shop-."
  }
}

variable "detail_types" {
  description = "The forwarded kinds of events."
  type        = list(string)
  default     = ["TaskRejected", "IdentityWithdrawn"]

  validation {
    condition     = length(var.detail_types) > 0 && alltrue([for one in var.detail_types : can(regex("^(TaskRegistered|TaskRejected|IdentityWithdrawn|GuardTripped|DriftRepaired)$", one))])
    error_message = "detail_types must be some of TaskRegistered, TaskRejected, IdentityWithdrawn, GuardTripped, DriftRepaired."
  }
}

variable "topic_kms_key_arn" {
  description = "ARN of the customer managed KMS key that encrypts the topic. Its policy must allow events.amazonaws.com kms:GenerateDataKey and kms:Decrypt."
  type        = string
  default     = null

  validation {
    condition     = var.topic_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.topic_kms_key_arn))
    error_message = "topic_kms_key_arn must be the ARN of a KMS key, of the key itself and not of an alias."
  }
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
