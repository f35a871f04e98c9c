"""Reads the languages of CloudWatch that `deploy/cloudformation/dashboard.yaml` uses, and rejects all else."""

import re

# Metrics that AWS documents for the dimensions that the dashboard uses.
AWS_METRICS = {
    "AWS/SQS": {
        "dimensions": {"QueueName"},
        "metrics": {
            *("ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessagesNotVisible"),
            *("ApproximateNumberOfMessagesVisible", "NumberOfEmptyReceives", "NumberOfMessagesDeleted"),
            *("NumberOfMessagesReceived", "NumberOfMessagesSent", "SentMessageSize"),
        },
    },
    "AWS/ECS": {"dimensions": {"ClusterName", "ServiceName"}, "metrics": {"CPUUtilization", "MemoryUtilization"}},
}

SEARCH = re.compile(r"SEARCH\('\{([\w/<>-]+)((?:,\w+)*)\} MetricName=\"(\w+)\"', '(Sum|Maximum|Average)', (\d+)\)")


def metrics_of(rows):
    """The metrics of a widget: namespace, name, and values by dimension; None for the values that a search leaves open."""
    before = []
    for row in rows:
        words = [word for word in row if isinstance(word, str)]
        [options] = [word for word in row if not isinstance(word, str)] or [{}]
        if "expression" in options:
            found = SEARCH.fullmatch(options["expression"])
            assert found, f"not understood: {options['expression']}"
            yield found[1], found[3], dict.fromkeys(found[2].split(",")[1:])
            continue
        if words[0] == "...":
            words = before[: len(before) - len(words) + 1] + words[1:]
        before = words = [before[at] if word == "." else word for at, word in enumerate(words)]
        namespace, name, *dimensions = words
        assert len(dimensions) % 2 == 0, f"a dimension without a value: {row}"
        yield namespace, name, dict(zip(dimensions[::2], dimensions[1::2]))


CONDITION = re.compile(r'\(?\$\.(\w+) = "([^"]*)"\)?')


def conditions_of(pattern):
    """A filter's pattern as alternatives of conditions, each a field and its value or `*`."""
    found = re.fullmatch(r"\s*\{(.*)\}\s*", pattern, re.DOTALL)
    assert found, f"no pattern of JSON: {pattern}"
    alternatives = []
    for alternative in found[1].split("||"):
        conditions = [CONDITION.fullmatch(one.strip()) for one in alternative.split("&&")]
        assert all(conditions), f"not understood: {alternative}"
        alternatives.append({one[1]: {one[2]} for one in conditions})
    return alternatives


STAGES = {
    "SOURCE": r"SOURCE '<LogGroupName>'",
    "fields": r"fields (@?\w+(?:, @?\w+)*)",
    "filter": r"filter (.+)",
    "sort": r"sort @timestamp desc",
    "limit": r"limit \d+",
}


def query_of(text):
    """The fields of a query of Logs Insights, and its conditions as those of a filter's pattern."""
    stages = {}
    for stage in text.split(" | "):
        kind = stage.split()[0]
        stages[kind] = re.fullmatch(STAGES.get(kind, "(?!)"), stage)
        assert stages[kind], f"not understood: {stage}"
    assert set(stages) == set(STAGES), text
    conditions = {}
    for condition in stages["filter"][1].split(" and "):
        found = re.fullmatch(r"(\w+) (?:= ('[^']+')|in \[([^\]]+)\])", condition)
        assert found, f"not understood: {condition}"
        conditions[found[1]] = set(re.findall(r"'([^']+)'", found[2] or found[3]))
    return set(stages["fields"][1].split(", ")) - {"@timestamp"}, [conditions]


def matches(alternatives, line):
    """Whether a line of the log fulfils one of the alternatives."""
    return any(
        all(field in line and (values == {"*"} or line[field] in values) for field, values in conditions.items())
        for conditions in alternatives
    )
