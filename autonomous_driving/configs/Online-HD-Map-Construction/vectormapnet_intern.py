"""Vectorised maps on Argoverse 2, VectorMapNet on InternImage-S, 130 epochs: mAP 49.35 (author's).

61M parameters, five frames of seven images a GPU; on how many GPUs the author does not say::

    bash autonomous_driving/dist_train.sh \
        autonomous_driving/configs/Online-HD-Map-Construction/vectormapnet_intern.py 8
"""

_base_ = [
    "../_base_/models/vectormapnet_internimage_s.py",
    "../_base_/datasets/argoverse2_map.py",
    "../_base_/schedules/schedule_vectormapnet_130e.py",
    "../_base_/default_runtime.py",
]

default_hooks = dict(checkpoint=dict(save_best="vector_map/mAP", rule="greater"))
