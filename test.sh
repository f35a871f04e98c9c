#!/usr/bin/env bash
# Runs all tests, and does all set-up that they need. Arguments go to `cargo test`, as in `./test.sh --lib plan`.
#
# Three parts are left out, and said so, where what they need is not there: the walk of the sandbox's AWS with boto3
# and the checks of deploy/ (both: Python 3 with venv, and its package index), and the replay of recorded exchanges
# (ECS_MESH_RECORDINGS).
set -euo pipefail
cd "$(dirname "$0")"

if [[ -z "${SANDBOX_TEST_PYTHON:-}" ]]; then
    if reason=$(.ci/venv .venv/boto3 tests/python/requirements.txt 2>&1); then
        export SANDBOX_TEST_PYTHON=$PWD/.venv/boto3/bin/python
    else
        boto3="skipped: boto3 cannot be installed ($(tail -n 1 <<<"$reason"))"
    fi
fi
if [[ -z "${DEPLOY_TEST_PYTHON:-}" ]]; then
    if reason=$(.ci/venv .venv/deploy tests/python/requirements-deploy.txt 2>&1); then
        export DEPLOY_TEST_PYTHON=$PWD/.venv/deploy/bin/python
    else
        deploy="skipped: cfn-lint, moto and hadolint cannot be installed ($(tail -n 1 <<<"$reason"))"
    fi
fi
if [[ -z "${ECS_MESH_RECORDINGS:-}" ]]; then
    recordings="skipped: ECS_MESH_RECORDINGS names no directory of recordings"
fi

cargo test --locked "$@"

[[ -z "${boto3:-}" ]] || echo "walk with boto3 $boto3"
[[ -z "${deploy:-}" ]] || echo "checks of deploy/ $deploy"
[[ -z "${recordings:-}" ]] || echo "replay of recordings $recordings"
