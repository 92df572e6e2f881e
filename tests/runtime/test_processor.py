"""Which processor this is, from what Linux tells of it."""

from pathlib import Path

import pytest

from nes2net_runtime.inference.processor import processor

X86 = "processor\t: 0\nmodel name\t: {0}\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            X86.format("AMD EPYC") + "\n" + X86.format("another"),
            "AMD EPYC, cpu family 25, model 17, stepping 1",
        ),
        (
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
            "CPU implementer 0x41, CPU part 0xd42",
        ),
    ],
)
def test_the_first_processor(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor(tmp_path / "cpuinfo") == said


@pytest.mark.parametrize("text", ["", None])
def test_what_python_tells_elsewhere(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert processor(tmp_path / "cpuinfo")
