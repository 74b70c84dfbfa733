# Programs that read what we write and write what we read.
PEERS := $(TARGET)/peers-python

PEERS_ARE_THERE := $(PEERS)/bin/python -c 'from importlib.util import find_spec as f; assert all(map(f, ["numpy", "pyspark", "tensorflow"]))'

.PHONY: test-peers peers-python

# Also while others wait for it.
peers-python:
	@mkdir -p $(TARGET); exec 9>$(TARGET)/peers-python.lock; flock 9; $(PEERS_ARE_THERE) 2>/dev/null || \
		{ python3 -m venv $(PEERS) && $(PEERS)/bin/python -m pip install --quiet numpy safetensors 'pyspark>=3.5,<4' tensorflow-cpu; } || true

# PySpark needs a Java; the one of the HDFS tests will do. What `test-workspace` missed for want of it is shown here after all.
test-peers: peers-python
	@command -v java >/dev/null || tests/hdfs/cluster install || true
	@if $(PEERS_ARE_THERE); then \
		MUSTER_PYTHON=$(abspath $(PEERS))/bin/python $(CARGO) test --workspace --test seams -- formats && \
		{ [ ! -e $(MUSTER_ABSENT) ] || sed -i '/(make test-peers installs it)/d' $(MUSTER_ABSENT); }; \
	elif [ -n "$$CI" ]; then echo "CI needs numpy, PySpark and TensorFlow from PyPI" >&2; exit 1; \
	else echo "PySpark and TensorFlow from PyPI: their reading of our files, and their files read by us" >> $(MUSTER_ABSENT); fi
