"""S3: the objects of manifests."""

from botocore.config import Config

from calls import fresh, rejected
from servers import REGION

LOCATION = {"LocationConstraint": REGION}


def bucket(aws):
    name = fresh("bucket")
    aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration=LOCATION)
    return name


def put(aws, name, key, text=b"text"):
    return aws.s3.put_object(Bucket=name, Key=key, Body=text)["ETag"]


def listed(aws, name, **more):
    return aws.s3.list_objects_v2(Bucket=name, **more)


def test_list_objects_has_keys_tags_and_sizes(aws):
    name = bucket(aws)
    tag = put(aws, name, "prod/a.yaml")
    found = listed(aws, name, Prefix="prod/")
    assert [(one["Key"], one["ETag"], one["Size"]) for one in found["Contents"]] == [("prod/a.yaml", tag, 4)]
    assert (found["KeyCount"], found["IsTruncated"]) == (1, False)


def test_list_objects_is_empty_without_objects(aws):
    found = listed(aws, bucket(aws), Prefix="prod/")
    assert (found["KeyCount"], found["IsTruncated"], found.get("Contents")) == (0, False, None)


def test_list_objects_filters_by_prefix_and_paginates(aws):
    name = bucket(aws)
    keys = [f"prod/{n}.yaml" for n in range(3)]
    for key in [*keys, "prod-old/a.yaml"]:
        put(aws, name, key)
    first = listed(aws, name, Prefix="prod/", MaxKeys=2)
    assert (first["KeyCount"], first["IsTruncated"]) == (2, True)
    second = listed(aws, name, Prefix="prod/", MaxKeys=2, ContinuationToken=first["NextContinuationToken"])
    assert (second["KeyCount"], second["IsTruncated"]) == (1, False)
    assert [one["Key"] for page in (first, second) for one in page["Contents"]] == keys


def test_list_objects_escapes_keys(aws):
    name = bucket(aws)
    key = "prod/team a+b&ü.yaml"
    put(aws, name, key)
    assert [one["Key"] for one in listed(aws, name)["Contents"]] == [key]


def test_etag_changes_with_the_content_alone(aws):
    name = bucket(aws)
    first = put(aws, name, "a", b"one")
    assert put(aws, name, "a", b"two") != first
    assert put(aws, name, "a", b"one") == first


def test_get_object_returns_the_listed_version(aws):
    name = bucket(aws)
    tag = put(aws, name, "prod/a.yaml", b"kind: x")
    assert aws.s3.get_object(Bucket=name, Key="prod/a.yaml", IfMatch=tag)["Body"].read() == b"kind: x"
    put(aws, name, "prod/a.yaml", b"other")
    rejected("PreconditionFailed", 412, aws.s3.get_object, Bucket=name, Key="prod/a.yaml", IfMatch=tag)


def test_s3_rejects_unknown_buckets_and_keys(aws):
    rejected("NoSuchBucket", 404, aws.s3.list_objects_v2, Bucket=fresh("none"))
    rejected("NoSuchKey", 404, aws.s3.get_object, Bucket=bucket(aws), Key="none")


def test_deleted_object_is_not_listed(aws):
    name = bucket(aws)
    put(aws, name, "a")
    aws.s3.delete_object(Bucket=name, Key="a")
    assert listed(aws, name)["KeyCount"] == 0


def test_bucket_of_another_region_is_named(aws):
    name = fresh("bucket")
    elsewhere = aws.client("s3", config=Config(s3={"addressing_style": "path"}), region_name="eu-central-1")
    elsewhere.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    answers = []

    def read(response_dict, **_):
        answers.append((response_dict["status_code"], response_dict["headers"].get("x-amz-bucket-region")))

    # boto3 follows the redirection.
    client = aws.client("s3", config=Config(s3={"addressing_style": "path"}))
    client.meta.events.register("before-parse.s3.ListObjectsV2", read)
    assert client.list_objects_v2(Bucket=name)["KeyCount"] == 0
    assert (301, "eu-central-1") in answers
