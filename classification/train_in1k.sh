#!/usr/bin/env bash
# The original's name for slurm_train.sh, with the same arguments.
#
#   classification/train_in1k.sh PARTITION JOB_NAME CONFIG [flags of train.py]
exec "$(dirname "$0")/slurm_train.sh" "$@"
