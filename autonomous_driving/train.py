"""Trains a model of the surroundings of a vehicle.

    python autonomous_driving/train.py CONFIG --work-dir DIR
    torchrun --nproc_per_node 8 autonomous_driving/train.py CONFIG --work-dir DIR

CONFIG is a file of ``autonomous_driving/configs``. DIR (work_dirs/NAME) then holds metrics.json
(the scores of the last evaluation, 0-1), curves.png, history.json (what the curves are drawn from),
the checkpoints, the config as it was used, and a folder of logs. ``--cfg-options KEY=VALUE``
changes any setting, ``data_root=DIR`` the folder of all data sets.

``--resume`` goes on from the newest checkpoint of DIR; SIGTERM and SIGUSR1 save the state and end
the run, as ``detection/train.py`` does, whose program this is.

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
