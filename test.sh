#!/usr/bin/env bash
# Runs all tests, and does all set-up that they need. Arguments go to `cargo test`, as in `./test.sh --lib plan`.
#
# Two parts are left out, and said so, where what they need is not there: the comparison of the sandbox's AWS with moto
# and ministack and the run against moto (Python 3 with venv, and its package index), and the replay of recorded
# exchanges (ECS_MESH_RECORDINGS).
set -euo pipefail
cd "$(dirname "$0")"

if [[ -z "${SANDBOX_TEST_PYTHON:-}" ]]; then
    if reason=$(.ci/venv .venv/aws tests/python/requirements.txt 2>&1); then
        export SANDBOX_TEST_PYTHON=$PWD/.venv/aws/bin/python
    else
        aws="skipped: boto3, moto and ministack cannot be installed ($(tail -n 1 <<<"$reason"))"
    fi
fi
if [[ -z "${ECS_MESH_RECORDINGS:-}" ]]; then
    recordings="skipped: ECS_MESH_RECORDINGS names no directory of recordings"
fi

cargo test --locked "$@"

[[ -z "${aws:-}" ]] || echo "moto and ministack $aws"
[[ -z "${recordings:-}" ]] || echo "replay of recordings $recordings"
