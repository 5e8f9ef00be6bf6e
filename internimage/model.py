"""InternImage: stem, stages, head (Wang et al., CVPR 2023, arXiv 2211.05778).

Shape legend: N batch, H W image size in pixels, C = ``channels``, i = stage 0..3. Sizes are rounded
up at every halving, so any H and W from 1 on will do (the CLIP-projector head alone asks for
multiples of 32)::

    image      (N, 3, H, W)
    stage i    (N, H / 2^(i+2), W / 2^(i+2), C * 2^i)    inside the model: channels last
    map i      (N, C * 2^i, H / 2^(i+2), W / 2^(i+2))    for the caller: channels first, contiguous
    logits     (N, num_classes)

The attribute names are the keys of released checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from internimage.architecture import (
    DropPathType,
    check_flags,
    check_int,
    check_rate,
    check_ratio,
    check_stages,
    drop_path_rates,
    stage_indices,
    trunk_norm_block_ids,
)
from internimage.blocks import BlockSettings, CoreOp, InternImageBlock, InternImageStage
from internimage.heads import (
    CLS_SCALE,
    NUM_CLASSES,
    PROJECTOR_OUT_CHANNELS,
    PROJECTOR_STRIDE,
    build_classifier,
    build_conv_head,
    build_projector,
    build_projector_x3,
    build_projector_x4,
    check_head,
    init_linear,
)
from internimage.layers import Stem
from ops_dcnv3.layers import ActLayer, NormLayer, build_norm, channels_first, is_autocast_on
from ops_dcnv3.modules import DCNv3

OutputFormat = Literal["NCHW", "NHWC"]


class InternImage(nn.Module):
    """The backbone, and the classifier on top of it unless ``features_only``.

    The arguments carry the original's names. The defaults are InternImage-T's; the original's own
    defaults for ``depths`` and ``groups`` (3-4-18-5, 3-6-12-24) do not divide its default of 64
    channels.

    Args:
        core_op: ``"DCNv3"``, or ``"DCNv3_pytorch"`` for the plain PyTorch path on any device.
        channels: C of the first stage, even; every next stage doubles it.
        depths: blocks of each stage.
        groups: DCNv3 groups of each stage.
        num_classes: size of the last linear layer; 0 leaves it out and returns what it would get.
        mlp_ratio: hidden size of the MLP over C.
        drop_rate: dropout after the stem and in the MLP, 0-1.
        drop_path_rate: stochastic depth, 0-1.
        drop_path_type: ``"linear"`` from 0 at the first block to the rate at the last, or
            ``"uniform"``.
        act_layer: ``"GELU"``, ``"ReLU"`` or ``"SiLU"``.
        norm_layer: ``"LN"`` or ``"BN"`` in stem, downsampling and DCNv3; the rest is always
            LayerNorm.
        layer_scale: initial factor of every residual branch, None for none.
        offset_scale: factor of DCNv3's sampling grid and offsets.
        post_norm: normalise behind each branch instead of before it.
        cls_scale: channels of the 1x1 convolution of the plain head over those of the last stage.
        with_cp: gradient checkpointing, block by block.
        dw_kernel_size: kernel of DCNv3's depthwise convolution, odd; None is 3.
        use_clip_projector: the attention-pooling head of InternImage-H and -G.
        level2_post_norm: normalise the trunk of the third stage behind some of its blocks.
        level2_post_norm_block_ids: which blocks, counted from 0.
        res_post_norm: normalise before and behind each branch.
        center_feature_scale: blend DCNv3's output with its input by a learned gate.
        remove_center: sample without the middle point.
        features_only: no head; ``forward`` returns the list of stage maps.
        out_indices: the stages that ``features_only`` returns, ascending; None is all.
        frozen_stages: the first so many stages (not the stem) neither learn nor drop; -1 is none.
        in_chans: channels of the image.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of range, or two contradict each other.
    """

    def __init__(
        self,
        core_op: CoreOp = "DCNv3",
        channels: int = 64,
        depths: Sequence[int] = (4, 4, 18, 4),
        groups: Sequence[int] = (4, 8, 16, 32),
        num_classes: int = NUM_CLASSES,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        drop_path_type: DropPathType = "linear",
        act_layer: ActLayer = "GELU",
        norm_layer: NormLayer = "LN",
        layer_scale: float | None = None,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        cls_scale: float = CLS_SCALE,
        with_cp: bool = False,
        dw_kernel_size: int | None = None,
        use_clip_projector: bool = False,
        level2_post_norm: bool = False,
        level2_post_norm_block_ids: Sequence[int] | None = None,
        res_post_norm: bool = False,
        center_feature_scale: bool = False,
        remove_center: bool = False,
        *,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        check_flags(
            post_norm=post_norm,
            with_cp=with_cp,
            use_clip_projector=use_clip_projector,
            level2_post_norm=level2_post_norm,
            res_post_norm=res_post_norm,
            center_feature_scale=center_feature_scale,
            remove_center=remove_center,
            features_only=features_only,
        )
        depths, groups = check_stages("InternImage", channels, depths, groups)
        widths = [channels * 2**i for i in range(len(depths))]
        check_int("InternImage", "in_chans", in_chans, least=1)
        check_ratio("mlp_ratio", mlp_ratio, channels)
        check_rate("drop_rate", drop_rate)
        check_head(widths, num_classes, cls_scale, features_only, use_clip_projector)
        block_ids = trunk_norm_block_ids(depths, level2_post_norm, level2_post_norm_block_ids)
        settings = BlockSettings(
            core_op=core_op,
            mlp_ratio=mlp_ratio,
            drop_rate=drop_rate,
            act_layer=act_layer,
            norm_layer=norm_layer,
            layer_scale=layer_scale,
            offset_scale=offset_scale,
            post_norm=post_norm,
            res_post_norm=res_post_norm,
            dw_kernel_size=dw_kernel_size,
            center_feature_scale=center_feature_scale,
            remove_center=remove_center,
        )
        self.depths = depths
        self.num_stages = len(depths)
        self.num_classes = 0 if features_only else num_classes
        self.in_chans = in_chans
        self.features_only = features_only
        self.use_clip_projector = use_clip_projector
        self.remove_center = remove_center
        if out_indices is not None and not features_only:
            raise ValueError(
                f"InternImage: expected features_only = True beside out_indices, got {out_indices}"
            )
        self.out_indices = stage_indices("InternImage", out_indices, self.num_stages)
        if check_int("InternImage", "frozen_stages", frozen_stages, least=-1) > self.num_stages:
            raise ValueError(
                f"InternImage: expected frozen_stages <= {self.num_stages}, got {frozen_stages}"
            )
        self.frozen_stages = frozen_stages

        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** (i + 2), "module": f"levels.{i}"}
            for i, width in enumerate(widths)
        ]
        self.num_features = widths[-1]
        self.patch_embed = Stem(in_chans, channels, act_layer=act_layer, norm_layer=norm_layer)
        self.pos_drop = nn.Dropout(drop_rate)
        rates = drop_path_rates(depths, drop_path_rate, drop_path_type)
        self.levels = nn.ModuleList(
            InternImageStage(
                widths[i],
                groups[i],
                drop_path_rates=rates[i],
                settings=settings,
                downsample=i < self.num_stages - 1,
                post_norm_block_ids=block_ids if i == 2 else (),
                with_cp=with_cp,
            )
            for i in range(self.num_stages)
        )
        if not features_only:
            self._build_head(act_layer, cls_scale)
        self._init_linears()
        self._freeze_stages()

    def _build_head(self, act_layer: ActLayer, cls_scale: float) -> None:
        if self.use_clip_projector:
            self.dcnv3_head_x4 = build_projector_x4(self.num_features)
            self.dcnv3_head_x3 = build_projector_x3(self.num_features)
            self.clip_projector = build_projector()
            self.fc_norm = build_norm(PROJECTOR_OUT_CHANNELS)
            self.head_features = PROJECTOR_OUT_CHANNELS
        else:
            self.head_features = int(self.num_features * cls_scale)
            self.conv_head = build_conv_head(self.num_features, self.head_features, act_layer)
        self.head: nn.Module = build_classifier(self.head_features, self.num_classes)

    def _init_linears(self) -> None:
        """Draw every linear layer but those of DCNv3, which has drawn its own.

        DCNv3 starts from zero offsets and equal weights. A sweep over all linears would undo that.
        """
        pending: list[nn.Module] = [self]
        while pending:
            module = pending.pop()
            if isinstance(module, DCNv3):
                continue
            if isinstance(module, nn.Linear):
                init_linear(module)
            pending.extend(module.children())

    # ------------------------------------------------------------------------------------------
    # forward

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Classify, or return the wanted stage maps with ``features_only``.

        Args:
            x: images (N, in_chans, H, W), normalised, in the dtype of the weights (any float under
                autocast).

        Returns:
            Logits (N, num_classes); with ``features_only`` a list of maps (N, C * 2^i, H / 2^(i+2),
            ...).

        Raises:
            TypeError: ``x`` is no tensor.
            ValueError: ``x`` has the wrong rank, channels or dtype, no pixels, or a size that the
                head does not allow.
        """
        if self.features_only:
            return self._features(x, self.out_indices)
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the map that ``forward_head`` takes.

        Returns:
            The last stage's map (N, 8C, H/32, W/32); with the CLIP projector the third and fourth
            stage fused (N, 1024, H/16, W/16).

        Raises:
            TypeError: as for :meth:`forward`.
            ValueError: as for :meth:`forward`.
        """
        return self._to_head(self._run_stages(x, self.num_stages - 1))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn what :meth:`forward_features` returns into logits (N, num_classes).

        Args:
            x: the map.
            pre_logits: return the vector (N, head_features) that the last linear layer takes.

        Raises:
            ValueError: the model has no head.
        """
        if self.features_only:
            raise ValueError("InternImage.forward_head: expected features_only = False, got True")
        if self.use_clip_projector:
            pooled = self.fc_norm(self.clip_projector(x.flatten(2).transpose(1, 2)))
        else:
            pooled = self.conv_head(x).mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        intermediates_only: bool = False,
        output_fmt: OutputFormat = "NCHW",
    ) -> Any:
        """Return stage maps beside the final features.

        Args:
            x: images (N, in_chans, H, W).
            indices: stages wanted, ascending; an int is the last so many; None is all.
            intermediates_only: leave out the final features, and the stages after the last one
                wanted.
            output_fmt: layout of the maps.

        Returns:
            ``(forward_features(x), maps)``, or ``maps`` alone.

        Raises:
            TypeError: an index is no whole number, or ``x`` is no tensor.
            ValueError: an index or the format is unknown, or ``x`` is wrong as for :meth:`forward`.
        """
        name = "InternImage.forward_intermediates"
        if output_fmt not in get_args(OutputFormat):
            raise ValueError(f"{name}: expected output_fmt = 'NCHW' or 'NHWC', got {output_fmt!r}")
        if isinstance(indices, int):
            if not 1 <= indices <= self.num_stages:
                raise ValueError(
                    f"{name}: expected 1 <= indices <= {self.num_stages}, got {indices}"
                )
            indices = range(self.num_stages - indices, self.num_stages)
        wanted = stage_indices(name, indices, self.num_stages)
        maps = self._run_stages(x, wanted[-1] if intermediates_only else self.num_stages - 1)
        chosen = [maps[i] for i in wanted]
        if output_fmt == "NCHW":
            chosen = [_to_nchw(y) for y in chosen]
        return chosen if intermediates_only else (self._to_head(maps), chosen)

    def _features(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        maps = self._run_stages(x, indices[-1])
        return [_to_nchw(maps[i]) for i in indices]

    def _run_stages(self, x: Tensor, last: int) -> list[Tensor]:
        """Run the stem and the stages 0..last; return their maps, channels last."""
        return self.forward_stages(self.forward_stem(x), last)

    def forward_stem(self, x: Tensor) -> Tensor:
        """Turn images (N, in_chans, H, W) into the first stage's input (N, H/4, W/4, C).

        Raises:
            TypeError: as for :meth:`forward`.
            ValueError: as for :meth:`forward`.
        """
        self._check_input(x)
        return self.pos_drop(self.patch_embed(x))

    def forward_stages(
        self, x: Tensor, last: int, additions: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """Run the stages 0..last on what :meth:`forward_stem` returns.

        Args:
            x: the first stage's input (N, H/4, W/4, C).
            last: the last stage to run.
            additions: for each stage a map to add to its input, of that input's shape
                (N, H / 2^(i+2), W / 2^(i+2), C * 2^i).

        Returns:
            The maps of the stages, of the same shapes, channels last.
        """
        maps: list[Tensor] = []
        for i, stage in enumerate(self.levels):
            x = stage(x if additions is None else x + additions[i])
            maps.append(x)
            if i == last:
                break
            x = cast(nn.Module, stage.downsample)(x)
        return maps

    def _to_head(self, maps: list[Tensor]) -> Tensor:
        """Turn the maps of all stages into what the head takes, channels first."""
        if self.features_only or not self.use_clip_projector:
            return channels_first(maps[-1])
        x3, x4 = channels_first(maps[-2]), channels_first(maps[-1])
        return self.dcnv3_head_x4(x4) + self.dcnv3_head_x3(x3)

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"InternImage.forward: expected x = a tensor, got {type(x).__name__}")
        if x.ndim != 4 or x.shape[1] != self.in_chans or x.shape[2] < 1 or x.shape[3] < 1:
            raise ValueError(
                f"InternImage.forward: expected x of shape (N, {self.in_chans}, H, W) with "
                f"H and W >= 1, got {tuple(x.shape)}"
            )
        weight = self.patch_embed.conv1.weight
        if not x.is_floating_point() or (x.dtype != weight.dtype and not is_autocast_on(x)):
            raise ValueError(
                f"InternImage.forward: expected x of dtype {weight.dtype} as the weights, got "
                f"{x.dtype}"
            )
        if self.use_clip_projector and not self.features_only:
            height, width = x.shape[2:]
            if height % PROJECTOR_STRIDE or width % PROJECTOR_STRIDE:
                raise ValueError(
                    f"InternImage.forward: expected H and W as multiples of {PROJECTOR_STRIDE} for "
                    f"the CLIP-projector head, got {height} x {width}"
                )

    # ------------------------------------------------------------------------------------------
    # switches

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer (``nn.Identity`` with ``num_classes=0``).

        Raises:
            ValueError: the model has no head.
        """
        if self.features_only:
            raise ValueError("InternImage.get_classifier: expected features_only = False, got True")
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last linear layer by a fresh one of another size.

        Raises:
            TypeError: ``num_classes`` is no whole number.
            ValueError: the model has no head, or ``num_classes`` is negative.
        """
        name = "InternImage.reset_classifier"
        if self.features_only:
            raise ValueError(f"{name}: expected features_only = False, got True")
        check_int(name, "num_classes", num_classes, least=0)
        weight = self.patch_embed.conv1.weight
        self.num_classes = num_classes
        self.head = build_classifier(self.head_features, num_classes).to(
            weight.device, weight.dtype
        )
        if isinstance(self.head, nn.Linear):
            init_linear(self.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing of all blocks."""
        for module in self.modules():
            if isinstance(module, InternImageBlock):
                module.with_cp = enable

    def train(self, mode: bool = True) -> InternImage:
        """Switch training mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        return self

    def _freeze_stages(self) -> None:
        for stage in self.levels[: max(self.frozen_stages, 0)]:
            stage.eval()
            stage.requires_grad_(False)


def _to_nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2).contiguous()
