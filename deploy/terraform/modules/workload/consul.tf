locals {
  consul_volume      = "consul_data"
  consul_bin_volume  = "consul_binary"
  consul_mount       = { sourceVolume = local.consul_volume, containerPath = "/consul", readOnly = true }
  consul_mount_write = { sourceVolume = local.consul_volume, containerPath = "/consul", readOnly = false }

  # Both containers of consul-ecs read the same configuration.
  consul_config = local.is_kuma ? null : jsonencode(merge(
    {
      bootstrapDir         = "/consul"
      healthSyncContainers = var.consul.health_sync_containers
      consulLogin          = { enabled = true, method = var.consul.login_method, includeEntity = true, region = local.region }
      consulServers = {
        hosts    = var.consul.server_hosts
        defaults = { tls = true }
        http     = { port = 8501, https = true }
        grpc     = { port = 8503 }
      }
      service = merge(
        { name = var.name },
        # Consul needs a port; 0 stands for none.
        { port = coalesce(var.consul.port, 0) },
        var.consul.partition == null ? {} : { partition = var.consul.partition, namespace = var.consul.namespace },
      )
      proxy = {
        upstreams = [for upstream in var.consul.upstreams : {
          destinationName = upstream.destination_name
          localBindPort   = upstream.local_bind_port
        }]
      }
    },
  ))

  consul_environment = [{ name = "CONSUL_ECS_CONFIG_JSON", value = local.consul_config }]
  consul_secrets = [for name in ["CONSUL_HTTPS_CACERT_PEM", "CONSUL_GRPC_CACERT_PEM"] :
    { name = name, valueFrom = try(var.consul.ca_secret_arn, null) } if try(var.consul.ca_secret_arn, null) != null
  ]
  consul_log   = var.log_configuration == null ? {} : { logConfiguration = var.log_configuration }
  consul_after = [{ containerName = "consul-ecs-mesh-init", condition = "SUCCESS" }]

  consul_containers = local.is_kuma ? [] : [
    # Logs in, registers the task, and writes the configuration of the proxy. It ends, so it is not essential.
    jsonencode(merge(
      {
        name            = "consul-ecs-mesh-init"
        image           = var.consul.consul_ecs_image
        essential       = false
        command         = ["mesh-init"]
        environment     = local.consul_environment
        secrets         = local.consul_secrets
        linuxParameters = { initProcessEnabled = true }
        mountPoints = [
          local.consul_mount_write,
          { sourceVolume = local.consul_bin_volume, containerPath = "/bin/consul-inject", readOnly = true },
        ]
      },
      local.consul_log,
    )),
    # The entry point ignores SIGTERM until the other containers have stopped.
    jsonencode(merge(
      {
        name        = "consul-dataplane"
        image       = var.consul.consul_dataplane_image
        essential   = true
        user        = "5995"
        entryPoint  = ["/consul/consul-ecs", "envoy-entrypoint"]
        command     = ["consul-dataplane", "-config-file", "/consul/consul-dataplane.json"]
        dependsOn   = local.consul_after
        mountPoints = [local.consul_mount]
        healthCheck = {
          command     = ["CMD", "/consul/consul-ecs", "net-dial", "127.0.0.1:22000"]
          interval    = 5
          timeout     = 5
          retries     = 10
          startPeriod = 60
        }
        stopTimeout = local.sidecar_stop_timeout
        ulimits     = [{ name = "nofile", softLimit = 1048576, hardLimit = 1048576 }]
      },
      local.consul_log,
    )),
    # Copies the health of containers to Consul, and deregisters the task when it stops.
    jsonencode(merge(
      {
        name            = "consul-ecs-health-sync"
        image           = var.consul.consul_ecs_image
        essential       = true
        user            = "5996"
        command         = ["health-sync"]
        environment     = local.consul_environment
        secrets         = local.consul_secrets
        dependsOn       = local.consul_after
        mountPoints     = [local.consul_mount]
        linuxParameters = { initProcessEnabled = true }
        stopTimeout     = local.sidecar_stop_timeout
      },
      local.consul_log,
    )),
  ]

  consul_manifest = local.is_kuma ? null : yamlencode({
    apiVersion = "ecs-mesh.dev/v1alpha1"
    kind       = "Workload"
    metadata   = { name = var.name }
    spec = {
      selector = { services = [var.name] }
      service  = var.name
      # The task brings its upstreams along. The manifest declares them, so that `audit` can compare both.
      outbounds = [for upstream in var.consul.upstreams : {
        service = upstream.destination_name
        # The field is required, and without meaning at Consul.
        targetPort = upstream.local_bind_port
        listen     = { port = upstream.local_bind_port }
      }]
    }
  })
}
