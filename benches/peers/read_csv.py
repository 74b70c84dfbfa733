"""Reads a csv of integers once with each peer for every line on standard input, and prints the seconds of each as JSON."""

import json
import os
import sys
import time

os.environ["POLARS_MAX_THREADS"] = "1"

import polars  # noqa: E402
import pyarrow.csv  # noqa: E402


def read_polars(path):
    return polars.read_csv(path, has_header=False).shape


def read_pyarrow(path):
    read = pyarrow.csv.ReadOptions(use_threads=False, autogenerate_column_names=True, block_size=8 << 20)
    return pyarrow.csv.read_csv(path, read_options=read).shape


def read_python(path):
    """As TensorFlowOnSpark's example does, for a tenth of the lines."""
    with open(path) as lines:
        rows = [[int(column) for column in line.split(",")] for _, line in zip(range(ROWS // 10), lines)]
    return 10 * len(rows), len(rows[0])


path, ROWS, COLUMNS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
peers = {"polars": (read_polars, 1), "pyarrow": (read_pyarrow, 1), "Python": (read_python, 10)}
for _ in sys.stdin:
    seconds = {}
    for name, (read, factor) in peers.items():
        start = time.perf_counter()
        shape = read(path)
        seconds[name] = factor * (time.perf_counter() - start)
        assert shape == (ROWS, COLUMNS), (name, shape)
    print(json.dumps(seconds), flush=True)
