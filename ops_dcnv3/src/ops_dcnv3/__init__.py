"""DCNv3, the operator of InternImage: compiled kernels and an exact reference in one PyTorch op."""

from . import extension as _extension
from ._version import __version__
from .backends import extension_info
from .ops import dcnv3, dcnv3_reference

_extension.load()

from .modules import DCNv3  # noqa: E402  (importing a module may already build layers)

__all__ = ["DCNv3", "__version__", "dcnv3", "dcnv3_reference", "extension_info"]
