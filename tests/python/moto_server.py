"""moto as a server on a free port, printed as `http://127.0.0.1:PORT`. It ends when its standard input does.

By moto's own default a task goes one state on towards STOPPED at every DescribeTasks: whoever looks, kills. Here a
task stays RUNNING until StopTask.

With `--mended` it is also near enough to AWS for the operator to run against. What moto 5.2.5 needs for that, and why:

* The envelope of an event that a rule sends to a queue lacks `account`. The operator needs it to know whose role it is
  that an event of CloudTrail tells of, and refuses such an event without it.
"""

import argparse
import os
import sys
import threading

from moto.events.utils import EventTemplateParser
from moto.moto_api import state_manager
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def mend():
    template = EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE
    assert "account" not in template, "this moto gives the account: no need to mend it"
    EventTemplateParser.DEFAULT_EVENT_INPUT_TEMPLATE = template.replace("{", '{"account": "<account>", ', 1)


def end_with_standard_input():
    sys.stdin.buffer.read()
    os._exit(0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mended", action="store_true")
    if parser.parse_args().mended:
        mend()
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 1_000_000})
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
