"""CB-InternImage: two InternImages, the second fed by the first (CBNet, arXiv 2107.00420).

Both streams share the stem of the first. To the input of every stage of the second stream is added,
times a learned vector gamma that starts at zero, what the first stream's stages from that one on
have found: each through a 1x1 convolution to the stage's width, enlarged to its size and summed::

    input of stage i  =  x_i + gamma_i * sum over j >= i of resize(conv_ij(y_j))

with y_j the first stream's maps and conv_ii the identity. Shape legend: N batch, H W image size in
pixels, C channels of the first stage; map i is (N, C * 2^i, H / 2^(i+2), W / 2^(i+2)), sizes
rounded up, so that any image will do.

The attribute names are the keys of released checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule, initialize
from torch import Tensor, nn

from internimage.checkpoint import LoadReport
from internimage.integrations.openmmlab.backbone import (
    load_pretrained,
    resolve_fields,
    split_init_cfg,
)
from internimage.model import InternImage
from ops_dcnv3.layers import channels_first


class SecondStream(InternImage):
    """InternImage without a stem, with a vector gamma for each stage's input.

    Args:
        **fields: the arguments of :class:`internimage.InternImage`.
    """

    def __init__(self, **fields: Any) -> None:
        super().__init__(features_only=True, **fields)
        # Released checkpoints have none here, and DDP stops at parameters that no loss reaches.
        del self.patch_embed
        for i, info in enumerate(self.feature_info):
            self.register_parameter(f"gamma{i}", nn.Parameter(torch.zeros(int(info["num_chs"]))))

    def scaled(self, stage: int, x: Tensor) -> Tensor:
        """Multiply a map (N, H, W, C) by the stage's gamma, rounded to float16.

        The released weights were trained with that rounding in every precision and depend on it:
        without it, features differ by up to 7e-4. The gradient is that of the unrounded product.
        """
        gamma = getattr(self, f"gamma{stage}")
        # Exact: rounded and unrounded are so close that their difference has no rounding error.
        rounded = gamma + (gamma.detach().half().to(gamma.dtype) - gamma.detach())
        return rounded * x


@MODELS.register_module()
class CBInternImage(BaseModule):
    """Images (N, 3, H, W) in, the maps of both streams out.

    Args:
        arch: as for ``InternImage``.
        out_indices: the stages that each stream computes, then those that are returned, ascending:
            the first stream has to compute all.
        use_dcn_v4_op: as for ``InternImage``.
        init_cfg: as for ``InternImage``: a classifier, which both streams start from.
        **fields: the arguments of :class:`internimage.InternImage`, for both streams.

    Raises:
        TypeError: an argument is unknown or of another kind.
        ValueError: an argument is out of range, or two contradict each other.
    """

    init_report: LoadReport | None = None
    """What :meth:`init_weights` loaded into the first stream."""

    is_init: bool
    """Whether :meth:`init_weights` has run."""

    def __init__(
        self,
        arch: str | None = None,
        *,
        out_indices: Sequence[Sequence[int]] = ((0, 1, 2, 3), (1, 2, 3)),
        use_dcn_v4_op: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__()
        self.init_cfg = init_cfg
        fields = resolve_fields(arch, fields, use_dcn_v4_op=use_dcn_v4_op)
        if len(out_indices) != 2 or not all(isinstance(stages, Sequence) for stages in out_indices):
            raise ValueError(
                "CBInternImage: expected out_indices = the stages of both streams, such as "
                f"((0, 1, 2, 3), (1, 2, 3)), got {out_indices}"
            )
        # All of the first stream's maps are injected; out_indices[1] says which are returned.
        first = InternImage(features_only=True, **fields)
        second = SecondStream(out_indices=tuple(out_indices[1]), **fields)
        if tuple(out_indices[0]) != tuple(range(first.num_stages)):
            raise ValueError(
                f"CBInternImage: expected out_indices[0] = all stages 0..{first.num_stages - 1}, "
                f"which the second stream is fed from, got {out_indices[0]}"
            )
        self.out_indices = second.out_indices
        self.cb_modules = nn.ModuleList([first, second])
        widths = [int(info["num_chs"]) for info in first.feature_info]
        # conv_ij of the docstring is cb_linears[i][j - i].
        self.cb_linears = nn.ModuleList(
            nn.ModuleList(
                nn.Identity() if j == i else nn.Conv2d(widths[j], widths[i], kernel_size=1)
                for j in range(i, len(widths))
            )
            for i in range(len(widths))
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the wanted maps of the first and of the second stream.

        Args:
            x: images (N, 3, H, W).
        """
        first = cast(InternImage, self.cb_modules[0])
        second = cast(SecondStream, self.cb_modules[1])
        stem = first.forward_stem(x)  # (N, H / 4, W / 4, C)
        maps = first.forward_stages(stem, first.num_stages - 1)
        injected = self.compose(maps)
        additions = [second.scaled(i, injected[i]) for i in range(self.out_indices[-1] + 1)]
        lead_maps = second.forward_stages(stem, self.out_indices[-1], additions)
        # Contiguous: mmcv's RoIAlign reads other layouts wrongly, without an error.
        return (
            [channels_first(maps[i]).contiguous() for i in self.out_indices],
            [channels_first(lead_maps[i]).contiguous() for i in self.out_indices],
        )

    def compose(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return what the first stream has for each stage of the second, before gamma.

        Args:
            maps: the first stream's maps (N, H / 2^(i+2), W / 2^(i+2), C * 2^i).

        Returns:
            Maps of the same shapes.
        """
        composed = []
        for i, connections in enumerate(self.cb_linears):
            total = channels_first(maps[i])  # conv_ii, the identity; (N, C * 2^i, ...)
            for j, connection in enumerate(cast(nn.ModuleList, connections)):
                if j:
                    # (N, C * 2^i, ...) at the size of stage i + j
                    found = connection(channels_first(maps[i + j]))
                    # The real size: rounding up at each stage, it is no fixed fraction of the stem.
                    total = total + F.interpolate(found, size=total.shape[2:], mode="nearest")
            composed.append(total.permute(0, 2, 3, 1))  # (N, ..., C * 2^i)
        return composed

    def init_weights(self) -> None:
        """Load the classifier that ``init_cfg`` names into both streams.

        Gammas and connections stay as the constructor made them: both streams start out alike.

        Raises:
            FileNotFoundError: the checkpoint is neither a file nor a released model.
            ConnectionError: a released model cannot be downloaded.
            ValueError: ``init_cfg`` has an unknown field, or the checkpoint does not fit.
        """
        if self.is_init:
            return
        pretrained, others = split_init_cfg(self.init_cfg)
        if others:
            initialize(self, others)
        first, second = self.cb_modules
        for config in pretrained:
            self.init_report = load_pretrained(cast(InternImage, first), config)
            # All but the stem, which the second stream has not. The keys are those of the model:
            # the checkpoint may have others, which were converted on the way into the first.
            loaded = set(self.init_report.loaded) & set(second.state_dict())
            weights = first.state_dict()
            second.load_state_dict({key: weights[key] for key in loaded}, strict=False)
        self.is_init = True
