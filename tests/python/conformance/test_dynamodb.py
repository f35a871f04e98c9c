"""DynamoDB: a table with one key, and items with conditional writes."""

from calls import ACCOUNT, REGION, fresh, rejected

NOBODY = {"ConditionExpression": "attribute_not_exists(#a)", "ExpressionAttributeNames": {"#a": "operatorId"}}


def table(aws):
    name = fresh("table")
    aws.dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "operatorId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "operatorId", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    aws.dynamodb.get_waiter("table_exists").wait(TableName=name)
    return name


def item(version):
    return {"operatorId": {"S": "op"}, "holder": {"S": "task/1"}, "version": {"N": str(version)}}


def at_version(version):
    return {
        "ConditionExpression": "#a = :v",
        "ExpressionAttributeNames": {"#a": "version"},
        "ExpressionAttributeValues": {":v": {"N": str(version)}},
    }


KEY = {"operatorId": {"S": "op"}}


def test_describe_table_returns_the_key(aws):
    name = table(aws)
    found = aws.dynamodb.describe_table(TableName=name)["Table"]
    assert (found["TableStatus"], found["ItemCount"]) == ("ACTIVE", 0)
    assert found["TableArn"] == f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}"
    assert found["KeySchema"] == [{"AttributeName": "operatorId", "KeyType": "HASH"}]


def test_dynamodb_rejects_an_unknown_table(aws):
    rejected("ResourceNotFoundException", 400, aws.dynamodb.describe_table, TableName="none")
    rejected("ResourceNotFoundException", 400, aws.dynamodb.get_item, TableName="none", Key=KEY)
    rejected("ResourceNotFoundException", 400, aws.dynamodb.put_item, TableName="none", Item=item(1))


def test_create_table_rejects_an_existing_name(aws):
    name = table(aws)
    call = {
        "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    rejected("ResourceInUseException", 400, aws.dynamodb.create_table, TableName=name, **call)


def test_get_item_returns_the_item_as_put(aws):
    name = table(aws)
    assert "Item" not in aws.dynamodb.get_item(TableName=name, Key=KEY, ConsistentRead=True)
    aws.dynamodb.put_item(TableName=name, Item=item(1))
    assert aws.dynamodb.get_item(TableName=name, Key=KEY, ConsistentRead=True)["Item"] == item(1)


def test_put_item_replaces_the_whole_item(aws):
    name = table(aws)
    aws.dynamodb.put_item(TableName=name, Item=item(1))
    aws.dynamodb.put_item(TableName=name, Item={**KEY, "version": {"N": "2"}})
    found = aws.dynamodb.get_item(TableName=name, Key=KEY, ConsistentRead=True)["Item"]
    assert found == {**KEY, "version": {"N": "2"}}


def test_put_item_succeeds_once_for_a_new_item(aws):
    name = table(aws)
    aws.dynamodb.put_item(TableName=name, Item=item(1), **NOBODY)
    call = {"TableName": name, "Item": item(2), **NOBODY}
    rejected("ConditionalCheckFailedException", 400, aws.dynamodb.put_item, **call)


def test_put_item_checks_the_version(aws):
    name = table(aws)
    call = {"TableName": name, "Item": item(2), **at_version(1)}
    rejected("ConditionalCheckFailedException", 400, aws.dynamodb.put_item, **call)
    aws.dynamodb.put_item(TableName=name, Item=item(1))
    aws.dynamodb.put_item(**call)
    rejected("ConditionalCheckFailedException", 400, aws.dynamodb.put_item, **call)


def test_put_item_returns_the_item_before_on_request(aws):
    name = table(aws)
    aws.dynamodb.put_item(TableName=name, Item=item(1))
    answer = aws.dynamodb.put_item(TableName=name, Item=item(2), ReturnValues="ALL_OLD")
    assert answer["Attributes"] == item(1)


def test_delete_item_checks_the_version(aws):
    name = table(aws)
    aws.dynamodb.put_item(TableName=name, Item=item(1))
    call = {"TableName": name, "Key": KEY, **at_version(2)}
    rejected("ConditionalCheckFailedException", 400, aws.dynamodb.delete_item, **call)
    aws.dynamodb.delete_item(TableName=name, Key=KEY, **at_version(1))
    assert "Item" not in aws.dynamodb.get_item(TableName=name, Key=KEY, ConsistentRead=True)


def test_items_need_the_key_of_the_table(aws):
    name = table(aws)
    call = {"TableName": name, "Item": {"version": {"N": "1"}}}
    rejected("ValidationException", 400, aws.dynamodb.put_item, **call)
    wrong = {"TableName": name, "Item": {"operatorId": {"N": "1"}}}
    rejected("ValidationException", 400, aws.dynamodb.put_item, **wrong)
    other = {"TableName": name, "Key": {"other": {"S": "op"}}}
    rejected("ValidationException", 400, aws.dynamodb.get_item, **other)


def test_conditions_need_their_values(aws):
    name = table(aws)
    condition = {**at_version(1), "ExpressionAttributeValues": {":w": {"N": "1"}}}
    call = {"TableName": name, "Item": item(1), **condition}
    rejected("ValidationException", 400, aws.dynamodb.put_item, **call)
