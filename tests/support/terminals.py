"""`letta` on a terminal of its own: what is typed goes through a real pty, what is shown is read as on a screen."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pyte

SECONDS = 30
LINES = 40
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")


class Terminal:
    """`letta` on a terminal of a size."""

    def __init__(self, *arguments: str, home: Path, columns: int = 80, **variables: str) -> None:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LETTA", "OPENAI", "ANTHROPIC", "GRPC"))
        }
        environment = {**kept, "LETTA_HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **variables}
        environment.pop("COLUMNS", None)
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "letta_cli", *arguments],
            env=environment,
            dimensions=(LINES, columns),
            timeout=SECONDS,
            encoding="utf-8",
            preexec_fn=_hear_interrupts,
        )
        self._screen = pyte.Screen(columns, LINES)
        self.child.logfile_read = _Shown(pyte.Stream(self._screen))

    def until(self, text: str) -> str:
        """Wait for a text and return what came before it, without what steers the terminal."""
        try:
            self.child.expect_exact(text)
        except pexpect.TIMEOUT:
            raise AssertionError(f"{text!r} did not come within {SECONDS} s; the screen:\n{self.screen()}") from None
        return _ESCAPES.sub("", self.child.before)

    def type(self, text: str) -> None:
        """Type a line."""
        self.child.send(f"{text}\r")

    def screen(self) -> str:
        """Return what stands on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def kill(self) -> None:
        """End it at once, however busy the machine is: pexpect gives it a tenth of a second."""
        if self.child.isalive():
            self.child.kill(signal.SIGKILL)
            self.child.wait()
        self.child.close()

    def end(self) -> str:
        """Wait for the end and return what was shown."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return _ESCAPES.sub("", self.child.before)


@contextmanager
def talking(agent: str, address: str, home: Path) -> Iterator[Terminal]:
    """Hold a talk with an agent, from its first prompt on."""
    terminal = Terminal("chat", agent, "--address", address, home=home)
    try:
        terminal.until("you>")
        yield terminal
    finally:
        terminal.kill()


def _hear_interrupts() -> None:
    """Undo what a shell does to what it runs in the background: Ctrl-C would be ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Shown:
    """Gives the screen what pexpect reads."""

    def __init__(self, stream: pyte.Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.feed(text)

    def flush(self) -> None:
        """Nothing waits."""
