"""Which implementation serves a device, decided on its first call, and the report of it.

A CPU has the compiled kernels, registered when the library was loaded, or the reference. For CUDA
tensors (ROCm calls them so too) there are the compiled CUDA kernels, then Triton, then the
reference. What decides is not known before CUDA is initialised, which an import must not do: so the
first call decides. Where the CUDA kernels serve, it registers them with PyTorch, and later calls do
not come through Python at all.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import torch

from . import extension, reference_ops
from ._version import __version__
from .extension import BACKEND_ENV, INSTALL_TRITON, REBUILD, Capability, warn

Backend = Literal["cuda", "triton", "reference"]


# ------------------------------------------------------------------------------- what would serve


def serves(arch: str, capability: Capability) -> bool:
    """Whether code compiled for ``arch`` runs on a device.

    Args:
        arch: ``"86"``: machine code, which runs on its own major version from its minor version on;
            ``"120+PTX"``: portable code, which the driver compiles for any newer device.
        capability: (major, minor) of the device.
    """
    own = divmod(int(arch.removesuffix("+PTX")), 10)
    if arch.endswith("+PTX"):
        return capability >= own
    return capability[0] == own[0] and capability[1] >= own[1]


def why_not_compiled(
    archs: Sequence[str], runtime: int, driver: int, capabilities: Sequence[Capability] | None
) -> str:
    """The reason why CUDA kernels cannot run here; empty if they can.

    Args:
        archs: What they were compiled for, as in :func:`serves`.
        runtime: Version of the CUDA runtime in them: 13000 for 13.0.
        driver: Highest version that the driver serves; 0 without a driver.
        capabilities: (major, minor) of every visible device; None while they are not to be asked.
    """
    if driver == 0:
        return "there is no NVIDIA driver"
    if (
        driver // 1000 < runtime // 1000
    ):  # within a major version newer kernels run on older drivers
        return (
            f"the compiled kernels need a driver for CUDA {runtime // 1000}.0 or newer, this one "
            f"serves CUDA {_version(driver)} (a newer driver is the remedy)"
        )
    # a driver compiles no portable code that is newer than itself
    usable = [arch for arch in archs if driver >= runtime or not arch.endswith("+PTX")]
    for index, capability in enumerate(capabilities or ()):
        if not any(serves(arch, capability) for arch in usable):
            name = f"{capability[0]}.{capability[1]}"
            others = (
                ""
                if len(capabilities or ()) == 1
                else "; kernels are registered for all visible devices or for none, so "
                "CUDA_VISIBLE_DEVICES without this one lets them serve the devices they can"
            )
            return (
                f"the kernels were compiled for {' '.join(archs)}, which does not serve device "
                f"{index} of compute capability {name} with a driver for CUDA {_version(driver)} "
                f"(TORCH_CUDA_ARCH_LIST={name} at build time adds it: {REBUILD}{others})"
            )
    return ""


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def why_not_native(capabilities: Sequence[Capability] | None) -> str:
    """:func:`why_not_compiled` for this installation, without initialising CUDA."""
    if torch.version.hip is not None:
        return "the compiled kernels are for CUDA, this PyTorch is for ROCm"
    kernels = extension.cuda_kernels()
    if isinstance(kernels, str):
        return kernels
    if torch.version.cuda is None:
        return "this PyTorch is built for CPUs alone"
    return why_not_compiled(*kernels, capabilities)


def why_no_triton() -> str:
    """The reason why Triton cannot run here, as far as it shows without CUDA; empty if it may."""
    if importlib.util.find_spec("triton") is None:
        return f"Triton is not installed ({INSTALL_TRITON})"
    if extension.is_interpreting_triton():
        return ""
    if torch.version.hip is not None:
        return "" if os.path.exists("/dev/kfd") else "there is no ROCm driver"
    if torch.version.cuda is None:
        return "this PyTorch is built for CPUs alone"
    return "" if extension.has_nvidia_driver() else "there is no NVIDIA driver"


# ----------------------------------------------------------------------------------- the decision


class Choice(NamedTuple):
    """What serves CUDA tensors, and why what would be better does not."""

    backend: Backend
    missing: dict[str, str]


def choose(
    requested: str, why_not_native: Callable[[], str], why_no_triton: Callable[[], str]
) -> Choice:
    """The best backend that there is, or the one that is asked for.

    Args:
        requested: ``OPS_DCNV3_BACKEND``.
        why_not_native: Tells why the compiled kernels do not serve; empty if they do.
        why_no_triton: Likewise; called only where it matters, since it starts Triton.

    Raises:
        RuntimeError: If a backend is asked for that cannot serve.
    """
    missing: dict[str, str] = {}
    if requested == "reference":
        return Choice("reference", dict.fromkeys(("cuda", "triton"), f"{BACKEND_ENV}=reference"))
    candidates: list[tuple[str, Backend, Callable[[], str]]] = [
        ("native", "cuda", why_not_native),
        ("triton", "triton", why_no_triton),
    ]
    for request, backend, why_not in candidates:
        if requested not in ("auto", request):
            missing[backend] = f"{BACKEND_ENV}={requested}"
            continue
        reason = why_not()
        if not reason:
            return Choice(backend, missing)
        if requested == request:
            raise RuntimeError(f"ops_dcnv3: {BACKEND_ENV}={requested}, but {reason}")
        missing[backend] = reason
    return Choice("reference", missing)


_lock = threading.Lock()
_choices: dict[int, Choice] = {}  # by the number of the device


def _cuda_choice(device: torch.device) -> Choice:
    """The choice for a CUDA device; the first call makes it, and registers the kernels."""
    index = torch.cuda.current_device() if device.index is None else device.index
    with _lock:  # replicas of a model may come at the same time
        if index not in _choices:
            choice = choose(
                extension.requested_backend(), _use_native, lambda: _probe_triton(device)
            )
            requested = extension.requested_backend()
            if choice.backend == "triton" and requested == "auto" and _has_kernels():
                _warn_unused_kernels(choice.missing["cuda"])
            if choice.backend == "reference" and requested == "auto":
                reasons = "; ".join(f"no {name}: {why}" for name, why in choice.missing.items())
                warn(
                    f"cuda:{index} takes the PyTorch reference, which is right but many times "
                    f"slower. {reasons}"
                )
            _choices[index] = choice
        return _choices[index]


def _has_kernels() -> bool:
    """Whether there are compiled kernels that somebody built to be used here."""
    return torch.version.hip is None and not isinstance(extension.cuda_kernels(), str)


@cache
def _warn_unused_kernels(reason: str) -> None:
    """Says once why the kernels that were built do not serve, however many devices ask."""
    warn(f"CUDA tensors take Triton instead of the compiled kernels: {reason}")


def _use_native() -> str:
    """Registers the compiled kernels where they serve all devices; the reason where they do not."""
    if any(choice.backend == "cuda" for choice in _choices.values()):
        return ""
    if reason := why_not_native(None):
        return reason
    devices = range(torch.cuda.device_count())
    capabilities = [torch.cuda.get_device_capability(index) for index in devices]
    return why_not_native(capabilities) or extension.register_cuda()


def _probe_triton(device: torch.device) -> str:
    """Runs a kernel of one store: a driver, a compiler of C, a supported GPU may all be missing."""
    if reason := why_no_triton():
        return reason
    try:
        from . import triton_ops

        triton_ops.probe(device)
    except Exception as error:  # whatever it is, there is another backend
        text = str(error).strip().splitlines() or [""]
        return f"Triton does not work here: {type(error).__name__}: {text[0]}"
    return ""


def implementation(name: str, device: torch.device) -> Callable[..., Any]:
    """What runs the registered operator ``name`` where the dispatcher knows no kernel.

    Raises:
        RuntimeError: If a backend is asked for that cannot serve ``device``.
    """
    if device.type == "cuda":
        backend = _cuda_choice(device).backend
    elif device.type == "cpu":
        backend = "triton" if extension.is_interpreting_triton() else "reference"
    else:
        backend = "reference"
        _warn_slow_device(device.type)
    if backend == "cuda":
        return _registered(name)
    if backend == "triton":
        from . import triton_ops

        return triton_ops.OPERATORS[name]
    return reference_ops.OPERATORS[name]


def _registered(name: str) -> Callable[..., Any]:
    """The operator, now that its kernel is in the dispatcher."""
    op = getattr(torch.ops.ops_dcnv3, name).default

    def run(*args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return run


@cache
def _warn_slow_device(device_type: str) -> None:
    """Says once for each device type that it has no kernels of its own."""
    if device_type != "meta":
        warn(
            f"no {device_type} kernels in this version; using the PyTorch reference, which is "
            "right but many times slower"
        )


# ------------------------------------------------------------------------------------- the report


def extension_info() -> dict[str, Any]:
    """Describes what this installation runs, for bug reports and tests; initialises no device.

    Returns:
        A dict with ``version``; ``backends``, best first, of ``"cuda"`` (the compiled CUDA
        kernels), ``"triton"``, ``"cpu"`` (the compiled CPU kernels) and ``"reference"`` (plain
        PyTorch, always there); ``cpu_level`` and ``cpu_levels`` (the instruction set in use and
        those to choose from); ``cuda_archs`` (what the CUDA kernels were compiled for); ``path`` of
        the extension; ``missing``, a dict from an absent backend to the reason. Before the first
        call with CUDA tensors the devices have not been asked, and a backend that is listed may
        turn out not to serve them.
    """
    missing = {} if extension.cpu_level() else {"cpu": extension.why_not_loaded()}
    missing |= _cuda_missing()
    kernels = extension.cuda_kernels()
    names = ("cuda", "triton", "cpu", "reference")
    return {
        "version": __version__,
        "backends": tuple(name for name in names if name not in missing),
        "cpu_level": extension.cpu_level(),
        "cpu_levels": extension.cpu_levels(),
        "cuda_archs": () if isinstance(kernels, str) else kernels.archs,
        "path": extension.path(),
        "missing": missing,
    }


def _cuda_missing() -> dict[str, str]:
    """Why backends of CUDA tensors are absent: what calls found out, else what shows without."""
    missing: dict[str, str] = {}
    requested = extension.requested_backend()
    for backend, request, why_not in (
        ("cuda", "native", lambda: why_not_native(None)),
        ("triton", "triton", why_no_triton),
    ):
        found = [c.missing[backend] for c in _choices.values() if backend in c.missing]
        if requested not in ("auto", request):
            missing[backend] = f"{BACKEND_ENV}={requested}"
        elif reason := found[0] if found else why_not():
            missing[backend] = reason
    return missing
