# --- Program and control planes ---------------------------------------------------------------------------------------

variable "operator_id" {
  description = "Stable identity of this operator, part of the ownership labels of each registration. After a change, the operator no longer owns its earlier registrations."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", var.operator_id))
    error_message = "operator_id must be 1 to 63 letters, digits, \"-\", \"_\" or \".\", beginning and ending with a letter or digit, such as prod."
  }
}

variable "image" {
  description = "The image, with a tag other than \"latest\" or, better, a digest. It holds the manifests unless manifests_source or manifests_content is set."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][A-Za-z0-9._:/-]*[A-Za-z0-9](:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must have a tag other than \"latest\", or a digest, such as 111122223333.dkr.ecr.eu-west-1.amazonaws.com/ecs-mesh-operator:0.1.0-1."
  }
}

variable "cpu_architecture" {
  description = "Processor architecture of the image: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.cpu_architecture)
    error_message = "cpu_architecture must be X86_64 or ARM64."
  }
}

variable "cpu" {
  description = "CPU units of the task."
  type        = number
  default     = 256
}

variable "memory" {
  description = "Memory of the task in MiB. Default: 512, and 1024 with a collector, which shares it."
  type        = number
  default     = null
}

variable "kuma_token_secret_arn" {
  description = "Kuma: the full ARN of the Secrets Manager secret whose value is the control plane's user token, and nothing else. The manifests refer to it by tokenEnv KUMA_TOKEN."
  type        = string
  default     = null

  validation {
    condition     = var.kuma_token_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.kuma_token_secret_arn))
    error_message = "kuma_token_secret_arn must be a full secret ARN with its last six characters, such as arn:aws:secretsmanager:eu-west-1:111122223333:secret:ecs-mesh/kuma-token-a1B2c3."
  }
}

variable "consul_token_secret_arn" {
  description = "Consul: the full ARN of the secret whose value is the operator's ACL token, and nothing else. The manifests name it as tokenSecret. The operator reads the secret itself, again when it changes."
  type        = string
  default     = null

  validation {
    condition     = var.consul_token_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.consul_token_secret_arn))
    error_message = "consul_token_secret_arn must be a full secret ARN with its last six characters, such as arn:aws:secretsmanager:eu-west-1:111122223333:secret:ecs-mesh/consul-token-a1B2c3."
  }
}

variable "consul_ca_secret_arn" {
  description = "Consul: the full ARN of the secret whose value is the PEM text of the CA of Consul's servers. The manifests name it as caSecret."
  type        = string
  default     = null

  validation {
    condition     = var.consul_ca_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.consul_ca_secret_arn))
    error_message = "consul_ca_secret_arn must be a full secret ARN with its last six characters, such as arn:aws:secretsmanager:eu-west-1:111122223333:secret:ecs-mesh/consul-ca-a1B2c3."
  }
}

variable "secret_kms_key_arn" {
  description = "ARN of the customer managed KMS key that encrypts the secrets."
  type        = string
  default     = null

  validation {
    condition     = var.secret_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.secret_kms_key_arn))
    error_message = "secret_kms_key_arn must be the ARN of a KMS key, of the key itself and not of an alias."
  }
}

variable "environment" {
  description = "Further environment variables of the operator, such as ECS_MESH_LOG. A variable that the module sets itself cannot be given."
  type        = map(string)
  default     = {}
}

# --- Manifests --------------------------------------------------------------------------------------------------------

variable "manifests_source" {
  description = "Where the operator reads its manifests: a directory of the image, s3://BUCKET/PREFIX/ or ssm:/PATH/."
  type        = string
  default     = "/etc/mesh/manifests"

  validation {
    condition     = can(regex("^(/[!-~]+|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([!-)+->@-~]+/)?|ssm:(/[A-Za-z0-9_.-]+)+/)$", var.manifests_source))
    error_message = "manifests_source must be an absolute path, s3://BUCKET/PREFIX/ or ssm:/PATH/; the last two end with a slash."
  }
}

variable "manifests_content" {
  description = "Manifests as YAML text, in addition to manifests_source. A change deploys a new task."
  type        = string
  default     = null
}

variable "manifests_kms_key_arn" {
  description = "ARN of the customer managed KMS key that encrypts the objects or parameters of manifests_source."
  type        = string
  default     = null

  validation {
    condition     = var.manifests_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.manifests_kms_key_arn))
    error_message = "manifests_kms_key_arn must be the ARN of a KMS key, of the key itself and not of an alias."
  }
}

# --- Clusters and task roles ------------------------------------------------------------------------------------------

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

variable "token_path" {
  description = "Kuma: the tokens.path of the MeshBindings that issue data plane tokens, or a path above all of them. The operator may then store tokens below it."
  type        = string
  default     = null

  validation {
    condition     = var.token_path == null || can(regex("^(/[A-Za-z0-9_.-]+)+$", var.token_path))
    error_message = "token_path must begin with a slash and not end with one, such as /mesh/prod."
  }
}

variable "token_store" {
  description = "Kuma: the tokens.store of the MeshBindings that issue data plane tokens: secretsManager or parameterStore."
  type        = string
  default     = "secretsManager"

  validation {
    condition     = contains(["secretsManager", "parameterStore"], var.token_store)
    error_message = "token_store must be secretsManager or parameterStore."
  }
}

variable "token_kms_key_arn" {
  description = "Kuma: ARN of the customer managed KMS key that encrypts data plane tokens, tokens.kmsKey of the MeshBindings."
  type        = string
  default     = null

  validation {
    condition     = var.token_kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.token_kms_key_arn))
    error_message = "token_kms_key_arn must be the ARN of a KMS key, of the key itself and not of an alias."
  }
}

variable "task_role_policy_arns" {
  description = "Further policies of the operator's task role by a name of your choice, such as those for manifests on EFS."
  type        = map(string)
  default     = {}
}

variable "member_role_arns" {
  description = "Roles of member accounts that the operator may assume: output role_arn of the module member-account."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.member_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-)+->@-~]+$", arn))])
    error_message = "member_role_arns must be role ARNs without wildcards."
  }
}

variable "member_account_ids" {
  description = "Member accounts that may put their events on this Region's default event bus."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.member_account_ids : can(regex("^[0-9]{12}$", id))])
    error_message = "member_account_ids must be account ids of 12 digits."
  }
}

# --- Placement and network --------------------------------------------------------------------------------------------

variable "name" {
  description = "Name of the ECS service, and prefix of all other names. Unique in the account and Region."
  type        = string
  default     = "ecs-mesh-operator"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,34}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 36 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "cluster_arn" {
  description = "ARN of the ECS cluster in which the operator itself runs."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]{1,255}$", var.cluster_arn))
    error_message = "cluster_arn must be the ARN of an ECS cluster."
  }
}

variable "subnet_ids" {
  description = "Private subnets with a NAT gateway, from which the task reaches ECS, SQS, IAM, ECR, CloudWatch Logs, Secrets Manager and the control plane. The task gets no public address."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids must name at least one subnet."
  }
}

variable "security_group_ids" {
  description = "Security groups of the task. Outbound TCP 443 and the control plane's API port (Kuma 5682, Consul 8501); inbound TCP 9102 from Prometheus, if it scrapes the task."
  type        = list(string)

  validation {
    condition     = length(var.security_group_ids) > 0
    error_message = "security_group_ids must name at least one security group."
  }
}

variable "permissions_boundary_arn" {
  description = "ARN of the permissions boundary of both roles."
  type        = string
  default     = null
}

# --- Replicas ---------------------------------------------------------------------------------------------------------

variable "replicas" {
  description = "Copies of the operator. A lease elects one that writes; the others take over when it stops or fails. More than one needs create_lease_table."
  type        = number
  default     = 2

  validation {
    condition     = var.replicas >= 0 && var.replicas <= 10 && floor(var.replicas) == var.replicas
    error_message = "replicas must be 0 to 10."
  }
}

variable "create_lease_table" {
  description = "Whether to create a DynamoDB table for the lease. With it, new copies stand by before old ones stop; without it, ECS stops the only copy before it starts the next."
  type        = bool
  default     = true
}

# --- Log, metrics and alarms ------------------------------------------------------------------------------------------

variable "log_retention_days" {
  description = "Retention of the log, which holds the audit trail."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 180, 365, 731, 1827, 3653], var.log_retention_days)
    error_message = "log_retention_days must be 30, 60, 90, 180, 365, 731, 1827 or 3653."
  }
}

variable "log_mode" {
  description = "blocking keeps every line of the audit trail: while CloudWatch Logs accepts nothing, the operator suspends its writes. non-blocking drops lines instead."
  type        = string
  default     = "blocking"

  validation {
    condition     = contains(["blocking", "non-blocking"], var.log_mode)
    error_message = "log_mode must be blocking or non-blocking."
  }
}

variable "log_kms_key_arn" {
  description = "ARN of the customer managed KMS key that encrypts the log group. Its policy must allow CloudWatch Logs."
  type        = string
  default     = null
}

variable "service_discovery_namespace_id" {
  description = "Id of a private DNS namespace of Cloud Map. Prometheus then finds the task by the DNS name NAME.NAMESPACE."
  type        = string
  default     = null

  validation {
    condition     = var.service_discovery_namespace_id == null || can(regex("^ns-[a-z0-9]+$", var.service_discovery_namespace_id))
    error_message = "service_discovery_namespace_id must be the id of a namespace, such as ns-0a1b2c3d4e5f6a7b."
  }
}

variable "prometheus_workspace_arn" {
  description = "ARN of a workspace of Amazon Managed Service for Prometheus. A sidecar with the AWS Distro for OpenTelemetry then scrapes the operator and writes there."
  type        = string
  default     = null

  validation {
    condition     = var.prometheus_workspace_arn == null || can(regex("^arn:aws[a-z-]*:aps:[a-z0-9-]+:[0-9]{12}:workspace/ws-[a-z0-9-]+$", var.prometheus_workspace_arn))
    error_message = "prometheus_workspace_arn must be the ARN of a workspace."
  }
}

variable "collector_image" {
  description = "Image of the collector, used with prometheus_workspace_arn. Copy it to your own registry, and pin a digest."
  type        = string
  default     = "public.ecr.aws/aws-observability/aws-otel-collector:v0.43.0"
}

variable "alarm_topic_arn" {
  description = "ARN of an SNS topic for the alarms. Without it, no alarms are created."
  type        = string
  default     = null

  validation {
    condition     = var.alarm_topic_arn == null || can(regex("^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}$", var.alarm_topic_arn))
    error_message = "alarm_topic_arn must be the ARN of a standard SNS topic."
  }
}

variable "team_events_bus_arn" {
  description = "ARN of the event bus for events to teams, such as rejected tasks. Without it, none are sent."
  type        = string
  default     = null

  validation {
    condition     = var.team_events_bus_arn == null || can(regex("^arn:aws[a-z-]*:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9._-]{1,256}$", var.team_events_bus_arn))
    error_message = "team_events_bus_arn must be the ARN of an event bus, such as arn:aws:events:eu-west-1:111122223333:event-bus/ecs-mesh."
  }
}

# --- Read API and page ------------------------------------------------------------------------------------------------

variable "api_address" {
  description = "Listen address of the read API and its page. none serves nothing; on 127.0.0.1, only containers of the task reach it; 0.0.0.0:9103 and [::]:9103 need api_token_secret_arn, and inbound TCP 9103 in the security groups."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "127.0.0.1:9103", "0.0.0.0:9103", "[::]:9103"], var.api_address)
    error_message = "api_address must be none, 127.0.0.1:9103, 0.0.0.0:9103 or [::]:9103."
  }
}

variable "api_token_secret_arn" {
  description = "The full ARN of the secret whose value is the token that readers of the API present, of at least 16 characters, and nothing else. The operator reads the secret itself, again when it changes."
  type        = string
  default     = null

  validation {
    condition     = var.api_token_secret_arn == null || can(regex("^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.api_token_secret_arn))
    error_message = "api_token_secret_arn must be a full secret ARN with its last six characters, such as arn:aws:secretsmanager:eu-west-1:111122223333:secret:ecs-mesh/api-token-a1B2c3."
  }
}

variable "api_tls_cert_file" {
  description = "File of the image with the API's certificate chain in PEM. Without it, the API has no TLS."
  type        = string
  default     = null

  validation {
    condition     = var.api_tls_cert_file == null || can(regex("^/[!-~]+$", var.api_tls_cert_file))
    error_message = "api_tls_cert_file must be an absolute path, such as /etc/mesh/api.pem."
  }
}

variable "api_tls_key_file" {
  description = "File of the image with the private key of that certificate in PEM."
  type        = string
  default     = null

  validation {
    condition     = var.api_tls_key_file == null || can(regex("^/[!-~]+$", var.api_tls_key_file))
    error_message = "api_tls_key_file must be an absolute path, such as /etc/mesh/api-key.pem."
  }
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
  default     = {}
}
