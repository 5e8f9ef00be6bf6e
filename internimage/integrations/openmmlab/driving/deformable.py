"""How the decoders of Deformable DETR begin (arXiv 2010.04159, appendix A.4)."""

from __future__ import annotations

from mmcv.ops import MultiScaleDeformableAttention
from torch import nn


def start_deformable_decoder(layers: nn.Module, references: nn.Linear) -> None:
    """Set the weights of a decoder's layers and of where its queries look.

    Each head of a deformable attention looks in a direction of its own, at first.

    Args:
        layers: all layers of the decoder.
        references: makes points of the queries' positions.
    """
    # First, because it reaches the attentions' offsets and weights too, which begin as zeros: each
    # attention sets its own again below.
    for parameter in layers.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in layers.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            module.init_weights()
    nn.init.xavier_uniform_(references.weight)
    nn.init.zeros_(references.bias)
