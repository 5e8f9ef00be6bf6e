"""The version, and the number of the interface between Python and the compiled extension."""

__version__ = "0.1.0"

INTERFACE = 2
"""To be raised with every change of a schema in ops.py or of a C entry in csrc/cpu/dispatch.cpp.

From the first release on, a change of a backward operator needs another name or schema of the
forward one too: PyTorch's cache of compiled graphs is keyed by the forward pass alone.
"""
