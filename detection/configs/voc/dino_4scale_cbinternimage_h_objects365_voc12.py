"""DINO, CB-InternImage-H on Pascal VOC 2012 test: AP50 97.2, by the challenge's server.

The weights are those of ``dino_4scale_cbinternimage_h_objects365_voc07.py``. The boxes of the test
images are not public, so that this number cannot be computed here, and no file for the server is
written: ``internimage detect`` leaves boxes as JSON, to be brought into its form. Where there are
annotations, of this list or another (``val_ann_file``, ``val_img_prefix``)::

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
