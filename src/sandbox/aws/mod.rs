//! An in-process AWS: ECS, SQS, EventBridge, IAM and STS as far as the operator and boto3 need them.
