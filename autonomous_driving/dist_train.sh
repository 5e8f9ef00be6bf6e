#!/usr/bin/env bash
# Trains on one machine, or on several that each run this script.
#
#   autonomous_driving/dist_train.sh CONFIG GPUS [flags of train.py]
#
# GPUS is the number of ranks of this machine. For several machines set, on each of them:
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, as tools/ranks/torchrun.sh says.
# The folder of the run must be one that all machines see.
# TORCH_ELASTIC_SHUTDOWN_TIMEOUT are the seconds that ranks have for saving when they are asked to
# stop (600).
set -euo pipefail
exec bash "$(dirname "$0")/../tools/ranks/openmmlab.sh" "$0" "$@"
