# Targets: see `make help`. Plain cargo commands work as well; this file adds what they need from outside of cargo.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

# Programs and tests select the whole workspace, and programs a test beside them: whichever of them are built, cargo chooses the same features
# of their dependencies, and builds these once.
PROGRAMS := $(CARGO) build --workspace --bins --test allocations
# Nothing is compiled a second time under CI: what a next time would need is not written.
ifdef CI
export CARGO_INCREMENTAL := 0
endif

# What a machine lacks for a test, one line each: tests append to it, `make test` prints it at the end.
export MUSTER_ABSENT := $(TARGET)/not-on-this-machine

# Tests that need set-up of their own are targets `test-NAME` of fragments; `make test` runs those that are there.
FRAGMENTS := $(wildcard tests/*/*.mk)
PARTS := test-workspace $(if $(FRAGMENTS),$(shell sed -n 's/^\(test-[a-z-]*\):.*/\1/p' $(FRAGMENTS))) test-default-run
include $(FRAGMENTS)

.PHONY: help test build ahead test-plain test-workspace test-default-run lint fetch bench man soak soak-kills soak-fuzz tools absent-hardware

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed -E 's/:.*## /\t/' | expand -t 16

test: tools ## everything: sets up what is missing, fetches MNIST, runs all tests, says how long each part took
	@mkdir -p $(TARGET) && rm -f $(MUSTER_ABSENT) $(MUSTER_ABSENT).minutes
	@trap 'kill $$(jobs -pr) 2>/dev/null || true' EXIT; \
	for part in build fetch $(PARTS) absent-hardware; do \
		begin=$$(date +%s.%N); \
		echo "== $$part"; \
		$(MAKE) --no-print-directory $$part || { echo "make test: $$part failed" >&2; exit 1; }; \
		date +%s.%N | awk -v part=$$part -v begin=$$begin '{ printf "%7.1f min  %s\n", ($$1 - begin) / 60, part }' \
			>> $(MUSTER_ABSENT).minutes; \
		if [ $$part = build ]; then nice -n 19 $(MAKE) ahead >$(TARGET)/ahead.log 2>&1 & fi; \
	done
	@echo "== minutes"; cat $(MUSTER_ABSENT).minutes
	@echo "== not on this machine"; sort -u $(MUSTER_ABSENT) 2>/dev/null || echo "nothing is missing"
	@echo "== make test: all passed"

build: # the tests and what they run
	$(CARGO) test --workspace --no-run
	$(PROGRAMS)

# While tests wait: the last parts' packages of Python, and the README's program. Those parts wait for what is not there yet.
ahead: peers-python see-python
	$(CARGO) build --release -p mnist

test-plain: ## cargo's tests alone, without set-up or network
	$(CARGO) test --workspace

test-workspace:
	$(CARGO) test --workspace

# The README's command, word for word but for where the model goes, on the real digits.
test-default-run:
	rm -rf $(TARGET)/default-run && mkdir -p $(TARGET)/default-run
	$(CARGO) run --release -p mnist -- train --model $(TARGET)/default-run/model --report $(TARGET)/default-run/report.json
	grep -q '"dataset": "mnist"' $(TARGET)/default-run/report.json
	awk '/^  "test_accuracy"/ { found = 1; sub(/,/, "", $$2); if ($$2 < 0.975) { print "test accuracy " $$2 " is below 0.975"; exit 1 } } END { if (!found) exit 1 }' \
		$(TARGET)/default-run/report.json

lint: ## formatting, clippy, and with cargo-deny licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	else echo "cargo-deny is not installed, licences are not checked: cargo install --locked cargo-deny"; fi

fetch: ## get MNIST into the cache
	$(PROGRAMS)
	$(TARGET)/debug/mnist fetch

bench: ## muster bench, with an HDFS of its own where Java is, then kernels, training and csv beside their peers (MKL, OpenBLAS, polars, pyarrow from PyPI)
	sh benches/peers/install.sh
	$(CARGO) build --release -p muster-launcher -p mnist
	@run=$(TARGET)/hdfs/bench; \
	if [ -z "$$HADOOP_CONF_DIR" ] && tests/hdfs/cluster up $$run; then \
		trap "tests/hdfs/cluster down $$run" EXIT; export HADOOP_CONF_DIR=$$run/conf; \
	fi; \
	$(TARGET)/release/muster bench --json $(TARGET)/bench.json --html $(TARGET)/bench.html
	$(CARGO) run --release -p muster-peers -- $(TARGET)/bench-peers.json

man: ## manual pages of muster and mnist into target/man, and completions for bash, zsh and fish into target/completions
	$(PROGRAMS)
	mkdir -p $(TARGET)/man $(TARGET)/completions
	@for program in muster mnist; do \
		$(TARGET)/debug/$$program man $(TARGET)/man; \
		for shell in bash zsh fish; do $(TARGET)/debug/$$program completions $$shell > $(TARGET)/completions/$$program.$$shell; done; \
	done

SOAK_MINUTES ?= 30
SOAK_KILLS ?= 200
soak: soak-mpi soak-fuzz soak-kills ## Open MPI 5, srun and limits of minutes; fuzzing; SOAK_KILLS (200) kills of ranks; kill and resume for SOAK_MINUTES (30)
	@end=$$(( $$(date +%s) + 60 * $(SOAK_MINUTES) )); rounds=0; \
	while [ $$(date +%s) -lt $$end ]; do \
		MUSTER_SOAK_ROUND=$$rounds $(CARGO) test -q -p muster-tests --test seams -- interruptions model_directory disks; \
		rounds=$$((rounds + 1)); \
	done; \
	echo "soak: $$rounds rounds passed"

# Ranks killed at random steps under --max-restarts, by each engine: always the same weights.
soak-kills: $(MPI_KINDS:%=mpi-build-%)
	MUSTER_KILL_ROUNDS=$(SOAK_KILLS) $(CARGO) test -p muster-tests --test launcher -- the_launcher_changes_no_bit
	@for kind in $(MPI_KINDS); do \
		MUSTER_KILL_ROUNDS=$(SOAK_KILLS) MUSTER_TEST_MPI=$$kind MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-$$kind \
			$(MPI_TESTS) -- --test-threads 1 a_kill_of_any_rank || exit 1; \
	done

FUZZ_SECONDS ?= 120
soak-fuzz: ## libFuzzer on every reader of bytes, FUZZ_SECONDS (120) each
	@PATH="$(TARGET)/tools/bin:$$PATH"; \
	command -v cargo-fuzz >/dev/null || $(CARGO) install --locked --root $(TARGET)/tools cargo-fuzz; \
	targets=$$($(CARGO) run -q -p muster-fuzz --bin seeds $(TARGET)/fuzz/corpus); \
	for target in $$targets; do \
		echo "== $$target"; \
		MUSTER_FUZZ=$$target $(CARGO) fuzz run --features libfuzzer -s none any $(TARGET)/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -max_len=65536 -print_final_stats=1 -verbosity=0 \
			-artifact_prefix=$(TARGET)/fuzz/$$target- || exit 1; \
	done

# What the tests run besides cargo. Debian's packages; sudo is used for apt-get alone.
tools:
	@missing=""; \
	command -v gcc >/dev/null || missing="$$missing gcc"; \
	command -v unshare >/dev/null || missing="$$missing util-linux"; \
	python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$$missing ca-certificates"; \
	if [ -n "$$missing" ]; then \
		echo "installing with apt-get:$$missing"; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust with https://rustup.rs" >&2; exit 1; }

absent-hardware:
	@lacks() { echo "$$1" >> $(MUSTER_ABSENT); }; \
	grep -qw avx512f /proc/cpuinfo || lacks "AVX-512: the avx512 kernels"; \
	grep -qw amx_bf16 /proc/cpuinfo || lacks "AMX: the amx kernels, but for a model of its registers"; \
	[ -n "$$(ls /sys/class/infiniband 2>/dev/null)" ] || lacks "InfiniBand: RDMA between nodes"; \
	unshare --net true 2>/dev/null || lacks "NET_ADMIN: ranks in network namespaces"
