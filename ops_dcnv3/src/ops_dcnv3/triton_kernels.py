# mypy: disable-error-code="no-untyped-def"
"""DCNv3 in Triton: kernels for GPUs that the compiled ones do not serve.

The maths and the shape legend are those of :mod:`ops_dcnv3.reference`. A program owns a block of M
output pixels of one group, with the group's channels side by side: (M, D) tiles. It walks through
the sampling points one after the other. :mod:`ops_dcnv3.triton_ops` launches the kernels; nothing
else imports this file, since Triton may be absent.

Note [Specialisation]
    A kernel is compiled once for each combination of dtypes and ``tl.constexpr`` arguments. The
    geometry is among them, of which a model has one or two; the sizes of images and batches are
    not, so that all of them run the same code.

Note [Indices]
    ``index_t`` is int64 only where a tensor has 2^31 elements or more: 64-bit arithmetic would be
    several instructions for each address.
"""

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

_SIZES = ["num_pixels", "height", "width", "out_height", "out_width"]


@triton.jit
def _columns(group, depth, block_depth: tl.constexpr):
    """Channels of a group (1, D), and which of them there are."""
    channel = tl.arange(0, block_depth)[None, :]
    return group * depth + channel, channel < depth


@triton.jit
def _centers(pixel, out_height, out_width, geometry: tl.constexpr, acc_t: tl.constexpr):
    """The image of an output pixel, and x and y of the middle of its kernel in input pixels."""
    row = pixel // out_width
    half_w = geometry.dilation_w * (geometry.kernel_w - 1) // 2
    half_h = geometry.dilation_h * (geometry.kernel_h - 1) // 2
    x = (pixel % out_width) * geometry.stride_w - geometry.padding_w + half_w
    y = (row % out_height) * geometry.stride_h - geometry.padding_h + half_h
    return row // out_height, x.to(acc_t), y.to(acc_t)


@triton.jit
def _grid(point, geometry: tl.constexpr):
    """The point's place in the undeformed grid, (x, y) from the middle of the kernel."""
    kernel_h, kernel_w = geometry.kernel_h, geometry.kernel_w
    index = point
    if geometry.remove_center:
        index = tl.where(point >= kernel_w // 2 * kernel_h + kernel_h // 2, point + 1, point)
    half_w = geometry.dilation_w * (kernel_w - 1) // 2
    half_h = geometry.dilation_h * (kernel_h - 1) // 2
    return (
        index // kernel_h * geometry.dilation_w - half_w,
        index % kernel_h * geometry.dilation_h - half_h,
    )


@triton.jit
def _softmax_of_row(
    mask, exists, num_points: tl.constexpr, block_points: tl.constexpr, acc_t: tl.constexpr
):
    """Highest logit (M), 1 / sum of powers (M), weights (M, P); ``mask`` (M) points to logits."""
    point = tl.arange(0, block_points)[None, :]
    valid = point < num_points
    logits = tl.load(mask[:, None] + point, mask=exists[:, None] & valid, other=0.0).to(acc_t)
    highest = tl.max(tl.where(valid, logits, -float("inf")), axis=1)
    powers = tl.where(valid, tl.exp(logits - highest[:, None]), 0.0)
    inverse_sum = 1 / tl.sum(powers, axis=1)
    return highest, inverse_sum, powers * inverse_sum[:, None]


@triton.jit
def _sample(
    offset,  # (M) pointers to the offsets of a pixel and group
    mask,  # (M) pointers to its weights
    exists,
    highest,  # (M) terms of the softmax; anything without one
    inverse_sum,
    center_x,
    center_y,
    point,
    height,
    width,
    geometry: tl.constexpr,
    softmax: tl.constexpr,
    acc_t: tl.constexpr,
):
    """Where one point of each pixel reads, all (M): the maths of the reference.

    Returns:
        The point's weight; whether it contributes, see Note [Borders] of the reference; its upper
        left corner (x, y); its distances from there (x, y); whether the corners (y0 x0), (y0 x1),
        (y1 x0), (y1 x1) may be read; their bilinear weights.
    """
    weight = tl.load(mask + point, mask=exists, other=0.0).to(acc_t)
    if softmax:
        weight = tl.exp(weight - highest) * inverse_sum
    delta_x = tl.load(offset + 2 * point, mask=exists, other=0.0).to(acc_t)
    delta_y = tl.load(offset + 2 * point + 1, mask=exists, other=0.0).to(acc_t)
    grid_x, grid_y = _grid(point, geometry)
    px = center_x + geometry.offset_scale * (delta_x + grid_x)
    py = center_y + geometry.offset_scale * (delta_y + grid_y)
    # every comparison fails where a position is NaN
    contributes = exists & (px > -1) & (py > -1) & (px < width) & (py < height)
    px = tl.where(contributes, px, 0.0)
    py = tl.where(contributes, py, 0.0)
    left, top = tl.floor(px), tl.floor(py)
    frac_x, frac_y = px - left, py - top
    above, before = 1 - frac_y, 1 - frac_x
    bilinear = above * before, above * frac_x, frac_y * before, frac_y * frac_x
    left, top = left.to(tl.int32), top.to(tl.int32)
    upper, lower = contributes & (top >= 0), contributes & (top + 1 < height)
    first, last = left >= 0, left + 1 < width
    inside = upper & first, upper & last, lower & first, lower & last
    return weight, contributes, (left, top), (frac_x, frac_y), inside, bilinear


@triton.jit(do_not_specialize=_SIZES)
def forward_kernel(
    input,  # (N, H, W, C), contiguous
    offset,  # (N, Ho, Wo, G*P*2), offset_stride elements from pixel to pixel
    mask,  # (N, Ho, Wo, G*P), mask_stride elements from pixel to pixel
    output,  # (N, Ho, Wo, C), contiguous
    num_pixels,  # N*Ho*Wo
    height,
    width,
    out_height,
    out_width,
    groups,
    depth,  # D
    offset_stride,
    mask_stride,
    geometry: tl.constexpr,  # reference.Geometry
    softmax: tl.constexpr,
    block_pixels: tl.constexpr,  # M
    block_points: tl.constexpr,  # P, and D below, rounded up to powers of two
    block_depth: tl.constexpr,
    acc_t: tl.constexpr,
    index_t: tl.constexpr,
):
    """The output; a program owns a block of pixels and a group."""
    group = tl.program_id(0) % groups
    pixel = (tl.program_id(0) // groups).to(index_t) * block_pixels + tl.arange(0, block_pixels)
    exists = pixel < num_pixels
    image, center_x, center_y = _centers(pixel, out_height, out_width, geometry, acc_t)
    channels = groups * depth
    column, in_depth = _columns(group, depth, block_depth)
    offset += pixel * offset_stride + group * (2 * geometry.num_points)
    mask += pixel * mask_stride + group * geometry.num_points
    highest, inverse_sum = 0.0, 0.0
    if softmax:
        highest, inverse_sum, weights = _softmax_of_row(
            mask, exists, geometry.num_points, block_points, acc_t
        )

    total = tl.zeros([block_pixels, block_depth], dtype=acc_t)
    for point in range(geometry.num_points):
        weight, contributes, corner, frac, inside, bilinear = _sample(
            offset, mask, exists, highest, inverse_sum, center_x, center_y, point, height, width,
            geometry, softmax, acc_t,
        )  # fmt: skip
        for k in tl.static_range(4):
            place = (image * height + corner[1] + k // 2) * width + corner[0] + k % 2
            value = tl.load(
                input + place[:, None] * channels + column,
                mask=inside[k][:, None] & in_depth,
                other=0.0,
            ).to(acc_t)
            # where(): a weight of NaN must not spoil what no corner was read for
            share = tl.where(inside[k], bilinear[k] * weight, 0.0)
            total += share[:, None] * value
    tl.store(
        output + pixel[:, None] * channels + column,
        total.to(output.dtype.element_ty),
        mask=exists[:, None] & in_depth,
    )


@triton.jit(do_not_specialize=_SIZES)
def backward_kernel(
    grad_output,  # (N, Ho, Wo, C), contiguous
    input,
    offset,
    mask,
    grad_input,  # (N, H, W, C) of acc_t, zeros; untouched without scatter
    grad_offset,  # (N, Ho, Wo, G*P*2), grad_offset_stride elements from pixel to pixel
    grad_mask,  # (N, Ho, Wo, G*P), grad_mask_stride elements from pixel to pixel
    num_pixels,
    height,
    width,
    out_height,
    out_width,
    groups,
    depth,
    offset_stride,
    mask_stride,
    grad_offset_stride,
    grad_mask_stride,
    geometry: tl.constexpr,
    softmax: tl.constexpr,
    scatter: tl.constexpr,  # whether to add the gradient of the input here, by atomics
    block_pixels: tl.constexpr,
    block_points: tl.constexpr,
    block_depth: tl.constexpr,
    acc_t: tl.constexpr,
    index_t: tl.constexpr,
):
    """The gradients; a program owns a block of pixels and a group, as in the forward pass."""
    group = tl.program_id(0) % groups
    pixel = (tl.program_id(0) // groups).to(index_t) * block_pixels + tl.arange(0, block_pixels)
    exists = pixel < num_pixels
    image, center_x, center_y = _centers(pixel, out_height, out_width, geometry, acc_t)
    channels = groups * depth
    column, in_depth = _columns(group, depth, block_depth)
    grad = tl.load(
        grad_output + pixel[:, None] * channels + column,
        mask=exists[:, None] & in_depth,
        other=0.0,
    ).to(acc_t)
    offset += pixel * offset_stride + group * (2 * geometry.num_points)
    mask += pixel * mask_stride + group * geometry.num_points
    highest, inverse_sum = 0.0, 0.0
    if softmax:
        highest, inverse_sum, weights = _softmax_of_row(
            mask, exists, geometry.num_points, block_points, acc_t
        )

    # one column a point, so that whole rows are written in the end
    slot = tl.arange(0, block_points)[None, :]
    grad_x = tl.zeros([block_pixels, block_points], dtype=acc_t)
    grad_y = tl.zeros([block_pixels, block_points], dtype=acc_t)
    grad_weight = tl.zeros([block_pixels, block_points], dtype=acc_t)
    for point in range(geometry.num_points):
        weight, contributes, corner, frac, inside, bilinear = _sample(
            offset, mask, exists, highest, inverse_sum, center_x, center_y, point, height, width,
            geometry, softmax, acc_t,
        )  # fmt: skip
        # sums over k, the corners, of s_k = <gradient, value at k> times a derivative of k's weight
        along_x = tl.zeros([block_pixels], dtype=acc_t)
        along_y = tl.zeros([block_pixels], dtype=acc_t)
        product = tl.zeros([block_pixels], dtype=acc_t)
        for k in tl.static_range(4):
            place = (image * height + corner[1] + k // 2) * width + corner[0] + k % 2
            place = place[:, None] * channels + column
            valid = inside[k][:, None] & in_depth
            value = tl.load(input + place, mask=valid, other=0.0).to(acc_t)
            dot = tl.sum(grad * value, axis=1)
            product += bilinear[k] * dot
            along_x += (k % 2 * 2 - 1) * (frac[1] if k // 2 else 1 - frac[1]) * dot
            along_y += (k // 2 * 2 - 1) * (frac[0] if k % 2 else 1 - frac[0]) * dot
            if scatter:
                share = (bilinear[k] * weight)[:, None] * grad
                tl.atomic_add(grad_input + place, share, mask=valid, sem="relaxed")
        here = (slot == point) & contributes[:, None]  # zero for what contributes nothing
        scale = geometry.offset_scale * weight
        grad_x = tl.where(here, (scale * along_x)[:, None], grad_x)
        grad_y = tl.where(here, (scale * along_y)[:, None], grad_y)
        grad_weight = tl.where(here, product[:, None], grad_weight)

    valid = exists[:, None] & (slot < geometry.num_points)
    if softmax:
        # again, since the weights of all points need not stay in registers meanwhile
        highest, inverse_sum, weights = _softmax_of_row(
            mask, exists, geometry.num_points, block_points, acc_t
        )
        weights = tl.where(valid, weights, 0.0)
        mean = tl.sum(weights * grad_weight, axis=1)
        grad_weight = weights * (grad_weight - mean[:, None])
    grad_mask += (pixel * grad_mask_stride + group * geometry.num_points)[:, None]
    tl.store(grad_mask + slot, grad_weight.to(grad_mask.dtype.element_ty), mask=valid)
    pair = tl.arange(0, 2 * block_points)[None, :]
    grad_offset += (pixel * grad_offset_stride + group * (2 * geometry.num_points))[:, None]
    tl.store(
        grad_offset + pair,
        tl.interleave(grad_x, grad_y).to(grad_offset.dtype.element_ty),
        mask=exists[:, None] & (pair < 2 * geometry.num_points),
    )


@triton.jit(do_not_specialize=[*_SIZES, "batch", "shares"])
def scatter_kernel(
    grad_output,
    offset,
    mask,
    partial,  # (shares, N, H, W, C) of acc_t, zeros
    batch,
    height,
    width,
    out_height,
    out_width,
    groups,
    depth,
    offset_stride,
    mask_stride,
    shares,
    geometry: tl.constexpr,
    softmax: tl.constexpr,
    block_points: tl.constexpr,
    block_depth: tl.constexpr,
    acc_t: tl.constexpr,
    index_t: tl.constexpr,
):
    """The gradient of the input, added in a fixed order; the deterministic way.

    A program owns a group of one image and a share of its output rows, and adds one corner of one
    point of one pixel after the other to a map of its own.
    """
    group = tl.program_id(0) % groups
    image = (tl.program_id(0) // groups % batch).to(index_t)
    share = tl.program_id(0) // groups // batch
    channels = groups * depth
    column, in_depth = _columns(group, depth, block_depth)
    partial += (share * batch + image).to(tl.int64) * height * width * channels
    first = image * out_height * out_width
    start = (share * out_height // shares).to(index_t) * out_width
    stop = ((share + 1) * out_height // shares).to(index_t) * out_width
    for number in range(start, stop):
        pixel = first + number + tl.arange(0, 1)  # a block of one, (M) = (1)
        _, center_x, center_y = _centers(pixel, out_height, out_width, geometry, acc_t)
        grad = tl.load(
            grad_output + pixel[:, None] * channels + column, mask=in_depth, other=0.0
        ).to(acc_t)
        pixel_offset = offset + pixel * offset_stride + group * (2 * geometry.num_points)
        pixel_mask = mask + pixel * mask_stride + group * geometry.num_points
        exists = pixel >= 0  # every one
        highest, inverse_sum = 0.0, 0.0
        if softmax:
            highest, inverse_sum, weights = _softmax_of_row(
                pixel_mask, exists, geometry.num_points, block_points, acc_t
            )
        for point in range(geometry.num_points):
            weight, contributes, corner, frac, inside, bilinear = _sample(
                pixel_offset, pixel_mask, exists, highest, inverse_sum, center_x, center_y, point,
                height, width, geometry, softmax, acc_t,
            )  # fmt: skip
            for k in tl.static_range(4):
                place = (corner[1].to(index_t) + k // 2) * width + corner[0] + k % 2
                place = place[:, None] * channels + column
                valid = inside[k][:, None] & in_depth
                total = tl.load(partial + place, mask=valid, other=0.0)
                total += (bilinear[k] * weight)[:, None] * grad
                tl.store(partial + place, total, mask=valid)
            tl.debug_barrier()  # what one thread wrote, another may read for the next point


@triton.jit
def probe_kernel(out):
    """Writes one number: tells whether Triton can compile and launch at all."""
    tl.store(out, 1)
