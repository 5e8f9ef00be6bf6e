"""Where windows stand that slide over an image."""

from __future__ import annotations


def window_spans(length: int, crop: int, stride: int) -> list[slice]:
    """Return where windows stand along one side of an image, in pixels.

    The last one ends where the image does, and overlaps its neighbour more for it. An image that
    is smaller than a window has one, of its own size.

    Args:
        length: of the image.
        crop: length of a window.
        stride: from one window to the next.
    """
    # mmseg's slide_inference() counts max(length - crop + stride - 1, 0) // stride + 1, the same.
    last = max(length - crop, 0)
    count = -(-last // stride) + 1
    starts = [min(i * stride, last) for i in range(count)]
    return [slice(start, min(start + crop, length)) for start in starts]
