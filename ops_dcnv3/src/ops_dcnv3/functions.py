"""The original implementation's functions, on top of :func:`ops_dcnv3.dcnv3`."""

from __future__ import annotations

from torch import Tensor

from .ops import dcnv3, dcnv3_reference


class DCNv3Function:
    """The original's autograd function: ``DCNv3Function.apply(...)`` takes the same arguments."""

    @staticmethod
    def apply(
        input: Tensor,
        offset: Tensor,
        mask: Tensor,
        kernel_h: int,
        kernel_w: int,
        stride_h: int,
        stride_w: int,
        pad_h: int,
        pad_w: int,
        dilation_h: int,
        dilation_w: int,
        group: int,
        group_channels: int,
        offset_scale: float,
        im2col_step: int = 256,
        remove_center: bool = False,
    ) -> Tensor:
        """Calls :func:`ops_dcnv3.dcnv3`.

        Args:
            input: (N, H, W, C).
            offset: (N, Ho, Wo, G*P*2).
            mask: (N, Ho, Wo, G*P), normalised.
            kernel_h: K along y.
            kernel_w: K along x.
            stride_h: Stride along y.
            stride_w: Stride along x.
            pad_h: Padding along y.
            pad_w: Padding along x.
            dilation_h: Dilation along y.
            dilation_w: Dilation along x.
            group: G.
            group_channels: D; must be C / G.
            offset_scale: Multiplies the grid and the offsets.
            im2col_step: Accepted for the original's sake and ignored: any batch size runs in one
                piece.
            remove_center: Leaves out the middle point.

        Returns:
            (N, Ho, Wo, C).

        Raises:
            ValueError: As :func:`ops_dcnv3.dcnv3`, and if ``group * group_channels`` is not C.
        """
        _check_channels("DCNv3Function", input, group, group_channels)
        return dcnv3(
            input,
            offset,
            mask,
            kernel_size=(kernel_h, kernel_w),
            stride=(stride_h, stride_w),
            padding=(pad_h, pad_w),
            dilation=(dilation_h, dilation_w),
            groups=group,
            offset_scale=offset_scale,
            remove_center=bool(remove_center),
        )


def dcnv3_core_pytorch(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    group_channels: int,
    offset_scale: float,
    remove_center: bool = False,
) -> Tensor:
    """:func:`ops_dcnv3.dcnv3_reference` with the original's argument list.

    The arguments are those of :meth:`DCNv3Function.apply` without ``im2col_step``. Unlike the
    original it is exact: paddings that differ are not swapped, and float64 stays float64.
    """
    _check_channels("dcnv3_core_pytorch", input, group, group_channels)
    return dcnv3_reference(
        input,
        offset,
        mask,
        kernel_size=(kernel_h, kernel_w),
        stride=(stride_h, stride_w),
        padding=(pad_h, pad_w),
        dilation=(dilation_h, dilation_w),
        groups=group,
        offset_scale=offset_scale,
        remove_center=bool(remove_center),
    )


def _check_channels(function: str, input: Tensor, group: int, group_channels: int) -> None:
    if input.shape[-1] != group * group_channels:
        raise ValueError(
            f"{function}: expected group * group_channels = C = {input.shape[-1]}, "
            f"got {group} * {group_channels}"
        )
