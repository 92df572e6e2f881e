"""Graph transforms: ONNX model in, ONNX model out; one file each. Import without torch."""
