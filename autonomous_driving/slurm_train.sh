#!/usr/bin/env bash
# Trains under Slurm, from a login shell or inside of a batch job.
#
#   autonomous_driving/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [flags of train.py]
#
#   GPUS           ranks of all machines (8)
#   GPUS_PER_NODE  ranks of a machine (8, or GPUS where that is less)
#   CPUS_PER_TASK  processor cores of a rank (5)
#   SRUN_ARGS      further arguments of srun, such as "--time 24:00:00"
#
# Two minutes before the time is over Slurm sends SIGUSR1: the run saves, exits with 138 and is
# started again with --resume, in a batch job by `scontrol requeue`.
#
# A batch job asks for the signal itself, since srun cannot do so within one, and goes on with what
# an earlier start of it has left:
#
#   #SBATCH --signal=USR1@120 --requeue --open-mode=append
#   autonomous_driving/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR --resume
set -euo pipefail
exec bash "$(dirname "$0")/../tools/ranks/openmmlab.sh" "$0" "$@"
