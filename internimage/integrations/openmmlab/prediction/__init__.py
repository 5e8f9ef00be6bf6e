"""Prediction with the models of OpenMMLab: images, folders and videos in, answers on disk out.

- ``detector.build_detector``, ``segmentor.build_segmentor``: a checkpoint and its config together;
- ``detect_files``, ``segment_files``: what they find in files, pictures and JSON.

This module imports none of them: a detector needs mmdet, a segmentor mmseg.
"""
