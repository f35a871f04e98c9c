output "role_arn" {
  description = "The role that the operator assumes: assumeRole in the manifests, member_role_arns of the module operator."
  value       = aws_iam_role.this.arn
}

output "dead_letters_url" {
  description = "Queue of the events that could not be forwarded; null without event_bus_arn."
  value       = one(module.events[*].dead_letters_url)
}
