"""Run in a process of its own: what TensorRT for RTX makes of ONNX files, without a GPU.

    PYTHONPATH=.:tensorrt rtx_session.py FILE.onnx...

Each file is parsed and built for compute capability 8.6 as build_engine.py does it, and one line of
JSON a file says what its network holds. The process ends at once when it is done: NVIDIA's
libraries may hang or fault in their own clean-up on a machine without a driver.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from building import BuildOptions, configure, make_builder, parse_model
from internimage.runtime import read_metadata
from nvidia_runtime import choose_runtime, last_errors
from profiles import choose_profiles

HALF = "HALF"


def examine(path: Path) -> dict[str, Any]:
    """Parse and build one file."""
    runtime = choose_runtime("tensorrt_rtx")
    module = runtime.module
    logger = runtime.make_logger()
    builder = make_builder(runtime, logger)
    options = BuildOptions(path, path.with_suffix(".engine"), compute_capability=(8, 6))
    metadata = None if path.stem.endswith("_part") else read_metadata(path)
    found: dict[str, Any] = {"file": path.name}
    try:
        network, parser = parse_model(runtime, builder, logger, options, metadata)
    except ValueError as error:
        return found | {"refused": str(error)}
    samples = []
    matrices = []
    for k in range(network.num_layers):
        layer = network.get_layer(k)
        if layer.type == module.LayerType.GRID_SAMPLE:
            layer.__class__ = module.IGridSampleLayer
            modes = (layer.interpolation_mode, layer.sample_mode)
            types = {str(layer.get_input(n).dtype).split(".")[1] for n in range(2)}
            samples.append([*(mode.name for mode in modes), layer.align_corners, *sorted(types)])
        elif layer.type in (module.LayerType.MATRIX_MULTIPLY, module.LayerType.CONVOLUTION):
            matrices.append(str(layer.get_output(0).dtype).split(".")[1])
    inputs = [network.get_input(k) for k in range(network.num_inputs)]
    shapes = {tensor.name: tuple(tensor.shape) for tensor in inputs}
    profiles = choose_profiles([], shapes, metadata)
    plan = builder.build_serialized_network(network, configure(runtime, builder, options, profiles))
    del parser
    return found | {
        "samples": samples,
        "halves": matrices.count(HALF),
        "matrices": len(matrices),
        "profiles": [str(profile) for profile in profiles],
        "bytes": 0 if plan is None else plan.nbytes,
        "errors": last_errors(logger),
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(examine(Path(name))), flush=True)
    os._exit(0)
