"""What a caller sets goes over every wire in the vendor's form, and what a vendor signed goes back to it."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1.generation_service_pb2 import Generation
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.generation.streams import Assembler
from letta_llm_gateway.providers.wires.arguments import finished
from tests.contract.providers.llm_gateway.llm_prompts import SCHEMA, assistant, call, prompt, returned, text, tool, user
from tests.fakes.wire import Say

FORM = {"type": "object", "properties": {"x": {"type": "integer"}}}
ALL: dict[str, Any] = {
    "max_output_tokens": 2000,
    "temperature": 0.5,
    "parallel_tool_calls": True,
    "reasoning": {"reasoning_effort": "low"},
    "response_format": {"json_schema": {"json_schema": {"name": "n", "schema": json.dumps(FORM)}}},
    "strict": True,
    "effort": "high",
    "verbosity": "low",
    "thinking_config": {"thinking_budget": 512},
}
CHAT = {
    "max_tokens": 2000,
    "temperature": 0.5,
    "parallel_tool_calls": True,
    "reasoning_effort": "low",
    "response_format.json_schema.schema": FORM,
    "tools.0.function.parameters": SCHEMA,
}
CARRIED: dict[str, dict[str, Any]] = {
    "openai": CHAT,
    "vllm": CHAT,
    "ollama": CHAT,
    "azure": {
        "max_completion_tokens": 2000,
        "temperature": 0.5,
        "parallel_tool_calls": True,
        "response_format.json_schema.schema": FORM,
        "tools.0.function.strict": True,
    },
    "openai-responses": {
        "max_output_tokens": 2000,
        "temperature": 0.5,
        "parallel_tool_calls": True,
        "reasoning.effort": "low",
        "text.format.schema": FORM,
        "text.format.name": "n",
        "text.verbosity": "low",
        "tools.0.strict": True,
        "store": False,
    },
    "anthropic": {
        "max_tokens": 2000,
        "temperature": 0.5,
        "output_config.effort": "high",
        "output_config.format": {"type": "json_schema", "schema": FORM},
        "tools.0.strict": True,
        "tools.0.input_schema": SCHEMA,
    },
    "google_ai": {
        "generationConfig.maxOutputTokens": 2000,
        "generationConfig.temperature": 0.5,
        "generationConfig.responseMimeType": "application/json",
        "generationConfig.responseJsonSchema": FORM,
        "generationConfig.thinkingConfig": {"thinking_budget": 512},
    },
    "bedrock": {
        "inferenceConfig.maxTokens": 2000,
        "inferenceConfig.temperature": 0.5,
        "outputConfig.effort": "high",
        "outputConfig.textFormat.structure.jsonSchema.schema": json.dumps(FORM),
        "toolConfig.tools.0.toolSpec.strict": True,
        "toolConfig.tools.0.toolSpec.inputSchema.json": SCHEMA,
    },
}
CHOICES: dict[str, tuple[str, dict[int, Any]]] = {
    "openai": (
        "tool_choice",
        {1: "auto", 2: "required", 3: "none", 4: {"type": "function", "function": {"name": "memory_insert"}}},
    ),
    "openai-responses": (
        "tool_choice",
        {1: "auto", 2: "required", 3: "none", 4: {"type": "function", "name": "memory_insert"}},
    ),
    "anthropic": (
        "tool_choice.type",
        {1: "auto", 2: "any", 3: "none", 4: "tool"},
    ),
    "google_ai": (
        "toolConfig.functionCallingConfig",
        {
            1: {"mode": "AUTO"},
            2: {"mode": "ANY"},
            3: {"mode": "NONE"},
            4: {"mode": "ANY", "allowedFunctionNames": ["memory_insert"]},
        },
    ),
    "bedrock": (
        "toolConfig.toolChoice",
        {1: {"auto": {}}, 2: {"any": {}}, 3: None, 4: {"tool": {"name": "memory_insert"}}},
    ),
}


def found(body: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(body, list):
            body = body[int(key)]
        elif key in body:
            body = body[key]
        else:
            return None
    return body


async def sent(subject, asked: pb.Prompt) -> Any:
    await subject.provider.generate(Call("m", asked))
    return subject.vendor.requests[-1].body


async def test_settings_take_the_vendors_form(subject):
    body = await sent(subject, prompt(user("hi"), tools=(tool(),), settings=ALL))

    assert {path: found(body, path) for path in CARRIED[subject.kind]} == CARRIED[subject.kind]


async def test_what_is_not_set_is_left_to_the_vendor(subject):
    body = json.dumps(await sent(subject, prompt(user("hi"))))

    for word in ("temperature", "effort", "verbosity", "format", "thinking", "strict", "parallel", "tool"):
        assert word not in body


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
async def test_a_choice_of_tools_takes_the_vendors_form(subject, mode):
    choice = pb.ToolChoice(mode=mode, name="memory_insert" if mode == pb.TOOL_CHOICE_MODE_TOOL else "")
    path, forms = CHOICES.get(subject.kind, CHOICES["openai"])

    body = await sent(subject, prompt(user("hi"), tools=(tool(),), tool_choice=choice))
    told = found(body, path)
    if subject.kind == "google_ai":  # whose JSON may be written either way
        told = {key.replace("allowed_function_names", "allowedFunctionNames"): value for key, value in told.items()}
    assert told == forms[mode]


@pytest.mark.parametrize("parallel", [True, False])
async def test_parallel_calls_are_allowed_or_not_where_the_vendor_can(subject, parallel):
    asked = prompt(user("hi"), tools=(tool(),), settings={"parallel_tool_calls": parallel})
    body = await sent(subject, asked)

    if subject.kind == "anthropic":
        assert body["tool_choice"].get("disable_parallel_tool_use") is (None if parallel else True)
    elif subject.kind in {"google_ai", "bedrock"}:
        assert "parallel" not in json.dumps(body), "the vendor has no such switch"
    else:
        assert body["parallel_tool_calls"] is parallel


async def test_thinking_gets_its_budget_above_the_answers_own(subject):
    settings = {
        "thinking": {"type": "THINKING_TYPE_ENABLED", "budget_tokens": 3000},
        "max_output_tokens": 1000,
        "temperature": 0.1,
    }
    body = await sent(subject, prompt(user("hi"), settings=settings))

    if subject.kind != "anthropic":  # a setting of Anthropic's models, which others do not read
        assert "3000" not in json.dumps(body)
        return
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 3000}
    assert body["max_tokens"] > 3000
    assert "temperature" not in body


@pytest.mark.parametrize(
    ("asked", "allowed", "limit"),
    [(None, None, 4096), (None, 2000, 2000), (None, 64_000, 8192), (20_000, 64_000, 20_000)],
)
async def test_anthropics_wire_gets_the_limit_that_it_demands(subject, asked, allowed, limit):
    if subject.kind != "anthropic":
        return
    settings = {"max_output_tokens": asked} if asked else {}
    await subject.provider.generate(Call("m", prompt(user("hi"), settings=settings), max_output_tokens=allowed))

    assert subject.vendor.requests[-1].body["max_tokens"] == limit


async def answered(subject, mode: str) -> Generation:
    if mode == "unary":
        return await subject.provider.generate(Call("m", prompt(user("hi"))))
    assembler = Assembler()
    async for event in subject.provider.stream(Call("m", prompt(user("hi")))):
        assembler.feed(event)
    return assembler.answer(finished)


def kept(answer: Generation) -> m.Message:
    """Return an answer as the transcript keeps it."""
    return assistant(*answer.parts)


BACK = {
    "anthropic": [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ],
    "bedrock": [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": base64.b64encode(b"aGlkZGVu").decode()}},
    ],
    "openai-responses": [
        {"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": "Hm."}]}
        | {"encrypted_content": "c2ln"}
    ],
    "google_ai": [
        {"functionCall": {"name": "look", "args": {}}, "thoughtSignature": base64.b64encode(b"c2ln").decode()}
    ],
}


@pytest.mark.parametrize("mode", ["unary", "stream"])
async def test_what_the_vendor_signed_goes_back_to_it_and_to_nobody_else(subject, mode):
    subject.vendor.say(Say("So.", reasoning="Hm.", signature="c2ln", redacted="aGlkZGVu", calls=[("look", {})]))
    said = kept(await answered(subject, mode))
    result = returned("ok", id=next(part.tool_call.id for part in said.parts if part.HasField("tool_call")))

    body = await sent(subject, prompt(user("hi"), said, result, tools=(tool("look"),)))

    whole = json.dumps(body)
    for block in BACK.get(subject.kind, ()):
        assert json.dumps(block)[1:-1] in whole or block in _blocks(body)
    if subject.kind not in BACK:
        assert "c2ln" not in whole


def _blocks(body: Any) -> list[Any]:
    turns = body.get("messages") or body.get("contents") or []
    return [block for turn in turns for block in (turn.get("content") or turn.get("parts") or ())]


def _prefix(body: Any) -> str:
    """Return what the vendor's cache goes by: the body without marks, as bytes in their order."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(inner) for key, inner in value.items() if key != "cache_control"}
        if isinstance(value, list):
            return [bare(inner) for inner in value if inner != {"cachePoint": {"type": "default"}}]
        return value

    return json.dumps(bare(copy.deepcopy(body)))


async def test_the_next_step_begins_with_the_bytes_of_the_step_before(subject):
    tools = tuple(tool(name) for name in ("a", "b", "c"))
    first = [user("one")]
    second = [*first, assistant(text("I look."), call("a", {"z": 1, "a": 2})), returned("found")]
    bodies = [
        await sent(subject, prompt(*messages, system="Be kind.", tools=tools)) for messages in (first, second, second)
    ]

    history = next(key for key in ("messages", "contents", "input") if key in bodies[0])
    one, two, again = ([_prefix(body[history]), _prefix({**body, history: []})] for body in bodies)
    assert two == again
    assert two[1] == one[1]
    assert two[0].startswith(one[0][:-1])


async def test_anthropic_marks_what_stays_and_what_grows(subject):
    if subject.kind != "anthropic":
        assert "cache_control" not in json.dumps(await sent(subject, prompt(user("hi"), system="s", tools=(tool(),))))
        return
    mark = {"cache_control": {"type": "ephemeral"}}

    body = await sent(subject, prompt(user("one"), system="Be kind.", tools=(tool("a"), tool("b"))))
    assert body["system"][-1].items() >= mark.items()
    assert body["messages"][-1]["content"][-1].items() >= mark.items()
    assert json.dumps(body).count("cache_control") == 2
    body = await sent(subject, prompt(user("one"), tools=(tool("a"), tool("b"))))
    assert body["tools"][-1].items() >= mark.items()
    assert json.dumps(body).count("cache_control") == 2, "four are the vendor's most"
