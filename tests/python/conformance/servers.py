"""The three servers, each a process on a free port of 127.0.0.1 that ends with the test session."""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ACCOUNT = "111122223333"
REGION = "eu-west-1"
NAMES = ("sandbox", "moto", "ministack")

TIMEOUT = 60
HERE = pathlib.Path(__file__).parent


def die_with_parent():
    """Makes Linux end the child when this process is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextlib.contextmanager
def running(name, command, environment, ready):
    """Starts a server and yields its endpoint. `ready` reads it from the server's output, or returns None."""
    with tempfile.TemporaryDirectory() as directory:
        log = pathlib.Path(directory, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env={"PATH": os.environ["PATH"], "HOME": directory, "TMPDIR": directory, **environment},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        try:
            yield wait(name, process, log, ready)
        finally:
            process.kill()
            process.wait()
            process.stdin.close()


def wait(name, process, log, ready):
    end = time.monotonic() + TIMEOUT
    while True:
        endpoint = ready(log.read_text(errors="replace"))
        if endpoint:
            return endpoint
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{name} does not start; its output:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def sandbox():
    program = os.environ.get("ECS_MESH_OPERATOR")
    if not program:
        raise RuntimeError("ECS_MESH_OPERATOR does not name the built program (target/debug/ecs-mesh-operator)")
    command = [program, "sandbox", "--serve", "--world", "none"]

    def ready(output):
        lines = output.splitlines()
        marker = "export AWS_ENDPOINT_URL="
        urls = [line.removeprefix(marker) for line in lines if line.startswith(marker)]
        return urls[0] if urls and "ready" in lines else None

    return running("the sandbox", command, {}, ready)


def moto():
    command = [sys.executable, str(HERE.parent / "moto_server.py")]
    environment = {"MOTO_ACCOUNT_ID": ACCOUNT}
    return running("moto", command, environment, lambda output: (output.splitlines() or [None])[0])


def ministack():
    # ministack does not accept port 0. Its IoT broker would listen on all interfaces.
    port = free_port()
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
    }
    url = f"http://127.0.0.1:{port}"

    def ready(_output):
        try:
            with urllib.request.urlopen(f"{url}/_ministack/health", timeout=5):
                return url
        except OSError:
            return None

    return running("ministack", [sys.executable, "-m", "ministack"], environment, ready)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


START = {"sandbox": sandbox, "moto": moto, "ministack": ministack}
