"""Tools as vendors take them: fitted where that can be, else left out alone, with a warning; and the way back."""

from __future__ import annotations

import json
from contextlib import aclosing

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation
from letta_common.errors import LLMBadRequest
from letta_common.values.json_texts import json_object
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.generation.streams import Assembler
from letta_llm_gateway.providers.wires.arguments import finished
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.llm_prompts import assistant, call, prompt, returned, tool, user
from tests.fakes.wire import Fault, Say

TOOLS = (tool("first"), tool("second"), tool("third"))
OWN_PLACES = {
    "anthropic": "tools.1.custom.input_schema: JSON schema is invalid",
    "bedrock": "The value at toolConfig.tools.1.toolSpec.inputSchema.json.type must be one of the following: object.",
    "google_ai": "* GenerateContentRequest.tools[0].function_declarations[1].parameters.properties[x]: missing field",
}
both = pytest.mark.parametrize("stream", [False, True])


async def answered(subject: Subject, asked: pb.Prompt, *, stream: bool = False) -> Generation:
    if not stream:
        return await subject.provider.generate(Call("m", asked))
    assembler = Assembler()
    async with aclosing(subject.provider.stream(Call("m", asked))) as events:
        async for event in events:
            assembler.feed(event)
    return assembler.answer(finished)


def told(subject: Subject) -> dict[str, dict]:
    """Return name and schema of the tools of the last request, whatever its wire."""
    found = {}
    body = subject.vendor.requests[-1].body
    rows = body.get("tools") or body.get("toolConfig", {}).get("tools") or []
    rows = [row for each in rows for row in each.get("functionDeclarations", [each])]
    for each in rows:
        row = each.get("toolSpec") or each.get("function") or each
        schema = row.get("parameters") or row.get("input_schema") or row.get("inputSchema")
        found[row["name"]] = (schema or row.get("parametersJsonSchema") or row.get("parameters_json_schema") or {}) | {}
        found[row["name"]] = found[row["name"]].get("json", found[row["name"]])
    return found


def refuse(subject: Subject, message: str) -> None:
    error = {"type": "invalid_request_error", "message": message}
    subject.vendor.say(Fault(status=400, body={"type": "error", "error": error}))


@both
async def test_a_tool_that_the_vendor_refuses_is_left_out_alone(subject, stream):
    refuse(subject, OWN_PLACES.get(subject.kind, "Invalid schema for function 'second': 'nope' is not valid"))

    got = await answered(subject, prompt(user("hi"), tools=TOOLS), stream=stream)

    assert list(told(subject)) == ["first", "third"]
    [warning] = got.warnings
    assert "'second' was left out" in warning
    before = len(subject.vendor.requests)
    again = await answered(subject, prompt(user("hi"), tools=TOOLS), stream=stream)
    assert len(subject.vendor.requests) == before + 1, "what is known to be refused is not sent again"
    assert again.warnings == got.warnings
    changed = (TOOLS[0], tool("second", {"type": "object", "properties": {}}))
    assert (await answered(subject, prompt(user("hi"), tools=changed))).warnings == []


async def test_a_refusal_that_names_no_tool_leaves_out_the_unusual_ones(subject):
    odd = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}}
    refuse(subject, "Invalid JSON payload received. Unknown name in schema: Cannot find field.")

    got = await answered(subject, prompt(user("hi"), tools=(tool("plain"), tool("odd", odd))))

    assert list(told(subject)) == ["plain"]
    assert "'odd' was left out" in got.warnings[0]


async def test_a_refusal_that_is_about_no_tool_is_told(subject):
    refuse(subject, "temperature must be below 2")

    with pytest.raises(LLMBadRequest, match="temperature"):
        await answered(subject, prompt(user("hi"), tools=TOOLS))


async def test_a_tool_that_must_be_called_is_not_left_out(subject):
    refuse(subject, OWN_PLACES.get(subject.kind, "Invalid schema for function 'second': 'nope' is not valid"))
    choice = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_TOOL, name="second")

    with pytest.raises(LLMBadRequest, match="second") as caught:
        await answered(subject, prompt(user("hi"), tools=TOOLS, tool_choice=choice))
    assert caught.value.metadata["tool"] == "second"


@pytest.mark.parametrize("schema", ["{nope", "[]", '"text"', "{" * 100_000, '{"type": "string"}'])
async def test_a_schema_that_is_none_leaves_out_its_tool(subject, schema):
    broken = pb.ToolDefinition(name="second", parameters=schema)

    got = await answered(subject, prompt(user("hi"), tools=(tool("first"), broken)))

    assert list(told(subject)) == ["first"]
    assert "'second' was left out" in got.warnings[0]


async def test_of_two_tools_of_one_name_the_first_is_sent(subject):
    got = await answered(subject, prompt(user("hi"), tools=(*TOOLS, tool("second"))))

    assert list(told(subject)) == ["first", "second", "third"]
    assert "another tool has this name" in got.warnings[0]


async def test_more_tools_than_the_vendor_takes_are_left_out(subject):
    most = {"azure": 128, "openai-responses": 128, "google_ai": 512}.get(subject.kind, 513)
    got = await answered(subject, prompt(user("hi"), tools=tuple(tool(f"t{at}") for at in range(513))))

    assert len(told(subject)) == most
    assert len(got.warnings) == 513 - most


@both
@pytest.mark.parametrize("name", ["no spaces", "größe", "x" * 129, "semi;colon", "1", "$x", "a.b/c"])
async def test_a_name_that_the_vendor_refuses_goes_out_in_its_letters_and_comes_back(subject, name, stream):
    await answered(subject, prompt(user("hi"), tools=(tool("first"), tool(name))))
    first, out = told(subject)
    subject.vendor.say(Say(calls=[(out, {"label": "human", "new_str": "x"})]))
    history = (user("hi"), assistant(call(name, {})), returned("ok"))

    got = await answered(subject, prompt(*history, tools=(tool("first"), tool(name))), stream=stream)

    assert first == "first"
    assert out.isascii()
    assert len(out) <= 128
    assert [part.tool_call.name for part in got.parts] == [name]
    assert out.replace("_", "").replace("-", "").isalnum() or out == name


KEYS = {
    "type": "object",
    "properties": {
        "$top": {"type": "integer"},
        "_top": {"type": "string"},
        "@odata.type": {"type": "string"},
        "filter": {"type": "array", "items": {"type": "object", "properties": {"größe": {"type": "integer"}}}},
        "x" * 80: {"type": "string"},
    },
    "required": ["$top"],
}


@both
async def test_keys_that_vendors_refuse_go_out_in_their_letters_and_come_back(subject, stream):
    own = {"$top": 1, "_top": "a", "@odata.type": "b", "filter": [{"größe": 2}], "x" * 80: "c"}
    asked = prompt(user("hi"), assistant(call("query", own)), returned("ok"), tools=(tool("query", KEYS),))
    await answered(subject, asked)
    schema = told(subject)["query"]
    out = dict(zip(own, schema["properties"], strict=True))
    body = json.dumps(subject.vendor.requests[-1].body, ensure_ascii=False)
    subject.vendor.say(Say(calls=[("query", {out["$top"]: 1, "_top": "a", out["filter"]: [{"gr_e": 2}]})], piece=3))

    got = await answered(subject, asked, stream=stream)

    assert all(key.isascii() and key.replace("_", "").replace(".", "").isalnum() for key in schema["properties"])
    assert schema["required"] == [out["$top"]]
    assert not [key for key in ("$top", "@odata", "größe", "x" * 80) if key in body]
    [part] = got.parts
    assert json.loads(part.tool_call.input) == {"$top": 1, "_top": "a", "filter": [{"größe": 2}]}


LONG = "i" * 100


@pytest.mark.parametrize("id", ["call_0", "ping:0", LONG, "toolu_01", "ä", "abcdefghi", "call 0"])
async def test_ids_of_calls_are_unique_within_a_request_and_of_a_form_that_all_take(subject, id):
    again = [assistant(call("first", {"x": turn}, id)) for turn in range(3)]
    turns = [message for at, said in enumerate(again) for message in (said, returned(f"r{at}", id))]
    twice = assistant(call("first", {}, id), call("second", {}, id))
    results = m.Message(role=m.MESSAGE_ROLE_TOOL, parts=[*returned("one", id).parts, *returned("two", id).parts])

    await answered(subject, prompt(user("hi"), *turns, twice, results, tools=TOOLS))

    calls, answers = ids_of(subject.vendor.requests[-1].body)
    if subject.kind != "google_ai":  # which goes by names and their order
        assert len(set(calls)) == 5
        assert answers == calls
        assert all(len(each) == 9 and each.isascii() and each.isalnum() for each in calls)
    first = ids_of(subject.vendor.requests[-1].body)
    await answered(subject, prompt(user("hi"), *turns, twice, results, user("more"), tools=TOOLS))
    assert ids_of(subject.vendor.requests[-1].body) == first, "the vendor's cache finds what it had"


def ids_of(value) -> tuple[list[str], list[str]]:
    """Return the ids of calls and of results in a request, in order."""
    calls, answers = [], []

    def walk(each):
        if isinstance(each, list):
            for inner in each:
                walk(inner)
        if not isinstance(each, dict):
            return
        if each.get("type") in {"tool_use", "function"} and "id" in each:
            calls.append(each["id"])
        elif each.get("type") == "function_call":
            calls.append(each["call_id"])
        elif "toolUse" in each:
            calls.append(each["toolUse"]["toolUseId"])
        answers.extend(each[key] for key in ("tool_call_id", "tool_use_id") if key in each)
        if each.get("type") == "function_call_output":
            answers.append(each["call_id"])
        if "toolResult" in each:
            answers.append(each["toolResult"]["toolUseId"])
        for inner in each.values():
            walk(inner)

    walk({key: part for key, part in value.items() if key in {"messages", "input", "contents"}})
    return calls, answers


@both
async def test_every_call_that_a_vendor_makes_gets_an_id_of_its_own(subject, stream):
    seen = set()
    for _ in range(3):
        subject.vendor.say(Say(calls=[("first", {}), ("second", {})], ids=("ping:0", "ping:0")))
        got = await answered(subject, prompt(user("hi"), tools=TOOLS), stream=stream)
        seen |= {part.tool_call.id for part in got.parts if part.HasField("tool_call")}
    assert len(seen) == 6


@both
async def test_a_call_at_the_end_of_a_cut_answer_is_read_alike_streamed_and_whole(subject, stream):
    subject.vendor.say(Say(calls=[("first", {"a": 1})], finish="length"))
    got = await answered(subject, prompt(user("hi"), tools=TOOLS), stream=stream)

    [call] = got.parts
    assert got.finish_reason == FinishReason.FINISH_REASON_LENGTH
    whole = subject.kind not in {"anthropic", "bedrock"}  # whose whole answers show no cut
    assert json_object(call.tool_call.input) == ({"a": 1} if whole else None)
