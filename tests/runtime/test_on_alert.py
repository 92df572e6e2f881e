"""--on-alert: a user's command at each alert, which gets the record, no shell, and never stops the stream."""

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from nes2net_runtime.live import on_alert
from nes2net_runtime.live.on_alert import AT_ONCE, OnAlert
from nes2net_runtime.records import SCHEMA_FILE
from nes2net_runtime.results import Outage, Score
from nes2net_runtime.streaming.alerts import Alert

ANY_ALERT = ("--alert-llr", "50", "--clear-llr", "60", "--patience", "0")
RAISED = Alert("raised", 1.0, 5.0, 5.0, -8.0)
ENDED = Alert("ended", 1.0, 9.0, 5.0, -9.5)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """(lines of sh) -> a program, in a folder whose name has a space."""
    folder = tmp_path / "my scripts"
    folder.mkdir()

    def write(lines: str, first: str = "#!/bin/sh") -> Path:
        path = folder / "program"
        path.write_text(f"{first}\n{lines}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def command(said: list[str]) -> Callable[..., OnAlert]:
    """(argument, …) -> such a command for alerts of call.wav; its warnings are in `said`."""
    return lambda *arguments: OnAlert(shlex.join(map(str, arguments)), "call.wav", None, said.append)


def test_the_record_of_the_alert_is_on_its_stdin(run, script, examples: Path, tmp_path: Path) -> None:
    program = script('cat >> "$1"; echo to-stdout; echo to-stderr >&2')
    heard = shlex.join([str(program), str(tmp_path / "heard.jsonl")])
    options = (*ANY_ALERT, "--format", "jsonl", "--on-alert", heard)
    done = run("--stream", examples / "human.flac", *options)
    assert done.returncode == 0, done.stderr
    [line] = (tmp_path / "heard.jsonl").read_text().splitlines()
    record = json.loads(line)
    jsonschema.validate(record, json.loads(SCHEMA_FILE.read_text()))
    printed = [json.loads(line) for line in done.stdout.splitlines()]  # what the command prints is not here
    assert record in printed
    assert (record["type"], record["state"]) == ("alert", "raised")
    assert "to-stdout" in done.stderr and "to-stderr" in done.stderr


@pytest.mark.parametrize(
    "text", ["a; touch pwned", "$(touch pwned)", "`touch pwned`", "| touch pwned", "$HOME *"]
)
def test_there_is_no_shell(script, said, tmp_path: Path, monkeypatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    program = script('printf "%s\\n" "$@" > arguments')
    for argument in (text, shlex.quote(text)):
        command = OnAlert(f"{shlex.quote(str(program))} {argument}", "call.wav", None, said.append)
        command.event(RAISED)
        command.close()
        assert Path("arguments").read_text().splitlines() == shlex.split(argument)
    assert not Path("pwned").exists() and said == []


def test_only_an_alert_that_is_raised_starts_it(command, script, said, tmp_path: Path) -> None:
    runs = command(script('echo x >> "$1"'), tmp_path / "runs")
    for event in (ENDED, Outage(1, 2, "x"), Score(0, 4, 1.0), RAISED, ENDED):
        runs.event(event)
    runs.close()
    assert (tmp_path / "runs").read_text() == "x\n" and said == []


def test_at_most_four_run_at_once(command, script, said, tmp_path: Path) -> None:
    go, runs = tmp_path / "go", tmp_path / "runs"
    waiting = command(script('while [ ! -e "$1" ]; do sleep 0.02; done; echo x >> "$2"'), go, runs)
    for _ in range(AT_ONCE + 2):
        waiting.event(RAISED)
    assert said == [f"warning: --on-alert: {AT_ONCE} commands are still running; none for this alert"] * 2
    go.touch()
    waiting.close()
    assert runs.read_text() == "x\n" * AT_ONCE
    waiting.event(RAISED)  # there is room again
    waiting.close()
    assert runs.read_text() == "x\n" * (AT_ONCE + 1) and len(said) == 2


def test_a_command_that_hangs_is_killed_and_nobody_waits_for_it(command, said, monkeypatch) -> None:
    monkeypatch.setattr(on_alert, "SECONDS", 0.5)
    start = time.monotonic()
    hanging = command("sleep", "600")
    hanging.event(RAISED)
    assert time.monotonic() - start < 0.4
    hanging.close()
    while not said and time.monotonic() - start < 10:
        time.sleep(0.02)
    assert said == ["warning: --on-alert: sleep took over 0.5 s and was killed"]


@pytest.mark.parametrize(
    ("lines", "warning"),
    [
        ("exit 7", "program exited with 7"),
        ("kill -TERM $$", "program exited with -15"),
        ("exec < /dev/null; exit 0", ""),  # and reads nothing
    ],
)
def test_a_command_that_fails_is_a_warning(run, script, examples: Path, lines: str, warning: str) -> None:
    options = (*ANY_ALERT, "--format", "jsonl", "--on-alert", shlex.quote(str(script(lines))))
    done = run("--stream", examples / "human.flac", *options)
    assert done.returncode == 0
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()][-1] == "summary"
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert len(warnings) == bool(warning) and warning in "".join(warnings)


def test_a_program_that_cant_be_run_after_all_is_a_warning(command, script, said) -> None:
    broken = command(script("", first="#!/nonexistent/interpreter"))
    broken.event(RAISED)
    broken.close()
    assert len(said) == 1 and "can't be run (No such file or directory)" in said[0]


@pytest.mark.parametrize(
    "text", ["no-such-program --option", "   ", "unbalanced 'quote", shlex.quote(str(SCHEMA_FILE))]
)
def test_no_such_program_is_wrong_usage(run, examples: Path, tmp_path: Path, text: str) -> None:
    done = run("--stream", examples / "human.flac", "--on-alert", text, "--output", tmp_path / "out.txt")
    assert done.returncode == 2
    message = [line for line in done.stderr.splitlines() if "--on-alert" in line]
    assert len(message) == 1
    assert "Traceback" not in done.stderr and done.stdout == ""
