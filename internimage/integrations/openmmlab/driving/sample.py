"""What a data set hands to a model and a model hands to a metric: one keyframe of a drive."""

from __future__ import annotations

from mmengine.structures import BaseDataElement


class DrivingSample(BaseDataElement):
    """One keyframe with the frames of its history: calibration, poses, truth and predictions.

    T frames (the last is the keyframe), N cameras, (X, Y, Z) voxels.

    The meta data:

    - ``token``, ``scene``, ``prev``, ``timestamp``: the frame's name, its drive, the name of the
      frame before or ``""``, and its time in microseconds;
    - ``identifier``: of OpenLane-V2 (split, segment, time), a submission's name of the frame;
    - ``cameras``, ``img_paths``: (N,) names and files of the last frame;
    - ``ego2img``: (T, N, 4, 4) float64, from metres in the ego frame of each frame to
      ``(u d, v d, d, 1)`` with u, v in pixels of the network's input;
    - ``image_shape``: (H, W) of that input in pixels, with the padding once the preprocessor has
      padded it, and ``unpadded_shape``, which it adds, without;
    - ``scale_factors``: (N, 2) float64, x and y, pixels of the input a pixel of the last frame's
      files;
    - ``ego2global``: (T, 4, 4) float64 poses;
    - ``has_prev``: (T,) bool, whether frame t continues frame t - 1 of this very sample;
    - ``can_bus``: (T, 18) float32 where the data set has it.

    The data fields are those of the tasks: ``gt_semantics`` and ``pred_semantics`` (X, Y, Z) uint8
    with ``mask_camera`` and ``mask_lidar`` (X, Y, Z) bool, ``gt_lanes`` and ``pred_lanes``,
    ``gt_polylines`` and ``pred_polylines``.
    """
