#!/usr/bin/env bash
# Evaluates under Slurm, from a login shell or inside of a batch job.
#
#   autonomous_driving/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [flags of test.py]
#
#   GPUS           ranks of all machines (8)
#   GPUS_PER_NODE  ranks of a machine (8, or GPUS where that is less)
#   CPUS_PER_TASK  processor cores of a rank (5)
#   SRUN_ARGS      further arguments of srun, such as "--time 1:00:00"
# Several machines gather their results in a folder that all see: --tmpdir.
set -euo pipefail
exec bash "$(dirname "$0")/../tools/ranks/openmmlab.sh" "$0" "$@"
