"""ONNX Runtime, float32."""

backend_config = dict(type="onnxruntime")
