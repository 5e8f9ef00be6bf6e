"""What a checkpoint has to do with a model: every key and shape compared, the outcome said.

mmengine loads what fits and goes on; a missing prefix then trains or tests a random model.
"""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from internimage.checkpoint import LoadReport
from internimage.checkpoint_layouts import ANCHOR, strip_wrappers
from internimage.integrations.openmmlab.convert import convert_state_dict
from internimage.integrations.openmmlab.scripts.checkpoint_kinds import (
    SEGMENTOR,
    is_of_driving,
    kind_of,
)
from internimage.integrations.openmmlab.scripts.safe_loading import read_checkpoint

__all__ = [
    "CheckpointCheckHook",
    "class_names",
    "class_sized",
    "compare",
    "load_all_weights",
    "read_checkpoint",
    "weights_of",
]

Purpose = Literal["test", "resume", "load_from"]

BACKBONE = "backbone."

# How many outputs a layer has for k classes, as (a, b) of a * k + b: scores; scores with one for
# "no object"; boxes of four numbers.
_OUTPUTS = ((1, 0), (1, 1), (4, 0))


def weights_of(checkpoint: Mapping[str, Any], origin: str) -> dict[str, Tensor]:
    """Return a checkpoint's weights under today's names.

    Raises:
        ValueError: There are none.
    """
    content = checkpoint.get("state_dict", checkpoint)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"expected a checkpoint with weights, got {origin} without any")
    weights = strip_wrappers(tensors)
    if is_of_driving(weights):
        # needs mmdet, which scripts of segmentors do without
        driving = importlib.import_module("internimage.integrations.openmmlab.driving.convert")
        return driving.convert_driving(weights)
    return convert_state_dict(weights)


def class_names(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that a checkpoint was trained on, if it says: mmdet 2's or 3's."""
    meta = checkpoint.get("meta")
    if not isinstance(meta, Mapping):
        return None
    names = meta.get("CLASSES")
    if names is None and isinstance(meta.get("dataset_meta"), Mapping):
        # As mmdet reads it: early releases of its version 3 wrote the keys in capitals.
        stored = {str(key).lower(): value for key, value in meta["dataset_meta"].items()}
        names = stored.get("classes")
    if isinstance(names, str):
        return (names,)
    return tuple(map(str, names)) if names else None


def compare(model: nn.Module, weights: Mapping[str, Tensor]) -> LoadReport:
    """Compare every key and shape of a checkpoint with the model's."""
    state = model.state_dict()
    # Counters of batch norms are not in checkpoints of before 2018.
    wanted = {key for key in state if not key.endswith("num_batches_tracked")}
    mismatched = [
        (key, tuple(value.shape), tuple(state[key].shape))
        for key, value in weights.items()
        if key in state and value.shape != state[key].shape
    ]
    differing = {key for key, _, _ in mismatched}  # neither loaded nor missing: told apart
    return LoadReport(
        loaded=tuple(key for key in weights if key in state and key not in differing),
        missing=tuple(key for key in state if key in wanted and key not in weights),
        unexpected=tuple(key for key in weights if key not in state),
        mismatched=tuple(mismatched),
        adaptations=(),
    )


def load_all_weights(model: nn.Module, checkpoint: Mapping[str, Any], origin: str) -> None:
    """Load a checkpoint into a model, all of it.

    Args:
        model: A detector or segmentor.
        checkpoint: As :func:`read_checkpoint` returns it.
        origin: Where it is from, for the error.

    Raises:
        ValueError: A key or a shape differs.
    """
    weights = weights_of(checkpoint, origin)
    report = compare(model, weights)
    require_complete(report, weights, origin, class_sized(model, report))
    model.load_state_dict(weights, strict=False)  # strict but for the counters of batch norms


def require_complete(
    report: LoadReport, weights: Mapping[str, Tensor], origin: str, classes: Collection[str]
) -> None:
    """Refuse a checkpoint that is not this model's.

    Args:
        report: Of the comparison.
        weights: Of the checkpoint.
        origin: Where they are from, for the error.
        classes: The layers of another number of classes.

    Raises:
        ValueError: A key or a shape differs; the message says in what way.
    """
    if report.complete:
        return
    _refuse_parts(report, weights, origin)
    # Nothing differs but the number of classes: the one mistake that an option repairs.
    if classes and len(classes) == len(report.mismatched) and not report.missing:
        key, found, wanted = report.mismatched[0]
        raise ValueError(
            f"expected weights for the classes of the config, got {origin} with another number of "
            f"them ({key} {found} for {wanted}); classes=... in --cfg-options sets the config's"
        )
    raise ValueError(f"expected a checkpoint of this model, got {origin} with {report.describe()}")


def require_start(
    report: LoadReport, weights: Mapping[str, Tensor], origin: str, classes: Collection[str]
) -> tuple[str, ...]:
    """Return what a model starts from; refuse a checkpoint that it cannot start from.

    Layers of another number of classes stay as they are initialised. So do parts of the head that
    the checkpoint lacks, with a warning, and a segmentor's whole head where the checkpoint's is
    another; the backbone has to be there.

    Args:
        report: Of the comparison.
        weights: Of the checkpoint.
        origin: Where they are from, for messages.
        classes: The layers of another number of classes.

    Returns:
        The names of the weights to take.

    Raises:
        ValueError: The backbone differs, another shape does, or nothing but the backbone fits.
    """
    in_backbone = [
        key
        for key in [*report.missing, *(key for key, _, _ in report.mismatched)]
        if key.startswith(BACKBONE)
    ]
    wanted_kind, kind = _kinds(report, weights)
    if _is_other_head(wanted_kind, kind) and not in_backbone:
        # The author's UperNets for Cityscapes start from a SegFormer.
        warnings.warn(
            f"expected a checkpoint of {wanted_kind}, got {kind} in {origin}: its backbone is "
            "taken, the heads start at random",
            stacklevel=3,
        )
        return tuple(key for key in report.loaded if key.startswith(BACKBONE))
    _refuse_parts(report, weights, origin)
    others = {key for key, _, _ in report.mismatched} - set(classes)
    if in_backbone or others:
        raise ValueError(
            f"expected a checkpoint of this model but for its classes, got {origin} with "
            f"{report.describe()}"
        )
    if report.missing or report.unexpected:
        rest = dataclasses.replace(report, mismatched=())
        fresh = "; what is missing starts at random" if report.missing else ""
        warnings.warn(
            f"expected a checkpoint of this model but for its classes, got {origin} with "
            f"{rest.describe()}{fresh}",
            stacklevel=3,
        )
    return report.loaded


def _kinds(report: LoadReport, weights: Mapping[str, Tensor]) -> tuple[str | None, str | None]:
    """Return the kinds of the model and of the checkpoint."""
    mismatched = [key for key, _, _ in report.mismatched]
    return kind_of([*report.loaded, *report.missing, *mismatched]), kind_of(weights)


def _is_other_head(wanted: str | None, found: str | None) -> bool:
    return wanted != found and all((kind or "").startswith(SEGMENTOR) for kind in (wanted, found))


def _refuse_parts(report: LoadReport, weights: Mapping[str, Tensor], origin: str) -> None:
    """Word the mistakes that have cost the most: a part of a model, or the part's names alone.

    Raises:
        ValueError: The checkpoint is a classifier, a bare backbone, or of another model.
    """
    init_cfg = f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{origin}')"
    if ANCHOR in weights:  # in a whole model its name begins with backbone.
        kind = "a classifier" if any(key.startswith("head.") for key in weights) else "a backbone"
        raise ValueError(
            f"expected a checkpoint of the whole model, got {kind} in {origin}: its names lack the "
            f"prefix backbone.; to start from it set {init_cfg}"
        )
    is_backbone = bool(report.loaded) and all(key.startswith(BACKBONE) for key in report.loaded)
    start = f", of which only the backbone fits; to start from it set {init_cfg}"
    wanted, found = _kinds(report, weights)
    if wanted != found and wanted is not None and found is not None:
        raise ValueError(
            f"expected a checkpoint of {wanted}, got {found} in {origin}"
            f"{start if is_backbone else ''}"
        )
    if not report.loaded:
        raise ValueError(
            f"expected a checkpoint of this model, got {origin}, of which nothing fits "
            f"({report.describe()})"
        )
    if is_backbone:
        raise ValueError(f"expected a checkpoint of the whole model, got {origin}{start}")


def class_sized(model: nn.Module, report: LoadReport) -> tuple[str, ...]:
    """Return the layers that differ in the number of classes, and in nothing else.

    Their first dimension is one of ``_OUTPUTS`` of that number, in checkpoint and model alike:
    another number of queries or of levels is none. The names in the checkpoint are not asked, for a
    head that was cut to other classes still has those of before.

    Args:
        model: Its modules know their number of classes, as ``num_classes``.
        report: Of the comparison with the checkpoint.
    """
    wanted_counts = {
        module.num_classes
        for module in model.modules()
        if isinstance(getattr(module, "num_classes", None), int)
    }
    explained: dict[tuple[int, int], list[str]] = {}
    for key, found, wanted in report.mismatched:
        if key.startswith(BACKBONE) or found[1:] != wanted[1:]:
            continue  # only the number of outputs, the first dimension, may differ
        for factor, more in _OUTPUTS:
            old, old_rest = divmod(found[0] - more, factor)
            new, new_rest = divmod(wanted[0] - more, factor)
            # The model knows its number; the checkpoint's may be any for which the layer adds up.
            if new in wanted_counts and old > 0 and not old_rest and not new_rest:
                explained.setdefault((old, new), []).append(key)
    # One pair of numbers for all: a layer that needs another pair differs in something else.
    largest: list[str] = max(explained.values(), key=len, default=[])
    return tuple(largest)


class CheckpointCheckHook(Hook):
    """Converts, checks and reports what the runner loads.

    Args:
        purpose: What for: ``test`` and ``resume`` want every key, ``load_from`` a start.
        origin: The checkpoint, for messages.

    Raises:
        ValueError: The checkpoint does not fit the model, or cannot be gone on from.
    """

    priority = "HIGHEST"  # the moving average loads from the same mapping, later

    def __init__(self, purpose: Purpose, origin: str) -> None:
        self.purpose = purpose
        self.origin = origin

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Change the checkpoint in place, before it goes into the model."""
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        weights = weights_of(checkpoint, self.origin)
        report = compare(model, weights)
        classes = class_sized(model, report)
        taken = report.loaded
        if self.purpose == "load_from":
            taken = require_start(report, weights, self.origin, classes)
            state = model.state_dict()
            # Every key, for mmengine's EMAHook loads this mapping as well: its copy was made before
            # the weights were drawn, and would keep those where a key is missing.
            weights = {key: weights[key] for key in taken}
            weights |= {key: value for key, value in state.items() if key not in weights}
        else:
            require_complete(report, weights, self.origin, classes)
        if self.purpose == "resume":
            _require_run(checkpoint, self.origin)
        # Not what was filled up: that is the model's own.
        _require_finite({key: weights[key] for key in taken}, self.origin)
        checkpoint["state_dict"] = weights
        total = len(report.loaded) + len(report.missing) + len(report.mismatched)
        more = f"; {report.describe()}" if not report.complete else ""
        print_log(f"{len(taken)} of {total} tensors from {self.origin}{more}", "current")
        self._check_classes(runner, class_names(checkpoint))

    def _check_classes(self, runner: Runner, stored: tuple[str, ...] | None) -> None:
        # Not runner.test_loop, which would build the loop that is not in use.
        loop = runner._test_loop if self.purpose == "test" else runner._train_loop
        dataset = getattr(getattr(loop, "dataloader", None), "dataset", None)
        names = getattr(dataset, "metainfo", {}).get("classes")
        if stored is None or not names or tuple(names) == stored:
            return
        if len(names) != len(stored):
            if self.purpose == "test":  # a start may have other classes
                warnings.warn(
                    f"expected weights for the {len(names)} classes of the data set, got "
                    f"{self.origin}, which names {len(stored)}",
                    stacklevel=2,
                )
            return
        found, wanted = _first_difference(stored, names)
        text = (
            f"expected weights for the classes of the data set, got {self.origin} for others: "
            f"{found!r} where the data set has {wanted!r}"
        )
        # Every score would be computed of the wrong class; a training only starts less well.
        if self.purpose == "test" and set(stored) == set(names):
            raise ValueError(f"{text}; the names are the same, their order is not")
        warnings.warn(text, stacklevel=2)


def _require_finite(weights: Mapping[str, Tensor], origin: str) -> None:
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"expected finite weights, got NaN or infinity in {origin}: {key}")


def _require_run(checkpoint: Mapping[str, Any], origin: str) -> None:
    meta = checkpoint.get("meta")
    has_state = isinstance(meta, Mapping) and {"epoch", "iter"} <= set(meta)
    if not has_state or not {"optimizer", "message_hub"} <= set(checkpoint):
        raise ValueError(
            f"expected a checkpoint of a run to go on with, got weights alone in {origin}; "
            "--load-from starts a new run from them"
        )


def _first_difference(stored: Sequence[str], names: Sequence[str]) -> tuple[str, str]:
    return next((a, b) for a, b in zip(stored, names, strict=True) if a != b)
