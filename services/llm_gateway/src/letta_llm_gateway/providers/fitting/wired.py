"""A vendor's wire as the gateway uses it: prompts fitted, answers cleaned, tools left out that the vendor refuses."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Protocol

import structlog
from cachetools import TTLCache

from letta.llm.v1.generation_service_pb2 import Generation, Prompt, ToolChoiceMode, ToolDefinition
from letta_common.egress import TooMuchData
from letta_common.errors import AppError, LLMBadRequest, LLMInvalidResponse
from letta_llm_gateway.domain.answers import Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Provider, Vector
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.checks import Rules
from letta_llm_gateway.providers.errors import transport_errors
from letta_llm_gateway.providers.fitting.cleaning import Cleaner
from letta_llm_gateway.providers.fitting.kits import Kit, StreamKit, fit
from letta_llm_gateway.providers.fitting.telling import causes_of, hushed, told
from letta_llm_gateway.providers.http import begin_exchange

_log = structlog.get_logger("letta.llm.vendors")
_SAYS_SCHEMA = re.compile(r"schema|function|tool|parameter|propert|keyword|\$ref", re.IGNORECASE)
_UNUSUAL = """
    $ref anyOf oneOf allOf not if then else const pattern patternProperties propertyNames contains dependentRequired
    dependentSchemas unevaluatedProperties
"""
_ASKS = 8
"""How often a request is sent again with fewer tools."""
# Vectors are kept as numbers of 32 bits, which end at 3e38.
_LARGEST = 1e30
# A vendor may come to take what it refuses today, so a refusal is believed for an hour.
_REMEMBERED, _SECONDS = 2_000, 3_600.0
# The frame of an event is many times its words, so these are far above `cleaning.MOST_BYTES`.
_ANSWER_BYTES, _STREAM_BYTES, _VECTOR_BYTES = 16 << 20, 128 << 20, 64 << 20


class Wire(Provider, Protocol):
    """A provider that speaks one vendor's wire."""

    def rules(self, model: str) -> Rules:
        """Return what the vendor's reference says of requests to a model."""
        ...


class WiredProvider:
    """A provider whose vendor is trusted with nothing."""

    def __init__(self, wire: Wire, account: Account, fragments: Fragments) -> None:
        self._wire, self._vendor, self._fragments = wire, account.name, fragments
        self._key = account.api_key
        self._refused = Refusals()

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        asks = _Asks(self._refused, call, self._fragments)
        while True:
            kit = await asks.kit(self._wire.rules(call.model))
            try:
                async with self._watched(call.model, _ANSWER_BYTES, call.prompt):
                    made = await self._wire.generate(replace(call, prompt=kit.prompt))
                    answer = kit.answer(Cleaner(self._vendor).answer(made))
            except LLMBadRequest as error:
                asks.refuse(error, kit)
            else:
                asks.succeed()
                return answer

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        asks, begun = _Asks(self._refused, call, self._fragments), False
        while True:
            kit = await asks.kit(self._wire.rules(call.model))
            names, cleaner = StreamKit(kit), Cleaner(self._vendor)
            try:
                async with (
                    self._watched(call.model, _STREAM_BYTES, call.prompt),
                    aclosing(self._wire.stream(replace(call, prompt=kit.prompt))) as events,
                ):
                    async for event in events:
                        begun = True
                        for clean in cleaner.event(event):
                            for named in names.event(clean):
                                yield named
            except LLMBadRequest as error:
                # What was said cannot be taken back.
                if begun:
                    raise
                asks.refuse(error, kit)
            else:
                asks.succeed()
                return

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors."""
        async with self._watched(model, _VECTOR_BYTES):
            return _numbers(await self._wire.embed(model, texts), len(texts), self._vendor)

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt, where the vendor counts."""
        kit = await _Asks(self._refused, call, self._fragments).kit(self._wire.rules(call.model))
        async with self._watched(call.model, _ANSWER_BYTES, call.prompt):
            return await self._wire.count(replace(call, prompt=kit.prompt))

    async def models(self) -> list[ListedModel]:
        """List what the vendor offers."""
        async with self._watched("", _ANSWER_BYTES):
            return await self._wire.models()

    async def close(self) -> None:
        """Close connections."""
        await self._wire.close()

    @asynccontextmanager
    async def _watched(self, model: str, most_bytes: int, prompt: Prompt | None = None) -> AsyncGenerator[None, None]:
        """Give every failure its type, and tell the operator where it came from and why."""
        exchange = begin_exchange(most_bytes)
        try:
            with transport_errors(self._vendor):
                yield
        except asyncio.CancelledError:  # whoever ends it says why: silence is timed elsewhere, and callers leave
            _log.info("a call of a vendor was ended", provider=self._vendor, address=exchange.address, model=model)
            raise
        except AppError as error:
            causes, failure = list(causes_of(error)), error
            if any(isinstance(cause, TooMuchData) for cause in causes):  # SDKs say that the connection broke
                failure = LLMInvalidResponse(f"{self._vendor} answered more than any model does", provider=self._vendor)
                failure.__cause__ = error
            told_by = {"said": failure.message, "cause": told(causes or [failure])}
            keys = (self._key, *exchange.keys)
            # A prompt is searched as a whole, which would hold up every other call.
            why = {key: await asyncio.to_thread(hushed, text, keys, prompt) for key, text in told_by.items()}
            where = {"provider": self._vendor, "address": exchange.address, "model": model}
            _log.info("a vendor failed", **where, reason=failure.reason, **why)
            raise failure from failure.__cause__


class Refusals:
    """Why tools were refused, for a while: so long a tool is not sent again as it was."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._known: TTLCache[bytes, str] = TTLCache(_REMEMBERED, _SECONDS, timer=now)

    def get(self, key: bytes) -> str:
        """Return why a tool is refused; nothing when it may be sent."""
        return self._known.get(key, "")

    def add(self, found: Mapping[bytes, str]) -> None:
        """Remember refusals."""
        self._known.update(found)


class _Asks:
    """The tries of one call, each with fewer tools than the one before."""

    def __init__(self, known: Refusals, call: Call, fragments: Fragments) -> None:
        self._known, self._call, self._fragments = known, call, fragments
        self._new: dict[bytes, str] = {}
        self._times = 0

    async def kit(self, rules: Rules) -> Kit:
        """Return the prompt for the next try."""
        return await fit(self._call.prompt, rules, self._why, self._fragments)

    def refuse(self, error: LLMBadRequest, kit: Kit) -> None:
        """Leave out what the vendor complains about, for the next try. Raises the error when there is no such tool."""
        self._times += 1
        named = error.metadata.get("tool", "")
        tools = [kit.own[named]] if named in kit.own else self._suspects(error, kit)
        choice = self._call.prompt.tool_choice
        forced = choice.name if choice.mode == ToolChoiceMode.TOOL_CHOICE_MODE_TOOL else ""
        # The one tool that must be called cannot be left out.
        if not tools or self._times > _ASKS or any(tool.name == forced for tool in tools):
            if named in kit.own:
                raise LLMBadRequest(error.message, **{**error.metadata, "tool": kit.own[named].name}) from error
            raise error
        for tool in tools:
            self._new[self._key(tool)] = f"the vendor refuses it: {error.message}"

    def succeed(self) -> None:
        """Remember what was left out, now that it is known to have been the cause."""
        self._known.add(self._new)

    def _suspects(self, error: LLMBadRequest, kit: Kit) -> list[ToolDefinition]:
        """Return the tools that may be meant when the vendor names none: those with unusual schemas."""
        if not _SAYS_SCHEMA.search(error.message) or self._times > 1:
            return []
        told = {tool.name: tool.parameters for tool in kit.prompt.tools}
        return [tool for name, tool in kit.own.items() if not _is_plain(told[name])]

    def _why(self, tool: ToolDefinition) -> str:
        key = self._key(tool)
        return self._new.get(key) or self._known.get(key)

    def _key(self, tool: ToolDefinition) -> bytes:
        # Another model of the same vendor may take what this one refuses.
        return hashlib.sha256(self._call.model.encode() + b"\0" + tool.SerializeToString(deterministic=True)).digest()


def _is_plain(schema: str) -> bool:
    return not set(_UNUSUAL.split()) & set(re.findall(r'"(\$?\w+)":', schema))


def _numbers(vectors: Sequence[Vector], wanted: int, vendor: str) -> list[Vector]:
    """Return vectors that are lists of numbers. Raises LLMInvalidResponse for others, and when one is missing."""
    if len(vectors) != wanted:
        raise LLMInvalidResponse(f"{vendor} embedded {len(vectors)} of {wanted} texts", provider=vendor)
    found: list[Vector] = []
    for vector in vectors:
        # Asked for the type itself: `isinstance` takes booleans for whole numbers.
        if not isinstance(vector, list) or not all(type(each) in {int, float} for each in vector) or not vector:
            raise LLMInvalidResponse(f"{vendor} answered embeddings that are no numbers", provider=vendor)
        if any(abs(each) > _LARGEST for each in vector):
            raise LLMInvalidResponse(f"{vendor} answered embeddings that are out of range", provider=vendor)
        found.append(vector)
    return found
