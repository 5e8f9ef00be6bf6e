#!/usr/bin/env bash
# slurm_train.sh with DeepSpeed, under the original's name.
#
#   classification/train_in1k_deepspeed.sh PARTITION JOB_NAME CONFIG [flags of train.py]
exec "$(dirname "$0")/slurm_train.sh" "$@" --strategy deepspeed
