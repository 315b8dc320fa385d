"""The table of models: every row is read, and what it does not know has the default that is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import find, settings
from hypothesis import strategies as st

from letta_llm_gateway.domain.catalogue import known_models
from letta_llm_gateway.domain.catalogue.known_models import (
    PREFERRED,
    ROWS,
    SELLERS,
    UNLISTED,
    Known,
    Row,
    dimensions,
    known,
    talks,
)
from letta_llm_gateway.providers.registry import provider_types

GUIDE = Path(__file__).parents[3] / "docs/howto/write-a-provider.md"
README = Path(__file__).parents[3] / "services/llm_gateway/README.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_read_for_some_name(row: Row) -> None:
    seller = "builtin" if row.builtin else "ollama"

    def is_reached(name: str) -> bool:
        facts = row.known is None or known(seller, name) is row.known
        return facts and row.dimensions in {None, dimensions(name)}

    name = find(st.from_regex(rf"\A(?:{row.name})"), is_reached, settings=settings(database=None))

    assert row.means(seller, name)
    assert row.known or row.dimensions, "a row says something"


def test_rows_can_be_what_they_say() -> None:
    for row in ROWS:
        assert row.window is None or row.max_output <= row.window
    assert {*PREFERRED, *UNLISTED, *SELLERS} <= {*provider_types()}


def test_what_no_row_knows_has_the_documented_default() -> None:
    assert known("openai", "who-knows") == Known(30_000, 4096, None, reasoning=False, tools=True, certain=False)
    assert dimensions("who-knows") is None
    table = Path(known_models.__file__).with_name("models.toml").read_text()
    for text in (GUIDE.read_text(), table):
        assert "window of 30,000 tokens" in text.replace("\n# ", " ").replace("\n", " ")


def test_a_window_is_the_models_own() -> None:
    assert known("vllm", "gpt-4o") == known("openai", "gpt-4o")
    assert known("vllm", "rules").certain is False, "only what this machine is has no name elsewhere"
    assert known("builtin", "rules").window == 128_000


def test_names_are_read_as_vendors_write_them() -> None:
    assert known("openai", "gpt-4o-mini-2024-07-18").window == 128_000
    assert known("openrouter", "openai/gpt-4.1").window == 1_047_576
    assert known("anthropic", "claude-haiku-4-5-20251001").images is True
    assert talks("gpt-4o")
    assert not talks("whisper-1")
    assert dimensions("nomic-embed-text:latest") == 768


def test_the_readme_has_every_type_of_provider() -> None:
    cells = [line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `")]
    told = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}

    assert {*provider_types()} <= told
