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

gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
stopped=138 # 128 + SIGUSR1

# The signal is a property of the allocation: srun asks for it where it makes one.
signal=(--signal=USR1@120)
if [ -n "${SLURM_JOB_ID:-}" ]; then
    signal=()
fi

while true; do
    exit_code=0
    # shellcheck disable=SC2086  # SRUN_ARGS are several words
    srun --partition "$partition" --job-name "$job_name" \
        --ntasks "$gpus" --ntasks-per-node "$gpus_per_node" --gres "gpu:$gpus_per_node" \
        --cpus-per-task "${CPUS_PER_TASK:-12}" \
        --kill-on-bad-exit=1 "${signal[@]}" ${SRUN_ARGS:-} \
        python -u "$(dirname "$0")/train.py" --cfg "$config" "$@" || exit_code=$?
    if [ "$exit_code" -ne "$stopped" ]; then
        exit "$exit_code"
    fi
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
done
