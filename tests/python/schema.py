"""Validates documents against a JSON Schema of any draft, with the `jsonschema` package.

Input on standard input, as JSON: {"schema": PATH, "documents": {NAME: DOCUMENT...}}.
Output: {NAME: [{"at": FIELD, "reason": TEXT}...]}.
"""

import json
import sys

from jsonschema import FormatChecker
from jsonschema.validators import validator_for


def text_of(path):
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def main():
    given = json.load(sys.stdin)
    with open(given["schema"], encoding="utf-8") as file:
        schema = json.load(file)
    kind = validator_for(schema)
    kind.check_schema(schema)
    validator = kind(schema, format_checker=FormatChecker())
    found = {
        name: [{"at": text_of(error.absolute_path), "reason": error.message} for error in validator.iter_errors(document)]
        for name, document in given["documents"].items()
    }
    json.dump(found, sys.stdout)


main()
