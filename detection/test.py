"""Evaluates a detector.

    python detection/test.py detection/configs/coco/NAME.py CHECKPOINT
    torchrun --nproc_per_node 8 detection/test.py detection/configs/coco/NAME.py CHECKPOINT

CHECKPOINT is a file of a training, a released file of the original (its names are converted), its
address or its name. The scores, 0-1, go to metrics.json in ``--work-dir`` (work_dirs/NAME/test).
Every key and shape of the checkpoint must be the model's. ``--tta`` is for configs that have a
``tta_model``; ``--out`` and ``--format-only`` keep the predictions, ``--show-dir`` draws them.

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
