"""LVIS v1 as in ``lvis_v1.py``, validated on the 5000 images of ``minival``."""

_base_ = "lvis_v1.py"

val_ann_file = "annotations/lvis_v1_minival.json"

val_dataloader = dict(dataset=dict(ann_file=val_ann_file))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=_base_.data_root + val_ann_file)
test_evaluator = val_evaluator
