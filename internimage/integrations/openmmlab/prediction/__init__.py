"""Prediction with the models of OpenMMLab: images, folders and videos in, answers on disk out.

- ``build_detector``: a checkpoint and its config put together, in :mod:`.detector`;
- ``detect_files``: what a detector finds in files, in :mod:`.detect_files`.

This module imports neither: a detector needs mmdet.
"""
