"""Counts parameters and operations of a segmentor.

    python segmentation/get_flops.py segmentation/configs/ade20k/NAME.py [--shape 512 2048]

The counts are those of the published tables: multiply-accumulates, DCNv3's sampling, one image. The
tables count an image of 512 x 2048 for a crop of 512; other sizes are given by ``--shape``. Nothing
is computed where that can be avoided, so that a large model takes seconds.
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
    leave(main("get_flops.py", Path(__file__).parent / "configs", shape=(512, 2048)))
