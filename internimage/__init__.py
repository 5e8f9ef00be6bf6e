"""InternImage: a vision backbone built on deformable convolution v3 (Wang et al., CVPR 2023).

    import internimage
    model = internimage.create_model("internimage_t", num_classes=10)

What needs more than PyTorch, Pillow, safetensors and huggingface_hub lives in
``internimage.integrations``. ``internimage.runtime`` runs exported models and needs no PyTorch:
therefore nothing is imported here before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from internimage.checkpoint import LoadReport, load_checkpoint, read_checkpoint, save_checkpoint
    from internimage.factory import create_model, list_models
    from internimage.metadata import CheckpointMetadata, Preprocessing
    from internimage.metaformer import InternImageMetaFormer
    from internimage.model import InternImage
    from internimage.variants import Variant, get_variant, list_variants

__version__ = "0.1.0"

__all__ = [
    "CheckpointMetadata",
    "InternImage",
    "InternImageMetaFormer",
    "LoadReport",
    "Preprocessing",
    "Variant",
    "create_model",
    "get_variant",
    "list_models",
    "list_variants",
    "load_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]

_HOMES = {
    "checkpoint": ("LoadReport", "load_checkpoint", "read_checkpoint", "save_checkpoint"),
    "factory": ("create_model", "list_models"),
    "metadata": ("CheckpointMetadata", "Preprocessing"),
    "metaformer": ("InternImageMetaFormer",),
    "model": ("InternImage",),
    "variants": ("Variant", "get_variant", "list_variants"),
}
"""The modules of the public names."""

if not TYPE_CHECKING:  # to a type checker any misspelt name would be there

    def __getattr__(name: str) -> object:
        """Return a public name, or a module that has some, imported now (PEP 562)."""
        if name in _HOMES:
            return importlib.import_module(f"internimage.{name}")
        for home, names in _HOMES.items():
            if name in names:
                value = getattr(importlib.import_module(f"internimage.{home}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'internimage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
