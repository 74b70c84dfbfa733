# Programs that read what we write and write what we read.
PEERS := $(TARGET)/peers-python

.PHONY: test-peers

# PySpark needs a Java; the one of the HDFS tests will do. What `test-workspace` missed for want of it is shown here after all.
test-peers:
	@command -v java >/dev/null || tests/hdfs/cluster install || true
	@if $(PEERS)/bin/python -c 'import numpy, pyspark' 2>/dev/null || \
		{ python3 -m venv $(PEERS) && $(PEERS)/bin/python -m pip install --quiet numpy safetensors 'pyspark>=3.5,<4'; }; then \
		MUSTER_PYTHON=$(abspath $(PEERS))/bin/python $(CARGO) test -p muster-tests --test seams -- formats && \
		{ [ ! -e $(MUSTER_ABSENT) ] || sed -i '/^PySpark (make test-peers/d' $(MUSTER_ABSENT); }; \
	elif [ -n "$$CI" ]; then echo "CI needs numpy and PySpark from PyPI" >&2; exit 1; \
	else echo "PySpark from PyPI: sc.pickleFile on our files, and its files read by us" >> $(MUSTER_ABSENT); fi
