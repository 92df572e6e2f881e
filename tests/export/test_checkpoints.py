"""Checkpoints as they are found in the wild: what loads, and the one line that says why another does not."""

import argparse
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nes2net_export.checkpoints import read_checkpoint
from nes2net_export.models.detector import Detector
from nes2net_export.random_models import RANDOM_MODELS
from nes2net_export.source import load_source
from nes2net_export.state_dict import Untold, infer_config, load_detector, official_state_dict
from nes2net_runtime.errors import CheckpointError


@pytest.fixture
def xlsr(committed_goldens):
    """A golden of the ITW family, whose keys do not tell the attention heads."""
    return committed_goldens.entries[0]


@pytest.fixture
def state(committed_goldens, xlsr) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(str(committed_goldens.checkpoint(xlsr))).state)


def load(state, golden) -> Detector:
    untold = Untold(golden["ssl"]["heads"], golden["backend"]["dilation"])
    return load_detector(state, infer_config(state, untold))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda s: s, id="plain"),
        pytest.param(lambda s: {f"module.{k}": v for k, v in s.items()}, id="DataParallel"),
        pytest.param(lambda s: {"model_state_dict": s, "epoch": 3}, id="resume file"),
        pytest.param(
            lambda s: {"eer": np.float64(2.5), "state_dict": {f"module.{k}": v for k, v in s.items()}},
            id="resume file with a numpy scalar, DataParallel",
        ),
        pytest.param(lambda s: {k: v.half() for k, v in s.items()}, id="half precision"),
    ],
)
def test_what_loads(tmp_path: Path, state, xlsr, wrap) -> None:
    torch.save(wrap(state), tmp_path / "model.pth")
    detector = load(read_checkpoint(str(tmp_path / "model.pth")).state, xlsr)
    assert all(tensor.dtype == torch.float32 for tensor in detector.parameters())


def test_safetensors_metadata_tells_the_attention_heads(tmp_path: Path, state) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state, path, metadata={"attention_heads": "4"})
    assert load_source(str(path), Untold()).detector.config.attention_heads == 4
    assert load_source(str(path), Untold(attention_heads=8)).detector.config.attention_heads == 8


def html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Sign in to download</body></html>")


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def pickled_object(path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1e-4), "model_state_dict": {}}, path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (html, "an HTML page"),
        (lfs, "Git LFS pointer"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(4096)), "not a PyTorch checkpoint"),
        (lambda path: path.mkdir(), "a folder"),
        (pickled_object, "argparse.Namespace"),
        (lambda path: torch.save([1, 2], path), "holds a list, not a state dict"),
        (lambda path: torch.save({"lr": 0.1}, path), "'lr' is no tensor"),
        (lambda path: torch.save({"fc.weight": torch.zeros(1)}, path), "not a Nes2Net detector"),
    ],
    ids=["html", "lfs", "empty", "bytes", "folder", "object", "list", "no tensors", "other model"],
)
def test_not_a_checkpoint(tmp_path: Path, make, reason: str) -> None:
    path = tmp_path / "model.pth"
    make(path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_source(str(path), Untold())
    assert "model.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cut_short(tmp_path: Path, committed_goldens) -> None:
    for golden in committed_goldens.entries:
        source = committed_goldens.checkpoint(golden)
        path = tmp_path / source.name
        path.write_bytes(source.read_bytes()[:-1000])
        with pytest.raises(CheckpointError, match="cut short"):
            load_source(str(path), Untold())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        load_source(str(tmp_path / "none.pth"), Untold())


def test_missing_unknown_and_misshapen_keys_are_all_named(state, xlsr) -> None:
    missing, misshapen = "Nested_Res2Net_TDNN.fc.bias", "Nested_Res2Net_TDNN.bn.weight"
    del state[missing]
    state["ssl_model.extra"] = torch.zeros(1)
    state[misshapen] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        load(state, xlsr)
    text = str(caught.value)
    assert f"1 keys missing: {missing}" in text
    assert "1 keys unknown: ssl_model.extra" in text
    assert f"{misshapen} is [7], expected [{xlsr['ssl']['embed_dim']}]" in text


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("bns.0.weight", torch.tensor(0.0), r"bns\.0\.weight is \[\]"),
        ("bns.0.weight", torch.zeros(0), r"bns\.0\.weight is \[0\]"),
        ("bns.0.weight", torch.zeros(1000), "does not divide"),
        ("fc.weight", torch.zeros(3, 64), "3 logits"),
        ("fc.bias", torch.zeros(2, dtype=torch.complex64), "not dense floating-point"),
        ("fc.bias", torch.zeros(2, dtype=torch.int8), "not dense floating-point"),
        ("fc.bias", torch.zeros(2).to_sparse(), "not dense floating-point"),
        ("fc.bias", torch.full((2,), 1e300, dtype=torch.float64), "NaN or infinity"),
        ("bn.running_var", -torch.ones(64), "variances are negative"),
        ("Build_in_Res2Nets.0.weighted_sum.0", torch.ones(2, 1, 1, 1), r"weighted_sum\.0 is"),
    ],
)
def test_damaged_tensors(state, xlsr, key: str, value: torch.Tensor, reason: str) -> None:
    state[f"Nested_Res2Net_TDNN.{key}"] = value
    with pytest.raises(CheckpointError, match=reason):
        load(state, xlsr)


@pytest.mark.parametrize("heads", ["x", "0", "-4", "4.0", ""])
def test_metadata_that_is_no_number_of_heads(tmp_path: Path, state, heads: str) -> None:
    path = tmp_path / "model.SAFETENSORS"
    save_file(
        {key: tensor.clone().contiguous() for key, tensor in state.items()}, path, {"attention_heads": heads}
    )
    with pytest.raises(CheckpointError, match="attention_heads"):
        load_source(str(path), Untold())


def test_two_sets_of_weights_in_one_file(state, xlsr, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({**state, **{f"module.{key}": tensor * 0 for key, tensor in state.items()}}, path)
    with pytest.raises(CheckpointError, match=r"module\."):
        load_source(str(path), Untold(attention_heads=xlsr["ssl"]["heads"]))


def test_an_empty_name_is_not_the_demo_detector() -> None:
    with pytest.raises(CheckpointError, match="empty"):
        load_source("", Untold())


def test_nan_weights(state, xlsr) -> None:
    state["Nested_Res2Net_TDNN.fc.bias"][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"NaN or infinity: Nested_Res2Net_TDNN\.fc\.bias"):
        load(state, xlsr)


def test_every_deleted_key_is_an_error_unless_it_is_unused(state, xlsr) -> None:
    """Nothing is filled in silently: a detector missing any used tensor must not load."""
    unused = ("mask_emb", "quantizer.", "project_q.", "final_proj.", "num_batches_tracked")
    for key in state:
        rest = {k: v for k, v in state.items() if k != key}
        if any(part in key for part in unused):
            load(rest, xlsr)
        else:
            with pytest.raises(CheckpointError) as caught:
                load(rest, xlsr)
            assert key in str(caught.value)


def test_heads_that_do_not_fit(state) -> None:
    with pytest.raises(CheckpointError, match="--attention-heads"):
        infer_config(state, Untold(attention_heads=7))


def test_official_state_dict_is_the_inverse_of_loading(goldens) -> None:
    for golden in goldens.entries:
        state = read_checkpoint(str(goldens.checkpoint(golden))).state
        detector = load_detector(state, infer_config(state, Untold(**goldens.untold(golden))))
        again = load_detector(official_state_dict(detector), detector.config)
        for (name, a), b in zip(detector.state_dict().items(), again.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize(
    ("listing", "name"),
    [("xlsr300m_nes2net_x_mean", "xlsr-300m"), ("wavlm_large_sea_nes2net_x_mean", "wavlm-large")],
)
def test_random_models_have_the_official_full_size_shapes(goldens, listing: str, name: str) -> None:
    path = goldens.folder / "state_dict_keys" / f"{listing}.txt"
    if not path.exists():
        pytest.skip("the lists of full-size keys are beside the project only")
    rows = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    official = {key: tuple(map(int, shape.split(","))) for key, shape, _, use in rows if use == "used"}
    with torch.device("meta"):
        detector = Detector(RANDOM_MODELS[name])
    ours = {key: tuple(tensor.shape) for key, tensor in official_state_dict(detector).items()}
    assert ours == official
    state = {key: torch.empty(shape, device="meta") for key, shape in official.items()}
    assert infer_config(state) == RANDOM_MODELS[name]


def test_hub_that_cannot_be_reached_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match="can't be reached"):
        load_source("hf:owner/repo/model.pth", Untold())
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("name", ["hf:", "hf:owner", "hf:owner/"])
def test_hub_names_need_an_owner_and_a_repository(name: str) -> None:
    with pytest.raises(CheckpointError, match="OWNER/REPO"):
        load_source(name, Untold())


def test_unknown_random_model_names_those_there_are() -> None:
    with pytest.raises(CheckpointError, match="random:xlsr-300m, random:wavlm-large"):
        load_source("random:gpt", Untold())
