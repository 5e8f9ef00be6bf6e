"""DINO, CB-InternImage-H on Pascal VOC 2012 test: AP50 97.2, by the challenge's server.

The weights are those of ``dino_4scale_cbinternimage_h_objects365_voc07.py``. The boxes of the test
images are not public: evaluate where they are, or give another list as ``test_dataloader``::

    config=detection/configs/voc/dino_4scale_cbinternimage_h_objects365_voc12.py
    python detection/test.py $config dino_4scale_cbinternimage_h_objects365_voc0712.pth
"""

_base_ = "dino_4scale_cbinternimage_h_objects365_voc07.py"

test_dataloader = dict(
    dataset=dict(
        ann_file="VOC2012test/ImageSets/Main/test.txt",
        data_prefix=dict(sub_data_root="VOC2012test/"),
    )
)
# Later years than 2007 take the area under the curve.
test_evaluator = dict(eval_mode="area")
