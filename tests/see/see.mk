# TensorBoard and a browser look at what a run leaves behind.
SEE := $(TARGET)/see-python

.PHONY: test-see

test-see:
	@command -v chromium >/dev/null || { \
		echo "installing with apt-get: chromium"; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; \
	} >/dev/null || true
	@$(SEE)/bin/python -c 'import tensorboard' 2>/dev/null || \
		{ python3 -m venv $(SEE) && $(SEE)/bin/python -m pip install --quiet 'tensorboard>=2.15'; } || true
	@lacks() { [ -z "$$CI" ] || { echo "CI needs $$1" >&2; exit 1; }; echo "$$1: $$2" >> $(MUSTER_ABSENT); }; \
	command -v chromium >/dev/null && export MUSTER_CHROMIUM=chromium || lacks chromium "reports in a browser"; \
	[ -x $(SEE)/bin/tensorboard ] && export MUSTER_TENSORBOARD=$(abspath $(SEE)/bin) || \
		lacks "TensorBoard from PyPI" "its reading of event files"; \
	$(CARGO) test -p muster-tests --test see
