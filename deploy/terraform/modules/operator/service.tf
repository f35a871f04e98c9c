# Contains the audit trail. To keep it when the module is removed: terraform state rm module.NAME.aws_cloudwatch_log_group.this
resource "aws_cloudwatch_log_group" "this" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_kms_key_arn
  tags              = var.tags
}

locals {
  environment = merge(
    {
      AWS_REGION               = local.region
      ECS_MESH_OPERATOR_ID     = var.operator_id
      ECS_MESH_QUEUE_URL       = aws_sqs_queue.events.url
      ECS_MESH_MANIFESTS       = var.manifests_source
      ECS_MESH_API_ADDRESS     = var.api_address
      ECS_MESH_METRICS_ADDRESS = "0.0.0.0:9102"
      ECS_MESH_LOG_FORMAT      = "json"
    },
    var.manifests_content == null ? {} : { ECS_MESH_MANIFESTS_CONTENT = var.manifests_content },
    var.team_events_bus_arn == null ? {} : { ECS_MESH_TEAM_EVENTS_BUS = var.team_events_bus_arn },
    var.api_token_secret_arn == null ? {} : { ECS_MESH_API_TOKEN_SECRET = var.api_token_secret_arn },
    var.api_tls_cert_file == null ? {} : { ECS_MESH_API_TLS_CERT_FILE = var.api_tls_cert_file },
    var.api_tls_key_file == null ? {} : { ECS_MESH_API_TLS_KEY_FILE = var.api_tls_key_file },
    var.create_lease_table ? { ECS_MESH_LEASE = "dynamodb:${aws_dynamodb_table.leases[0].name}" } : {},
  )

  log_options = {
    awslogs-group  = aws_cloudwatch_log_group.this.name
    awslogs-region = local.region
    # The log is the audit trail, and ECS's default, non-blocking, drops lines when its buffer is full.
    mode = var.log_mode
  }

  operator_container = {
    name      = "operator"
    image     = var.image
    essential = true
    command   = ["run", "--graceful-shutdown-timeout", "20s"]
    # Longer than the graceful shutdown timeout, so that the operator stops in order before ECS kills it.
    stopTimeout = 30
    environment = [for name, value in merge(var.environment, local.environment) : { name = name, value = value }]
    secrets     = [for arn in var.kuma_token_secret_arn[*] : { name = "KUMA_TOKEN", valueFrom = arn }]
    portMappings = concat(
      [{ name = "metrics", containerPort = 9102, hostPort = 9102, protocol = "tcp" }],
      var.api_address == "none" ? [] : [{ name = "api", containerPort = 9103, hostPort = 9103, protocol = "tcp" }],
    )
    # The image has no shell, so the program checks itself. ECS ignores the image's HEALTHCHECK.
    # A new copy passes once it has started: until then, ECS keeps the old ones. It has 450 s for that, the start period
    # and all retries, since a standby reads slowly. After that, a copy that is stuck is replaced within 150 s.
    healthCheck = {
      command     = ["CMD", "/ecs-mesh-operator", "healthcheck", "--started", "--metrics-address", "127.0.0.1:9102"]
      interval    = 15
      timeout     = 5
      retries     = 10
      startPeriod = 300
    }
    user                   = "65532:65532"
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"] } }
    logConfiguration = {
      logDriver = "awslogs"
      options   = merge(local.log_options, { awslogs-stream-prefix = "ecs-mesh" })
    }
  }

  # The collector shares the task's memory.
  memory = coalesce(var.memory, var.prometheus_workspace_arn == null ? 512 : 1024)

  # arn:PARTITION:aps:REGION:ACCOUNT:workspace/ID
  workspace = var.prometheus_workspace_arn == null ? null : {
    region = split(":", var.prometheus_workspace_arn)[3]
    id     = split("/", var.prometheus_workspace_arn)[1]
  }

  collector_config = local.workspace == null ? null : {
    extensions = {
      sigv4auth = { region = local.workspace.region, service = "aps" }
    }
    receivers = {
      prometheus = {
        config = {
          scrape_configs = [{
            job_name        = "ecs-mesh-operator"
            scrape_interval = "30s"
            static_configs  = [{ targets = ["127.0.0.1:9102"] }]
          }]
        }
      }
    }
    exporters = {
      prometheusremotewrite = {
        endpoint = "https://aps-workspaces.${local.workspace.region}.${data.aws_partition.current.dns_suffix}/workspaces/${local.workspace.id}/api/v1/remote_write"
        auth     = { authenticator = "sigv4auth" }
      }
    }
    service = {
      extensions = ["sigv4auth"]
      pipelines = {
        metrics = { receivers = ["prometheus"], exporters = ["prometheusremotewrite"] }
      }
    }
  }

  collector_container = local.workspace == null ? null : {
    name  = "collector"
    image = var.collector_image
    # The operator works on without its metrics.
    essential   = false
    environment = [{ name = "AOT_CONFIG_CONTENT", value = yamlencode(local.collector_config) }]
    logConfiguration = {
      logDriver = "awslogs"
      # The collector's log is no audit trail.
      options = merge(local.log_options, { mode = "non-blocking", awslogs-stream-prefix = "collector" })
    }
  }
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = local.memory
  task_role_arn            = aws_iam_role.task.arn
  execution_role_arn       = aws_iam_role.execution.arn
  container_definitions    = jsonencode([for container in [local.operator_container, local.collector_container] : container if container != null])
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.cpu_architecture
  }

  lifecycle {
    precondition {
      condition     = var.kuma_token_secret_arn != null || var.consul_token_secret_arn != null
      error_message = "Give kuma_token_secret_arn (Kuma), consul_token_secret_arn (Consul), or both."
    }
    precondition {
      condition     = length(setintersection(keys(var.environment), keys(local.environment))) == 0
      error_message = "environment must not have variables that the module sets: ${join(", ", setintersection(keys(var.environment), keys(local.environment)))}."
    }
    precondition {
      condition     = contains(["none", "127.0.0.1:9103"], var.api_address) || var.api_token_secret_arn != null
      error_message = "An api_address that other machines can reach needs api_token_secret_arn."
    }
    precondition {
      condition     = (var.api_tls_cert_file == null) == (var.api_tls_key_file == null)
      error_message = "Give both api_tls_cert_file and api_tls_key_file, or neither."
    }
    precondition {
      condition     = var.prometheus_workspace_arn == null || local.memory >= 1024
      error_message = "memory must be at least 1024 with prometheus_workspace_arn: the collector shares the task's memory."
    }
  }
}

resource "aws_service_discovery_service" "this" {
  count = var.service_discovery_namespace_id == null ? 0 : 1

  name        = var.name
  description = "Addresses of ecs-mesh-operator, for Prometheus"
  tags        = var.tags

  dns_config {
    namespace_id = var.service_discovery_namespace_id

    dns_records {
      type = "A"
      ttl  = 10
    }
  }

  # ECS reports the health of its tasks.
  health_check_custom_config {
    failure_threshold = 1
  }
}

resource "aws_ecs_service" "this" {
  name            = var.name
  cluster         = var.cluster_arn
  task_definition = aws_ecs_task_definition.this.arn
  launch_type     = "FARGATE"
  desired_count   = var.replicas
  # With a lease, new copies stand by before old ones stop. Without one, the old task stops before the new one starts:
  # only one copy for each operator id.
  deployment_minimum_healthy_percent = var.create_lease_table ? 100 : 0
  deployment_maximum_percent         = var.create_lease_table ? 200 : 100
  # Rebalancing starts a second copy, and ECS does not allow it with a maximum of 100 percent.
  availability_zone_rebalancing = var.create_lease_table ? "ENABLED" : "DISABLED"
  enable_ecs_managed_tags       = true
  propagate_tags                = "SERVICE"
  enable_execute_command        = false
  tags                          = var.tags

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = var.security_group_ids
    assign_public_ip = false
  }

  dynamic "service_registries" {
    for_each = aws_service_discovery_service.this

    content {
      registry_arn = service_registries.value.arn
    }
  }

  lifecycle {
    precondition {
      condition     = var.replicas <= 1 || var.create_lease_table
      error_message = "More than one replica needs create_lease_table: two copies without a lease undo each other's writes."
    }
  }

  # Without the policies the first task would start with denied calls.
  depends_on = [
    aws_iam_role_policy.api_token,
    aws_iam_role_policy.collector,
    aws_iam_role_policy.consul_secrets,
    aws_iam_role_policy.lease,
    aws_iam_role_policy.manifests,
    aws_iam_role_policy.member_accounts,
    aws_iam_role_policy.observe,
    aws_iam_role_policy.queue,
    aws_iam_role_policy.start,
    aws_iam_role_policy.tokens,
    aws_iam_role_policy_attachment.task,
    aws_sqs_queue_policy.events,
    aws_sqs_queue_policy.rule_dead_letters,
  ]
}
