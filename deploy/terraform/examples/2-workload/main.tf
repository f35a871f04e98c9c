# A service of the mesh: its role, sidecar and manifest, and a task definition and service around them.

provider "aws" {
  region = var.region
}

module "workload" {
  source = "../../modules/workload"

  name = var.name
  kuma = {
    cp_address   = var.kuma_dp_address
    image        = var.kuma_dp_image
    ca_cert_file = "/etc/mesh/ca.pem"
  }

  inbounds  = [{ name = "http", container_port = 5050, port = 15000 }]
  outbounds = [{ service = "kv", target_port = 15050, listen_port = 15050 }]

  log_configuration = {
    logDriver = "awslogs"
    options   = local.log_options
  }
}

# The operator reads it within seconds. Nothing is deployed for it.
resource "aws_s3_object" "manifest" {
  bucket       = var.manifests_bucket
  key          = "${var.manifests_prefix}${var.name}.yaml"
  content      = module.workload.manifest
  content_type = "application/yaml"
}

locals {
  log_options = {
    awslogs-group         = aws_cloudwatch_log_group.this.name
    awslogs-region        = var.region
    awslogs-stream-prefix = var.name
  }

  app = {
    name         = "app"
    image        = var.image
    portMappings = [{ containerPort = 5050, hostPort = 5050, protocol = "tcp" }]
    logConfiguration = {
      logDriver = "awslogs"
      options   = local.log_options
    }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/ecs/${var.name}"
  retention_in_days = 365
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}

data "aws_partition" "current" {}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = 512
  memory                   = 1024
  task_role_arn            = module.workload.task_role_arn
  execution_role_arn       = aws_iam_role.execution.arn

  container_definitions = jsonencode(concat(
    [merge(local.app, module.workload.app_container_settings)],
    module.workload.sidecar_containers,
  ))
}

resource "aws_ecs_service" "this" {
  # The manifest selects the service by this name.
  name            = var.name
  cluster         = var.cluster_arn
  task_definition = aws_ecs_task_definition.this.arn
  launch_type     = "FARGATE"
  desired_count   = 2

  # Old tasks stop only after as many new ones are healthy.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  network_configuration {
    subnets         = var.subnet_ids
    security_groups = var.security_group_ids
  }

  depends_on = [aws_iam_role_policy_attachment.execution]
}
