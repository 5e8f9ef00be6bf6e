"""Run in a process of its own: loads the plugin into TensorRT's registry and says what it finds.

    registry_session.py MODULE LIBRARY

The process ends at once when it is done: NVIDIA's libraries may hang or fault in their own clean-up
on a machine without a driver.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import numpy as np


def fields_of(runtime: Any, **values: float) -> Any:
    """A node's fields."""
    kinds = {int: (np.int32, "INT32"), float: (np.float32, "FLOAT32")}
    fields = []
    for name, value in values.items():
        dtype, kind = kinds[type(value)]
        kind = getattr(runtime.PluginFieldType, kind)
        fields.append(runtime.PluginField(name, np.array([value], dtype), kind))
    return runtime.PluginFieldCollection(fields)


def main(module: str, library: str) -> None:
    """Print one line of JSON."""
    runtime = importlib.import_module(module)
    registry = runtime.get_plugin_registry()
    handle = registry.load_library(library)
    found: dict[str, Any] = {"version": runtime.__version__, "creators": {}}
    for creator in registry.all_creators:
        if "DCNv3" in creator.name:
            names = [field.name for field in creator.field_names]
            key = f"{creator.plugin_namespace}::{creator.name} {creator.plugin_version}"
            found["creators"][key] = names
    creator = registry.get_creator("DCNv3Packed", "1", "")
    build, run = runtime.TensorRTPhase.BUILD, runtime.TensorRTPhase.RUNTIME
    plugin = creator.create_plugin("node", fields_of(runtime, group=4, offset_scale=2.0), build)
    kinds = runtime.PluginCapabilityType
    core = plugin.get_capability_interface(kinds.CORE)
    found["core"] = [core.plugin_name, core.plugin_version, core.plugin_namespace]
    found["outputs"] = plugin.get_capability_interface(kinds.BUILD).num_outputs
    found["runtime"] = plugin.get_capability_interface(kinds.RUNTIME).interface_info.kind
    found["refused"] = creator.create_plugin("node", fields_of(runtime, group=0), build) is None
    found["read back"] = creator.create_plugin("node", fields_of(runtime, group=4), run) is not None
    registry.deregister_library(handle)
    found["left"] = [c.name for c in registry.all_creators if "DCNv3" in c.name]
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
