"""Checks responses against AWS's own model of the service.

botocore's parser ignores unknown members, so this module reads the raw response.
"""

import json
import re
import xml.etree.ElementTree as ET

BOOLEANS = {"true", "false"}


class Findings:
    """Findings in the responses of one operation: the paths of all members, and violations of the model."""

    def __init__(self):
        self.members = set()
        self.problems = set()
        self.flattens = False

    def read(self, model, body):
        shape = model.output_shape
        if shape is None:
            return
        self.flattens = model.service_model.protocol == "rest-xml"
        if self.flattens:
            # Other responses are the object itself.
            if body and model.name.startswith("List"):
                self.xml(shape, strip(ET.fromstring(body)), "")
        elif model.service_model.protocol in ("query", "ec2"):
            root = strip(ET.fromstring(body))
            wrapper = shape.serialization.get("resultWrapper")
            found = root.find(wrapper) if wrapper else root
            if model.service_model.protocol == "ec2":
                # Common to all responses, and so in no operation's model.
                found.remove(found.find("requestId"))
            if found is not None:
                self.xml(shape, found, "")
        else:
            self.json(shape, json.loads(body or "{}"), "")

    def json(self, shape, value, path):
        expected = {
            "structure": dict, "map": dict, "list": list, "string": str, "boolean": bool, "integer": int,
            "long": int, "double": (int, float), "float": (int, float), "timestamp": (int, float),
        }[shape.type_name]  # fmt: skip
        is_bool = isinstance(value, bool)
        if not isinstance(value, expected) or (is_bool and shape.type_name != "boolean"):
            self.problems.add(f"{path}: {json_type(value)} instead of {shape.type_name}")
        elif shape.type_name == "structure":
            for name, inner in value.items():
                self.member(shape, name, path, lambda member, at, inner=inner: self.json(member, inner, at))
        elif shape.type_name == "map":
            for key, inner in value.items():
                self.text(shape.key, key, f"{path} key")
                self.json(shape.value, inner, f"{path}{{}}")
        elif shape.type_name == "list":
            for inner in value:
                self.json(shape.member, inner, f"{path}[]")
        elif shape.type_name == "string":
            self.text(shape, value, path)

    def xml(self, shape, element, path):
        if shape.type_name == "structure":
            for child in element:
                self.member(shape, child.tag, path, lambda member, at, child=child: self.xml(member, child, at))
        elif shape.type_name == "list":
            name = shape.member.serialization.get("name", "member")
            for child in element:
                if child.tag != name:
                    self.problems.add(f"{path}: element {child.tag} in a list")
                self.xml(shape.member, child, f"{path}[]")
        else:
            self.scalar(shape, element.text or "", path)

    def scalar(self, shape, text, path):
        kind = shape.type_name
        fits = {
            "boolean": lambda: text in BOOLEANS,
            "integer": lambda: re.fullmatch(r"-?\d+", text),
            "long": lambda: re.fullmatch(r"-?\d+", text),
            "timestamp": lambda: re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", text),
        }.get(kind, lambda: True)
        if not fits():
            self.problems.add(f"{path}: no {kind}")
        if kind == "string":
            self.text(shape, text, path)

    def member(self, shape, name, path, descend):
        at = f"{path}.{name}".lstrip(".")
        self.members.add(at)
        members = {member.serialization.get("name", key): member for key, member in shape.members.items()}
        if name in members:
            shape = members[name]
            # A flattened list repeats its element without one around them.
            flat = self.flattens and shape.type_name == "list" and shape.serialization.get("flattened")
            descend(shape.member if flat else shape, at)
        else:
            self.problems.add(f"{at}: not in the model")

    def text(self, shape, value, path):
        if shape.enum and value not in shape.enum:
            self.problems.add(f"{path}: {value!r} is not in the enum {shape.name}")


def json_type(value):
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "integer", float: "float"}
    return names.get(type(value), "null")


def strip(root):
    """The tree without namespaces."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
