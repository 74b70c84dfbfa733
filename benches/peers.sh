#!/bin/sh
# Installs MKL and OpenBLAS from PyPI into target/peers, where the benchmark looks for them.
set -eu
cd "$(dirname "$0")/.."
[ ! -d target/peers/openblas ] || exit 0
python3 -m venv target/peers/venv
pip="target/peers/venv/bin/pip --quiet --disable-pip-version-check"
$pip install mkl
$pip install --target target/peers/openblas scipy-openblas32
