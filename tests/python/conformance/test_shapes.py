"""Checks the responses of all other tests against AWS's own model of each service. Runs last."""

import pytest

import servers
from calls import FINDINGS
from deviations import OMITTED, PARTIAL, SHAPES


def test_responses_match_the_service_model(aws):
    assert aws.findings, "no responses"
    found = {call: sorted(one.problems) for call, one in sorted(aws.findings.items()) if one.problems}
    assert found == shown(SHAPES.get(aws.server, {}))


def test_sandbox_omits_no_member_that_both_others_return():
    if len(FINDINGS) < len(servers.NAMES):
        pytest.skip("not all servers were called")
    sandbox, moto, ministack = (FINDINGS[name] for name in servers.NAMES)
    omitted = {}
    for call in sorted((sandbox.keys() & moto.keys() & ministack.keys()) - PARTIAL):
        missing = (moto[call].members & ministack[call].members) - sandbox[call].members
        if missing:
            omitted[call] = sorted(missing)
    assert omitted == shown(OMITTED)


def shown(table):
    return {call: sorted(one.shows) for call, one in sorted(table.items())}
