#!/usr/bin/env bash
# Trains under Slurm for longer than a job may last: what the slurm_train.sh of all tasks share.
#
#   tools/ranks/srun_until_done.sh FLAG PARTITION JOB_NAME SCRIPT [arguments of the script]
#
# FLAG is what the script is given when it is to go on with what an earlier start has left, or empty
# where it does so by itself. The rest is for srun.sh.
#
# Two minutes before the time is over Slurm sends SIGUSR1: the run saves, exits with 138 and is
# started again, in a batch job by `scontrol requeue`.
set -euo pipefail

flag=$1
shift
stopped=138 # 128 + SIGUSR1

# The signal is a property of the allocation: srun asks for it where it makes one.
if [ -z "${SLURM_JOB_ID:-}" ]; then
    export SRUN_ARGS="--signal=USR1@120 ${SRUN_ARGS:-}"
fi

# Of a job that was requeued, this is not the first start.
arguments=("$@")
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    arguments+=(${flag:+"$flag"})
fi

while true; do
    exit_code=0
    bash "$(dirname "$0")/srun.sh" "${arguments[@]}" || exit_code=$?
    if [ "$exit_code" -ne "$stopped" ]; then
        exit "$exit_code"
    fi
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        exec scontrol requeue "$SLURM_JOB_ID"
    fi
    arguments=("$@" ${flag:+"$flag"})
done
