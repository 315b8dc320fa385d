"""What the log is told of a failure takes nobody's turn, however long the history that is searched for it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from letta.common.v1 import message_pb2 as m
from letta.llm.v1.generation_service_pb2 import Prompt
from letta_common.errors import LLMUnavailable
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.generation.facts import exact_tokens_of, facts_of, tokens_of
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers import checks
from letta_llm_gateway.providers.fitting.telling import hushed
from letta_llm_gateway.providers.fitting.wired import Wire, WiredProvider
from letta_llm_gateway.providers.tokenizer import LocalTokenizer
from tests.support.prompts import called_by_client, kept

SAID = "the house by the old mill, third door"


class RefusingWire:
    """A vendor's wire that repeats what it was told, and refuses it; notes how often others had a turn before."""

    turns = at_refusal = 0

    def rules(self, _model: str) -> checks.Rules:
        return checks.ANY

    async def generate(self, _call: Call) -> None:
        self.at_refusal = self.turns
        raise LLMUnavailable(f"cannot read {SAID!r} " + "and so on, " * 50)


async def test_searching_a_long_history_for_what_a_vendor_repeats_leaves_everybody_else_their_turns():
    wire, message = RefusingWire(), m.Message(parts=[m.ContentPart(text=m.TextContent(text=SAID))])
    provider = WiredProvider(cast(Wire, cast(Any, wire)), Account("v", "openai", api_key="sk-0123456"), Fragments())
    prompt = Prompt(model="m", messages=[message.SerializeToString()] * 3000)

    with capture_logs() as logs:
        doing = asyncio.ensure_future(provider.generate(Call("m", prompt)))
        while not doing.done():
            wire.turns += 1
            await asyncio.sleep(0)

    with pytest.raises(LLMUnavailable):
        await doing
    [line] = [entry for entry in logs if entry["event"] == "a vendor failed"]
    assert "[prompt]" in line["said"]
    assert SAID not in line["said"]
    assert wire.turns - wire.at_refusal > 10


def test_what_clients_returned_is_not_told_to_the_log():
    prompt = Prompt(messages=kept(*called_by_client("the third door")))

    assert hushed("cannot read 'the third door'", (), prompt) == "cannot read '[prompt]'"


async def test_what_clients_returned_counts_once_as_part_of_the_prompt():
    fragments, words = Fragments(), "word " * 1000
    empty, full = (Prompt(messages=kept(*called_by_client(text))) for text in ("", words))

    sizes = [tokens_of(prompt, await facts_of(prompt.messages, fragments)) for prompt in (empty, full)]
    counts = [await exact_tokens_of(prompt, fragments, LocalTokenizer()) for prompt in (empty, full)]

    assert sizes[1] - sizes[0] == len(words) // 4
    assert 900 < counts[1] - counts[0] < 1100
