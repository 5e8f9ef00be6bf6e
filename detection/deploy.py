"""Writes a detector as a file for ONNX Runtime, TensorRT or OpenVINO.

    python detection/deploy.py detection/configs/NAME.py CHECKPOINT --output X.onnx
    python detection/deploy.py DEPLOY_CFG MODEL_CFG CHECKPOINT IMG --work-dir DIR

The first is the exact export: X.onnx holds all that PyTorch computes, is run and compared before it
is there, and carries what `internimage run` needs. The second is mmdeploy's command with its flags,
for a config in `detection/deploy/configs`. DIR then holds end2end.onnx, for TensorRT
end2end.engine, and pictures of both models' results. `docs/deployment.md` says what mmdeploy
computes differently.

A user's mistake ends a run with one line and exit code 2.
"""

import contextlib
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    # Until the script works: what follows takes seconds to import, and an exception in the midst of
    # it may be caught there.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from internimage.openmmlab_needed import openmmlab_needed
from internimage.processes import leave

# Standard output is for the report: packages print where they start.
with openmmlab_needed("deploy.py"), contextlib.redirect_stdout(sys.stderr):
    from internimage.integrations.openmmlab.export.deploy import main

if __name__ == "__main__":
    leave(main("deploy.py", Path(__file__).parent / "configs"))
