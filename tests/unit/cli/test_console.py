"""What is printed: text of others as it is, ids whole, secrets on one line."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from letta_cli import console
from letta_cli.talk.views import complete_parts

AGENT_ID = "agent-01a22abf-c7f1-7000-8dd0-64c0d94c29f4"


@pytest.fixture(params=[20, 40, 80, 200])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StringIO:
    shown = StringIO()
    drawn = Console(file=shown, width=request.param, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(console, "out", drawn)
    monkeypatch.setattr(console, "err", drawn)
    return shown


def test_ids_are_whole_whatever_the_width(terminal: StringIO):
    console.table(["id", "name", "model"], [[AGENT_ID, "A rather long name of an agent " * 4, "provider/" + "m" * 90]])
    assert AGENT_ID in terminal.getvalue().split()


@pytest.mark.parametrize("text", ["[red]no colour[/red]", "[/nothing] to close", "[link=file:///x]y[/link]", "a [b] c"])
def test_brackets_are_brackets(terminal: StringIO, text: str):
    console.say(text)
    console.note(text)
    console.failed(text)
    console.table(["id", "name"], [[AGENT_ID, text]])
    console.panel(text, [text])

    words = "".join(terminal.getvalue().split()).replace("│", "")
    assert words.count("".join(text.split())) >= (4 if console.out.width > 60 else 3)


@pytest.mark.parametrize("text", ["\x1b[2Jgone", "\x1b]0;title\x07", "\x9b31m", "back\x08\x08", "\u202eturned", "a\rb"])
def test_text_of_others_steers_no_terminal(terminal: StringIO, text: str):
    console.say(text)
    console.failed(text)
    console.table(["id", "name"], [[AGENT_ID, text]])

    assert not set("\x1b\x07\x9b\x08\u202e\r") & set(terminal.getvalue())


def test_a_secret_stands_on_one_line_of_stdout(terminal: StringIO, capsys: pytest.CaptureFixture[str]):
    value = "lk_" + "a" * 120
    console.secret("The key:", value)
    assert capsys.readouterr().out == f"{value}\n"


@pytest.mark.parametrize(
    ("text", "done", "rest"),
    [
        ("one", "", "one"),
        ("one\n\ntwo", "one\n\n", "two"),
        ("```\na\n\nb", "", "```\na\n\nb"),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n", "c"),
        ("~~~\n```\n\n~~~\n\n", "~~~\n```\n\n~~~\n\n", ""),
        ("one\n", "", "one\n"),
    ],
)
def test_markdown_is_printed_part_by_part(text: str, done: str, rest: str):
    assert complete_parts(text) == (done, rest)
