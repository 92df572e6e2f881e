"""The shipped demo detector, by the command that the README quotes; the corpus is beside the project only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"


def percent(result: dict) -> str:
    return f"{100 * result['eer']:.1f} %"


def test_readme_quotes_the_last_line_of_the_log_of_eval() -> None:
    last = json.loads((ROOT / "export/demo/eval.jsonl").read_text().splitlines()[-1])
    interval = "{:.1f} to {:.1f} %".format(*(100 * edge for edge in last["all"]["interval"]))
    counts = f"| {last['all']['bonafide']} | {last['all']['spoof']} "
    assert f"{counts}| {percent(last['all'])} | {interval} |" in (ROOT / "README.md").read_text()
    manifest = json.loads((ROOT / "runtime/nes2net_runtime/demo.nes2net/manifest.json").read_text())
    assert last["checkpoint_sha256"] == manifest["source"]["sha256"]


def test_readme_shows_the_calibration_of_the_shipped_bundle() -> None:
    command = [sys.executable, "scripts/calibration_table.py", "runtime/nes2net_runtime/demo.nes2net"]
    table = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert len(table.splitlines()) == 2 + 4
    assert table in (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is beside the project only")
def test_dev_eer_is_what_readme_and_model_card_say() -> None:
    command = [sys.executable, "export/demo/evaluate.py", "--corpus", str(CORPUS), "--split", "dev"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    printed = percent(json.loads(done.stdout.splitlines()[-1])["all"])
    assert f"| 210 | 175 | {printed} |" in (ROOT / "README.md").read_text()
    card = (ROOT / "export/nes2net_export/demo/MODEL_CARD.md").read_text()
    assert f"| all | {printed} (210 human, 175 spoof) |" in card
