#!/usr/bin/env bash
# Trains under Slurm, from a login shell or inside of a batch job.
#
#   classification/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of train.py]
#
#   GPUS           ranks of all machines (8)
#   GPUS_PER_NODE  ranks of a machine (8, or GPUS where that is less)
#   CPUS_PER_TASK  processor cores of a rank (12)
#   SRUN_ARGS      further arguments of srun, such as "--time 24:00:00"
#
# Two minutes before the time is over Slurm sends SIGUSR1: the run saves, exits with 138 and is
# started again, in a batch job by `scontrol requeue`. It goes on from its newest checkpoint.
#
# A batch job asks for the signal itself, since srun cannot do so within one:
#
#   #SBATCH --signal=USR1@120 --requeue --open-mode=append
#   classification/slurm_train.sh PARTITION JOB_NAME CONFIG
#
# A large model under offloading may take longer to save: more seconds than 120 in both places,
# here by SRUN_ARGS="--signal=USR1@600".
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [flags of train.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
shift 3

export CPUS_PER_TASK=${CPUS_PER_TASK:-12}
exec bash "$(dirname "$0")/../tools/ranks/srun_until_done.sh" "" "$partition" "$job_name" \
    "$(dirname "$0")/train.py" --cfg "$config" "$@"
