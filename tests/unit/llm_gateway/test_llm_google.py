"""Google's wire: signatures of calls go back, thoughts are counted in, what cannot be read is refused."""

from __future__ import annotations

import base64
import json

import pytest

from letta.common.v1 import message_pb2 as m
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Prompt, ToolChoice, ToolChoiceMode, ToolDefinition
from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.parts import reasoning_part, text_part
from letta_llm_gateway.providers.vendors.google import answer, request
from tests.support.prompts import at_once, kept

SIGNED = base64.b64encode(b"\xff\xfe signed").decode()
SENT = base64.urlsafe_b64encode(b"\xff\xfe signed").decode()


def told(*messages):
    """Return the contents of a request as the vendor reads them."""
    contents, _ = at_once(request(Prompt(messages=kept(*messages)), Fragments()))
    return json.loads(b"[%s]" % contents)


def body(*parts, finish="STOP", **rest):
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": finish}], **rest}


@pytest.mark.parametrize("written", [SIGNED, SIGNED.replace("+", "-").replace("/", "_")])
def test_the_signature_of_a_call_goes_back_with_it(written):
    [call] = answer(
        body({"functionCall": {"name": "look", "args": {"x": 1}}, "thoughtSignature": written}), vendor="v"
    ).parts
    assert call.HasField("tool_call")

    said = m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=[call])
    contents = told(said)

    [part] = contents[1]["parts"]
    assert part == {"functionCall": {"name": "look", "args": {"x": 1}}, "thoughtSignature": SENT}
    assert contents[0]["role"] == "user"


def test_thoughts_are_reasoning_and_count_as_output():
    counts = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 4, "cachedContentTokenCount": 2}

    got = answer(body({"text": "Hm.", "thought": True}, {"text": "So."}, usageMetadata=counts), vendor="v")

    assert got.parts == [reasoning_part("Hm."), text_part("So.")]
    assert got.usage == TokenUsage(prompt_tokens=10, completion_tokens=7, cached_input_tokens=2, reasoning_tokens=4)


def test_a_blocked_prompt_is_filtered_not_broken():
    got = answer({"promptFeedback": {"blockReason": "SAFETY"}}, vendor="v")

    assert (got.parts, got.finish_reason) == ([], FinishReason.FINISH_REASON_CONTENT_FILTER)


def test_a_malformed_call_is_refused():
    with pytest.raises(LLMInvalidResponse):
        answer(body(finish="MALFORMED_FUNCTION_CALL"), vendor="v")


def test_settings_take_the_form_of_the_sdk():
    prompt = Prompt(
        system="Be kind.",
        tools=[ToolDefinition(name="now"), ToolDefinition(name="look", parameters='{"properties": {"x": {}}}')],
        tool_choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_TOOL, name="look"),
    )
    prompt.settings.thinking_config.include_thoughts = True
    prompt.settings.thinking_config.thinking_budget = 512
    prompt.settings.response_format.json_schema.json_schema.schema = '{"type": "object"}'

    _, config = at_once(request(prompt, Fragments(), max_tokens=99))

    assert config["max_output_tokens"] == 99
    assert config["thinking_config"] == {"include_thoughts": True, "thinking_budget": 512}
    assert config["response_json_schema"] == {"type": "object"}
    assert config["tool_config"]["function_calling_config"] == {"mode": "ANY", "allowed_function_names": ["look"]}
    [now, look] = config["tools"][0]["function_declarations"]
    assert "parameters_json_schema" not in now
    assert look["parameters_json_schema"] == {"properties": {"x": {}}}


def test_an_image_goes_out_in_line():
    held = m.ImageContent(source=m.ImageSource(base64=m.Base64Image(data=b"png", media_type="image/png")))
    said = m.Message(role=m.MESSAGE_ROLE_USER, parts=[m.ContentPart(image=held)])

    contents = told(said)

    assert contents[0]["parts"] == [{"inlineData": {"data": "cG5n", "mimeType": "image/png"}}]
