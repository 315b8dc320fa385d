"""Counting tokens: the vocabulary is the published one, nothing is fetched, estimates have known bounds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken_ext.openai_public as published

from letta.common.v1.message_pb2 import ContentPart, Message, ToolCallContent, ToolReturnContent
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import Prompt, TokenCountSource
from letta_common.errors import LLMUnavailable
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.catalogue.tokens import Counts, Tokenizer, of_bytes
from letta_llm_gateway.domain.generation.facts import exact_tokens_of
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.parts import call_part, reasoning_part, text_part
from letta_llm_gateway.providers.tokenizer import PATTERN, LocalTokenizer, vocabulary
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from tests.support.prompts import kept


@pytest.fixture(scope="module")
async def tokenizer():
    made = LocalTokenizer()
    await made.prepare()
    return made


def test_the_vocabulary_is_the_one_that_openai_publishes():
    lines = b"".join(b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(vocabulary()))

    assert hashlib.sha256(lines).hexdigest() in inspect.getsource(published.o200k_base)


def test_texts_are_split_as_openai_splits_them(monkeypatch):
    monkeypatch.setattr(published, "load_tiktoken_bpe", lambda *_, **__: {})

    assert published.o200k_base()["pat_str"] == PATTERN


KNOWN = [  # counted with OpenAI's published encoding
    ("", 0),
    ("hello world", 2),
    ("Hello, world!", 4),
    ("tiktoken is great!", 6),
    ("antidisestablishmentarianism", 6),
    ("2 + 2 = 4", 7),
    ("お誕生日おめでとう", 8),
    ("<|endoftext|>", 7),
]


@pytest.mark.parametrize(("text", "tokens"), KNOWN)
async def test_known_texts_have_their_known_counts(tokenizer, text, tokens):
    assert await tokenizer.count([text]) == [tokens]


async def test_a_word_of_a_million_letters_is_counted(tokenizer):
    [counted] = await tokenizer.count(["a" * 1_000_000])
    assert 100_000 < counted < 200_000


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("gpt-4o-mini", True),
        ("gpt-4.1-2025-04-14", True),
        ("gpt-5-nano", True),
        ("openai/gpt-oss-20b", True),
        ("o3", True),
        ("o4-mini", True),
        ("gpt-4", False),
        ("gpt-3.5-turbo", False),
        ("claude-sonnet-4-5", False),
        ("llama3.1", False),
        ("pro3", False),
    ],
)
def test_only_models_of_this_vocabulary_are_counted_with_it(model, known):
    assert LocalTokenizer().knows(model) is known


def test_nothing_is_loaded_before_it_is_wanted_and_nothing_is_fetched():
    script = """
import asyncio, socket, sys
from letta_llm_gateway.providers.tokenizer import LocalTokenizer
def refuse(*args, **kwargs):
    raise AssertionError("the network was touched")
socket.socket.connect = socket.getaddrinfo = refuse
tokenizer = LocalTokenizer()
assert tokenizer.knows("gpt-4o") and not tokenizer.ready and "tiktoken" not in sys.modules
print(asyncio.run(tokenizer.count(["hello world"])))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={**os.environ, "HOME": "/none"}
    )

    assert done.stdout.strip() == "[2]", done.stderr


async def test_the_loop_runs_while_the_vocabulary_loads():
    made = LocalTokenizer()
    task = made.prepare()
    assert made.prepare() is task
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    assert made.ready
    await made.close()


async def hello(tokenizer: Tokenizer) -> int:
    return await exact_tokens_of(Prompt(system="hello world"), Fragments(), tokenizer)


class Vendor(BuiltinProvider):
    def __init__(self, answer: int | Exception | None) -> None:
        self.answer = answer

    async def count(self, call: Call) -> int | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("vendor", "model", "expected"),
    [
        (77, "gpt-4o", (77, TokenCountSource.TOKEN_COUNT_SOURCE_PROVIDER)),
        (None, "gpt-4o", (2 + 4, TokenCountSource.TOKEN_COUNT_SOURCE_TOKENIZER)),
        (LLMUnavailable("away"), "gpt-4o", (2 + 4, TokenCountSource.TOKEN_COUNT_SOURCE_TOKENIZER)),
        (None, "claude-x", (9, TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE)),
        (LLMUnavailable("away"), "claude-x", (9, TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE)),
    ],
)
async def test_a_prompt_is_counted_by_the_best_means_there_is(tokenizer, vendor, model, expected):
    got = await Counts(tokenizer).prompt(Vendor(vendor), Call(model, None), hello, 9)

    assert got == expected


async def test_what_a_vendor_did_not_count_is_counted_once_the_vocabulary_is_there():
    tokenizer = LocalTokenizer()
    parts = [text_part("hello world"), reasoning_part("hello world"), call_part("i", "hello", "{}")]

    async def usage(model: str) -> tuple[TokenUsage, int]:
        return await Counts(tokenizer).usage(model, hello, parts, 9)

    assert (await usage("claude-x"))[1] == TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE
    assert not tokenizer.ready
    first, source = await usage("gpt-4o")
    assert (first.prompt_tokens, source) == (9, TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE), (
        "loading it would hold up the answer"
    )
    await tokenizer.prepare()
    assert await usage("gpt-4o") == (
        TokenUsage(prompt_tokens=6, completion_tokens=6),
        TokenCountSource.TOKEN_COUNT_SOURCE_TOKENIZER,
    )


def talk(length: int) -> list[bytes]:
    """Return messages of which each has the tokens of "hello world" twice."""
    call = ContentPart(tool_call=ToolCallContent(id="a", name="hello", input=" world"))
    result = ContentPart(tool_return=ToolReturnContent(tool_call_id="a", name="hello", content="hello world"))
    kinds = ([text_part("hello world")] * 2, [reasoning_part("hello world"), result])
    spoken = [Message(id=f"message-{at}", parts=kinds[at % 2]) for at in range(length)]
    return kept(*spoken, Message(parts=[call]))


@pytest.mark.parametrize("length", [10, 1_000])
async def test_a_step_counts_its_new_messages_alone_whatever_came_before(tokenizer, length):
    fragments, before, after = Fragments(), talk(length), talk(length + 4)
    await exact_tokens_of(Prompt(messages=before[:-1]), fragments, tokenizer)
    read = fragments.read

    tokens = await exact_tokens_of(Prompt(messages=after, system="hello world"), fragments, tokenizer)

    assert fragments.read - read == 5
    [called] = await tokenizer.count(["hello\n world"])
    assert tokens == (2 * (length + 4) + 1) * (2 + 4) + called + 4


async def test_counting_a_long_history_leaves_everybody_else_their_turns(tokenizer):
    fragments, messages = Fragments(), talk(10_000)
    counting, turns = asyncio.ensure_future(exact_tokens_of(Prompt(messages=messages), fragments, tokenizer)), 0
    while not counting.done():
        await asyncio.sleep(0)
        turns += 1

    assert await counting > 10_000
    assert turns > len(messages) // 64


SOURCE = Path(inspect.getsourcefile(LocalTokenizer) or "").read_text()
SCHEMA = json.dumps({"type": "object", "properties": {"label": {"type": "string", "description": "The block."}}})
SAMPLES = {
    "prose": "The agent keeps what it learned in blocks of memory, and finds the rest again when it is asked. " * 20,
    "code": SOURCE,
    "schema": SCHEMA * 20,
    "German": "Die Antwort des Modells wird in Stücken geliefert, sobald sie vorliegen. " * 20,
    "Russian": "Ответ модели приходит частями, как только они готовы, и сохраняется. " * 20,
    "Chinese": "模型的回答会在准备好后分段返回，并保存在记忆中，以便以后查找。" * 20,
    "Japanese": "モデルの回答は準備ができ次第、少しずつ返され、記憶に保存されます。" * 20,
    "Arabic": "تصل إجابة النموذج على أجزاء بمجرد أن تصبح جاهزة ثم تحفظ في الذاكرة. " * 20,
}


@pytest.mark.parametrize("kind", SAMPLES)
async def test_an_estimate_is_between_three_quarters_and_twice_the_count(tokenizer, kind):
    text = SAMPLES[kind]

    ratio = of_bytes(len(text.encode())) / sum(await tokenizer.count([text]))
    assert 0.75 < ratio < 2.2, f"{kind}: {ratio:.2f}"
