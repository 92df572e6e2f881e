"""The shipped demo detector, by the command that the README quotes; the corpus is beside the project only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is beside the project only")
def test_dev_eer_is_what_readme_and_model_card_say() -> None:
    command = [sys.executable, "export/demo/evaluate.py", "--corpus", str(CORPUS), "--split", "dev"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    printed = f"{100 * json.loads(done.stdout.splitlines()[-1])['eer']:.1f} %"
    assert f"| 210 | 175 | {printed} |" in (ROOT / "README.md").read_text()
    card = (ROOT / "export/nes2net_export/demo/MODEL_CARD.md").read_text()
    assert f"| all | {printed} (210 human, 175 spoof) |" in card
