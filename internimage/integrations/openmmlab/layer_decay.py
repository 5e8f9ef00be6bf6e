"""Layer-wise learning rates for detectors and segmentors, under the original's name.

In a config::

    optim_wrapper = dict(
        optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
        constructor="CustomLayerDecayOptimizerConstructor",
        paramwise_cfg=dict(num_layers=37, layer_decay_rate=0.94, depths=[5, 5, 22, 5]),
    )

The rule is BEiT's: layer 0 is the stem, the blocks follow, everything behind the backbone is the
last; a layer has ``layer_decay_rate`` times the rate of the next. Three things that had no effect
in the original have it here: the two streams of CB-InternImage decay, a norm on the trunk
(``post_norms``) belongs to the block that it stands behind, and ``offset_lr_scale`` is also for
DCNv3's offsets, not only for the deformable attention of a transformer head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from internimage.blocks import InternImageStage
from internimage.model import InternImage
from internimage.param_groups import dense_layer_id, has_weight_decay

OPTIONS = frozenset(
    {"num_layers", "layer_decay_rate", "depths", "offset_lr_scale", "first_layer_names"}
)
"""What ``paramwise_cfg`` may hold."""

FIRST_LAYER_NAMES = ("level_embed",)
"""Parts of names that share the stem's rate, in the released models' recipes."""

# The first two are those of deformable attention; DCNv3's are a linear layer, dcn.offset.
_OFFSETS = ("sampling_offsets", "reference_points", ".dcn.offset.")
# As in the released recipes, whose rule is BEiT's: relative_position is in no model here.
_NO_DECAY = ("norm", "sampling_offsets", "relative_position")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name="CustomLayerDecayOptimizerConstructor")
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Sorts the parameters of a detector or segmentor into groups by rate and weight decay.

    ``paramwise_cfg`` holds

    - ``layer_decay_rate``: factor a layer, in (0, 1];
    - ``depths``: blocks of each stage; left out, those of the backbone;
    - ``num_layers``: their sum, checked where it is given;
    - ``offset_lr_scale``: factor for DCNv3's offsets and the sampling offsets and reference points
      of deformable attention, default 1;
    - ``first_layer_names``: parts of names that share the stem's rate, default
      :data:`FIRST_LAYER_NAMES`.

    Vectors, biases, norms and sampling offsets have no weight decay.

    Raises:
        ValueError: an option is unknown, missing, out of range, or contradicts the model.
    """

    # mmengine calls it at the end of its constructor, before there is a model.
    def _validate_cfg(self) -> None:
        name = type(self).__name__
        if unknown := set(self.paramwise_cfg) - OPTIONS:
            raise ValueError(
                f"{name}: expected paramwise_cfg with {', '.join(sorted(OPTIONS))}, got "
                f"{', '.join(sorted(unknown))}"
            )
        rate = self.paramwise_cfg.get("layer_decay_rate")
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f"{name}: expected 0 < layer_decay_rate <= 1, got {rate}")
        scale = self.paramwise_cfg.get("offset_lr_scale", 1.0)
        if not isinstance(scale, (int, float)) or not scale >= 0:
            raise ValueError(f"{name}: expected offset_lr_scale >= 0, got {scale!r}")
        first = self.paramwise_cfg.get("first_layer_names", FIRST_LAYER_NAMES)
        # A text would be taken letter by letter, and an empty part is in every name.
        if not isinstance(first, (list, tuple)) or not all(
            isinstance(part, str) and part for part in first
        ):
            raise ValueError(
                f"{name}: expected first_layer_names = a list of parts of names, got {first!r}"
            )
        if self.base_lr is None or self.base_wd is None:
            raise ValueError(
                f"{name}: expected an optimizer with lr and weight_decay, got {self.optimizer_cfg}"
            )

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:
        """Append the groups of ``module`` to ``params``, in the order in which they first occur."""
        # Of CB-InternImage the first stream: both have the same depths.
        backbone = next((part for part in module.modules() if isinstance(part, InternImage)), None)
        if backbone is None:
            raise ValueError(
                f"{type(self).__name__}: expected a model with an InternImage, got "
                f"{type(module).__name__} without one"
            )
        depths = self._depths(backbone)
        post_norm_block_ids = [
            cast(InternImageStage, stage).post_norm_block_ids for stage in backbone.levels
        ]
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            scale = self.lr_scale(name, depths, post_norm_block_ids)
            no_decay = not has_weight_decay(name, parameter.ndim) or _has_any(name, _NO_DECAY)
            decay = 0.0 if no_decay else self.base_wd
            if (scale, decay) not in groups:
                # lr_scale is for the record: mmengine's schedulers scale each group's own lr.
                groups[scale, decay] = dict(
                    params=[], lr=self.base_lr * scale, lr_scale=scale, weight_decay=decay
                )
                params.append(groups[scale, decay])
            groups[scale, decay]["params"].append(parameter)

    def lr_scale(
        self, name: str, depths: Sequence[int], post_norm_block_ids: Sequence[Sequence[int]]
    ) -> float:
        """Return the factor of the base rate for one parameter.

        Args:
            name: the parameter's name in the whole model.
            depths: blocks of each stage.
            post_norm_block_ids: for each stage, the blocks with a norm of the trunk behind them.
        """
        options = self.paramwise_cfg
        first = options.get("first_layer_names", FIRST_LAYER_NAMES)
        last = sum(depths) + 1  # the stem is 0, the blocks are 1 to sum(depths)
        if _has_any(name, first):
            layer = 0
        elif "backbone." in name:
            layer = dense_layer_id(name, depths, post_norm_block_ids)
        else:
            layer = last
        scale = options["layer_decay_rate"] ** (last - layer)
        if _has_any(name, _OFFSETS):
            scale *= options.get("offset_lr_scale", 1.0)
        return scale

    def _depths(self, backbone: InternImage) -> tuple[int, ...]:
        """Return the blocks of each stage, checked against the model."""
        wanted = self.paramwise_cfg.get("depths", backbone.depths)
        if tuple(wanted) != tuple(backbone.depths):
            raise ValueError(
                f"{type(self).__name__}: expected depths = {list(backbone.depths)} as the "
                f"backbone's, got {list(wanted)}"
            )
        num_layers = self.paramwise_cfg.get("num_layers", sum(wanted))
        if num_layers != sum(wanted):
            raise ValueError(
                f"{type(self).__name__}: expected num_layers = {sum(wanted)}, the sum of depths, "
                f"got {num_layers}"
            )
        return tuple(wanted)


def _has_any(name: str, parts: Iterable[str]) -> bool:
    return any(part in name for part in parts)
