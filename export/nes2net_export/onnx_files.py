"""ONNX models in files: large weights beside them, where they can be mapped into memory."""

from pathlib import Path

import onnx

EXTERNAL_BYTES = 1 << 24  # larger weights go to FILE.data


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a checked model; large weights beside it as FILE.data."""
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weights > EXTERNAL_BYTES:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
        (path.parent / f"{path.name}.data").chmod(path.stat().st_mode)  # onnx makes it private
    else:
        onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)
