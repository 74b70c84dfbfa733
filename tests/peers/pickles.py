"""Reads the pickled data set in the directory named by the argument, as its users in Python would, and compares it with what
tests/seams/formats.rs wrote: with PySpark's own `sc.pickleFile` where PySpark is installed, and with numpy alone.

With PySpark it also writes the same records to `<directory>/spark`, for muster to read."""

import importlib.util
import os
import pickle
import pathlib
import struct
import sys

import numpy as np

ROWS, WIDTH, CLASSES = 253, 6, 3
FEATURES = (np.arange(ROWS * WIDTH) * 7 % 256).astype(np.uint8).reshape(ROWS, WIDTH)
LABELS = np.eye(CLASSES)[np.arange(ROWS) % CLASSES]


def values(path):
    """The values of a SequenceFile of NullWritable and BytesWritable."""
    data, at = path.read_bytes(), 0

    def take(count):
        nonlocal at
        at += count
        assert at <= len(data), f"{path} is cut short"
        return data[at - count : at]

    def integer():
        return struct.unpack(">i", take(4))[0]

    assert take(4) == b"SEQ\x06"
    assert take(take(1)[0]) == b"org.apache.hadoop.io.NullWritable"
    assert take(take(1)[0]) == b"org.apache.hadoop.io.BytesWritable"
    assert take(6) == bytes(6)
    sync = take(16)
    while at < len(data):
        length = integer()
        if length == -1:
            assert take(16) == sync
            continue
        assert integer() == 0 and integer() == length - 4
        yield take(length - 4)


def pickles(value):
    """The elements of a Java-serialized byte[][]."""
    outer = bytes.fromhex("aced0005757200035b5b424bfd19156767db370200007870")
    first = bytes.fromhex("757200025b42acf317f8060854e00200007870")
    assert value.startswith(outer)
    at = len(outer) + 4
    for index in range(struct.unpack(">i", value[at - 4 : at])[0]):
        head = first if index == 0 else bytes.fromhex("7571007e0002")
        assert value[at:].startswith(head)
        at += len(head) + 4
        length = struct.unpack(">i", value[at - 4 : at])[0]
        yield value[at : at + length]
        at += length
    assert at == len(value)


def with_numpy(directory):
    parts = sorted(directory.glob("part-*"))
    return np.array([row for part in parts for value in values(part) for p in pickles(value) for row in pickle.loads(p)])


def compare(found, expected, what):
    assert found.dtype == expected.dtype, f"{what}: {found.dtype} instead of {expected.dtype}"
    assert np.array_equal(found, expected), f"{what} differ"


def with_spark(directory):
    from pyspark import SparkConf, SparkContext

    # The workers are started anew, and by default with the first python3 on the path.
    os.environ["PYSPARK_PYTHON"] = sys.executable

    conf = SparkConf().setMaster("local[1]").setAppName("muster").set("spark.ui.enabled", "false")
    with SparkContext(conf=conf) as sc:
        sc.setLogLevel("ERROR")
        for name, expected in [("images", FEATURES), ("labels", LABELS)]:
            # More splits than files: they begin between the markers.
            compare(np.array(sc.pickleFile(str(directory / name), 8).collect()), expected, f"{name}, read by Spark,")
            sc.parallelize(list(expected), 2).saveAsPickleFile(str(directory / "spark" / name))


if __name__ == "__main__":
    directory = pathlib.Path(sys.argv[1])
    compare(with_numpy(directory / "images"), FEATURES, "images")
    compare(with_numpy(directory / "labels"), LABELS, "labels")
    if importlib.util.find_spec("pyspark"):
        with_spark(directory)
