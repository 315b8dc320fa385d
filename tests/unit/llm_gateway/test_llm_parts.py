"""Retries, breaker, slots, vault, settings, known models, the local embedder."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from letta_common.errors import (
    LLMBadRequest,
    LLMInvalidResponse,
    LLMRateLimit,
    LLMTimeout,
    LLMUnavailable,
    RateLimited,
)
from letta_llm_gateway.domain.embedding.vectors import unit
from letta_llm_gateway.domain.resilience import Breaker, Retry, Slots
from letta_llm_gateway.providers import probe
from letta_llm_gateway.providers.local_embedder import DIMENSIONS, LocalEmbedder
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.wiring import base_accounts
from tests.fakes.openai_server import OpenAIServer

FIRST_FORMAT = "01c5a58b5d560836dd0b7350d177af727fc954e65ef088c918ccea788661c7218b"


def test_pauses_grow_and_end():
    retry = Retry(attempts=3, pause=1.0, patience=20)

    assert 0.75 <= (retry.wait(LLMUnavailable("x"), 1) or 0) <= 1.25
    assert 1.5 <= (retry.wait(LLMUnavailable("x"), 2) or 0) <= 2.5
    assert retry.wait(LLMUnavailable("x"), 3) is None
    assert retry.wait(LLMBadRequest("x"), 1) is None
    assert retry.wait(LLMRateLimit("x", retry_after="7"), 1) == 7
    assert retry.wait(LLMRateLimit("x", retry_after="70"), 1) is None
    assert retry.wait(LLMInvalidResponse("x"), 1) is not None
    assert retry.wait(LLMInvalidResponse("x"), 2) is None
    assert retry.wait(LLMTimeout("x", phase="first_token"), 1) is None
    assert retry.wait(LLMTimeout("x", phase="connect"), 1) is not None, "nothing was asked yet"
    assert retry.wait(LLMUnavailable("x"), 1, left=0.5) is None
    assert retry.wait(LLMRateLimit("x", retry_after="7"), 1, left=8) == 7


def test_a_breaker_opens_rests_and_lets_one_trial_through():
    now = [0.0]
    breaker = Breaker("v", lambda: now[0], most=2, rest=10)
    for _ in range(2):
        breaker.check()
        breaker.note(LLMUnavailable("x"))

    with pytest.raises(LLMUnavailable, match="in a row"):
        breaker.check()
    now[0] = 11
    breaker.check()
    with pytest.raises(LLMUnavailable):
        breaker.check()
    breaker.note(None)
    breaker.check()


def test_a_callers_fault_does_not_open_a_breaker():
    breaker = Breaker("v", lambda: 0.0, most=1)
    breaker.note(LLMBadRequest("x"))
    breaker.check()


async def test_slots_are_limited_by_key():
    slots = Slots(1, "organization", patience=0.02)

    async with slots.hold("a"), slots.hold("b"):
        with pytest.raises(RateLimited):
            async with slots.hold("a"):
                pass
    async with slots.hold("a"):
        pass
    async with Slots(0, "x").hold("a"), Slots(0, "x").hold("a"):
        pass


def test_keys_are_read_from_the_vendors_own_variables(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-plain")
    monkeypatch.setenv("LETTA_ANTHROPIC_API_KEY", "sk-prefixed")
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LETTA_DEFAULT_LLM_HANDLE", "openai/x")

    settings = LLMGatewaySettings()

    assert settings.openai_api_key.get_secret_value() == "sk-plain"
    assert settings.anthropic_api_key.get_secret_value() == "sk-prefixed"
    assert settings.default_llm_handle == "openai/x"
    assert [account.name for account in base_accounts(settings)] == ["builtin", "openai", "anthropic", "ollama"]
    assert "sk-plain" not in repr(base_accounts(settings)) + repr(settings)


def test_settings_that_are_lists_and_tables_are_read_as_json(monkeypatch):
    monkeypatch.setenv("LETTA_ENCRYPTION_KEYS_ALSO", '["old"]')
    monkeypatch.setenv("LETTA_PRICES", '{"a/*": {"input": 1, "output": 2}, "b/x": null}')
    monkeypatch.setenv("LETTA_PROVIDER_SLOTS_OF", '{"ollama": 1}')
    monkeypatch.setenv("LETTA_PROVIDER_ALLOWED_HOSTS", '["10.1.0.0/16"]')

    settings = LLMGatewaySettings()

    assert [key.get_secret_value() for key in settings.encryption_keys_also] == ["old"]
    assert "old" not in repr(settings)
    assert settings.prices == {"a/*": {"input": 1, "output": 2}, "b/x": None}
    assert settings.provider_slots_of == {"ollama": 1}
    assert settings.provider_allowed_hosts == ("10.1.0.0/16",)


def test_vectors_get_unit_length():
    assert unit([3.0, 4.0]) == [0.6, 0.8]
    assert unit([0.0, 0.0]) == [0.0, 0.0]


async def test_ollama_is_found_by_asking():
    async with OpenAIServer(prefix="") as vendor:
        found = await probe.ollama(port=int(vendor.url.rpartition(":")[2]))
    assert found is not None
    assert (found.name, found.base_url) == ("ollama", f"{vendor_url(found)}/v1")
    assert await probe.ollama(port=1) is None


def vendor_url(account) -> str:
    return account.base_url.removesuffix("/v1")


async def test_the_local_embedder_is_deterministic_and_knows_languages():
    embedder = LocalEmbedder()
    assert not embedder.loaded
    one, again, german, other = await embedder.embed(
        ["Where do I live?", "Where do I live?", "Wo wohne ich?", "tax law"]
    )

    def like(a, b) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert embedder.loaded
    assert len(one) == DIMENSIONS
    assert one == again
    assert like(one, one) == pytest.approx(1, abs=1e-3)
    assert like(one, german) > 0.6 > like(one, other)
    assert len(await embedder.embed(["", "🙂", "x" * 5000])) == 3
    embedder.close()


def test_no_sdk_and_no_model_is_imported_before_it_is_wanted():
    script = (
        "import sys, letta_llm_gateway.wiring\n"
        "print([m for m in ('openai', 'anthropic', 'onnxruntime', 'numpy', 'tiktoken') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )

    assert done.stdout.strip() == "[]"


WARMED = """
import asyncio, pathlib, sys
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.wiring import GatewayStores, assemble
from letta_rpc.service import Deps
from tests.fakes.llm_gateway.stores import FakeBudgetStore, FakeProviderStore, FakeUsageStore

async def main():
    books = FakeUsageStore()
    settings = LLMGatewaySettings(home=pathlib.Path(sys.argv[1]), anthropic_api_key=sys.argv[2], ollama_probe=False)
    service = assemble(settings, Deps(), GatewayStores(FakeProviderStore(), books, FakeBudgetStore(books)))
    await service.start()
    assert "anthropic" not in sys.modules, "the start waits for it"
    others = asyncio.all_tasks() - {asyncio.current_task()}
    warming = [task for task in others if "make_all" in repr(task.get_coro())]
    await asyncio.gather(*warming)
    print([name for name in ("openai", "anthropic", "google.genai") if name in sys.modules])
    await service.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(("key", "imported"), [("sk-1", "['anthropic']"), ("", "[]")])
def test_the_sdks_of_configured_providers_alone_are_imported_after_the_start(tmp_path, key, imported):
    unset = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-c", WARMED, str(tmp_path), key], capture_output=True, text=True, check=False, env=unset
    )

    assert done.stdout.strip() == imported, done.stderr


async def test_the_loop_runs_while_the_local_embedder_loads():
    embedder = LocalEmbedder()
    task = asyncio.create_task(embedder.embed(["a"]))
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    embedder.close()
