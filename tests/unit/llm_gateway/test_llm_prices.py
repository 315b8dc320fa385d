"""Prices: what the list knows, what a deployment says instead, and that unknown is never nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from genai_prices.data_snapshot import get_snapshot

from letta.common.v1.usage_pb2 import TokenUsage
from letta_common.errors import InvalidArgument
from letta_llm_gateway.domain.catalogue.known_models import SELLERS
from letta_llm_gateway.domain.catalogue.prices import Price, Prices, listed, read_prices
from letta_llm_gateway.providers.registry import provider_types

MILLION = 1_000_000
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("used", "dollars"),
    [
        (TokenUsage(prompt_tokens=MILLION), 2.0),
        (TokenUsage(completion_tokens=MILLION), 8.0),
        (TokenUsage(prompt_tokens=MILLION, cached_input_tokens=MILLION), 0.5),
        (TokenUsage(prompt_tokens=MILLION, cache_write_tokens=MILLION), 2.5),
        (TokenUsage(prompt_tokens=3 * MILLION, cached_input_tokens=MILLION, cache_write_tokens=MILLION), 5.0),
        (TokenUsage(completion_tokens=2 * MILLION, reasoning_tokens=MILLION), 12.0),
        (TokenUsage(), 0.0),
    ],
)
def test_each_kind_of_token_costs_what_it_costs(used, dollars):
    assert Price(2.0, 8.0, cached_input=0.5, cache_write=2.5, reasoning=4.0).cost(used) == round(dollars * MILLION)


def test_kinds_without_a_price_of_their_own_cost_the_usual():
    used = TokenUsage(
        prompt_tokens=MILLION,
        completion_tokens=MILLION,
        cached_input_tokens=1000,
        cache_write_tokens=1000,
        reasoning_tokens=1000,
    )

    assert Price(2.0, 8.0).cost(used) == 10 * MILLION


def test_counts_that_contradict_each_other_never_cost_less_than_nothing():
    assert (
        Price(2.0, 8.0).cost(
            TokenUsage(prompt_tokens=1, cached_input_tokens=10, completion_tokens=1, reasoning_tokens=10)
        )
        == 20 + 8
    )


@pytest.mark.parametrize(
    ("provider_type", "name", "prices"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", (0.15, 0.60)),
        ("openai", "gpt-5", (1.25, 10.0)),
        ("openai", "gpt-5-mini", (0.25, 2.0)),
        ("openai-responses", "o3-mini", (1.10, 4.40)),
        ("openai", "o3", (2.0, 8.0)),
        ("openai", "gpt-4", (30.0, 60.0)),
        ("openai", "text-embedding-3-small", (0.02, 0.0)),
        ("azure", "gpt-4.1", (2.0, 8.0)),
        ("anthropic", "claude-haiku-4-5-20251001", (1.0, 5.0)),
        ("anthropic", "claude-opus-4-5-20251101", (5.0, 25.0)),
        ("anthropic", "claude-opus-4-1-20250805", (15.0, 75.0)),
        ("anthropic", "claude-opus-4-20250514", (15.0, 75.0)),
        ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", (3.0, 15.0)),
        ("google_ai", "gemini-2.5-flash-lite", (0.10, 0.40)),
        ("google_vertex", "claude-opus-4-1@20250805", (15.0, 75.0)),
        ("groq", "llama-3.3-70b-versatile", (0.59, 0.79)),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", (0.88, 0.88)),
        ("openrouter", "openai/gpt-4o", (2.5, 10.0)),
        ("mistral", "mistral-large-latest", (2.0, 6.0)),
        ("fireworks", "accounts/fireworks/models/gpt-oss-120b", (0.15, 0.60)),
        ("cerebras", "llama-3.3-70b", (0.85, 1.20)),
        ("baseten", "openai/gpt-oss-120b", (0.10, 0.50)),
        ("xai", "grok-4", (3.0, 15.0)),
        ("builtin", "rules", (0.0, 0.0)),
    ],
)
def test_the_list_knows_vendors_models(provider_type, name, prices):
    price = listed(provider_type, name, NOW)

    assert price is not None
    assert (price.input, price.output) == prices


@pytest.mark.parametrize(
    ("provider_type", "name"),
    [
        ("openai", "gpt-6-dreams"),
        ("openai", "gpt-4-and-something"),
        ("anthropic", "claude-9"),
        ("vllm", "gpt-4o"),
        ("ollama", "llama3.1"),
        ("openai-compatible", "gpt-4o-mini"),
        ("azure", "my-deployment"),
        ("nobody", "x"),
    ],
)
def test_what_the_list_does_not_know_has_no_price(provider_type, name):
    assert listed(provider_type, name, NOW) is None
    assert Prices().of(f"mine/{name}", provider_type, name) is None


def test_long_prompts_cost_what_they_cost_from_the_first_token_on():
    price = listed("google_ai", "gemini-2.5-pro", NOW)

    assert price.cost(TokenUsage(prompt_tokens=200_000, completion_tokens=100)) == 200_000 * 1.25 + 100 * 10
    assert price.cost(TokenUsage(prompt_tokens=200_001, completion_tokens=100)) == round(200_001 * 2.5 + 100 * 15)
    assert price.cost(TokenUsage(prompt_tokens=300_000, cached_input_tokens=200_000)) == 100_000 * 2.5 + 200_000 * 0.25


def test_a_price_that_changes_holds_when_it_does():
    before, after = (
        listed("mistral", "mistral-medium-latest", datetime(2026, 6, day, 23, 59, tzinfo=UTC)) for day in (15, 16)
    )

    assert (before.input, before.output) == (0.40, 2.00)
    assert (after.input, after.output) == (1.50, 7.50)


def test_every_vendor_of_the_table_is_in_the_list():
    known = {provider.id for provider in get_snapshot().providers}

    assert {*SELLERS.values()} <= known
    assert {*SELLERS} | {"ollama", "openai-compatible", "vllm", "lmstudio_openai", "llamacpp", "sglang"} == {
        *provider_types()
    }, "a type of provider has prices, or is a server of one's own"


def test_rules_need_no_list_of_prices():
    code = (
        "import sys; from letta_llm_gateway.domain.catalogue.prices import Prices\n"
        "assert Prices().of('builtin/rules', 'builtin', 'rules').input == 0\n"
        "assert Prices().of('ollama/x', 'ollama', 'x') is None\n"
        "assert 'genai_prices' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_deployments_own_prices_win():
    own = {
        "openai/gpt-4o": {"input": 1, "output": 2},
        "ollama/*": {"input": 0, "output": 0},
        "ollama/big-*": {"input": 0.1, "output": 0.1, "cached_input": 0.01, "cache_write": 0.2, "reasoning": 0.3},
        "anthropic/*": None,
    }
    prices = Prices(read_prices(own))

    assert prices.of("openai/gpt-4o", "openai", "gpt-4o") == Price(1, 2)
    assert prices.of("openai/gpt-4o-mini", "openai", "gpt-4o-mini") == listed("openai", "gpt-4o-mini", NOW)
    assert prices.of("ollama/x", "ollama", "x") == Price(0, 0)
    assert prices.of("ollama/big-x", "ollama", "big-x") == Price(0.1, 0.1, 0.01, 0.2, 0.3)
    assert prices.of("anthropic/claude-haiku-4-5", "anthropic", "claude-haiku-4-5") is None


def test_prices_come_from_a_file_and_the_setting_wins(tmp_path):
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"a/x": {"input": 1, "output": 1}, "a/y": {"input": 2, "output": 2}}))

    assert read_prices({"a/y": None}, file) == {"a/x": Price(1, 1), "a/y": None}


@pytest.mark.parametrize(
    "price",
    [{}, {"input": 1}, {"input": 1, "output": -1}, {"input": "1", "output": 1}, {"input": 1, "output": 1, "x": 1}, 5],
)
def test_nonsense_for_a_price_is_refused_at_start(price):
    with pytest.raises(InvalidArgument, match="a/x"):
        read_prices({"a/x": price})


@pytest.mark.parametrize("text", ["[]", "{nope", None])
def test_a_file_that_is_none_is_refused_at_start(tmp_path, text):
    file = tmp_path / "prices.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(InvalidArgument, match=r"prices\.json"):
        read_prices({}, file)
