"""The backbone as OpenMMLab's detectors and segmentors take it.

Registered as ``InternImage`` in the root registry of mmengine. A config names a size, or the
original's fields one by one::

    backbone = dict(type="InternImage", arch="t", layer_scale=1.0, drop_path_rate=0.2)
    backbone = dict(type="InternImage", channels=64, depths=[4, 4, 18, 4], groups=[4, 8, 16, 32])
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from mmengine.logging import print_log
from mmengine.model import BaseModule, initialize
from mmengine.registry import MODELS

from internimage.checkpoint import LoadReport, load_checkpoint
from internimage.downloads import download, is_url
from internimage.hub import PTH_REPOSITORY, download_file, find_release
from internimage.model import InternImage
from internimage.variants import get_variant

INIT_FIELDS = frozenset({"type", "checkpoint", "strict", "prefix", "map_location"})
"""What ``init_cfg`` of type ``Pretrained`` may hold. The last two, which OpenMMLab's own has, have
no effect: the layout of a checkpoint is found, and it is read on the CPU."""

# InternImage-T has layer scales in detectors and segmentors, and none as a released classifier.
_LAYER_SCALE_KEYS = (".gamma1", ".gamma2")


@MODELS.register_module(name="InternImage")
class InternImageBackbone(InternImage, BaseModule):
    """InternImage without a head: images (N, 3, H, W) in, stage maps (N, C * 2^i, ...) out.

    Args:
        arch: a size of ``internimage.list_models()``, ``"t"`` for short; the other arguments
            override its row. None takes everything from the other arguments.
        out_indices: the stages to return, ascending.
        use_dcn_v4_op: a field of the original. There the same function was computed by another
            kernel; it changes no number and has no effect here.
        init_cfg: how to initialise. ``dict(type="Pretrained", checkpoint=...)`` takes a file, an
            address, or a released model's name; ``strict=False`` loads what fits of a checkpoint
            that differs.
        **fields: the arguments of :class:`internimage.InternImage`; defaults are T's.

    Raises:
        TypeError: an argument is unknown or of another kind.
        ValueError: an argument is out of range, or two contradict each other.
    """

    init_report: LoadReport | None = None
    """What :meth:`init_weights` loaded."""

    is_init: bool
    """Whether :meth:`init_weights` has run."""

    def __init__(
        self,
        arch: str | None = None,
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        use_dcn_v4_op: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **fields: Any,
    ) -> None:
        fields = resolve_fields(arch, fields, use_dcn_v4_op=use_dcn_v4_op)
        # InternImage's own super() is BaseModule, which it calls without arguments: BaseModule sets
        # an init_cfg of None, in whose place the real one comes afterwards.
        super().__init__(features_only=True, out_indices=tuple(out_indices), **fields)
        self.init_cfg = init_cfg

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, if it names one.

        The constructor has drawn the weights already, with DCNv3's zero offsets. The original drew
        all linear layers again here, and lost those.

        Raises:
            FileNotFoundError: the checkpoint is neither a file nor a released model.
            ConnectionError: it cannot be downloaded.
            ValueError: ``init_cfg`` has an unknown field, or the checkpoint does not fit.
        """
        if self.is_init:
            return
        pretrained, others = split_init_cfg(self.init_cfg)
        # The checkpoint last, as in mmengine's own: what it holds must not be drawn over.
        if others:
            initialize(self, others)
        for config in pretrained:
            self.init_report = load_pretrained(self, config)
        self.is_init = True


def split_init_cfg(
    init_cfg: dict[str, Any] | list[dict[str, Any]] | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts of an ``init_cfg`` that load a checkpoint, and those that draw weights.

    Raises:
        ValueError: a part has no type.
    """
    configs = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or ())
    for config in configs:
        if not isinstance(config, dict) or "type" not in config:
            raise ValueError(
                f"InternImage: expected init_cfg with type = Pretrained or another, got {config!r}"
            )
    pretrained = [config for config in configs if config["type"] == "Pretrained"]
    return pretrained, [config for config in configs if config["type"] != "Pretrained"]


def resolve_fields(
    arch: str | None, fields: dict[str, Any], *, use_dcn_v4_op: bool = False
) -> dict[str, Any]:
    """Return the arguments of :class:`internimage.InternImage` for a backbone's fields.

    Args:
        arch: a size, whose row the fields override, or None.
        fields: the other fields of the config.
        use_dcn_v4_op: the original's field; warned about, for it has no effect.

    Raises:
        ValueError: there is no such size.
    """
    if use_dcn_v4_op:
        warnings.warn(
            "InternImage: use_dcn_v4_op has no effect: one operator computes what both kernels of "
            "the original did",
            stacklevel=3,  # whoever builds the backbone
        )
    if arch is None:
        return fields
    row = get_variant(arch).to_kwargs()
    del row["use_clip_projector"]  # of the classifier's head
    return row | fields


def load_pretrained(model: InternImage, init_cfg: dict[str, Any]) -> LoadReport:
    """Load what an ``init_cfg`` of type ``Pretrained`` names into a backbone, and log what matched.

    Args:
        model: the backbone.
        init_cfg: ``checkpoint`` (a file, an address or a released name) and, if wanted,
            ``strict`` (default True): raise unless all fits but a head and the layer scales, which
            released classifiers need not have.

    Raises:
        FileNotFoundError: the checkpoint is neither a file nor a released model.
        ConnectionError: it cannot be downloaded.
        ValueError: a field is unknown, or the checkpoint does not fit.
    """
    if unknown := set(init_cfg) - INIT_FIELDS:
        raise ValueError(
            f"InternImage: expected init_cfg with the fields {', '.join(sorted(INIT_FIELDS))}, "
            f"got {', '.join(sorted(unknown))}"
        )
    if unread := [name for name in ("prefix", "map_location") if name in init_cfg]:
        warnings.warn(
            f"InternImage: {' and '.join(unread)} of init_cfg has no effect: the layout of a "
            "checkpoint is found, and it is read on the CPU",
            stacklevel=2,
        )
    origin = init_cfg.get("checkpoint")
    if not isinstance(origin, str) or not origin:
        raise ValueError(
            "InternImage: expected init_cfg with checkpoint = a file, an address or the name of a "
            f"released model, got {origin!r}"
        )
    strict = init_cfg.get("strict", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the log below says it
        # Strictness is checked below: missing layer scales are no mistake, which strict=True of
        # the loader does not know.
        report = load_checkpoint(model, resolve_checkpoint(origin), strict=False)
    fresh = [key for key in report.missing if key.endswith(_LAYER_SCALE_KEYS)]
    if strict and (len(fresh) < len(report.missing) or report.unexpected or report.mismatched):
        raise ValueError(
            f"InternImage: expected a checkpoint of this backbone, got {origin} with "
            f"{report.describe()}; strict=False in init_cfg loads the {len(report.loaded)} "
            "tensors that fit"
        )
    print_log(
        f"InternImage: {len(report.loaded)} of {len(report.loaded) + len(report.missing)} tensors "
        f"from {origin}" + "".join(f"; {what}" for what in _remarks(report, fresh)),
        logger="current",
    )
    return report


def resolve_checkpoint(checkpoint: str) -> str:
    """Turn an address into a released model's name, or into the file that it is downloaded to.

    Names and files stay as they are.

    Raises:
        ConnectionError: it is to be downloaded, and there is no way to it.
        FileNotFoundError: the repository of the released models has no such file.
        ValueError: the address names no file.
    """
    if not is_url(checkpoint):
        return checkpoint
    file = PurePosixPath(urlsplit(checkpoint).path)
    # The original's configs give addresses of released models; the hub's cache then holds one file
    # for a model's address and its name.
    if f"/{PTH_REPOSITORY}/" not in str(file):
        return str(download(checkpoint))
    if find_release(file.stem) is not None:
        return file.stem
    return str(download_file(PTH_REPOSITORY, file.name))


def _remarks(report: LoadReport, fresh: list[str]) -> list[str]:
    """What else to say about a load, one phrase each."""
    remarks = list(report.adaptations)
    if fresh:
        remarks.append(f"{len(fresh)} layer scales left at their initial value")
    if len(fresh) < len(report.missing) or report.unexpected or report.mismatched:
        remarks.append(f"strict=False: {report.describe()}")
    return remarks
