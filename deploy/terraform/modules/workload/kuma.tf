locals {
  # On Fargate the task's id is part of the metadata address. On EC2 the address has another id, so the task's ARN is read.
  kuma_task_id = "arn=$(wget -q -O - \"$ECS_CONTAINER_METADATA_URI_V4/task\" | sed -n 's/.*\"TaskARN\":\"\\([^\"]*\\)\".*/\\1/p')"

  kuma_arguments = local.is_kuma ? concat(
    ["--name", "\"$${arn##*/}\"", "--mesh", var.kuma.mesh, "--cp-address", var.kuma.cp_address],
    var.kuma.ca_cert_file == null ? [] : ["--ca-cert-file", var.kuma.ca_cert_file],
    var.kuma.token_secret_arn == null ? ["--auth-type", "aws"] : [],
    var.kuma.arguments,
  ) : []

  # jsonencode, because containers have different fields.
  kuma_containers = local.is_kuma ? [jsonencode(merge(
    {
      name       = "sidecar"
      image      = var.kuma.image
      essential  = true
      entryPoint = ["sh", "-c"]
      command    = ["${local.kuma_task_id}; exec kuma-dp run ${join(" ", local.kuma_arguments)}"]
      secrets    = [for arn in var.kuma.token_secret_arn[*] : { name = "KUMA_DATAPLANE_RUNTIME_TOKEN", valueFrom = arn }]
      # kuma-dp's readiness port: healthy once the sidecar has its configuration.
      healthCheck = {
        command     = ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1:9902/ready"]
        interval    = 5
        timeout     = 5
        retries     = 3
        startPeriod = 60
      }
      stopTimeout = local.sidecar_stop_timeout
    },
    var.log_configuration == null ? {} : { logConfiguration = var.log_configuration },
  ))] : []

  # The same as the manifest, as tags. Items have numbers from 1.
  described = local.is_kuma ? concat(
    [{ service = var.name, workload = local.kuma_workload }],
    [for index, inbound in var.inbounds : {
      "inbound.${index + 1}.name"           = inbound.name
      "inbound.${index + 1}.container-port" = tostring(inbound.container_port)
      "inbound.${index + 1}.port"           = tostring(inbound.port)
      "inbound.${index + 1}.protocol"       = inbound.protocol
    }],
    [for index, outbound in var.outbounds : {
      "outbound.${index + 1}.service"     = outbound.service
      "outbound.${index + 1}.target-port" = tostring(outbound.target_port)
      "outbound.${index + 1}.listen-port" = tostring(outbound.listen_port)
    }],
  ) : []
  discovery_tags = { for key, value in merge(local.described...) : "ecs-mesh.dev/${key}" => value }

  kuma_manifest = local.is_kuma ? yamlencode({
    apiVersion = "ecs-mesh.dev/v1alpha1"
    kind       = "Workload"
    metadata   = { name = var.name }
    spec = merge(
      {
        selector = { services = [var.name] }
        service  = var.name
        inbounds = [for inbound in var.inbounds : {
          name          = inbound.name
          containerPort = inbound.container_port
          port          = inbound.port
          protocol      = inbound.protocol
        }]
        outbounds = [for outbound in var.outbounds : {
          service    = outbound.service
          targetPort = outbound.target_port
          listen     = { port = outbound.listen_port }
        }]
      },
      local.kuma_workload == var.name ? {} : { workload = local.kuma_workload },
    )
  }) : null
}
