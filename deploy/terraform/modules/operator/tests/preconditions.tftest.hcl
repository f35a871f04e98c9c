# terraform test, or tofu test: inputs that contradict each other are refused, without an account.

mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  # OpenTofu makes values of a plan up, and the provider refuses those that are no ARNs.
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-west-1:111122223333:queue" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/role" }
  }
}

variables {
  operator_id           = "prod"
  image                 = "registry.internal/ecs-mesh-operator:0.1.0"
  kuma_token_secret_arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ecs-mesh/kuma-token-a1B2c3"
  watched_cluster_arns  = ["arn:aws:ecs:eu-west-1:111122223333:cluster/demo"]
  mesh_role_arns        = ["arn:aws:iam::111122223333:role/mesh/*"]
  cluster_arn           = "arn:aws:ecs:eu-west-1:111122223333:cluster/demo"
  subnet_ids            = ["subnet-0a1b2c3d"]
  security_group_ids    = ["sg-0a1b2c3d"]
}

run "defaults_are_two_copies_with_a_lease" {
  command = plan

  assert {
    condition     = aws_ecs_service.this.desired_count == 2 && length(aws_dynamodb_table.leases) == 1
    error_message = "the defaults are not two copies with a lease"
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.this) == 0 && length(aws_cloudwatch_event_rule.this) == 2
    error_message = "there are alarms without a topic, or a rule without need"
  }
}

run "two_copies_need_a_lease" {
  command = plan

  variables {
    create_lease_table = false
  }
  expect_failures = [aws_ecs_service.this]
}

run "one_copy_stops_before_the_next_starts" {
  command = plan

  variables {
    create_lease_table = false
    replicas           = 1
  }
  assert {
    condition     = aws_ecs_service.this.deployment_maximum_percent == 100 && aws_ecs_service.this.availability_zone_rebalancing == "DISABLED"
    error_message = "a deployment would run two copies without a lease"
  }
}

run "some_control_plane_is_needed" {
  command = plan

  variables {
    kuma_token_secret_arn = null
  }
  expect_failures = [aws_ecs_task_definition.this]
}

run "api_of_other_machines_needs_a_token" {
  command = plan

  variables {
    api_address = "0.0.0.0:9103"
  }
  expect_failures = [aws_ecs_task_definition.this]
}

run "api_key_needs_its_certificate" {
  command = plan

  variables {
    api_address      = "127.0.0.1:9103"
    api_tls_key_file = "/etc/mesh/api-key.pem"
  }
  expect_failures = [aws_ecs_task_definition.this]
}

run "own_variables_cannot_be_replaced" {
  command = plan

  variables {
    environment = { ECS_MESH_METRICS_ADDRESS = "none" }
  }
  expect_failures = [aws_ecs_task_definition.this]
}

run "collector_needs_memory" {
  command = plan

  variables {
    prometheus_workspace_arn = "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0a1b2c3d"
    memory                   = 512
  }
  expect_failures = [aws_ecs_task_definition.this]
}
