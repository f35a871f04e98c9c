variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "operator_id" {
  description = "Stable identity of the operator."
  type        = string
  default     = "prod"
}

variable "image" {
  description = "The operator's image, with a tag or a digest."
  type        = string
}

variable "cpu_architecture" {
  description = "Processor architecture of the image: X86_64 or ARM64."
  type        = string
  default     = "X86_64"
}

variable "cluster_name" {
  description = "Name of the ECS cluster with your services, in which the operator runs, too."
  type        = string
}

variable "vpc_id" {
  description = "The VPC of the subnets."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets with a NAT gateway."
  type        = list(string)
}

variable "kuma_address" {
  description = "Address of the control plane's API, such as https://kuma-cp.internal:5682."
  type        = string
}

variable "kuma_port" {
  description = "Port of kuma_address."
  type        = number
  default     = 5682
}

variable "kuma_token_secret_name" {
  description = "Name of the secret with the control plane's user token."
  type        = string
  default     = "ecs-mesh/kuma-token"
}

variable "paused" {
  description = "Whether the operator only reports what it would write."
  type        = bool
  default     = true
}

variable "alarm_topic_arn" {
  description = "ARN of an SNS topic for the alarms."
  type        = string
  default     = null
}

variable "member_account_ids" {
  description = "Member accounts, from example 3 on."
  type        = list(string)
  default     = []
}

variable "member_role_arns" {
  description = "Roles of the member accounts, from example 3 on."
  type        = list(string)
  default     = []
}

variable "member_cluster_arns" {
  description = "Clusters of the member accounts, from example 3 on."
  type        = list(string)
  default     = []
}
