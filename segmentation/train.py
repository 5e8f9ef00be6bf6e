"""Trains a segmentor.

    python segmentation/train.py segmentation/configs/ade20k/NAME.py --work-dir DIR
    torchrun --nproc_per_node 8 segmentation/train.py CONFIG --work-dir DIR

DIR then holds metrics.json (the scores of the last evaluation, 0-1), curves.png, history.json (what
the curves are drawn from), the checkpoints, the config as it was used, and a folder of logs.
``--cfg-options KEY=VALUE`` changes any setting; own data is a few of them, see
``docs/custom_segmentation.md``.

``--resume`` goes on from the newest checkpoint of DIR with the images that the unbroken run would
have had, and its random numbers; how a loader's workers change the images is drawn anew, though
(``train_dataloader.num_workers=0`` has none). SIGTERM and SIGUSR1 save the state (stopped.pth) and
end the run with 128 plus the signal's number. Without ``--resume`` an earlier run's checkpoints,
records and config move into a sub-folder.

A user's mistake ends a run with one line and exit code 2; torchrun shows the line and ends with 1.
"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    # Until the script works: what follows takes seconds to import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from internimage.openmmlab_needed import openmmlab_needed
from internimage.processes import leave

with openmmlab_needed("train.py"):
    from internimage.integrations.openmmlab.scripts.train import main

if __name__ == "__main__":
    leave(main("train.py", Path(__file__).parent / "configs"))
