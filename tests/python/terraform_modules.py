"""Reads the modules and examples below `deploy/terraform` with a parser of HCL, and checks them without Terraform."""

import json
import pathlib
import re

import hcl2

ROOT = pathlib.Path(__file__).parents[2]
TERRAFORM = ROOT / "deploy/terraform"
MODULES = sorted(path for path in (TERRAFORM / "modules").iterdir() if path.is_dir())
EXAMPLES = sorted(path for path in (TERRAFORM / "examples").iterdir() if path.is_dir())

# Arguments of every resource, of every module and of every block.
META = {"count", "for_each", "depends_on", "lifecycle", "provider", "provisioner", "connection"}
MODULE_META = {"source", "version", "count", "for_each", "depends_on", "providers"}
NOTES = re.compile(r"__\w+__")


def unquoted(text):
    return text.strip('"') if isinstance(text, str) else text


def without_notes(value):
    """The parsed value without the parser's comments and marks."""
    if isinstance(value, dict):
        return {unquoted(key): without_notes(inner) for key, inner in value.items() if not NOTES.fullmatch(key)}
    return [without_notes(inner) for inner in value] if isinstance(value, list) else value


class Module:
    """The blocks of a directory, by address."""

    def __init__(self, path):
        self.path = path
        self.blocks = {kind: {} for kind in ("resource", "data", "variable", "output", "module", "locals", "provider")}
        self.terraform = {}
        for file in sorted(path.glob("*.tf")):
            with file.open() as text:
                self._read(without_notes(hcl2.load(text)))

    def _read(self, parsed):
        for kind, blocks in parsed.items():
            for block in blocks:
                if kind == "terraform":
                    self.terraform |= block
                elif kind == "locals":
                    self.blocks[kind] |= block
                elif kind in ("resource", "data"):
                    [(type_, named)] = block.items()
                    [(name, body)] = named.items()
                    assert f"{type_}.{name}" not in self.blocks[kind], f"{self.path}: {type_}.{name} twice"
                    self.blocks[kind][f"{type_}.{name}"] = body
                else:
                    [(name, body)] = block.items()
                    # Several configurations of a provider differ by their alias.
                    self.blocks[kind][f"{name} {body['alias']}" if "alias" in body else name] = body

    def __getattr__(self, kind):
        return self.blocks[kind]

    def called(self, name):
        """The module that a module block calls."""
        return Module((self.path / unquoted(self.module[name]["source"])).resolve())

    def texts(self):
        """Every expression, by the address of its block."""
        for kind, blocks in self.blocks.items():
            for name, body in blocks.items():
                if kind == "variable":
                    body = {key: value for key, value in body.items() if key == "validation"}
                if isinstance(body, dict):
                    body = {key: value for key, value in body.items() if key != "description"}
                yield f"{kind} {name}", json.dumps(body)


REFERENCE = re.compile(r"(?<![\w.\-\\\"/])(var|local|module|data|aws_\w+)\.([\w-]+)((?:\[[^\]]*\]|\.[\w-]+|\.\*)*)")


def references(text):
    """The references of an expression: the first part, and the names that follow it."""
    for kind, name, rest in REFERENCE.findall(text):
        yield kind, name, re.findall(r"\.([\w-]+)", rest)


def all_references(path):
    """The names that the expressions of a directory use: `kind.name`, or `data.type.name`."""
    found = set()
    for _, text in Module(path).texts():
        for kind, name, rest in references(text):
            found.add(f"{kind}.{name}.{rest[0]}" if kind == "data" else f"{kind}.{name}")
    return found


def check_wiring(path, schema):
    """Every reference leads somewhere, every call of a module is complete, and nothing is declared in vain."""
    module = Module(path)
    used = {"var": set(), "local": set(), "data": set(), "module": set()}
    for place, text in module.texts():
        for kind, name, rest in references(text):
            where = f"{path.relative_to(TERRAFORM)}: {place}: {kind}.{name}"
            if kind == "var":
                assert name in module.variable, f"{where} is not declared"
            elif kind == "local":
                assert name in module.locals, f"{where} is not declared"
            elif kind == "module":
                assert name in module.module, f"{where} is not declared"
                assert not rest or rest[0] in module.called(name).output, f"{where} has no output {rest[0]}"
            elif kind == "data":
                assert rest and f"{name}.{rest[0]}" in module.data, f"{where} is not declared"
                check_attribute(schema, "data", name, rest[1:], where)
                name = f"{name}.{rest[0]}"
            else:
                assert f"{kind}.{name}" in module.resource, f"{where} is not declared"
                check_attribute(schema, "resource", kind, rest, where)
            used.get(kind, set()).add(name)
    for kind, declared in {"var": module.variable, "local": module.locals, "data": module.data}.items():
        unused = set(declared) - used[kind]
        assert not unused, f"{path.relative_to(TERRAFORM)}: {kind} {unused} is not used"
    for name, call in module.module.items():
        inputs = module.called(name).variable
        where = f"{path.relative_to(TERRAFORM)}: module {name}"
        assert set(call) - MODULE_META <= set(inputs), f"{where}: {set(call) - MODULE_META - set(inputs)} unknown"
        required = {name for name, variable in inputs.items() if "default" not in variable}
        assert required <= set(call), f"{where}: {required - set(call)} missing"
    for kind in ("variable", "output"):
        for name, body in module.blocks[kind].items():
            assert body.get("description"), f"{path.relative_to(TERRAFORM)}: {kind} {name} is not described"
            assert kind == "output" or "type" in body, f"{path.relative_to(TERRAFORM)}: variable {name} has no type"


def check_attribute(schema, kind, type_, rest, where):
    """A reference's attribute exists. `one(x[*].id)` and `for` expressions name the attribute elsewhere."""
    if rest:
        known = schema[kind][type_]
        assert rest[0] in known["attributes"] or rest[0] in known["blocks"], f"{where} has no attribute {rest[0]}"


def check_arguments(path, schema):
    """Every argument and block of a resource is the provider's, and the required ones are given."""
    module = Module(path)
    for kind in ("resource", "data"):
        for address, body in module.blocks[kind].items():
            type_ = address.split(".")[0]
            assert type_ in schema[kind], f"{path.relative_to(TERRAFORM)}: the provider has no {kind} {type_}"
            check_body(body, schema[kind][type_], f"{path.relative_to(TERRAFORM)}: {kind} {address}", META)


def check_body(body, schema, where, meta=frozenset()):
    given = {name: value for name, value in body.items() if name not in meta and name != "dynamic"}
    blocks = [(name, block) for name, value in given.items() if name in schema["blocks"] for block in value]
    for dynamic in body.get("dynamic", []):
        [(name, block)] = dynamic.items()
        [content] = block["content"]
        assert name in schema["blocks"], f"{where}: no block {name}"
        blocks.append((name, content))
    for name, value in given.items():
        if name not in schema["blocks"]:
            attribute = schema["attributes"].get(name)
            assert attribute, f"{where}: no argument {name}"
            assert attribute["settable"], f"{where}: {name} cannot be set"
    named = set(given) | {name for name, _ in blocks}
    required = {name for name, has in (schema["attributes"] | schema["blocks"]).items() if has["required"]}
    assert required <= named, f"{where}: {required - named} missing"
    for name, block in blocks:
        check_body(block, schema["blocks"][name], f"{where}.{name}")


# --- Documentation ----------------------------------------------------------------------------------------------------

BEGIN, END = "<!-- inputs and outputs -->", "<!-- end of inputs and outputs -->"


def type_text(variable):
    """The type on one line, with the names of an object's attributes."""
    text = re.sub(r"\s+", " ", unquoted(variable["type"])).removeprefix("${").removesuffix("}")
    return "object" if text.startswith("object(") else "list(object)" if text.startswith("list(object(") else text


def default_text(variable):
    if "default" not in variable:
        return "**required**"
    value = variable["default"]
    if isinstance(value, str):
        value = value.removeprefix("${").removesuffix("}")
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def tables(path):
    """The generated part of a module's README."""
    module = Module(path)
    lines = [BEGIN, "## Inputs", "", "| input | type | default | meaning |", "|---|---|---|---|"]
    for name, variable in module.variable.items():
        cells = [f"`{name}`", f"`{type_text(variable)}`", default_text(variable), description(variable)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Outputs", "", "| output | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {description(output)} |" for name, output in module.output.items()]
    return "\n".join([*lines, END])


def description(block):
    text = block["description"]
    if "<<-" in text:
        lines = [line.strip() for line in text.strip('"').splitlines()[1:-1]]
        text = "<br>".join(line for line in lines if line)
    else:
        text = json.loads(text)
    return text.replace("|", "\\|")


def required_types():
    """The types of all modules and examples, for `terraform_schema.load`."""
    types = {"resource": set(), "data": set()}
    for module in map(Module, MODULES + EXAMPLES):
        for kind, found in types.items():
            found |= {address.split(".")[0] for address in module.blocks[kind]}
    return types
