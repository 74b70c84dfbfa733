# A real HDFS on loopback: `make hdfs-up`, then `export HADOOP_CONF_DIR=target/hdfs/run/conf`.
HDFS_RUN ?= target/hdfs/run

.PHONY: hdfs-install hdfs-up hdfs-down

## hdfs-install: install a Java 17 and Maven through apt (the HDFS of the tests runs on them)
hdfs-install:
	tests/hdfs/cluster install

## hdfs-up: start a NameNode and three DataNodes on loopback, each a process of its own
hdfs-up:
	tests/hdfs/cluster up $(HDFS_RUN)
	@echo "HDFS is up: export HADOOP_CONF_DIR=$(abspath $(HDFS_RUN))/conf"

## hdfs-down: end them and remove their data
hdfs-down:
	tests/hdfs/cluster down $(HDFS_RUN)
