"""The schema of Terraform's AWS provider, read from its bindings for CDK for Terraform, without the provider.

`load(WHEEL, TYPES)` returns `{"resource": {TYPE: BODY}, "data": …}`. A body has `attributes` and `blocks` by name; each
has `required`, an attribute also `settable`, and a block is a body, too.
"""

import json
import pathlib
import re
import tarfile
import zipfile


def load(wheel, types):
    """The schema of these resources and data sources, `{"resource": {…}, "data": {…}}`. It is kept beside the wheel."""
    wheel = pathlib.Path(wheel)
    kept = wheel.parent / "schema.json"
    schema = json.loads(kept.read_text()) if kept.exists() else {"resource": {}, "data": {}}
    if any(types[kind] - set(schema[kind]) for kind in types):
        schema = read(wheel, types)
        kept.write_text(json.dumps(schema))
    return schema


def read(wheel, types):
    wanted = {folder(kind, type_): (kind, type_) for kind in types for type_ in types[kind]}
    sources = {}
    with zipfile.ZipFile(wheel) as outer:
        [name] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with outer.open(name) as packed, tarfile.open(fileobj=packed, mode="r|gz") as package:
            for member in package:
                if member.name.rpartition("/")[0] in wanted and member.name.endswith((".js", ".d.ts")):
                    sources[member.name] = package.extractfile(member).read().decode()
    schema = {"resource": {}, "data": {}}
    for path, (kind, type_) in wanted.items():
        if f"{path}/index.js" in sources:
            schema[kind][type_] = body_of(sources[f"{path}/index.js"], sources[f"{path}/index.d.ts"])
    return schema


def folder(kind, type_):
    prefix = "data-aws-" if kind == "data" else ""
    return f"package/lib/{prefix}{type_.removeprefix('aws_').replace('_', '-')}"


# `arn - computed: true, optional: false, required: false`: a comment above each property that cannot be set.
READ_ONLY = re.compile(r"^\s+// (\w+) - computed: true, optional: false, required: false$", re.MULTILINE)
# An entry of the table of arguments that a class or a block's function writes as HCL.
ENTRY = re.compile(r"^\s+(\w+): \{\n\s+value: (.*),\n\s+isBlock: (true|false),\n", re.MULTILINE)
CLASS = re.compile(r"^class \w+ extends cdktf\.Terraform(?:Resource|DataSource) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
# Arguments by the interfaces that hold them; `?` marks optional ones.
INTERFACE = re.compile(r"^export interface (\w+)[^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
REQUIRED = re.compile(r"^\s+readonly (\w+): ", re.MULTILINE)


def body_of(code, declarations):
    """The body of a resource or data source, from its class in JavaScript and its declarations in TypeScript."""
    functions = dict(re.findall(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", code, re.MULTILINE | re.DOTALL))
    required = {name: set(REQUIRED.findall(text)) for name, text in INTERFACE.findall(declarations)}
    [main] = [name for name in required if name.endswith("Config") and f"{name} extends" in declarations]
    [owner] = CLASS.findall(code)
    _, entries = owner.split("synthesizeHclAttributes", 1)
    return body(READ_ONLY.findall(owner), entries, required[main], required, functions)


def body(read_only, entries, needed, required, functions):
    attributes = {name: {"required": False, "settable": False} for name in read_only}
    blocks = {}
    for name, value, is_block in ENTRY.findall(entries):
        is_required = camel(name) in needed
        nested = re.search(r"(\w+)ToHclTerraform\b(?=[,)(])", value)
        if is_block == "true" and nested and nested[1] in functions:
            interface = nested[1][0].upper() + nested[1][1:]
            inner = body([], functions[nested[1]], required.get(interface, set()), required, functions)
            blocks[name] = inner | {"required": is_required}
        else:
            attributes[name] = {"required": is_required, "settable": True}
    return {"attributes": attributes, "blocks": blocks}


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
