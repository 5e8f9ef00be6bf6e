"""DCNv3 as an ``nn.Module``; also the import path of the original implementation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import reference
from .layers import (
    ActLayer,
    NormLayer,
    build_activation,
    build_norm,
    channels_first,
    is_autocast_on,
)
from .ops import check_geometry, dcnv3_packed


def _padding_rows(features: int, control: Tensor) -> int:
    """Output features to add to the joint linear of offsets and logits, for a GPU's sake.

    With a multiple of 8 the product runs on tensor cores in every 16-bit dtype, and each pixel
    starts at a multiple of 16 bytes. A CPU gains nothing from it.
    """
    return -features % 8 if control.is_cuda else 0


class DCNv3(nn.Module):
    """The DCNv3 layer of InternImage (Wang et al., CVPR 2023, section 3.1).

    A linear projection of the input is sampled by :func:`ops_dcnv3.dcnv3`; offsets and weights come
    from a depth-wise convolution of the layer's input. Attribute names are those of the released
    checkpoints.

    Args:
        channels: C.
        kernel_size: K of the sampling grid.
        dw_kernel_size: Kernel of the depth-wise convolution, odd; ``kernel_size`` if None.
        stride: Step between output pixels; only 1, as offsets are computed for every input pixel.
        pad: Padding of the sampling grid; only ``dilation * (kernel_size - 1) / 2``, which keeps
            the size.
        dilation: Dilation of the sampling grid.
        group: G, must divide C.
        offset_scale: Multiplies the grid and the offsets.
        act_layer: ``"GELU"``, ``"ReLU"`` or ``"SiLU"``.
        norm_layer: ``"LN"`` or ``"BN"``, the norm behind the depth-wise convolution.
        center_feature_scale: Blends the output with the unsampled value by a learned gate for each
            group.
        remove_center: Leaves out the middle sampling point.

    Raises:
        ValueError: If a value is not one of the above.
    """

    def __init__(
        self,
        channels: int = 64,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        stride: int = 1,
        pad: int = 1,
        dilation: int = 1,
        group: int = 4,
        offset_scale: float = 1.0,
        act_layer: ActLayer = "GELU",
        norm_layer: NormLayer = "LN",
        center_feature_scale: bool = False,
        remove_center: bool = False,
    ) -> None:
        super().__init__()
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        for name, value, minimum in (
            ("channels", channels, 1),
            ("kernel_size", kernel_size, 1),
            ("dw_kernel_size", dw_kernel_size, 1),
            ("stride", stride, 1),
            ("pad", pad, 0),
            ("dilation", dilation, 1),
            ("group", group, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
                raise ValueError(f"DCNv3: expected {name} = an int >= {minimum}, got {value!r}")
        self.geometry = check_geometry(
            "DCNv3",
            kernel_size=kernel_size,
            stride=stride,
            padding=pad,
            dilation=dilation,
            groups=group,
            offset_scale=offset_scale,
            remove_center=remove_center,
        )
        if channels % group:
            raise ValueError(
                f"DCNv3: expected channels % group = 0 with group = {group}, "
                f"got channels = {channels}"
            )
        if stride != 1 or 2 * pad != dilation * (kernel_size - 1):
            raise ValueError(
                "DCNv3: expected stride = 1 and 2 * pad = dilation * (kernel_size - 1), so that "
                f"the output has the input's size, got stride = {stride}, pad = {pad}, "
                f"dilation = {dilation}, kernel_size = {kernel_size}"
            )
        if dw_kernel_size % 2 == 0:
            raise ValueError(f"DCNv3: expected dw_kernel_size = an odd int, got {dw_kernel_size}")
        points = self.geometry.points_per_pixel()
        self.channels = channels
        self.center_feature_scale = center_feature_scale
        self.dw_conv = nn.Sequential(
            nn.Conv2d(
                channels,
                channels,
                dw_kernel_size,
                padding=(dw_kernel_size - 1) // 2,
                groups=channels,
            ),
            build_norm(channels, norm_layer, input_layout="channels_first", function="DCNv3"),
            build_activation(act_layer, function="DCNv3"),
        )
        self.offset = nn.Linear(channels, points * 2)
        self.mask = nn.Linear(channels, points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(group, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(group))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Starts as a regular grid with equal weights; projections are Xavier-uniform."""
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.center_feature_scale:
            nn.init.zeros_(self.center_feature_scale_proj_weight)
            nn.init.zeros_(self.center_feature_scale_proj_bias)

    def control(self, input: Tensor) -> Tensor:
        """Features that offsets, weights and gates are read from: (N, H, W, C) -> (N, H, W, C)."""
        return self.dw_conv(channels_first(input))

    def offsets_and_logits(self, control: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (N, H, W, G*P*2) and logits (N, H, W, G*P), for plots and studies."""
        return self.offset(control), self.mask(control)

    def forward(self, input: Tensor) -> Tensor:
        """Runs the layer: (N, H, W, C) -> (N, H, W, C).

        Raises:
            ValueError: If the input has another rank or number of channels, no pixels, or another
                dtype than the weights outside of autocast.
        """
        self._check_input(input)
        value = self.input_proj(input)
        control = self.control(input)
        output = self._sample(value, control)
        if self.center_feature_scale:
            gate = F.linear(
                control, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
            )
            gate = gate.sigmoid().repeat_interleave(self.channels // self.geometry.groups, dim=-1)
            output = output * (1 - gate) + value * gate
        return self.output_proj(output)

    def _check_input(self, input: Tensor) -> None:
        shape = tuple(input.shape)
        if len(shape) != 4 or shape[3] != self.channels or shape[1] < 1 or shape[2] < 1:
            raise ValueError(
                f"DCNv3: expected input of shape (N, H, W, {self.channels}), H and W >= 1, "
                f"got {shape}"
            )
        weight = self.input_proj.weight
        if not isinstance(weight, Tensor) or is_autocast_on(input):  # a method where quantised
            return
        if input.dtype != weight.dtype:
            raise ValueError(f"DCNv3: expected input of dtype {weight.dtype}, got {input.dtype}")

    def _sample(self, value: Tensor, control: Tensor) -> Tensor:
        # one GEMM for offsets and logits; the parameters stay apart because their names are a file
        # format
        weights: list[Tensor] = [self.offset.weight, self.mask.weight]
        biases: list[Tensor] = [self.offset.bias, self.mask.bias]
        if rows := _padding_rows(3 * self.geometry.points_per_pixel(), control):
            # what is never read may hold anything: a row again and again, for zeros cost a kernel
            weights.append(weights[0][:1].detach().expand(rows, -1))
            biases.append(biases[0][:1].detach().expand(rows))
        offset_mask = F.linear(control, torch.cat(weights), torch.cat(biases))
        return dcnv3_packed(value, offset_mask, self.geometry, softmax=True)

    def extra_repr(self) -> str:
        """Shows the sampling grid in ``print(model)``."""
        g = self.geometry
        return f"groups={g.groups}, points={g.num_points}, offset_scale={g.offset_scale}"


class DCNv3_pytorch(DCNv3):  # noqa: N801  (the original's name)
    """:class:`DCNv3` on the plain PyTorch reference, whatever kernels are installed."""

    def _sample(self, value: Tensor, control: Tensor) -> Tensor:
        return reference.forward(
            value, *self.offsets_and_logits(control), self.geometry, softmax=True
        )
