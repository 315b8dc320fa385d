"""The extractor: its limits, its isolation, and what it does when there is none."""

import asyncio
import json
import subprocess
import sys

import pytest

from letta_common.errors import CorruptDocument, DocumentTooLarge, ExtractionTimedOut, IsolationUnavailable
from letta_common.fair_slots import Shares
from letta_documents import extractor as extractors
from letta_documents.extractor import Extractor
from letta_sandbox.calls import CallEnding, Env, Isolation, SandboxCall
from tests.callers import until
from tests.support.documents import book, pdf, swollen, word
from tests.unit.documents.conftest import TIERS, made, options

HEAVY = ("pypdf", "docx", "pptx", "openpyxl", "lxml", "PIL", "charset_normalizer", "letta_documents.inside")

WORDS = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
LOOK = """
import importlib, os, socket

def attempt(action):
    try:
        action()
    except (OSError, ImportError):
        return False
    return True

def look(secret, site):
    return [name for name, holds in {
        "reads a file of the service": attempt(lambda: open(secret).close()),
        "lists what is installed": attempt(lambda: os.listdir(site + "/sqlalchemy")),
        "imports what is installed": attempt(lambda: importlib.import_module("sqlalchemy")),
        "writes where parsers are": attempt(lambda: open(site + "/pypdf/own.py", "w").close()),
        "opens a socket": attempt(lambda: socket.socket().close()),
        "starts a process": attempt(lambda: os.fork() or os._exit(0)),
    }.items() if holds]
"""


async def test_a_parser_reaches_nothing_but_its_file_and_the_parsers(of_each_tier, tmp_path):
    """A file that takes over its parser gets what any code in that process gets."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    call = SandboxCall(LOOK, "look", json.dumps({"secret": str(secret), "site": site}), limits=of_each_tier._limits)
    result = await of_each_tier._provider.run(call, Env())

    assert (result.status, result.result) == (CallEnding.SUCCESS, "[]"), result


async def test_without_isolation_the_same_code_reaches_what_it_tries(tmp_path):
    """The control of the test before: nothing here is out of reach by itself."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    free = Extractor(options(min_isolation=Isolation.NONE, allow_unsandboxed=True))
    source = LOOK.replace('"starts a process"', '"nothing" if True else ""')
    call = SandboxCall(source, "look", json.dumps({"secret": str(secret), "site": str(tmp_path)}), limits=free._limits)
    result = await free._provider.run(call, Env())
    await free.close()

    assert "reads a file of the service" in json.loads(result.result)
    assert "opens a socket" in json.loads(result.result)


async def test_where_nothing_isolates_no_file_is_parsed():
    closed = Extractor(options())

    with pytest.raises(IsolationUnavailable, match="files cannot be parsed"):
        await closed.extract(b"text", media_type="text/plain", name="a.txt")
    await closed.close()


async def test_a_weaker_tier_than_asked_for_is_refused():
    closed = Extractor(options(Isolation.LANDLOCK, min_isolation=Isolation.NAMESPACE))

    with pytest.raises(IsolationUnavailable):
        await closed.extract(b"text", media_type="text/plain", name="a.txt")
    await closed.close()


async def test_without_isolation_files_are_parsed_only_by_the_setting():
    free = Extractor(options(min_isolation=Isolation.NONE, allow_unsandboxed=True))
    document = await free.extract(pdf(["One."]), media_type="", name="")
    await free.close()

    assert document.text == "[page 1]\nOne.\n\n"


async def test_a_python_that_cannot_load_the_parsers_is_said_so(monkeypatch, tmp_path):
    other = tmp_path / "python"
    other.write_text(f"#!/bin/sh\n{sys.executable} -I -S \"$@\" | sed 's/\\[3, [0-9]*\\]/[3, 8]/'\n")
    other.chmod(0o755)
    closed = Extractor(extractors.ExtractorOptions(interpreter=str(other)))

    with pytest.raises(IsolationUnavailable, match="cannot load packages of Python"):
        await closed.extract(b"text", media_type="text/plain", name="a.txt")
    await closed.close()


async def test_a_file_beyond_the_limit_is_refused_before_anything_is_started():
    idle = Extractor(options(most_bytes=10))

    with pytest.raises(DocumentTooLarge, match="11 bytes, the limit is 10"):
        await idle.extract(b"a" * 11, media_type="", name="")
    await idle.close()


async def test_a_text_beyond_the_limit_is_refused():
    small = await made("landlock", most_characters=100)

    assert (await small.extract(b"a" * 100, media_type="", name="")).text == "a" * 100
    with pytest.raises(DocumentTooLarge, match="more than 100 characters"):
        await small.extract(b"a" * 101, media_type="", name="")
    await small.close()


async def test_what_takes_more_memory_than_it_may_is_too_large(of_each_tier):
    head, tail = f'<w:document xmlns:w="{WORDS}"><w:body>'.encode(), b"</w:body></w:document>"
    bomb = swollen(word(), "word/document.xml", head, b"<w:p><w:r><w:t/></w:r></w:p>", 1 << 23, tail)

    assert len(bomb) < 1 << 20
    with pytest.raises(DocumentTooLarge, match="512 MiB of memory"):
        await of_each_tier.extract(bomb, media_type="", name="")
    assert (await of_each_tier.extract(b"after", media_type="", name="")).text == "after"


@pytest.mark.parametrize("unit", ["<b ", "<!--"])
async def test_what_takes_too_long_is_ended(impatient, unit):
    with pytest.raises(ExtractionTimedOut, match="1 seconds"):
        await impatient.extract(b"<html>" + unit.encode() * 200_000, media_type="", name="a.html")


async def test_a_caller_that_goes_away_ends_its_file_and_gives_its_place_back():
    single = await made("landlock", shares=Shares(slots=1), timeout_seconds=300.0)
    endless = asyncio.create_task(single.extract(b"<html>" + b"<b " * 200_000, media_type="", name="a.html"))

    async def busy() -> int:
        return single._provider._standing.server.busy

    await until(busy, bool)
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless

    assert (await single.extract(b"next", media_type="", name="")).text == "next"
    await single.close()


async def test_files_of_one_organization_leave_room_for_another():
    shared = await made("landlock", shares=Shares(slots=2, tenant_slots=1), timeout_seconds=300.0)
    endless = [
        asyncio.create_task(
            shared.extract(b"<html>" + b"<b " * 200_000, media_type="", name="a.html", organization_id="org-a")
        )
        for _ in range(3)
    ]

    assert (await shared.extract(b"text", media_type="", name="", organization_id="org-b")).text == "text"
    for task in endless:
        task.cancel()
    await asyncio.gather(*endless, return_exceptions=True)
    await shared.close()


async def test_the_text_is_the_same_on_every_tier():
    found = []
    for tier in TIERS:
        extractor = await made(tier)
        found.append(await extractor.extract(book(), media_type="", name=""))
        await extractor.close()

    assert found[0] == found[1]


def test_who_extracts_loads_no_parser():
    source = (
        "import sys, letta_documents.extractor, letta_documents.chunks; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert ran.stdout == "[]\n"


WHOLE = {"media_type": "text/plain", "text": "ab\n", "title": "", "parts": [["text", 0, 3, [], 0, 0]]}


def test_what_a_parser_writes_is_read():
    assert extractors._document(json.dumps(WHOLE), 10).text == "ab\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"parts": []},
        {"parts": [["text", 0, 2, [], 0, 0]]},
        {"parts": [["text", 1, 3, [], 0, 0]]},
        {"parts": [["text", 0, 4, [], 0, 0]]},
        {"parts": [["other", 0, 3, [], 0, 0]]},
        {"parts": [["text", 0, 3, [1], 0, 0]]},
        {"parts": [["text", 0, 3, [], -1, 0]]},
        {"parts": [["text", 0, 3, [], 0, 4]]},
        {"parts": [["text", "0", 3, [], 0, 0]]},
        {"parts": [["text", 0, 3]]},
        {"parts": 7},
        {"text": "a\0b"},
        {"text": "a" * 11},
        {"text": None},
        {"media_type": "a" * 501},
        {"title": 1},
        {"fault": "Other", "message": ""},
    ],
)
def test_what_a_parser_forges_is_refused(wrong):
    with pytest.raises(CorruptDocument, match="its answer is none"):
        extractors._document(json.dumps(WHOLE | wrong), 10)


@pytest.mark.parametrize("answer", ["[]", "7", '"a"', "null"])
def test_an_answer_that_is_no_object_is_refused(answer):
    with pytest.raises(CorruptDocument):
        extractors._document(answer, 10)
