output "event_bus_arn" {
  description = "The bus, for the operator: input team_events_bus_arn of its module."
  value       = aws_cloudwatch_event_bus.mesh.arn
}
