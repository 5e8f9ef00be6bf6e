"""ONNX Runtime, the network in float16; sampling positions and what follows stay in float32."""

backend_config = dict(type="onnxruntime", precision="fp16")
