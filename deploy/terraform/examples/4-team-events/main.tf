# Events to teams: a bus for all, and the rule of one team.

provider "aws" {
  region = var.region
}

# Once for all teams: team_events_bus_arn of the operator's module.
resource "aws_cloudwatch_event_bus" "mesh" {
  name = var.event_bus_name
}

module "shop_events" {
  source = "../../modules/team-events"

  name               = "shop-mesh-events"
  event_bus_name     = aws_cloudwatch_event_bus.mesh.name
  ecs_service_prefix = "shop-"
}

resource "aws_sns_topic_subscription" "shop_mail" {
  topic_arn = module.shop_events.topic_arn
  protocol  = "email"
  endpoint  = var.email
}
