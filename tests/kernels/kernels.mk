# The kernels on CPUs that this machine is not, emulated, and under valgrind; and over all floats.
KERNELS_QEMU := qemu-x86_64
# The kernels' tests, as they are built with those of the whole workspace.
KERNELS_TESTS := $(CARGO) test --workspace --lib --test backends --test not_finite --no-run
KERNELS_NAMES := s/^ *Executable .*(\(.*\/\(muster_kernels\|backends\|not_finite\)-[0-9a-f]*\))$$/\1/p
# Without what the emulator does not know and warns of.
KERNELS_HASWELL := Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm
# An emulated instruction takes tens of ours: fewer cases of each property, where `make test-plain` runs 256.
KERNELS_CASES ?= 32

.PHONY: test-kernels exhaustive

test-kernels:
	@[ "$$(uname -m)" = x86_64 ] || exit 0; \
	missing=""; \
	command -v $(KERNELS_QEMU) >/dev/null || missing="$$missing qemu-user"; \
	command -v valgrind >/dev/null || missing="$$missing valgrind"; \
	[ -z "$$missing" ] || { \
		echo "installing with apt-get:$$missing"; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	} >/dev/null || true
	@lacks() { [ -z "$$CI" ] || { echo "CI needs $$1" >&2; exit 1; }; echo "$$1: $$2" >> $(MUSTER_ABSENT); }; \
	export PROPTEST_CASES=$(KERNELS_CASES); \
	$(KERNELS_TESTS); tests=$$($(KERNELS_TESTS) 2>&1 | sed -n '$(KERNELS_NAMES)'); \
	[ "$$(echo $$tests | wc -w)" = 3 ] || { echo "the kernels' tests are not where cargo says: $$tests" >&2; exit 1; }; \
	if command -v $(KERNELS_QEMU) >/dev/null; then \
		for cpu in "Nehalem wide" "$(KERNELS_HASWELL) wide avx2"; do \
			set -- $$cpu; cpu=$$1; shift; echo "kernels on an emulated $$cpu: $$*"; \
			for test in $$tests; do MUSTER_TEST_BACKENDS="$$*" $(KERNELS_QEMU) -cpu $$cpu $$test -q; done; \
		done; \
		MUSTER_QEMU=$(KERNELS_QEMU) $(CARGO) test -q --workspace --test kernels; \
	else lacks qemu-user "kernels on CPUs without AVX"; fi; \
	if command -v valgrind >/dev/null; then \
		echo "kernels under valgrind: wide, avx2"; \
		for test in $$tests; do MUSTER_TEST_BACKENDS="wide avx2" valgrind -q --error-exitcode=1 $$test -q; done; \
	else lacks valgrind "kernels that read what nobody wrote"; fi

exhaustive: ## exp and ln over all floats in their range, against double precision; some minutes
	$(CARGO) test -p muster-kernels --lib -- --ignored --nocapture over_all_floats
