#!/usr/bin/env bash
# Trains on one machine, or on several that each run this script.
#
#   classification/dist_train.sh CONFIG GPUS [flags of train.py]
#
# GPUS is the number of ranks of this machine. For several machines set, on each of them:
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, as tools/ranks/torchrun.sh says.
# The folder of the run must be one that all machines see.
# TORCH_ELASTIC_SHUTDOWN_TIMEOUT are the seconds that ranks have for saving when they are asked to
# stop (600).
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [flags of train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2

exec bash "$(dirname "$0")/../tools/ranks/torchrun.sh" "$gpus" \
    "$(dirname "$0")/train.py" --cfg "$config" "$@"
