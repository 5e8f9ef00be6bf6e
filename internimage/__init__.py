"""InternImage: a vision backbone built on deformable convolution v3 (Wang et al., CVPR 2023).

    import internimage
    model = internimage.create_model("internimage_t", num_classes=10)

What needs more than PyTorch, Pillow, safetensors and huggingface_hub lives in
``internimage.integrations``.
"""

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
