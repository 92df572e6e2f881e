"""TensorRT engines from a bundle's graphs. Import without torch, and without TensorRT until one is built."""
