# Training under mpirun, with Debian's Open MPI and MPICH. Each needs a program of its own; all that does not touch MPI is built once.
MPI_KINDS := openmpi mpich
MPI_PACKAGES := libopenmpi-dev openmpi-bin libmpich-dev mpich libclang-dev

.PHONY: test-mpi bench-mpi mpi-tools $(MPI_KINDS:%=mpi-build-%)

test-mpi: $(MPI_KINDS:%=mpi-build-%) ## the tests under mpirun, with Open MPI and with MPICH
	@for kind in $(MPI_KINDS); do \
		MUSTER_TEST_MPI=$$kind MUSTER_TEST_MNIST=$(TARGET)/mpi/mnist-$$kind \
			MUSTER_TEST_FLOWERS=$(TARGET)/mpi/flowers-$$kind \
			$(CARGO) test -p muster-tests --test mpi -- --test-threads 1 || exit 1; \
	done

$(MPI_KINDS:%=mpi-build-%): mpi-build-%: mpi-tools
	# Its build script does not notice that MPICC has changed.
	$(CARGO) clean --release -p mpi-sys
	MPICC=mpicc.$* $(CARGO) build --release -p mnist --features mpi
	MPICC=mpicc.$* $(CARGO) build --release -p muster-tests --bin flowers --features mpi
	mkdir -p $(TARGET)/mpi && cp $(TARGET)/release/mnist $(TARGET)/mpi/mnist-$*
	cp $(TARGET)/release/flowers $(TARGET)/mpi/flowers-$*

# One worker by each transport beside one process alone, in turns; records a second.
bench-mpi: mpi-build-openmpi ## training by MPI's transports beside one process
	tests/mpi/bench.sh $(TARGET)/mpi/mnist-openmpi

# Debian's packages; root, by sudo where this is another user, for apt-get alone.
mpi-tools:
	@missing=$$(for package in $(MPI_PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	if [ -n "$$missing" ]; then \
		echo "installing with apt-get:" $$missing; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi
