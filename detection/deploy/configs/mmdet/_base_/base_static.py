"""A detector of boxes whose input has one size: that of the image that is traced."""

_base_ = ["../../../../../internimage/integrations/openmmlab/export/deploy_bases/onnx_config.py"]

onnx_config = dict(output_names=["dets", "labels"])
codebase_config = dict(
    type="mmdet",
    task="ObjectDetection",
    model_type="end2end",
    # Read by mmdeploy's non-maximum suppression in the place of the model's own settings.
    post_processing=dict(
        score_threshold=0.05,
        confidence_threshold=0.005,
        iou_threshold=0.5,
        max_output_boxes_per_class=200,
        pre_top_k=5000,
        keep_top_k=100,
        background_label_id=-1,
    ),
)
