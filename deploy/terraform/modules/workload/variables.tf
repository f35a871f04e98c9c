variable "name" {
  description = "Name of the service in the mesh."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.name))
    error_message = "name must be 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit."
  }
}

variable "kuma" {
  description = <<-EOT
    The task joins a Kuma or Kong Mesh mesh:
    - `cp_address`: address of the control plane for sidecars, such as https://kuma-cp.internal:5678
    - `image`: image with kuma-dp, `sh` and `wget`
    - `mesh`: the mesh
    - `ca_cert_file`: the control plane's CA in the image
    - `token_secret_arn`: ARN of the data plane token, a secret or a parameter. Without it, the sidecar authenticates by the task role (Kong Mesh)
    - `workload`: label kuma.io/workload; default: the name
    - `restrict_role_by`: the role tag that admits this service alone: `service` (kuma.io/service) or `workload` (kuma.io/workload)
    - `arguments`: further arguments of kuma-dp run
  EOT
  type = object({
    cp_address       = string
    image            = string
    mesh             = optional(string, "default")
    ca_cert_file     = optional(string)
    token_secret_arn = optional(string)
    workload         = optional(string)
    restrict_role_by = optional(string, "service")
    arguments        = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.kuma == null || can(regex("^https://[^ ]+$", var.kuma.cp_address))
    error_message = "kuma.cp_address must be an https URL, such as https://kuma-cp.internal:5678."
  }
  validation {
    condition     = var.kuma == null || contains(["service", "workload"], try(var.kuma.restrict_role_by, ""))
    error_message = "kuma.restrict_role_by must be service or workload."
  }
  validation {
    condition     = var.kuma == null || can(regex("^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", var.kuma.mesh))
    error_message = "kuma.mesh must be the name of a mesh."
  }
}

variable "consul" {
  description = <<-EOT
    The task joins a Consul service mesh by consul-ecs:
    - `server_hosts`: DNS name or go-discover expression of the servers
    - `consul_ecs_image`, `consul_dataplane_image`: the images of the sidecars
    - `ca_secret_arn`: ARN of the secret with the PEM text of the CA of the servers
    - `port`: port of the app; null for a task that only calls others
    - `health_sync_containers`: containers of the task with a health check, whose state Consul shows
    - `upstreams`: services that the task calls, by name and local port
    - `login_method`: the auth method
    - `partition`, `namespace`: Consul Enterprise; both or neither
  EOT
  type = object({
    server_hosts           = string
    consul_ecs_image       = string
    consul_dataplane_image = string
    ca_secret_arn          = optional(string)
    port                   = optional(number)
    health_sync_containers = optional(list(string), [])
    upstreams = optional(list(object({
      destination_name = string
      local_bind_port  = number
    })), [])
    login_method = optional(string, "iam-ecs-service-token")
    partition    = optional(string)
    namespace    = optional(string)
  })
  default = null

  validation {
    condition     = var.consul == null || try(var.consul.partition == null, true) == try(var.consul.namespace == null, true)
    error_message = "consul.partition and consul.namespace must be given together."
  }
}

variable "inbounds" {
  description = "Kuma: ports that others may call. `port` is the sidecar's, `container_port` the app's."
  type = list(object({
    name           = string
    container_port = number
    port           = number
    protocol       = optional(string, "http")
  }))
  default = []

  validation {
    condition     = alltrue([for inbound in var.inbounds : inbound.port != inbound.container_port])
    error_message = "inbounds: port and container_port must differ, since app and sidecar share the task's address."
  }
  validation {
    condition     = alltrue([for inbound in var.inbounds : contains(["tcp", "http", "http2", "grpc", "kafka"], inbound.protocol)])
    error_message = "inbounds: protocol must be tcp, http, http2, grpc or kafka."
  }
}

variable "outbounds" {
  description = "Kuma: services that the task calls. `target_port` is the inbound port of the called service, `listen_port` the local one."
  type = list(object({
    service     = string
    target_port = number
    listen_port = number
  }))
  default = []
}

variable "role_name" {
  description = "Name of the task role; default: name-task."
  type        = string
  default     = null
}

variable "role_path" {
  description = "IAM path of the task role; default: /mesh/ for Kuma and /consul-ecs/ for Consul. mesh_role_arns of the operator and the policy that protects role tags must cover it."
  type        = string
  default     = null

  validation {
    condition     = var.role_path == null || can(regex("^/([!-)+->@-~]+/)?$", var.role_path))
    error_message = "role_path must begin and end with a slash, such as /mesh/."
  }
}

variable "role_policy_arns" {
  description = "Policies of the task role by a name of your choice: what the app itself calls."
  type        = map(string)
  default     = {}
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of the task role."
  type        = string
  default     = null
}

variable "app_stop_timeout" {
  description = "Seconds that the app's container has to stop: long enough for its longest request."
  type        = number
  default     = 30

  validation {
    condition     = var.app_stop_timeout >= 2 && var.app_stop_timeout <= 110
    error_message = "app_stop_timeout must be 2 to 110 seconds: the sidecar stops after the app, and Fargate allows 120."
  }
}

variable "log_configuration" {
  description = "logConfiguration of the sidecar containers, as in a task definition."
  type = object({
    logDriver     = string
    options       = optional(map(string))
    secretOptions = optional(list(object({ name = string, valueFrom = string })))
  })
  default = null
}

variable "tags" {
  description = "Tags of the task role, beside those of the mesh."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.tags) : !can(regex("(?i)^(kuma\\.io/|consul\\.hashicorp\\.com\\.)", key))])
    error_message = "tags must not have keys of the mesh, kuma.io/… and consul.hashicorp.com.…: the module sets them."
  }
}
