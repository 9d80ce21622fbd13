#!/usr/bin/env bash
# Train on this machine, on every device that JAX sees (CPU, or 1 to 8 GPUs): launch/local.sh CONFIG [--workdir DIR ...]
set -euo pipefail

DEVICES=${DEVICES:-}           # GPUs to use, such as 0,1; empty: all
MEMORY=${MEMORY:-0.9}          # share of a GPU's memory that JAX may take
BIOMEDCLIP=${BIOMEDCLIP:-biomedclip}

[ $# -ge 1 ] || { echo "usage: $0 CONFIG [options of biomedclip train]" >&2; exit 2; }
[ -z "$DEVICES" ] || export CUDA_VISIBLE_DEVICES="$DEVICES"
export XLA_PYTHON_CLIENT_MEM_FRACTION="$MEMORY"

echo "+ $BIOMEDCLIP train $*"
exec "$BIOMEDCLIP" train "$@"
