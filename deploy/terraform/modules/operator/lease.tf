# One item, which the leader writes every 2 s. Its loss costs one election.
resource "aws_dynamodb_table" "leases" {
  count = var.create_lease_table ? 1 : 0

  name         = "${var.name}-leases"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "operatorId"
  tags         = var.tags

  attribute {
    name = "operatorId"
    type = "S"
  }

  server_side_encryption {
    enabled = true
  }
}

data "aws_iam_policy_document" "lease" {
  count = var.create_lease_table ? 1 : 0

  statement {
    sid       = "HoldLease"
    actions   = ["dynamodb:GetItem", "dynamodb:PutItem"]
    resources = [aws_dynamodb_table.leases[0].arn]

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:LeadingKeys"
      values   = [var.operator_id]
    }
  }
}

resource "aws_iam_role_policy" "lease" {
  count = var.create_lease_table ? 1 : 0

  name   = "lease"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.lease[0].json
}
