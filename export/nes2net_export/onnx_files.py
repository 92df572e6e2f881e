"""ONNX models in files: large weights beside them, where they can be mapped into memory."""

from pathlib import Path

import onnx
from onnx.external_data_helper import load_external_data_for_model

EXTERNAL_BYTES = 1 << 24  # larger weights go to FILE.data


def save(model: onnx.ModelProto, path: Path, check: bool = True) -> None:
    """Write a model, which is left as it was; large weights go beside it, as FILE.data."""
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weights > EXTERNAL_BYTES:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
        (path.parent / f"{path.name}.data").chmod(path.stat().st_mode)  # onnx makes it private
        load_external_data_for_model(model, str(path.parent))  # onnx leaves the model without its weights
    else:
        onnx.save(model, path)
    if check:
        onnx.checker.check_model(path, full_check=True)
