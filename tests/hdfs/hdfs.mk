# A real HDFS on loopback: `make hdfs-up`, then `export HADOOP_CONF_DIR=target/hdfs/run/conf`.
HDFS_RUN ?= target/hdfs/run

.PHONY: hdfs-install hdfs-up hdfs-down test-hdfs

hdfs-install: ## install a Java 17, Maven and Kerberos through apt (the HDFS of the tests runs on them)
	tests/hdfs/cluster install

hdfs-up: ## start a NameNode and three DataNodes on loopback, each a process of its own
	tests/hdfs/cluster up $(HDFS_RUN)
	@echo "HDFS is up: export HADOOP_CONF_DIR=$(abspath $(HDFS_RUN))/conf"

hdfs-down: ## end them and remove their data
	tests/hdfs/cluster down $(HDFS_RUN)

# Storage and programs against a real HDFS whose nodes are killed. Where it cannot start, that fails CI and is told elsewhere.
test-hdfs:
	@command -v java >/dev/null && command -v mvn >/dev/null && [ -x /usr/sbin/krb5kdc ] || tests/hdfs/cluster install || true
	@mkdir -p $(TARGET)
	@if tests/hdfs/cluster up $(HDFS_RUN)-probe && tests/hdfs/cluster down $(HDFS_RUN)-probe; then \
		$(CARGO) test --workspace --features muster-tests/hdfs --test hdfs; \
		if [ -x /usr/sbin/krb5kdc ]; then $(CARGO) test --workspace --features muster-tests/hdfs --test kerberos; \
		elif [ -n "$$CI" ]; then echo "CI needs a Kerberos KDC: krb5-kdc" >&2; exit 1; \
		else echo "a Kerberos KDC (krb5-kdc): HDFS with Kerberos" >> $(MUSTER_ABSENT); fi; \
	elif [ -n "$$CI" ]; then echo "CI needs HDFS: Java 17, and Maven Central or PyPI" >&2; exit 1; \
	else echo "Java 17, or Maven Central and PyPI: everything on HDFS" >> $(MUSTER_ABSENT); fi
