"""Values that tensors inside a bundle's graphs take on audio, and the ranges that 8 bits are to hold."""

import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nes2net_export.drift import Models
from nes2net_export.onnx_files import save
from nes2net_export.transforms import taps
from nes2net_export.transforms.graph import element_types
from nes2net_export.transforms.integer_products import Range
from nes2net_runtime.audio import Samples, normalize
from nes2net_runtime.inference.ort_sessions import cpu_session
from nes2net_runtime.manifest import Manifest, StageName
from nes2net_runtime.threads import usable_threads

CLIP = 99.99  # percentile of a window that 8 bits reach up to, and 0.01 down to; beyond, they clip


def ranges_inside(
    manifest: Manifest,
    models: Models,
    tensors: Mapping[StageName, Collection[str]],
    windows: Sequence[Samples],
) -> dict[StageName, dict[str, Range]]:
    """Least and largest value of tensors that 8 bits reach to: percentiles of each window, their means."""
    found: defaultdict[StageName, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    if any(tensors.values()):
        wanted = {stage.name: sorted(tensors.get(stage.name, ())) for stage in manifest.stages}
        for stage, values_of in inside(manifest, models, wanted, windows):
            for name, values in values_of.items():
                found[stage][name].append(np.percentile(values, (100 - CLIP, CLIP)))
    means = {s: {name: np.mean(ends, axis=0) for name, ends in found[s].items()} for s in tensors}
    return {
        s: {name: (float(low), float(high)) for name, (low, high) in of.items()} for s, of in means.items()
    }


def inside(
    manifest: Manifest, models: Models, wanted: Mapping[StageName, Iterable[str]], windows: Sequence[Samples]
) -> Iterator[tuple[StageName, dict[str, Any]]]:
    """Float tensors inside each stage, by name, for each of the windows [samples]."""
    given = [window[None] for window in windows]
    if manifest.audio.normalize == "per-window":
        given = [normalize(window) for window in given]
    with tempfile.TemporaryDirectory() as scratch:
        for stage in manifest.stages:
            types = element_types(models[stage.name])
            source, target = stage.inputs[0].name, stage.outputs[0].name
            names = [n for n in dict.fromkeys(wanted[stage.name]) if types.get(n) == onnx.TensorProto.FLOAT]
            inner = [name for name in names if name not in (source, target)]
            path = Path(scratch) / f"{stage.name}.onnx"
            save(taps.apply(models[stage.name], inner), path, check=False)  # taps have no shapes
            session = cpu_session(path, usable_threads())
            for i, window in enumerate(given):
                output, *values = session.run([target, *inner], {source: window})
                tensors = {source: window, target: output, **dict(zip(inner, values, strict=True))}
                given[i] = output
                yield stage.name, {name: tensors[name] for name in names}
            path.unlink()
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)
