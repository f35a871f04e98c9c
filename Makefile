# Common commands. `make check` is what CI runs.
SEEDS ?= 2000
FIRST ?= 0
TIMES ?= 10
TIME ?= 60
BENCH ?=
AT ?=
SIM_TESTS = $(if $(AT),simulation::$(AT)::invariants_hold_for_every_seed,invariants_hold_for_every_seed)

.PHONY: help check test sim fuzz replay fmt lint deny sandbox bench build-times deflake golden screenshots docs

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

check: ## All that CI checks
	.ci/run

test: ## All tests, with their setup
	./test.sh

sim: ## Simulate seeds: SEEDS=2000 from FIRST=0, all kinds or AT=kuma, consul or tokens alone
	SIM_FIRST=$(FIRST) SIM_SEEDS=$(SEEDS) cargo test --workspace --locked --profile sim --test it $(SIM_TESTS) -- --nocapture

fuzz: ## Run each fuzz target for TIME=60 seconds
	FUZZ_SECONDS=$(TIME) cargo test -p ecs-mesh-fuzz --locked --profile sim

replay: ## Replay one seed: SEED=17 AT=consul
	SIM_FIRST=$(SEED) SIM_SEEDS=1 cargo test --locked --test it $(SIM_TESTS) -- --nocapture

docs: ## The documentation as a site with search, in target/book; checks links and diagrams
	.ci/docs

fmt: ## Format the code
	cargo fmt

lint: ## Lints, warnings as errors
	cargo clippy --workspace --all-targets --locked -- -D warnings

deny: ## Licences, banned crates and sources of the dependencies
	.ci/deny

sandbox: ## The operator in its sandbox
	cargo run --locked -- sandbox

bench: ## The benchmark, of a release build: BENCH='--only idle --idle 11m' narrows it
	cargo run --release --locked --example bench -- $(BENCH)

build-times: ## How long builds take and how large the program is: COLD=--cold adds the release builds
	.ci/build-times $(COLD)

deflake: ## All tests TIMES=10 times, until a failure
	for n in $$(seq $(TIMES)); do echo "-- $$n of $(TIMES)"; ./test.sh --quiet || exit 1; done

screenshots: ## Renew docs/images from a run of the sandbox
	.ci/venv .venv/browser tests/python/requirements-browser.txt
	.ci/chromium .tools/chromium/chromium
	cargo build --locked
	.venv/browser/bin/python docs/images/renew

golden: ## Renew the golden files; review the diff
	INSTA_UPDATE=always cargo test --workspace --locked --lib
	UPDATE_GOLDEN=1 cargo test --workspace --locked --lib schema_is_current
	UPDATE_GOLDEN=1 cargo test --locked -p ecs-mesh-import --test golden --test reference
	UPDATE_GOLDEN=1 cargo test --locked --test it -- golden audit::files
