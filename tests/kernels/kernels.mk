# The kernels on CPUs that this machine is not, emulated, and under valgrind; and over all floats.
KERNELS_QEMU := qemu-x86_64
KERNELS_RUNNER := CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER
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
	if command -v $(KERNELS_QEMU) >/dev/null; then \
		for cpu in "Nehalem wide" "$(KERNELS_HASWELL) wide avx2"; do \
			set -- $$cpu; cpu=$$1; shift; echo "kernels on an emulated $$cpu: $$*"; \
			env $(KERNELS_RUNNER)="$(KERNELS_QEMU) -cpu $$cpu" MUSTER_TEST_BACKENDS="$$*" \
				$(CARGO) test -q -p muster-kernels --lib --test backends --test not_finite; \
		done; \
		MUSTER_QEMU=$(KERNELS_QEMU) $(CARGO) test -q -p muster-tests --test kernels; \
	else lacks qemu-user "kernels on CPUs without AVX"; fi; \
	if command -v valgrind >/dev/null; then \
		echo "kernels under valgrind: wide, avx2"; \
		env $(KERNELS_RUNNER)="valgrind -q --error-exitcode=1" MUSTER_TEST_BACKENDS="wide avx2" \
			$(CARGO) test -q -p muster-kernels --lib --test backends --test not_finite; \
	else lacks valgrind "kernels that read what nobody wrote"; fi

exhaustive: ## exp and ln over all floats in their range, against double precision; some minutes
	$(CARGO) test -p muster-kernels --lib -- --ignored --nocapture over_all_floats
