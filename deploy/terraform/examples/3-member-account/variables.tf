variable "region" {
  description = "Region of the member's clusters."
  type        = string
}

variable "member_account_id" {
  description = "The member account."
  type        = string
}

variable "operator_role_arn" {
  description = "Output operator_role_arn of example 1."
  type        = string
}

variable "event_bus_arn" {
  description = "Output event_bus_arn of example 1."
  type        = string
}

variable "external_id" {
  description = "The external id, the same as in the operator's manifests."
  type        = string
}

variable "watched_cluster_arns" {
  description = "The member's clusters, the same as in the MeshBindings."
  type        = list(string)
}
