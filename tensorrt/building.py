"""From an ONNX file to an engine, on TensorRT 10 and 11 and on TensorRT for RTX."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine_files import EngineFacts, write_engine
from internimage.files import write_atomically
from internimage.runtime.metadata import KEY, Metadata, parse_metadata
from internimage.runtime.onnx_file import read_property
from nvidia_runtime import BOX_NODES, HOW_TO_BUILD, INSTALL, PLUGIN_NODES, Runtime, last_errors
from profiles import OPEN, Profile, Shape, choose_profiles

MEBIBYTE = 2**20


class ParseError(ValueError):
    """The parser refuses nodes of the model; ``lines`` has a line for each."""

    def __init__(self, message: str, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.lines = list(lines)


@dataclass(frozen=True)
class BuildOptions:
    """What is to be built.

    Args:
        model: the ONNX file, with its external data beside it if it has any.
        output: the engine's file.
        profiles: sizes of open inputs; those that are missing follow from the model's metadata.
        fp16: let the builder choose float16 where the model says float32.
        tf32: let the hardware round the factors of float32 products to 10 bits of mantissa.
        workspace: memory for the tactics, MiB; None is all of the device.
        timing_cache: file of measured tactics, read if it exists, and written.
        plugin: library of plugins for the model's nodes.
        compute_capability: of the GPU to build for, as (8, 6); None is the one in this machine.
        optimization_level: 0-5, how long to look for faster tactics; None is the library's own.
    """

    model: Path
    output: Path
    profiles: Sequence[Profile] = ()
    fp16: bool = False
    tf32: bool = True  # as TensorRT has it by itself
    workspace: int | None = None
    timing_cache: Path | None = None
    plugin: Path | None = None
    compute_capability: tuple[int, int] | None = None
    optimization_level: int | None = None


@dataclass(frozen=True)
class BuildReport:
    """What was built; its text is what the command prints."""

    path: Path
    size: int
    title: str
    profiles: Sequence[Profile]
    inputs: dict[str, Shape] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        fixed = [
            f"{name}={'x'.join(map(str, shape))}"
            for name, shape in self.inputs.items()
            if OPEN not in shape
        ]
        sizes = ", ".join([*fixed, *map(str, self.profiles)])
        return (
            f"{self.path}: {self.size / 1e6:.1f} MB, {self.title}, {sizes}, "
            f"built in {self.seconds:.0f} s"
        )


def build_engine(runtime: Runtime, options: BuildOptions) -> BuildReport:
    """Parse a model, build its engine, and write it with its facts.

    Raises:
        OSError: a file is missing or cannot be written, or there is no GPU that can be used.
        ParseError: the parser refuses nodes.
        ValueError: an option does not fit the library or the model, or the build fails.
    """
    started = time.monotonic()
    check_options(runtime, options)
    # Metadata before the network: they say whether nodes are a plugin's, at which RTX's parser ends
    # the process.
    text = read_property(options.model, KEY)
    metadata = None if text is None else parse_metadata(text, origin=str(options.model))
    plugin = options.plugin
    # Of our own exports the metadata say which nodes there are; others are taken at their word.
    if plugin is not None and metadata is not None and metadata.operator != "node":
        warnings.warn(
            f"--plugin has no effect on {options.model}, which was exported with --operator "
            f"{metadata.operator}: the engine needs no plugin",
            stacklevel=2,
        )
        plugin = None
    if plugin is not None:
        runtime.load_plugin(plugin)
    logger = runtime.make_logger()
    builder = make_builder(runtime, logger)
    network, parser = parse_model(runtime, builder, logger, options, metadata)
    inputs = {
        tensor.name: tuple(tensor.shape)
        for tensor in (network.get_input(k) for k in range(network.num_inputs))
    }
    profiles = choose_profiles(options.profiles, inputs, metadata)
    config = configure(runtime, builder, options, profiles)
    timing_cache = None if runtime.is_rtx else options.timing_cache
    cache = _attach_timing_cache(config, timing_cache, logger)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError(f"{runtime.title} cannot build {options.model}: {last_errors(logger)}")
    plan = bytes(plan)
    if timing_cache is not None and cache is not None:
        serialized = bytes(cache.serialize())
        write_atomically(timing_cache, lambda target: target.write_bytes(serialized))
    facts = EngineFacts(
        runtime=runtime.name,
        version=runtime.module.__version__,
        typing="fp16" if options.fp16 else "strong",
        tf32=options.tf32,
        profiles=tuple(map(str, profiles)),
        needs_plugin=plugin is not None,
        metadata=text,
    )
    write_engine(options.output, plan, facts)
    del parser  # it owns weights that the network refers to
    return BuildReport(
        options.output, len(plan), runtime.title, profiles, inputs, time.monotonic() - started
    )


def check_options(runtime: Runtime, options: BuildOptions) -> None:
    """Refuse what cannot work before minutes have gone by.

    Raises:
        FileNotFoundError: there is no folder for the output.
        ValueError: an option is not for this library.
    """
    for path in (options.output, options.timing_cache):
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"expected an existing folder for {path}, got none")
        if path is not None and path.is_dir():
            raise ValueError(f"expected the name of a file to write, got the folder {path}")
    if options.timing_cache is not None and runtime.is_rtx:
        warnings.warn(
            f"--timing-cache has no effect with {runtime.title}, which measures nothing when it "
            "builds: no such file is written",
            stacklevel=2,
        )
    if options.fp16 and not runtime.has_fp16_flag:
        raise ValueError(
            f"expected no --fp16 with {runtime.title}: it takes the types of the model as they "
            "are; export the model with --half instead"
        )
    if options.compute_capability is not None:
        if not runtime.is_rtx:
            raise ValueError(
                f"expected no --compute-capability with {runtime.title}: it builds for the GPU of "
                "this machine"
            )
        _capability(runtime, options.compute_capability)


def make_builder(runtime: Runtime, logger: Any) -> Any:
    """Start the library's builder.

    Raises:
        OSError: it cannot start, for want of a driver as a rule.
    """
    try:
        builder = runtime.module.Builder(logger)
    except (RuntimeError, TypeError):  # pybind11's TypeError: NVIDIA's factory has returned null
        builder = None
    if builder is None:
        raise OSError(
            f"{runtime.title} cannot start on this machine: "
            f"{last_errors(logger)}; it needs an NVIDIA GPU and its driver"
        )
    return builder


def parse_model(
    runtime: Runtime,
    builder: Any,
    logger: Any,
    options: BuildOptions,
    metadata: Metadata | None = None,
) -> tuple[Any, Any]:
    """Return the model as a network, and the parser, which must outlive it.

    Raises:
        ParseError: the parser refuses nodes.
        ValueError: a plugin is needed.
    """
    is_plugin_model = metadata is not None and metadata.operator == "node"
    if is_plugin_model and not runtime.takes_plugins:
        raise ValueError(
            f"expected a model without plugin nodes for {runtime.title}, which takes no plugins, "
            f"got {options.model}: export it with --operator grid_sample"
        )
    if is_plugin_model and options.plugin is None:
        raise ValueError(_plugin_needed(options.model))
    network = builder.create_network(runtime.network_flags(strongly_typed=not options.fp16))
    if runtime.name == "tensorrt":
        # RoiAlign of detectors with boxes is one of NVIDIA's own plugins.
        runtime.module.init_libnvinfer_plugins(logger, "")
    parser = runtime.module.OnnxParser(network, logger)
    # By its path: weights beyond 2 GB are in a file beside it.
    if not parser.parse_from_file(str(options.model)):
        raise _refusal(parser, logger, runtime, options)
    if network.num_inputs == 0:
        raise ValueError(f"expected a model with inputs, got {options.model} with none")
    return network, parser


def configure(
    runtime: Runtime, builder: Any, options: BuildOptions, profiles: Sequence[Profile]
) -> Any:
    """Return the builder's settings.

    Raises:
        ValueError: the library refuses a profile.
    """
    module = runtime.module
    config = builder.create_builder_config()
    if options.fp16:
        config.set_flag(module.BuilderFlag.FP16)
    if not options.tf32:
        config.clear_flag(module.BuilderFlag.TF32)
    if options.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace * MEBIBYTE)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(runtime, options.compute_capability), 0)
    if profiles:
        shapes = builder.create_optimization_profile()
        for profile in profiles:
            shapes.set_shape(profile.name, profile.smallest, profile.usual, profile.largest)
        if config.add_optimization_profile(shapes) < 0:
            raise ValueError(f"{runtime.title} refuses {', '.join(map(str, profiles))}")
    return config


def _attach_timing_cache(config: Any, path: Path | None, logger: Any) -> Any | None:
    """Return the cache that the build fills, begun with what the file holds."""
    if path is None:
        return None
    content = path.read_bytes() if path.exists() else b""
    earlier = len(logger.warnings) + len(logger.errors)
    cache = config.create_timing_cache(content)
    # TensorRT would go on with an empty one, which would then replace the file. A warning is all
    # that it says about it.
    refused = cache is None or len(logger.warnings) + len(logger.errors) > earlier
    if refused or not config.set_timing_cache(cache, False):  # False: not of another GPU
        raise ValueError(
            f"expected a timing cache of this GPU and version, got {path}: remove it, or name "
            "another file"
        )
    return cache


def _capability(runtime: Runtime, number: tuple[int, int]) -> Any:
    """Return the library's name of a compute capability."""
    known = runtime.module.ComputeCapability
    name = f"SM{number[0]}{number[1]}"
    if not hasattr(known, name):
        names = sorted(int(n[2:]) for n in dir(known) if n.startswith("SM"))
        raise ValueError(
            f"expected --compute-capability in {{{', '.join(f'{n / 10:.1f}' for n in names)}}}, "
            f"got {number[0]}.{number[1]}"
        )
    return getattr(known, name)


def _plugin_needed(model: Path) -> str:
    return (
        f"expected --plugin libdcnv3_tensorrt.so for {model}, whose DCNv3 nodes are the plugin's, "
        f"got none; to build it: {HOW_TO_BUILD}; or export with --operator grid_sample"
    )


def _refusal(parser: Any, logger: Any, runtime: Runtime, options: BuildOptions) -> ValueError:
    """Return the error for what the parser has refused."""
    errors = [parser.get_error(k) for k in range(parser.num_errors)]
    operators = {error.node_operator() for error in errors}
    if operators & set(PLUGIN_NODES) and options.plugin is None:
        if not runtime.takes_plugins:
            return ValueError(
                f"expected a model without plugin nodes for {runtime.title}, which takes no "
                f"plugins, got {options.model}; {INSTALL['tensorrt']}"
            )
        return ValueError(_plugin_needed(options.model))
    lines = [
        f"{error.node_operator() or 'model'} {error.node_name() or ''}: "
        f"{' '.join(error.desc().split())}"
        for error in errors
    ]
    summary = lines[0] if lines else last_errors(logger)
    if operators and operators <= set(BOX_NODES) and not runtime.takes_plugins:
        summary = (
            f"it has no {' and no '.join(BOX_NODES)} without a GPU; export with --boxes loops and "
            "an --image-size"
        )
    return ParseError(f"{runtime.title} cannot parse {options.model}: {summary}", lines)
