"""Vision encoder backends, which turn frames into visual tokens: PyTorch, ONNX Runtime, TensorRT; and export."""
