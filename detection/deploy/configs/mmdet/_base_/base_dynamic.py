"""A detector of boxes for images of any number and size."""

_base_ = ["./base_static.py"]

# Of a DINO one image a run: mmdeploy 1.3.1 takes test_cfg.max_per_img for the number of queries and
# gives the second image of a batch and all later ones the boxes of other queries.
onnx_config = dict(
    dynamic_axes=dict(
        input={0: "batch", 2: "height", 3: "width"},
        dets={0: "batch", 1: "num_dets"},
        labels={0: "batch", 1: "num_dets"},
    ),
)
