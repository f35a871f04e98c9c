"""Held against AWS's own model of each service: what the answers of all other tests looked like. Runs last."""

import pytest

import servers
from calls import FINDINGS
from deviations import LEFT_OUT, SHAPES


def test_every_answer_has_the_shape_of_the_model(aws):
    assert aws.findings, "no answers came"
    found = {call: sorted(one.problems) for call, one in sorted(aws.findings.items()) if one.problems}
    assert found == shown(SHAPES.get(aws.server, {}))


def test_the_sandbox_leaves_out_nothing_that_both_others_give():
    if len(FINDINGS) < len(servers.NAMES):
        pytest.skip("not all servers were asked")
    sandbox, moto, ministack = (FINDINGS[name] for name in servers.NAMES)
    left_out = {}
    for call in sorted(sandbox.keys() & moto.keys() & ministack.keys()):
        missing = (moto[call].members & ministack[call].members) - sandbox[call].members
        if missing:
            left_out[call] = sorted(missing)
    assert left_out == shown(LEFT_OUT)


def shown(table):
    return {call: sorted(one.shows) for call, one in sorted(table.items())}
