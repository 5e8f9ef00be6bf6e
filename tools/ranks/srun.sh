#!/usr/bin/env bash
# Starts ranks under Slurm: what the slurm_*.sh of all tasks share.
#
#   tools/ranks/srun.sh PARTITION JOB_NAME SCRIPT [arguments of the script]
#
#   GPUS           ranks of all machines (8)
#   GPUS_PER_NODE  ranks of a machine (8, or GPUS where that is less)
#   CPUS_PER_TASK  processor cores of a rank (5)
#   SRUN_ARGS      further arguments of srun, such as "--time 1:00:00"
set -euo pipefail

partition=$1
job_name=$2
shift 2

gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}

# shellcheck disable=SC2086  # SRUN_ARGS are several words
exec srun --partition "$partition" --job-name "$job_name" \
    --ntasks "$gpus" --ntasks-per-node "$gpus_per_node" --gres "gpu:$gpus_per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$@"
