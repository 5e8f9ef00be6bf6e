#!/usr/bin/env bash
# Evaluates on one machine, or on several that each run this script.
#
#   detection/dist_test.sh CONFIG CHECKPOINT GPUS [flags of test.py]
#
# GPUS is the number of ranks of this machine. For several machines set, on each of them:
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, as tools/ranks/torchrun.sh says.
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

exec bash "$(dirname "$0")/../tools/ranks/torchrun.sh" "$gpus" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
