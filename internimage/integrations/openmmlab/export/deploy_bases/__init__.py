"""What the deploy configs of all tasks inherit: how ONNX is written, and one file a backend."""
