"""How mmdeploy writes the ONNX file.

Opset 17: the operator as GridSample needs 16, and mmdeploy's nodes are those of before 18. The
original had 11, whose only form of the operator is a node for a plugin (``operator = "node"``).
"""

operator = "grid_sample"  # a key of ours, which mmdeploy does not look at
onnx_config = dict(
    type="onnx",
    # The next two and optimize are as the original has them, for mmdeploy's own tool; nothing here
    # reads them, and another value warns.
    export_params=True,
    keep_initializers_as_inputs=False,
    opset_version=17,
    save_file="end2end.onnx",
    input_names=["input"],
    output_names=["output"],
    input_shape=None,  # (width, height) in leaves of one size
    optimize=True,
)
