"""Serves moto on a free port, printed as `http://127.0.0.1:PORT`. The server ends with its standard input.

By default, moto moves a task one state towards STOPPED at every DescribeTasks. Here a task stays RUNNING until
StopTask.

`--patched` corrects moto 5.2.5 where the operator and its templates depend on it:
- Events that a rule sends to a queue have no `account` in their envelope. The operator rejects such an event of CloudTrail,
  since the account identifies the role.
- An item of a list that is AWS::NoValue stays in it as null. CloudFormation leaves it out.
- A queue's redrive policy has spaces in its JSON. SQS has none, and Terraform compares the text.
"""

import argparse
import json
import os
import sys
import threading

from moto.events.utils import EventTemplateParser
from moto.moto_api import state_manager
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs.models import Queue
from werkzeug.serving import make_server


def patch():
    template = EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE
    assert "account" not in template, "this moto sets the account; remove the patch"
    EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE = template.replace("{", '{"account": "<account>", ', 1)
    attributes = Queue.attributes.fget

    def compact(queue):
        found = attributes(queue)
        if policy := found.get("RedrivePolicy"):
            found["RedrivePolicy"] = json.dumps(json.loads(policy), separators=(",", ":"))
        return found

    Queue.attributes = property(compact)
    try:
        from moto.cloudformation import parsing
    except ModuleNotFoundError:
        # An environment without the packages of CloudFormation serves no stacks.
        return
    clean_json = parsing.clean_json

    def clean(value, resources):
        cleaned = clean_json(value, resources)
        return [one for one in cleaned if one is not None] if isinstance(cleaned, list) else cleaned

    parsing.clean_json = clean


def end_with_standard_input():
    sys.stdin.buffer.read()
    os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--patched", action="store_true")
    if parser.parse_args().patched:
        patch()
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 1_000_000})
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
