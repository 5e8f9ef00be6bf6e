"""A detector of boxes whose input has one size: that of the image that is traced."""

_base_ = ["../../../../../internimage/integrations/openmmlab/export/deploy_bases/onnx_config.py"]

onnx_config = dict(output_names=["dets", "labels"])
codebase_config = dict(
    type="mmdet",
    task="ObjectDetection",
    model_type="end2end",
    # For mmdeploy's non-maximum suppression, with the original's numbers. What the model's test_cfg
    # says counts more: the score, the overlap and keep_top_k are for what it does not say.
    post_processing=dict(
        score_threshold=0.05,  # test_cfg.rpn has none, so that proposals below it are lost
        confidence_threshold=0.005,  # for YOLO alone
        iou_threshold=0.5,
        max_output_boxes_per_class=200,
        pre_top_k=5000,
        keep_top_k=100,
        background_label_id=-1,  # read by nothing in mmdeploy 1.3.1: another value warns
    ),
)
