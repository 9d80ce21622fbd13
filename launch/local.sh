#!/usr/bin/env bash
# Train on this machine, on every device that JAX sees (CPU, or 1 to 8 GPUs): launch/local.sh CONFIG [--workdir DIR ...]
# Ctrl-C or SIGTERM saves and ends (exit code 143); the same command goes on.
set -euo pipefail

DEVICES=${DEVICES:-}           # GPUs to use, such as 0,1; empty: all
PROCESSES=${PROCESSES:-1}      # 1: one process for all devices; N: one for each of N GPUs, with which NCCL hangs least
MEMORY=${MEMORY:-0.9}          # share of a GPU's memory that JAX may take
PORT=${PORT:-8476}             # where several processes meet
BIOMEDCLIP=${BIOMEDCLIP:-biomedclip}

[ $# -ge 1 ] || { echo "usage: $0 CONFIG [options of biomedclip train]" >&2; exit 2; }
[ -z "$DEVICES" ] || export CUDA_VISIBLE_DEVICES="$DEVICES"
export XLA_PYTHON_CLIENT_MEM_FRACTION="$MEMORY"

if [ "$PROCESSES" = 1 ]; then
    echo "+ $BIOMEDCLIP train $*"
    exec "$BIOMEDCLIP" train "$@"
fi

export JAX_COORDINATOR_ADDRESS="localhost:$PORT" JAX_NUM_PROCESSES="$PROCESSES"
pids=()
signalled=
# shellcheck disable=SC2329 # by the trap
pass_on() {
    signalled=1
    kill -TERM "${pids[@]}" 2>/dev/null || true
}
trap pass_on INT TERM
for ((process = 0; process < PROCESSES; process++)); do
    echo "+ JAX_PROCESS_ID=$process JAX_LOCAL_DEVICE_IDS=$process $BIOMEDCLIP train $*"
    JAX_PROCESS_ID=$process JAX_LOCAL_DEVICE_IDS=$process "$BIOMEDCLIP" train "$@" &
    pids+=($!)
done

# when one of them ends badly, the others notice and leave by themselves; the first bad code is ours
result=0
for pid in "${pids[@]}"; do
    while :; do
        signalled=
        code=0
        wait "$pid" || code=$?
        [ -n "$signalled" ] || break # a signal ends `wait`, not the process
    done
    [ "$result" != 0 ] || result=$code
done
exit "$result"
