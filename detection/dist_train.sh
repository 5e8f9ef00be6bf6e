#!/usr/bin/env bash
# Trains on one machine, or on several that each run this script.
#
#   detection/dist_train.sh CONFIG GPUS [flags of train.py]
#
# GPUS is the number of ranks of this machine. For several machines set, on each of them:
#   NNODES       their number (1)
#   NODE_RANK    the number of this one, from 0 (0)
#   MASTER_ADDR  the name of the first one
#   MASTER_PORT  a free port there (29500); the original's PORT is read as well
# The folder of the run must be one that all machines see.
#
#   TORCH_ELASTIC_SHUTDOWN_TIMEOUT  seconds that ranks have for saving when they are asked to stop
#                                   (600); torchrun kills them afterwards, by itself after 30
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [flags of train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2

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

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}

# SIGUSR1 as well as those that torchrun passes on by itself: the run saves and stops.
exec torchrun "${where[@]}" --nproc_per_node "$gpus" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
