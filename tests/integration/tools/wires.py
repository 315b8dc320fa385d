"""What each vendor is told of tools, as the model gateway writes it, and how that may differ from the registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.genai import types as genai

from letta.common.v1.model_settings_pb2 import ModelSettings
from letta.llm.v1.generation_service_pb2 import Prompt, ToolDefinition
from letta_agent.domain.toolcalls.toolsets import toolset
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.vendors import anthropic as anthropic_wire
from letta_llm_gateway.providers.vendors import bedrock as bedrock_wire
from letta_llm_gateway.providers.vendors import google as google_wire
from letta_llm_gateway.providers.vendors import openai as responses_wire
from letta_llm_gateway.providers.wires import chat as openai_wire
from letta_tools.domain.registry.messages import pack_tool
from letta_tools.domain.registry.records import RegisteredTool
from tests.support.prompts import at_once, sent

Json = dict[str, Any]
EMPTY: Json = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Told:
    """What a vendor is told of one tool."""

    name: str
    description: str | None
    parameters: Json | None
    extra: Json


def definitions(tools: Iterable[RegisteredTool], *, strict: bool = False) -> list[ToolDefinition]:
    """Return tools of the registry as the agent service hands them to the model gateway."""
    return [
        ToolDefinition(name=item.name, description=item.description, parameters=item.parameters, strict=strict)
        for item in toolset(map(pack_tool, tools)).schemas
    ]


def _chat(prompt: Prompt) -> Iterator[Told]:
    for tool in sent(openai_wire.request("gpt-4.1", prompt, Fragments(), official=True))["tools"]:
        function = dict(tool["function"])
        yield Told(function.pop("name"), function.pop("description"), function.pop("parameters"), function)


def _compatible(prompt: Prompt) -> Iterator[Told]:
    for tool in sent(openai_wire.request("qwen3", prompt, Fragments(), official=False))["tools"]:
        function = dict(tool["function"])
        yield Told(function.pop("name"), function.pop("description"), function.pop("parameters"), function)


def _responses(prompt: Prompt) -> Iterator[Told]:
    for tool in sent(responses_wire.request("gpt-5", prompt, Fragments(), official=True))["tools"]:
        rest = {key: value for key, value in tool.items() if key not in {"name", "description", "parameters", "type"}}
        yield Told(tool["name"], tool["description"], tool["parameters"], rest)


def _anthropic(prompt: Prompt) -> Iterator[Told]:
    for tool in sent(anthropic_wire.request("claude-sonnet-4-5", prompt, Fragments()))["tools"]:
        rest = {key: value for key, value in tool.items() if key not in {"name", "description", "input_schema"}}
        yield Told(tool["name"], tool["description"], tool["input_schema"], rest)


def _google(prompt: Prompt) -> Iterator[Told]:
    """Also through the types of the vendor's SDK, which refuse what they do not know."""
    config = genai.GenerateContentConfig(**at_once(google_wire.request(prompt, Fragments()))[1])
    for declared in config.tools[0].function_declarations:  # type: ignore[union-attr, index]
        told = declared.model_dump(exclude_none=True)
        yield Told(told.pop("name"), told.pop("description"), told.pop("parameters_json_schema", None), told)


def _bedrock(prompt: Prompt) -> Iterator[Told]:
    told = sent(bedrock_wire.request("anthropic.claude-sonnet-4-5-v1:0", prompt, Fragments()))
    for tool in told["toolConfig"]["tools"]:
        if "toolSpec" in tool:
            spec = dict(tool["toolSpec"])
            yield Told(spec.pop("name"), spec.pop("description", None), spec.pop("inputSchema")["json"], spec)


FORMATS: dict[str, tuple[int, Callable[[Prompt], Iterator[Told]]]] = {
    "openai": (128, _chat),
    "openai compatible": (0, _compatible),
    "openai responses": (128, _responses),
    "anthropic": (0, _anthropic),
    "google": (512, _google),
    "bedrock": (0, _bedrock),
}
"""Most tools of one request (0: any number), and what the vendor is told."""


def allowed(vendor: str, sent: ToolDefinition, told: Told) -> set[str]:
    """Return the names of the differences that are known and meant. All others are faults."""
    parameters = json.loads(sent.parameters)
    known = set()
    if vendor == "openai responses" and told.extra.get("strict") is sent.strict:
        known.add("strict is always said, since left out it would be true")
    elif vendor != "google" and sent.strict and told.extra.get("strict") is True:
        known.add("strict is said when it is asked for")
    if vendor == "google" and told.parameters is None and not parameters.get("properties"):
        known.add("without properties there are no parameters")
    if vendor == "anthropic" and "cache_control" in told.extra:
        known.add("the last tool carries the mark of the cache")
    if vendor == "bedrock" and told.description is None and not sent.description:
        known.add("an empty description is left out")
    return known


def differences(vendor: str, sent: ToolDefinition, told: Told) -> set[str]:
    """Return what differs, by the field."""
    found = set()
    if told.name != sent.name:
        found.add("name")
    if (told.description or "") != sent.description:
        found.add("description")
    if json.dumps(told.parameters) != json.dumps(json.loads(sent.parameters)):  # numbers, order and all
        found.add("parameters")
    known = allowed(vendor, sent, told)
    if "without properties there are no parameters" in known:
        found.discard("parameters")
    explained = {"strict"} if any(name.startswith("strict") for name in known) else set()
    explained |= {"cache_control"} if "the last tool carries the mark of the cache" in known else set()
    if told.extra.keys() - explained:
        found.add("extra")
    return found


def faults(vendor: str, sent: Sequence[ToolDefinition], *, strict: bool = False) -> list[str]:
    """Return every way in which a vendor is told something else than the registry has, beyond what is allowed."""
    most, write = FORMATS[vendor]
    size = most or 500
    found = []
    for begin in range(0, len(sent), size):
        part = sent[begin : begin + size]
        told = list(write(Prompt(tools=part, settings=ModelSettings(strict=strict))))
        if len(told) != len(part):
            found.append(f"{len(part)} tools became {len(told)}")
        found += [
            f"{one.name}: {', '.join(sorted(differences(vendor, one, other)))}"
            for one, other in zip(part, told, strict=False)
            if differences(vendor, one, other)
        ]
    return found
