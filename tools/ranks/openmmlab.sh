#!/usr/bin/env bash
# Starts train.py or test.py of a task with OpenMMLab: what dist_*.sh and slurm_*.sh of detection,
# segmentation and driving share.
#
#   tools/ranks/openmmlab.sh PROGRAM [arguments of the program]
#
# PROGRAM is the path of a dist_train.sh, dist_test.sh, slurm_train.sh or slurm_test.sh; the Python
# script beside it is started.
set -euo pipefail

program=$1
shift
folder=$(dirname "$program")
ranks=$(dirname "$0")

# usage WORDS...: the program was called with too few arguments.
usage() {
    echo "usage: $program $*" >&2
    exit 2
}

case $(basename "$program") in
dist_train.sh)
    [ $# -ge 2 ] || usage CONFIG GPUS "[flags of train.py]"
    exec bash "$ranks/torchrun.sh" "$2" "$folder/train.py" "$1" --launcher pytorch "${@:3}"
    ;;
dist_test.sh)
    [ $# -ge 3 ] || usage CONFIG CHECKPOINT GPUS "[flags of test.py]"
    exec bash "$ranks/torchrun.sh" "$3" "$folder/test.py" "$1" "$2" --launcher pytorch "${@:4}"
    ;;
slurm_train.sh)
    [ $# -ge 4 ] || usage PARTITION JOB_NAME CONFIG WORK_DIR "[flags of train.py]"
    exec bash "$ranks/srun_until_done.sh" --resume "$1" "$2" \
        "$folder/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"
    ;;
slurm_test.sh)
    [ $# -ge 4 ] || usage PARTITION JOB_NAME CONFIG CHECKPOINT "[flags of test.py]"
    exec bash "$ranks/srun.sh" "$1" "$2" \
        "$folder/test.py" "$3" "$4" --launcher slurm "${@:5}"
    ;;
*)
    echo "openmmlab.sh: expected dist_*.sh or slurm_*.sh, got $program" >&2
    exit 2
    ;;
esac
