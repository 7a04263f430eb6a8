"""Frames to visual tokens: PyTorch, ONNX Runtime, TensorRT, and export."""
