"""How an answer is shown: as Markdown that grows on a terminal, as plain text elsewhere."""

from __future__ import annotations

from typing import Any

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from letta_cli.console import out, plain, say, styled

_SHOWN_LINES = 12
_FENCES = ("```", "~~~")


class View:
    """Prints words as they come, and calls and returns on lines of their own."""

    def __init__(self) -> None:
        self._mid_line = False

    def begin(self) -> None:
        """Expect an answer."""

    def words(self, text: str) -> None:
        """Show more of what the agent says."""
        self.aside(text, "")

    def aside(self, text: str, style: str) -> None:
        """Show more of a line in a style: reasoning, or the arguments of a call."""
        say(text, style, end="")
        self._mid_line = self._mid_line or bool(text)

    def line(self, text: str, style: str) -> None:
        """Show a whole line."""
        self.rest()
        say(text, style)

    def rest(self) -> None:
        """Finish what stands open."""
        if self._mid_line:
            out.print()
        self._mid_line = False

    def end(self) -> None:
        """Finish the answer."""
        self.rest()


class TerminalView(View):
    """Shows a spinner while nothing comes, each part as Markdown once it is complete, and the growing one below."""

    def __init__(self) -> None:
        super().__init__()
        self._open = ""
        self._live: Live | None = None

    def begin(self) -> None:
        """Turn the spinner."""
        self._open = ""
        if self._live is None:
            self._live = Live(self._below(), console=out, transient=True, refresh_per_second=10)
            self._live.start()

    def words(self, text: str) -> None:
        """Print the parts that are complete, and show the rest as it stands."""
        super().rest()
        self.begin_again()
        self._open += plain(text)
        done, self._open = complete_parts(self._open)
        self._print(done)
        if self._live is not None:
            self._live.update(self._below())

    def aside(self, text: str, style: str) -> None:
        """Show it at once."""
        self._pause()
        super().aside(text, style)

    def line(self, text: str, style: str) -> None:
        """Show it at once, the spinner below."""
        self._pause()
        super().line(text, style)
        self.begin()

    def rest(self) -> None:
        """Finish the part and the line that stand open."""
        self._pause()
        super().rest()

    def begin_again(self) -> None:
        """Turn the spinner when it stands, and keep the open part."""
        kept = self._open
        self.begin()
        self._open = kept

    def _pause(self) -> None:
        if self._live is not None:
            # It draws once more as it stops, so what it would draw must be empty.
            self._live.update(Text(""))
            self._live.stop()
            self._live = None
        self._print(self._open)
        self._open = ""

    def _print(self, text: str) -> None:
        if text.strip():
            from rich.markdown import Markdown

            out.print(Markdown(text.strip("\n")))

    def _below(self) -> Any:
        if not self._open.strip():
            return Spinner("dots", style="dim")
        return styled("\n".join(self._open.splitlines()[-_SHOWN_LINES:]))


def complete_parts(text: str) -> tuple[str, str]:
    """Split Markdown after its last complete paragraph, list or fence; a fence that stands open belongs to the rest."""
    fence, end, place = "", 0, 0
    for line in text.splitlines(keepends=True):
        place += len(line)
        mark = next((mark for mark in _FENCES if line.lstrip().startswith(mark)), "")
        if fence:
            fence = "" if mark == fence else fence
        elif mark:
            fence = mark
        elif not line.strip() and line.endswith("\n"):
            end = place
    return text[:end], text[end:]


def fitting() -> View:
    """Return the view that fits where stdout goes."""
    return TerminalView() if out.is_terminal else View()
