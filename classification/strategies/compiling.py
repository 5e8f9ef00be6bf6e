"""torch.compile where weights come and go: block by block."""

import torch

from internimage import InternImage
from internimage.blocks import InternImageBlock

# Graphs of one block's code: four stages, training and evaluation, the last batch of an evaluation.
MAX_GRAPHS = 32


def compile_blocks(model: InternImage) -> None:
    """Compiles the inside of each block, in place.

    What fetches a block's weights and gives them back stays outside. A graph is of one size:
    inductor of PyTorch 2.13 cannot compile a block for any height and width at once.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MAX_GRAPHS)
    for module in model.modules():
        if isinstance(module, InternImageBlock):
            module.forward = torch.compile(  # type: ignore[method-assign]
                module.forward, dynamic=False
            )
