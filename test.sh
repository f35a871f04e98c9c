#!/usr/bin/env bash
# Runs all tests, after installing the tools that they need. Arguments go to `cargo test`, as in `./test.sh --lib plan`.
#
# Parts whose tools are not available are skipped and listed at the end: those that need the package indexes of Python
# and npm, Go and its modules, Debian's package archive, or Terraform with its AWS provider. With REQUIRE_TOOLS=1 the run fails
# before the tests if one of them is missing. Recorded exchanges (ECS_MESH_RECORDINGS), a Consul newer than Debian's
# (CONSUL_BIN), Kuma and Envoy come from no package index, so these parts are skipped and listed in any case.
set -euo pipefail
cd "$(dirname "$0")"

skipped=() optional=()

# available PART COMMAND…: whether COMMAND succeeds, without which PART is skipped.
available() {
    local part=$1 reason
    shift
    reason=$("$@" 2>&1) || {
        skipped+=("$part: skipped because this command failed: $* ($(tail -n 1 <<<"$reason"))")
        return 1
    }
}

# provide VARIABLE VALUE PART COMMAND…: sets VARIABLE for the tests if COMMAND can provide what it names.
provide() {
    local variable=$1 value=$2
    shift 2
    if [[ -z "${!variable:-}" ]] && available "$@"; then
        export "$variable=$value"
    fi
}

provide SANDBOX_TEST_PYTHON "$PWD/.venv/aws/bin/python" "comparison with moto and ministack, run against moto" \
    .ci/venv .venv/aws tests/python/requirements.txt
provide SCHEMA_TEST_PYTHON "$PWD/.venv/jsonschema/bin/python" "manifests' JSON Schema in a validator" \
    .ci/venv .venv/jsonschema tests/python/requirements-schema.txt
provide SARIF_SCHEMA "$PWD/.tools/sarif/sarif-2.1.0-rtm.5.json" "audit's SARIF against SARIF's own schema" \
    .ci/sarif .tools/sarif
provide DEPLOY_TEST_PYTHON "$PWD/.venv/deploy/bin/python" "checks of deploy/" \
    .ci/venv .venv/deploy tests/python/requirements-deploy.txt
provide TERRAFORM_TEST_SCHEMA "$PWD/.tools/aws-schema/provider.whl" "arguments of Terraform's resources" \
    .ci/aws-schema .tools/aws-schema
provide TERRAFORM_TEST_PLUGINS "$PWD/.tools/terraform" "Terraform modules, by Terraform and its AWS provider" \
    .ci/terraform .tools/terraform
provide HCLFMT_TEST_BIN "$PWD/.tools/hclfmt/hclfmt" "format of Terraform's files, by its formatter" \
    .ci/hclfmt .tools/hclfmt
provide CHECKOV_TEST_BIN "$PWD/.venv/checkov/bin/checkov" "deploy/ by checkov" \
    .ci/venv .venv/checkov tests/python/requirements-checkov.txt
provide PROMETHEUS_BIN "$PWD/.tools/prometheus/usr/bin" "scrape by Prometheus" \
    .ci/debian-package .tools/prometheus prometheus 2.42.0+ds-5+deb12u1 \
    81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55
provide FAKETIME_TEST_LIB "$PWD/.tools/faketime/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1" \
    "a leader whose wall clock jumps" \
    .ci/debian-package .tools/faketime libfaketime 0.9.10-2.1 \
    b09481e7690680966005330c3f907bba4b5eefc35e1faaea4783cc55655d1150
provide CONSUL_TEST_BIN "$PWD/.tools/consul/usr/bin/consul" "a real Consul" \
    .ci/consul .tools/consul
provide BROWSER_TEST_PYTHON "$PWD/.venv/browser/bin/python" "the live page in a browser, by Playwright" \
    .ci/venv .venv/browser tests/python/requirements-browser.txt
provide BROWSER_TEST_CHROMIUM "$PWD/.tools/chromium/chromium" "the live page in a browser, Chromium" \
    .ci/chromium .tools/chromium/chromium
# The tests build it.
available "CRDs and manifests by the API server's code" go -C tests/crds list -mod=readonly -deps . || true
[[ -n "${ECS_MESH_RECORDINGS:-}" ]] ||
    optional+=("replay of recordings: skipped because ECS_MESH_RECORDINGS is not set")
[[ -n "${CONSUL_BIN:-}" ]] ||
    optional+=("a Consul with logins by AWS IAM: skipped because CONSUL_BIN does not name Consul 1.12 or later")
[[ -n "${KUMA_CP_BIN:-}" ]] ||
    optional+=("a real Kuma: skipped because KUMA_CP_BIN does not name kuma-cp")
[[ -n "${KUMA_DP_BIN:-}" && -n "${ENVOY_BIN:-}" ]] ||
    optional+=("requests through real sidecars: skipped because KUMA_DP_BIN and ENVOY_BIN do not name kuma-dp and Envoy")

if [[ "${REQUIRE_TOOLS:-0}" != 0 ]] && ((${#skipped[@]} > 0)); then
    printf '%s\n' "${skipped[@]/: skipped because/:}" "error: REQUIRE_TOOLS is set, and these parts cannot be run" >&2
    exit 1
fi

# Most integration tests wait for processes and leases most of the time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-6}
# What simulated runs spend their time in is optimised. One failure does not hide others.
cargo test --workspace --locked --profile ci --no-fail-fast "$@"

skipped+=("${optional[@]}")
((${#skipped[@]} == 0)) || printf '%s\n' "${skipped[@]}"
