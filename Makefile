# Entry points for people; what they do, cargo does. `make` alone lists them.
#
# demo, test and lint share the dev profile: RocksDB, the one slow dependency, is compiled once for all of them.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check fmt bench bench-failover bench-scale bench-peers chaos fuzz sim exam models ci

CARGO ?= cargo
# Flags of `bifrost demo`, for example ARGS='--seconds 5 --json'.
ARGS ?=
# Names of fuzz targets, for example TARGETS='batch marker'; all of them if empty.
TARGETS ?=
# How long `make chaos` goes on; BIFROST_SEED=.. repeats a schedule.
CHAOS_SECONDS ?= 3600
# What `make sim` runs: SEED=7 SEEDS=500, or PLAN=file; TRACE=1 prints everything that happened, STORE=files has every log
# server on the engine `files`, STORE=model none.
SEED ?= 1
SEEDS ?= 1
PLAN ?=
STORE ?= drawn
TRACE ?=
# ccache, where it is installed, makes a second compilation of RocksDB (bench, another target directory) take a minute
# instead of a quarter of an hour. The last one is where rustup puts cargo. A directory that is not there changes nothing.
export PATH := /usr/lib/ccache:$(PATH):$(HOME)/.cargo/bin

help: ## list the targets
	@echo "usage: make <target>"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what build and tests need (libclang, a C++ compiler, gRPC for Python); does nothing when it is there
	@scripts/setup

demo: ## build and run the demo: three log servers, 64 appenders, a reconfiguration a second; ARGS=... passes flags
	@scripts/setup build
	$(CARGO) run --locked --package bifrost-node --bin bifrost -- demo $(ARGS)

# Our own code is not optimised here: that halves the time to compile it. Dependencies are.
test: setup ## build and run every test, doc tests included
	CARGO_PROFILE_DEV_OPT_LEVEL=0 $(CARGO) test --workspace --exclude bifrost-sim --exclude bifrost-model --locked
	@scripts/sim test

lint: ## check formatting and run clippy; a warning is an error
	@scripts/setup lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --exclude bifrost-sim --exclude bifrost-model --all-targets --locked -- -D warnings
	@scripts/sim lint
	@# Another workspace; what its lock file says of our crates has to be as it is here.
	$(CARGO) update --workspace --locked --quiet --manifest-path bench/peers/Cargo.toml

check: lint ## the same as lint

fmt: ## format the code
	$(CARGO) fmt --all

bench: ## measure appends and tailing reads, in the release profile
	@scripts/setup build
	$(CARGO) bench --locked --package bifrost-benches

bench-failover: ## measure how long writers wait when nodes are stopped, killed and cut off; ARGS=kill chooses rows
	@scripts/setup
	$(CARGO) bench --locked --package bifrost-tests --bench failover -- $(ARGS)

bench-scale: ## measure what more logs, readers and history cost; ARGS='logs=1 logs=30000 history=2GiB' chooses
	@scripts/setup build
	$(CARGO) bench --locked --package bifrost-tests --bench scale -- $(ARGS)

bench-peers: ## measure Bifrost, its peers and a floor side by side; ARGS='--peers bifrost,nats --rounds 1 --seconds 2' chooses
	@CARGO=$(CARGO) bench/peers/run $(ARGS)

chaos: setup ## kill, stop, pause and cut off nodes of real clusters, as a seed says, for CHAOS_SECONDS=3600
	CHAOS_SECONDS=$(CHAOS_SECONDS) CARGO_PROFILE_DEV_OPT_LEVEL=0 $(CARGO) test --workspace --exclude bifrost-sim --exclude bifrost-model --locked \
		--test it -- --test-threads=1 --nocapture chaos::

fuzz: ## feed every decoder random bytes, guided by coverage, FUZZ_SECONDS=60 each; TARGETS='batch ...' chooses
	@scripts/fuzz $(TARGETS)

sim: ## run the whole cluster from a seed: SEED=7 SEEDS=500, or PLAN=file; TRACE=1 prints everything
	@scripts/sim bifrost-sim run $(if $(PLAN),--plan $(PLAN),--seed $(SEED) --seeds $(SEEDS)) --store $(STORE) $(if $(TRACE),--trace)

models: ## explore the protocol cores exhaustively, in every scope; some minutes
	@scripts/sim bifrost-models

exam: ## plant each known bug and see that a layer of proof finds it; ARGS='--seeds 30 zones-ignored' chooses
	@scripts/sim exam $(ARGS)

ci: ## what CI runs: set-up, lint, tests
	@.ci/run
