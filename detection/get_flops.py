"""Counts parameters and operations of a detector.

    python detection/get_flops.py detection/configs/coco/NAME.py [--shape 800 1280]

The counts are those of the published tables: multiply-accumulates, DCNv3's sampling, one image; of
an R-CNN's heads 1000 boxes and 100 masks. Nothing is computed where that can be avoided, so that a
large model takes seconds.
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

with openmmlab_needed("get_flops.py"):
    from internimage.integrations.openmmlab.scripts.complexity import main

if __name__ == "__main__":
    leave(main("get_flops.py", Path(__file__).parent / "configs"))
