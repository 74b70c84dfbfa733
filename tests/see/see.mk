# TensorBoard and a browser look at what a run leaves behind.
SEE := $(TARGET)/see-python

.PHONY: test-see picture see-browser see-python

see-browser:
	@command -v chromium >/dev/null || { \
		echo "installing with apt-get: chromium"; \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; \
	} >/dev/null || true

see-python:
	@mkdir -p $(TARGET); exec 9>$(TARGET)/see-python.lock; flock 9; $(SEE)/bin/python -c 'import tensorboard' 2>/dev/null || \
		{ python3 -m venv $(SEE) && $(SEE)/bin/python -m pip install --quiet 'tensorboard>=2.15'; } || true

test-see: see-browser see-python
	@lacks() { [ -z "$$CI" ] || { echo "CI needs $$1" >&2; exit 1; }; echo "$$1: $$2" >> $(MUSTER_ABSENT); }; \
	command -v chromium >/dev/null && export MUSTER_CHROMIUM=chromium || lacks chromium "reports in a browser"; \
	[ -x $(SEE)/bin/tensorboard ] && export MUSTER_TENSORBOARD=$(abspath $(SEE)/bin) || \
		lacks "TensorBoard from PyPI" "its reading of event files"; \
	$(CARGO) test --workspace --test see

# The README's picture. On a busy machine the curve of the throughput shows what else it does.
PICTURE := $(TARGET)/picture
picture: see-browser ## draw docs/report.webp anew: the report of a real training, in headless Chromium
	$(CARGO) build --release -p mnist -p muster-launcher
	rm -rf $(PICTURE) && mkdir -p $(PICTURE)
	cd $(PICTURE) && $(TARGET)/release/mnist train --log-dir logs && $(TARGET)/release/muster report logs
	chromium --headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars --disable-background-networking \
		--user-data-dir=$(PICTURE)/profile --blink-settings=preferredColorScheme=1 --window-size=1000,2320 \
		--screenshot=$(CURDIR)/docs/report.webp file://$(abspath $(PICTURE))/report.html 2>/dev/null
