"""Runs a user's command at each alert: the alert's JSON record on its stdin, never through a shell."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from threading import Thread

import msgspec

from nes2net_runtime.live.loop import Event
from nes2net_runtime.records import alert_record
from nes2net_runtime.streaming.alerts import Alert

AT_ONCE = 4
SECONDS = 60.0  # that a command may take; then it is killed


class OnAlert:
    """Starts the command and goes on: the stream never waits for it."""

    def __init__(self, command: str, file: str, channel: int | None, say: Callable[[str], None]) -> None:
        """`command` is split as a shell would; raises ValueError where there is no such program."""
        self._arguments = shlex.split(command)
        if not self._arguments or shutil.which(self._arguments[0]) is None:
            raise ValueError(f"{command!r}: no such program")
        self._file, self._channel, self._say = file, channel, say
        self._running: list[Thread] = []

    def event(self, event: Event) -> None:
        """Run the command for an alert that was raised, unless AT_ONCE of them still run."""
        if not isinstance(event, Alert) or event.state != "raised":
            return
        self._running = [thread for thread in self._running if thread.is_alive()]
        if len(self._running) == AT_ONCE:
            self._say(f"warning: --on-alert: {AT_ONCE} commands are still running; none for this alert")
            return
        record = msgspec.json.encode(alert_record(self._file, self._channel, event))
        self._running.append(Thread(target=self._run, args=(record + b"\n",), daemon=True))
        self._running[-1].start()

    def close(self) -> None:
        """Wait for the commands that still run."""
        for thread in self._running:
            thread.join(SECONDS)

    def _run(self, record: bytes) -> None:
        program = self._arguments[0]
        try:
            done = subprocess.run(
                self._arguments, input=record, stdout=sys.stderr, stderr=sys.stderr, timeout=SECONDS
            )
        except subprocess.TimeoutExpired:
            self._say(f"warning: --on-alert: {program} took over {SECONDS:g} s and was killed")
        except OSError as error:
            self._say(f"warning: --on-alert: {program} can't be run ({error.strerror})")
        else:
            if done.returncode:
                self._say(f"warning: --on-alert: {program} exited with {done.returncode}")
