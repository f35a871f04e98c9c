"""Validates manifests against the JSON Schema for editors, with the `jsonschema` package.

Input on standard input, as JSON: {"schema": PATH, "manifests": {NAME: YAML of one document...}}.
Output: {NAME: [{"at": FIELD, "reason": TEXT}...]}.
"""

import json
import sys

from jsonschema import Draft7Validator, FormatChecker
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor


class Constructor(SafeConstructor):
    """YAML 1.2's core schema, in which timestamps are strings."""


Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def text_of(path):
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def faults(error):
    """An error with the invalid fields, where jsonschema names only the object around them."""
    path = list(error.absolute_path)
    if error.validator == "required":
        fields = [name for name in error.validator_value if name not in error.instance]
    elif error.validator == "additionalProperties":
        fields = [name for name in error.instance if name not in error.schema.get("properties", {})]
    else:
        fields = []
    if error.validator == "anyOf" and any(cause.validator == "required" for cause in error.context):
        return [fault for cause in error.context for fault in faults(cause)]
    return [{"at": text_of(path + [name]), "reason": error.message} for name in fields] or [
        {"at": text_of(path), "reason": error.message}
    ]


def main():
    given = json.load(sys.stdin)
    with open(given["schema"], encoding="utf-8") as file:
        schema = json.load(file)
    Draft7Validator.check_schema(schema)
    validator = Draft7Validator(schema, format_checker=FormatChecker())
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = Constructor
    found = {}
    for name, text in given["manifests"].items():
        errors = validator.iter_errors(yaml.load(text))
        found[name] = [fault for error in errors for fault in faults(error)]
    json.dump(found, sys.stdout)


main()
