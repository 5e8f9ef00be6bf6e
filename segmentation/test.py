"""Evaluates a segmentor.

    python segmentation/test.py segmentation/configs/ade20k/NAME.py CHECKPOINT
    torchrun --nproc_per_node 8 segmentation/test.py segmentation/configs/ade20k/NAME.py CHECKPOINT

CHECKPOINT is a file of a training, a released file of the original (its names are converted), its
address or its name. The scores, 0-1, go to metrics.json in ``--work-dir`` (work_dirs/NAME/test).
Every key and shape of the checkpoint must be the model's. ``--tta`` tests at several scales and
mirrored; ``--out`` and ``--format-only`` keep the label maps, ``--show-dir`` draws them over the
images with ``--opacity``. With sliding windows in place of the whole image::

    --cfg-options "model.test_cfg=dict(mode='slide',crop_size=(512,512),stride=(341,341))"

A user's mistake ends the script with one line and exit code 2.
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

with openmmlab_needed("test.py"):
    from internimage.integrations.openmmlab.scripts.test import main

if __name__ == "__main__":
    leave(main("test.py", Path(__file__).parent / "configs"))
