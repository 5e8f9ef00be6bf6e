"""Detectors and segmentors of OpenMMLab as files for other runtimes.

- ``detector.export_detector``, ``segmentor.export_segmentor``: one ONNX file, exact;
- ``deploy.main``: the command line of ``detection/deploy.py`` and ``segmentation/deploy.py``;
- ``mmdeploy_adapter``: what the released mmdeploy needs to run on today's PyTorch.

This module imports none of them: each needs packages of its own.
"""
