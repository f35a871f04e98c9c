"""EventBridge: rules, targets, and events that reach a queue."""

import json

from calls import ACCOUNT, REGION, fresh, rejected

MINE = {"Source": "mine", "DetailType": "t", "Detail": '{"x": 1}'}


def test_describe_rule_returns_the_rule_as_put(aws):
    name, pattern = fresh("rule"), json.dumps({"source": ["aws.ecs"]})
    arn = aws.events.put_rule(Name=name, EventPattern=pattern, Description="d")["RuleArn"]
    assert arn == f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{name}"
    found = aws.events.describe_rule(Name=name)
    assert (found["Arn"], found["Name"], found["State"]) == (arn, name, "ENABLED")
    assert (found["EventPattern"], found["Description"], found["EventBusName"]) == (pattern, "d", "default")



def test_eventbridge_rejects_an_unknown_rule(aws):
    rejected("ResourceNotFoundException", 400, aws.events.describe_rule, Name="none")
    rejected("ResourceNotFoundException", 400, aws.events.list_targets_by_rule, Rule="none")


def test_put_rule_rejects_an_invalid_pattern(aws):
    bad = {"Name": fresh("rule"), "EventPattern": '{"a": "b"}'}
    rejected("InvalidEventPatternException", 400, aws.events.put_rule, **bad)


def test_list_targets_by_rule_returns_the_targets(aws):
    url = aws.queue()
    name = aws.rule({"source": ["mine"]}, url)
    assert aws.events.list_targets_by_rule(Rule=name)["Targets"] == [{"Id": "1", "Arn": aws.queue_arn(url)}]


def test_list_rule_names_by_target_returns_the_rules(aws):
    url = aws.queue()
    name = aws.rule({"source": ["mine"]}, url)
    assert aws.events.list_rule_names_by_target(TargetArn=aws.queue_arn(url))["RuleNames"] == [name]


def test_remove_targets_removes_a_target(aws):
    name = aws.rule({"source": ["mine"]}, aws.queue())
    assert aws.events.remove_targets(Rule=name, Ids=["1"])["FailedEntryCount"] == 0
    assert aws.events.list_targets_by_rule(Rule=name)["Targets"] == []



def test_rule_delivers_matching_events_with_envelope(aws):
    url, source = aws.queue(), fresh("source")
    aws.rule({"source": [source], "detail": {"x": [1]}}, url)
    other = {**MINE, "Source": source, "Detail": '{"x": 2}'}
    put = aws.events.put_events(Entries=[other, {**MINE, "Source": source, "Resources": ["arn:r"]}])
    assert put["FailedEntryCount"] == 0 and len(put["Entries"]) == 2
    event = aws.received(url, 1)[0]
    assert event["id"] == put["Entries"][1]["EventId"] and event["time"].endswith("Z")
    fields = {name: event[name] for name in ("version", "source", "detail-type", "account", "region")}
    expected = {"version": "0", "source": source, "detail-type": "t", "account": ACCOUNT, "region": REGION}
    assert fields == expected
    assert event["detail"] == {"x": 1} and event["resources"] == ["arn:r"]


def test_put_events_rejects_sources_of_aws(aws):
    put = aws.events.put_events(Entries=[MINE, {**MINE, "Source": "aws.ecs"}])
    assert put["FailedEntryCount"] == 1, "the source aws.ecs was accepted"
    assert put["Entries"][0]["EventId"]
    assert put["Entries"][1]["ErrorCode"] == "NotAuthorizedForSourceException"


def test_ecs_sends_task_state_change_events(aws):
    url, cluster = aws.queue(), aws.cluster()
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{cluster}"
    name = aws.rule({"source": ["aws.ecs"], "detail": {"clusterArn": [arn]}}, url)
    role = f"arn:aws:iam::{ACCOUNT}:role/own"
    task = aws.run(cluster, overrides={"taskRoleArn": role})[0]
    aws.running(cluster, task)
    last = aws.received(url, 1, lambda event: event["detail"]["lastStatus"] == "RUNNING")[0]
    assert (last["detail-type"], last["resources"]) == ("ECS Task State Change", [task["taskArn"]])
    detail = last["detail"]
    assert detail["overrides"]["taskRoleArn"] == role and detail["version"] > 1
    assert detail["attachments"][0]["type"] == "eni" and detail["updatedAt"].endswith("Z")
    assert "tags" not in detail
    aws.events.remove_targets(Rule=name, Ids=["1"])


def test_cloudtrail_sends_events_for_role_changes(aws):
    url = aws.queue()
    name = aws.rule({"source": ["aws.iam"]}, url)
    role = aws.role()["RoleName"]
    aws.iam.tag_role(RoleName=role, Tags=[{"Key": "a", "Value": "b"}])
    aws.iam.untag_role(RoleName=role, TagKeys=["a"])
    aws.iam.delete_role(RoleName=role)

    def about_it(event):
        return (event["detail"].get("requestParameters") or {}).get("roleName") == role

    names = ["TagRole", "UntagRole", "DeleteRole"]
    assert [event["detail"]["eventName"] for event in aws.received(url, 3, about_it)] == names
    aws.events.remove_targets(Rule=name, Ids=["1"])


def test_put_events_reaches_the_rules_of_its_bus(aws):
    url, bus, name = aws.queue(), fresh("bus"), fresh("rule")
    arn = aws.events.create_event_bus(Name=bus)["EventBusArn"]
    assert arn == f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{bus}"
    found = aws.events.describe_event_bus(Name=bus)
    assert (found["Name"], found["Arn"]) == (bus, arn)
    put = aws.events.put_rule(Name=name, EventPattern=json.dumps({"source": ["mine"]}), EventBusName=bus)
    assert put["RuleArn"] == f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{bus}/{name}"
    target = [{"Id": "1", "Arn": aws.queue_arn(url)}]
    aws.events.put_targets(Rule=name, EventBusName=bus, Targets=target)
    entries = [{**MINE, "Detail": '{"x": 0}'}]
    entries += [{**MINE, "EventBusName": of, "Detail": json.dumps({"x": n})} for n, of in enumerate((bus, arn), 1)]
    assert aws.events.put_events(Entries=entries)["FailedEntryCount"] == 0
    found = aws.received(url, 2)
    assert sorted(event["detail"]["x"] for event in found) == [1, 2], "an event of another bus"


def test_eventbridge_rejects_an_unknown_bus(aws):
    rejected("ResourceNotFoundException", 400, aws.events.describe_event_bus, Name="none")
