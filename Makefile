# Evenkeel: what a person types. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

export CARGO_TARGET_DIR ?= $(CURDIR)/target
TARGET := $(CARGO_TARGET_DIR)
IMAGES := $(TARGET)/images
TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BINARY := $(TARGET)/release/evenkeel

# `/version` names the commit that a release was built from.
RELEASE := EVENKEEL_COMMIT=$(shell git rev-parse HEAD 2>/dev/null || echo 0) cargo build --release --locked

# Where `make run` keeps its cluster, and where it listens.
export DATA ?= /var/lib/evenkeel
export LISTEN ?= 127.0.0.1:6443

.PHONY: help packages build images run stop test lint bench bench-api bench-loops fuzz fuzz-lib test-foreign compare-reference crash clean-cluster test-vm check-history

help: ## List what can be made
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

packages: ## Install the Debian packages that are missing
	@scripts/packages.sh

build: packages ## Build the binary (release)
	@echo "building evenkeel (some minutes from nothing)"
	@$(RELEASE) -p evenkeel

images: packages ## Write the example images to target/images/NAME.tar
	@scripts/images.sh "$(IMAGES)" "$(TRIPLE)"

run: build images ## Start a one-node cluster with the shop on it
	@scripts/run.sh "$(BINARY)" "$(IMAGES)"

stop: ## Stop the cluster of `make run`; containers go on running
	@scripts/stop.sh "$(BINARY)"

test: packages images ## Run every test
	@cargo test --workspace --locked --no-fail-fast

test-vm: packages ## Run what wants cgroup v2 alone or project quota on a virtual machine
	@scripts/test-vm.sh

lint: ## Formatting and lints, warnings as errors
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings

bench: build images ## Measure, beside the floors of this machine
	@$(RELEASE) -p evenkeel -p evenkeel-bench
	@"$(TARGET)/release/evenkeel-bench" --evenkeel "$(BINARY)"

bench-loops: packages ## Measure scheduler and loops with simulated nodes (some minutes)
	@$(RELEASE) -p evenkeel-bench
	@"$(TARGET)/release/evenkeel-bench" loops

crash: images ## Kill the process 50 times under load and check what it promised
	@EVENKEEL_CRASH_ROUNDS=50 cargo test --locked -p evenkeel --test e2e crash:: -- --nocapture

check-history: packages ## Check 2,000 histories under kill -9 and disk faults, 200 partitions of etcd (RUNS=N, PARTITIONS=N)
	@EVENKEEL_HISTORY_RUNS=$(or $(RUNS),2000) cargo test --release --locked -p evenkeel-store --test history -- --nocapture every_history
	@EVENKEEL_PARTITIONS=$(or $(PARTITIONS),200) cargo test --release --locked -p evenkeel-store --test etcd -- --nocapture parted

fuzz: ## Feed every decoder, patch and selector mutated inputs (SECONDS=60 for each)
	@cargo run --release --locked -q -p evenkeel-fuzz -- --seconds $(or $(SECONDS),60) --out "$(TARGET)/fuzz"

fuzz-lib: ## The same under libFuzzer, led by coverage: cargo-fuzz, nightly, c++ (SECONDS=60 for each)
	@SECONDS_EACH=$(or $(SECONDS),60) scripts/fuzz.sh "$(TARGET)/fuzz-lib"

test-foreign: packages ## Run clients that need Go or npm: client-go, Helm, JavaScript
	@scripts/test-foreign.sh

compare-reference: build ## Compare answers with the real kube-apiserver, which Go builds once (PARTS="create openapi")
	@scripts/compare-reference.sh $(PARTS)

bench-api: build ## Measure the API server beside the floors of the same run (some minutes)
	@cargo build --release --locked -p evenkeel-bench
	@"$(TARGET)/release/evenkeel-bench" --evenkeel "$(BINARY)" api

clean-cluster: ## Stop the cluster and remove it: containers, mounts, links, tables, data
	@scripts/stop.sh "$(BINARY)" --remove
