"""Evaluates a model of the surroundings of a vehicle.

    python autonomous_driving/test.py CONFIG CHECKPOINT
    torchrun --nproc_per_node 8 autonomous_driving/test.py CONFIG CHECKPOINT

CONFIG is a file of ``autonomous_driving/configs``; CHECKPOINT is one of a training, or a released
file of the original (its names are converted). The scores, 0-1, go to metrics.json in
``--work-dir`` (work_dirs/NAME/test). Every key and shape of the checkpoint must be the model's.
``--format-only`` writes the files that a challenge's server takes, ``--show-dir`` draws cameras and
maps, ``--out`` keeps all predictions.

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
