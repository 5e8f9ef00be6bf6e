#!/usr/bin/env bash
# Evaluates on one machine, or on several that each run this script.
#
#   autonomous_driving/dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]
#
# GPUS is the number of ranks of this machine. For several machines set, on each of them:
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, as tools/ranks/torchrun.sh says.
# Several machines gather their results in a folder that all see: --tmpdir.
set -euo pipefail
exec bash "$(dirname "$0")/../tools/ranks/openmmlab.sh" "$0" "$@"
