"""Our torch modules against the official code's numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nes2net_export.checkpoints import read_checkpoint
from nes2net_export.keys import key_table
from nes2net_export.models.context import relative_buckets
from nes2net_export.models.detector import Detector
from nes2net_export.state_dict import Untold, infer_config, load_detector
from nes2net_runtime.audio import normalize


def load(goldens, golden) -> Detector:
    state = read_checkpoint(str(goldens.checkpoint(golden))).state
    return load_detector(state, infer_config(state, Untold(**goldens.untold(golden))))


def test_features_pooled_and_logits_of_every_golden(goldens, golden) -> None:
    detector = load(goldens, golden)
    expected = goldens.outputs(golden)
    for name, waveform in goldens.waveforms.items():
        if golden["ssl"]["normalize"]:
            waveform = normalize(waveform)
        with torch.no_grad():
            features = detector.context(detector.encoder(torch.from_numpy(waveform)))
            pooled = detector.backend.pool(features)
            actual = {"features": features, "pooled": pooled, "logits": detector.backend(features)}
        assert features.shape[1] == golden["frames"][name]
        for array, tensor in actual.items():
            if (key := f"{name}.{array}") in expected:
                error = np.abs(tensor.numpy() - expected[key]).max()
                assert error <= golden["tolerance"][array], f"{key}: {error}"


def test_hidden_states_of_every_golden(goldens, golden) -> None:
    if not golden["hidden_stored"]:
        pytest.skip("this golden stores no hidden states")
    detector = load(goldens, golden)
    expected = goldens.outputs(golden)
    for name in ("w400", "w16000"):
        waveform = goldens.waveforms[name]
        if golden["ssl"]["normalize"]:
            waveform = normalize(waveform)
        with torch.no_grad():
            frames = detector.encoder(torch.from_numpy(waveform))
            states = torch.stack(detector.context.network(frames))
        conv = np.abs(frames.transpose(1, 2).numpy() - expected[f"{name}.conv"]).max()
        hidden = np.abs(states.numpy() - expected[f"{name}.hidden"]).max()
        assert conv <= golden["tolerance"]["conv"]
        assert hidden <= golden["tolerance"]["hidden"]


def test_double_precision_agrees_with_the_exact_twin(goldens, golden) -> None:
    """Pooling by ASTP loses digits in float32; in float64 the formula itself shows."""
    detector = load(goldens, golden).double()
    expected = goldens.outputs(golden)
    for name, waveform in goldens.waveforms.items():
        x = waveform.astype(np.float64)
        if golden["ssl"]["normalize"]:
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        with torch.no_grad():
            logits = detector(torch.from_numpy(x)).numpy()
        twin = expected[f"{name}.logits64"]
        # the checkpoint's folded weight norm is float32, the twin's is float64
        assert np.abs(logits - twin).max() <= 1e-5 * max(1, np.abs(twin).max())


def test_relative_position_buckets_are_wavlms(committed_goldens) -> None:
    with np.load(committed_goldens.folder / "relpos_buckets.npz") as file:
        distance, buckets = file["distance"], file["bucket"]
    table = relative_buckets(320, 800).numpy()
    np.testing.assert_array_equal(table[np.clip(distance, -800, 800) + 800], buckets)


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(400, 4000))
def test_frames_are_one_in_320_samples_from_400_on(committed_goldens, samples: int) -> None:
    detector = load(committed_goldens, committed_goldens.entries[0])
    with torch.no_grad():
        assert detector.encoder(torch.zeros(1, samples)).shape[1] == (samples - 400) // 320 + 1


def test_key_table_names_every_parameter_once(goldens, golden) -> None:
    detector = load(goldens, golden)
    table = key_table(detector.config)
    ours = [name for name in detector.state_dict() if not name.endswith("num_batches_tracked")]
    assert sorted(table.values()) == sorted(ours)
