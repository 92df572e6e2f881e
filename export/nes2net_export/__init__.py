"""Checkpoints of Nes2Net detectors -> verified ONNX bundles."""
