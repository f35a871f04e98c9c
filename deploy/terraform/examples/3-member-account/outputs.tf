output "role_arn" {
  description = "The role that the operator assumes, for member_role_arns of example 1."
  value       = module.member.role_arn
}
