"""Runs Terraform or OpenTofu, from TERRAFORM_TEST_PLUGINS, on a copy of `deploy/terraform`."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from deploy import REGION
from terraform_modules import TERRAFORM, Module


class Terraform:
    """A copy of the modules and examples, with a configuration of its own above them."""

    def __init__(self, folder, url="http://127.0.0.1:1"):
        self.folder = pathlib.Path(folder)
        self.plugins = pathlib.Path(os.environ["TERRAFORM_TEST_PLUGINS"])
        # Without what a developer's own apply left there.
        left = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars")
        shutil.copytree(TERRAFORM, self.folder, dirs_exist_ok=True, ignore=left)
        self.environment = os.environ | {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "AKIDTEST",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }
        self.environment.pop("TF_CLI_CONFIG_FILE", None)

    def run(self, *arguments, at=".", check=True, credentials=None):
        program = self.plugins / "terraform"
        place = {"cwd": self.folder / at, "env": self.environment | (credentials or {})}
        done = subprocess.run([program, *arguments], **place, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"terraform {' '.join(arguments)} in {at}\n{done.stdout}{done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def init(self, at="."):
        self.run("init", "-backend=false", "-input=false", f"-plugin-dir={self.plugins / 'providers'}", at=at)

    def apply(self, at=".", credentials=None):
        self.run("apply", "-auto-approve", "-input=false", "-no-color", at=at, credentials=credentials)

    def outputs(self, at="."):
        return {name: one["value"] for name, one in json.loads(self.run("output", "-json", at=at)).items()}

    def changes(self, at=".", credentials=None):
        """What a plan would change: before and after, by address."""
        self.run("plan", "-input=false", "-no-color", "-out=plan", at=at, credentials=credentials)
        plan = json.loads(self.run("show", "-json", "plan", at=at))
        changes = {one["address"]: one["change"] for one in plan["resource_changes"]}
        return {address: change for address, change in changes.items() if change["actions"] != ["no-op"]}

    def write(self, module, arguments, more=""):
        """The configuration that calls a module."""
        call = {"source": f"./modules/{module}"} | arguments
        provider = {"skip_credentials_validation": True, "skip_metadata_api_check": True, "region": REGION}
        output = {name: {"value": f"${{module.this.{name}}}"} for name in Module(TERRAFORM / "modules" / module).output}
        configuration = {"provider": {"aws": provider}, "module": {"this": call}, "output": output}
        (self.folder / "main.tf.json").write_text(json.dumps(configuration))
        (self.folder / "more.tf").write_text(more)


@contextlib.contextmanager
def copied(url="http://127.0.0.1:1"):
    with tempfile.TemporaryDirectory() as folder:
        yield Terraform(folder, url)
