"""Runs each test function against each server, and compares the outcome with the table of deviations."""

import pytest

import servers
from calls import FINDINGS, KNOWN_FAILURE_TIMEOUT, TIMEOUT, Aws, Waiting
from deviations import BEHAVIOUR
from document import sentence


@pytest.fixture(scope="session", params=servers.NAMES)
def aws(request):
    with servers.START[request.param]() as endpoint:
        aws = Aws(request.param, endpoint)
        FINDINGS[request.param] = aws.findings
        yield aws


def deviation(item):
    """The server of this test, and its deviation if the test is known to fail there."""
    server = item.callspec.params.get("aws") if hasattr(item, "callspec") else None
    return server, BEHAVIOUR.get(server, {}).get(item.originalname)


@pytest.fixture(autouse=True)
def timeout(request):
    _, known = deviation(request.node)
    Waiting.timeout = KNOWN_FAILURE_TIMEOUT if known else TIMEOUT


def pytest_collection_modifyitems(items):
    """Orders the tests by server. The shapes of responses come last, when all responses are known."""
    order = {name: place for place, name in enumerate(servers.NAMES)}

    def place(item):
        server = item.callspec.params.get("aws") if hasattr(item, "callspec") else None
        return (order.get(server, len(order)), item.path.name == "test_shapes.py")

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    server, known = deviation(item)
    if known is None or call.when != "call":
        return report
    found = str(call.excinfo.value) if call.excinfo else None
    if found is None:
        report.outcome = "failed"
        report.longrepr = f"{server} conforms now: remove {item.originalname} from its deviations"
    elif known.shows in found:
        report.outcome = "skipped"
        reason = f"Skipped: {server}: {sentence(item.originalname)}: {known.why}"
        report.longrepr = (str(item.path), item.location[1], reason)
    else:
        report.sections.append(("deviation", f"known to fail with {known.shows!r}: {known.why}"))
    return report
