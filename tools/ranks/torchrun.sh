#!/usr/bin/env bash
# Starts the ranks of one machine: what the dist_*.sh of all tasks share.
#
#   tools/ranks/torchrun.sh GPUS SCRIPT [arguments of the script]
#
# For several machines, each of which runs this, the environment holds
#   NNODES       their number (1)
#   NODE_RANK    the number of this one, from 0 (0)
#   MASTER_ADDR  the name of the first one
#   MASTER_PORT  a free port there (29500); the original's PORT is read as well
#
#   TORCH_ELASTIC_SHUTDOWN_TIMEOUT  seconds that ranks have for saving when they are asked to stop
#                                   (600); torchrun kills them afterwards, by itself after 30
set -euo pipefail

gpus=$1
shift

nnodes=${NNODES:-1}
port=${MASTER_PORT:-${PORT:-}}
if [ "$nnodes" -eq 1 ] && [ -z "$port" ]; then
    where=(--standalone) # finds a free port
elif [ "$nnodes" -gt 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
    echo "torchrun.sh: expected MASTER_ADDR beside NNODES=$nnodes, got none" >&2
    exit 2
else
    where=(--nnodes "$nnodes" --node_rank "${NODE_RANK:-0}"
        --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${port:-29500}")
fi

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}

# SIGUSR1 as well as those that torchrun passes on by itself: a training saves and stops.
exec torchrun "${where[@]}" --nproc_per_node "$gpus" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 "$@"
