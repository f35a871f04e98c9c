variable "region" {
  description = "Region of the cluster."
  type        = string
}

variable "name" {
  description = "Name of the service."
  type        = string
  default     = "demo-app"
}

variable "image" {
  description = "Image of the app, which listens on port 5050."
  type        = string
}

variable "kuma_dp_image" {
  description = "Image with kuma-dp, sh and wget, and the control plane's CA as /etc/mesh/ca.pem."
  type        = string
}

variable "kuma_dp_address" {
  description = "Address of the control plane for sidecars, such as https://kuma-cp.internal:5678."
  type        = string
}

variable "cluster_arn" {
  description = "Output cluster_arn of example 1."
  type        = string
}

variable "manifests_bucket" {
  description = "Output manifests_bucket of example 1."
  type        = string
}

variable "manifests_prefix" {
  description = "Output manifests_prefix of example 1."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of the tasks."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups of the tasks: other tasks of the mesh must reach TCP 15000."
  type        = list(string)
}
