"""Mask2Former's parts that torch.export cannot follow as mmdet writes them.

mmdet keeps the sizes of the maps in tensors, and finds positions by adding up a mask of nothing.

Shape legend: N batch, E channels, H W of a map, V positions of all maps of the encoder together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.layers import MSDeformAttnPixelDecoder, SinePositionalEncoding
from torch import Tensor, nn

from internimage.integrations.openmmlab.export.deformable_attention import (
    pixel_centres,
    replace_attention,
)


class TracedEncoding(nn.Module):
    """mmdet's ``SinePositionalEncoding`` of maps without padding.

    Args:
        encoding: whose settings it takes.
    """

    def __init__(self, encoding: SinePositionalEncoding) -> None:
        super().__init__()
        self.encoding = encoding

    def forward(self, mask: Tensor) -> Tensor:
        """Return the encoding (N, E, H, W) of positions; only the size of ``mask`` matters.

        Args:
            mask: (N, H, W).
        """
        return self.encoding(None, input=mask[:, None])  # by arange, without a sum over the mask


class TracedPixelDecoder(nn.Module):
    """mmdet's ``MSDeformAttnPixelDecoder`` with the sizes of the maps as numbers.

    Args:
        decoder: whose parts it takes; its attention has been replaced.
    """

    def __init__(self, decoder: MSDeformAttnPixelDecoder) -> None:
        super().__init__()
        self.input_convs = decoder.input_convs
        self.encoder = decoder.encoder
        self.encoding = TracedEncoding(decoder.postional_encoding)  # mmdet's spelling
        self.level_encoding = decoder.level_encoding
        self.lateral_convs = decoder.lateral_convs
        self.output_convs = decoder.output_convs
        self.mask_feature = decoder.mask_feature
        self.num_outs = decoder.num_outs

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the map of the masks (N, E, H, W), the largest, and the maps of the decoder.

        Args:
            feats: the backbone's maps (N, C, H, W), the largest first.
        """
        count = len(self.input_convs)
        # The smallest first: so are input_convs, the levels' encodings, and what comes out.
        encoded = list(reversed(feats[-count:]))
        sizes = [(x.shape[2], x.shape[3]) for x in encoded]
        maps = [conv(x) for conv, x in zip(self.input_convs, encoded, strict=True)]
        places = [
            # (E, 1, 1) + (N, E, H, W)
            self.level_encoding.weight[level][:, None, None] + self.encoding(x[:, 0]).to(x.dtype)
            for level, x in enumerate(maps)
        ]
        memory = self._encode(_in_line(maps), _in_line(places), sizes)  # (N, V, E)
        parts = memory.split([height * width for height, width in sizes], dim=1)
        # (N, H W, E) -> (N, E, H, W)
        found = [part.mT.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
        # What the encoder does not look at, the map of stride 4, gets its part as in an FPN.
        laterals = zip(reversed(feats[:-count]), self.lateral_convs, self.output_convs, strict=True)
        for x, lateral, output in laterals:
            x = lateral(x)
            larger = F.interpolate(
                found[-1], size=x.shape[2:], mode="bilinear", align_corners=False
            )
            found.append(output(x + larger))
        # The decoder looks at the smallest maps in turns; masks are drawn on the largest.
        return self.mask_feature(found[-1]), found[: self.num_outs]

    def _encode(self, query: Tensor, places: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Return all maps behind one another (N, V, E) after the encoder.

        Args:
            query: (N, V, E).
            places: encodings of the positions, (N, V, E).
            sizes: (H, W) of each map.
        """
        # (V, 2) -> (N, V, L, 2): nothing is padded, so that a place is the same share of every map.
        centres = torch.cat([centres_of(height, width) for height, width in sizes])
        references = centres[None, :, None].expand(query.shape[0], -1, len(sizes), -1)
        arguments: dict[str, Any] = {
            "query_pos": places,
            "key_padding_mask": None,  # mmdet's has no true entry
            "spatial_shapes": sizes,
            "reference_points": references,
        }
        for layer in self.encoder.layers:
            query = layer(query=query, **arguments)
        return query


def replace_mask2former(model: nn.Module) -> None:
    """Put traced parts in the place of mmdet's in a model with a Mask2Former, in place."""
    # The whole decoder first: it takes its encoding along, wrapped, and what is left of mmdet's
    # encodings after that is the head's own.
    replace_attention(model)
    for kind, traced in (
        (MSDeformAttnPixelDecoder, TracedPixelDecoder),
        (SinePositionalEncoding, TracedEncoding),
    ):
        for name, module in list(model.named_modules()):
            parent, _, child = name.rpartition(".")
            owner = model.get_submodule(parent)
            if isinstance(module, kind) and not isinstance(owner, TracedEncoding):
                setattr(owner, child, traced(module))


def centres_of(height: int, width: int) -> Tensor:
    """Return x and y of the centres of a map's cells, (H W, 2), 0-1, row by row."""
    y, x = pixel_centres(height, width)
    return torch.stack([x[0] / width, y[0] / height], dim=-1)


def _in_line(maps: Sequence[Tensor]) -> Tensor:
    """Return maps (N, E, H, W) behind one another, (N, V, E)."""
    return torch.cat([x.flatten(2).mT for x in maps], dim=1)
