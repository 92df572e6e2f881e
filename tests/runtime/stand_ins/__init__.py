"""Stand-ins for what a machine without an NVIDIA GPU lacks, at the place where it is imported or loaded.

    nvidia_driver.py         libcuda.so.1: a driver with the cards that a test names
    onnxruntime_gpu.py       the module onnxruntime as onnxruntime-gpu has it, with a plugin for TensorRT-RTX
    onnxruntime_openvino.py  the module onnxruntime with OpenVINO, as a plugin (on Intel's machines) or inside
    openvino.py              the module openvino, at a speed and with errors of choice
    tensorrt.py              the modules tensorrt and cuda.bindings.runtime

Behind all of them ONNX Runtime's CPU provider computes, so the scores that come out are real.
"""
