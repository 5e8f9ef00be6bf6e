"""ONNX files of models: written, linted, run in ONNX Runtime and compared before they are there.

Needs the extra ``export``: ``pip install onnx onnxscript onnxruntime``. Nothing of it is loaded
before a function is called.
"""

from internimage.export.metadata import ModelMetadata
from internimage.export.options import ExportOptions
from internimage.export.report import Check, ExportReport
from internimage.export.writing import export_onnx

__all__ = ["Check", "ExportOptions", "ExportReport", "ModelMetadata", "export_onnx"]
