variable "region" {
  description = "Region of the operator."
  type        = string
}

variable "event_bus_name" {
  description = "Name of the event bus."
  type        = string
  default     = "ecs-mesh"
}

variable "email" {
  description = "Address of the team, which has to confirm the subscription."
  type        = string
}
