#!/bin/sh
# Installs MKL, OpenBLAS, polars and pyarrow from PyPI into target/peers, where the benchmark looks for them.
set -eu
cd "$(dirname "$0")/../.."
[ ! -e target/peers/complete ] || exit 0
python3 -m venv target/peers/venv
pip="target/peers/venv/bin/pip --quiet --disable-pip-version-check"
$pip install mkl polars pyarrow
$pip install --target target/peers/openblas scipy-openblas32
touch target/peers/complete
