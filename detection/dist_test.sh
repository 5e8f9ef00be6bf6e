#!/usr/bin/env bash
# Evaluates on one machine, or on several that each run this script.
#
#   detection/dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]
#
# GPUS is the number of ranks of this machine. For several machines set, on each of them:
#   NNODES       their number (1)
#   NODE_RANK    the number of this one, from 0 (0)
#   MASTER_ADDR  the name of the first one
#   MASTER_PORT  a free port there (29500); the original's PORT is read as well
# Several machines gather their results in a folder that all see: --tmpdir.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [flags of test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3

nnodes=${NNODES:-1}
port=${MASTER_PORT:-${PORT:-}}
if [ "$nnodes" -eq 1 ] && [ -z "$port" ]; then
    where=(--standalone) # finds a free port
elif [ "$nnodes" -gt 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
    echo "$0: expected MASTER_ADDR beside NNODES=$nnodes, got none" >&2
    exit 2
else
    where=(--nnodes "$nnodes" --node_rank "${NODE_RANK:-0}"
        --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${port:-29500}")
fi

exec torchrun "${where[@]}" --nproc_per_node "$gpus" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
