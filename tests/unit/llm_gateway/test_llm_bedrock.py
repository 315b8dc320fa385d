"""Bedrock's wire: whose credentials sign, what is marked for the cache, what cannot be sent."""

from __future__ import annotations

import base64
import sys

import pytest

from letta.common.v1 import message_pb2 as m
from letta.common.v1.model_settings_pb2 import THINKING_TYPE_ENABLED
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import (
    FinishReason,
    PartStarted,
    Prompt,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from letta_common.egress import AddressGuard
from letta_common.errors import (
    AppError,
    CapabilityMissing,
    InvalidArgument,
    LLMAuthentication,
    LLMBadRequest,
    LLMInvalidResponse,
    LLMRateLimit,
    LLMTimeout,
    LLMUnavailable,
)
from letta_llm_gateway.domain.answers import Call, Completed, Delta, Signed
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.http import Clients
from letta_llm_gateway.providers.parts import answer_of, reasoning_part, text_part
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vendors.bedrock import StreamReader, answer, request
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from tests.fakes.bedrock_server import KEYS, BedrockServer, frame
from tests.fakes.wire import Fault
from tests.support.prompts import kept, sent

CLAUDE = "us.anthropic.claude-sonnet-4-5-v1:0"
AMBIENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE")


def text(value: str) -> m.ContentPart:
    return m.ContentPart(text=m.TextContent(text=value))


def message(role: m.MessageRole, *parts: m.ContentPart) -> m.Message:
    return m.Message(role=role, parts=parts)


HI = message(m.MESSAGE_ROLE_USER, text("hi"))


@pytest.fixture
async def vendor(monkeypatch):
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    async with BedrockServer() as server:
        server.secrets = dict(KEYS)
        yield server


async def asked(account: Account, model: str = CLAUDE) -> object:
    factory = ProviderFactory(BuiltinProvider(), Clients(AddressGuard(["127.0.0.1"])))
    try:
        return await (await factory.provider(account)).generate(Call(model, Prompt(messages=kept(HI))))
    finally:
        await factory.close()


def account(vendor: BedrockServer, **rest: str) -> Account:
    return Account("aws", "bedrock", base_url=vendor.url, region="eu-central-1", **rest)


async def test_a_request_is_signed_with_the_accounts_secret(vendor):
    await asked(account(vendor, access_key="AKIATEST", api_key="secret-of-test"))

    [sent] = vendor.requests
    assert "/eu-central-1/bedrock/aws4_request" in sent.headers["authorization"]
    assert sent.path == "/model/us.anthropic.claude-sonnet-4-5-v1%3A0/converse"
    assert "secret-of-test" not in str(sent)


async def test_a_signature_with_another_secret_is_refused(vendor):
    with pytest.raises(LLMAuthentication, match="security token"):
        await asked(account(vendor, access_key="AKIATEST", api_key="guessed"))


async def test_an_api_key_of_bedrock_goes_out_as_it_is(vendor):
    vendor.bearers = {"bedrock-key"}

    await asked(account(vendor, api_key="bedrock-key"))

    assert vendor.requests[0].headers["authorization"] == "Bearer bedrock-key"


async def test_an_organization_cannot_spend_the_credentials_of_the_machine(vendor, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["AKIATEST"])
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "operators-own")
    vendor.bearers = {"operators-own"}

    for keys in ({}, {"access_key": "AKIATEST"}, {"access_key": "AKIAOTHER", "api_key": "x"}, {"api_key": "x"}):
        with pytest.raises(LLMAuthentication):
            await asked(account(vendor, organization_id="org-a", **keys))
    assert not [sent for sent in vendor.requests if "operators-own" in str(sent.headers) or "AKIATEST" in str(sent)]


async def test_control_the_deployments_own_account_signs_with_them(vendor, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["AKIATEST"])

    await asked(account(vendor))
    assert "AKIATEST" in vendor.requests[0].headers["authorization"]


async def test_without_any_credentials_the_error_says_what_to_set(vendor):
    with pytest.raises(LLMAuthentication, match="set access_key and api_key"):
        await asked(account(vendor))
    assert vendor.requests == []


@pytest.mark.parametrize("region", ["", "evil.example/", "us-east-1.evil.example", "US-EAST-1", "us-east-1#"])
async def test_a_region_that_is_none_is_refused_before_it_becomes_an_address(region):
    with pytest.raises(InvalidArgument, match="us-east-1"):
        await asked(Account("aws", "bedrock", "key", region=region, organization_id="org-a"))


async def test_without_its_sdk_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    monkeypatch.delitem(sys.modules, "letta_llm_gateway.providers.vendors.bedrock", raising=False)

    with pytest.raises(CapabilityMissing, match=r"services/llm_gateway\[bedrock\]"):
        await asked(Account("aws", "bedrock", "key", region="us-east-1"))


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "ThrottlingException", LLMRateLimit),
        (400, "ServiceQuotaExceededException", LLMRateLimit),
        (424, "ModelErrorException", LLMUnavailable),
        (408, "ModelTimeoutException", LLMTimeout),
        (403, "ExpiredTokenException", LLMAuthentication),
        (400, "ValidationException", LLMBadRequest),
    ],
)
async def test_the_vendors_words_decide(vendor, status, kind, expected):
    vendor.say(Fault(status=status, headers={"x-amzn-errortype": f"{kind}:http://internal.amazon.com/"}))

    with pytest.raises(AppError, match=kind) as caught:
        await asked(account(vendor, access_key="AKIATEST", api_key="secret-of-test"))
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("throttlingException", LLMRateLimit),
        ("validationException", LLMBadRequest),
        ("modelStreamErrorException", LLMUnavailable),
        ("internalServerException", LLMUnavailable),
        ("neverHeardOfException", LLMUnavailable),
    ],
)
async def test_exceptions_in_a_stream_are_typed(vendor, kind, expected):
    async def handle(request, out):
        async def frames():
            yield frame("messageStart", {"role": "assistant"})
            yield frame(kind, {"message": "no more"}, exception=True)

        await out.stream(frames(), "application/vnd.amazon.eventstream")

    vendor.handle = handle
    factory = ProviderFactory(BuiltinProvider())
    provider = await factory.provider(account(vendor, api_key="k"))

    with pytest.raises(AppError, match="no more") as caught:
        async for _ in provider.stream(Call(CLAUDE, Prompt(messages=kept(HI)))):
            pass
    assert type(caught.value) is expected
    await factory.close()


def test_tools_system_and_history_are_marked_for_the_cache_where_the_model_has_one():
    prompt = Prompt(system="Be kind.", messages=kept(HI))

    body = sent(request(CLAUDE, prompt, Fragments()))
    plain = sent(request("meta.llama3-1-70b-instruct-v1:0", prompt, Fragments()))

    mark = {"cachePoint": {"type": "default"}}
    assert body["system"] == [{"text": "Be kind."}, mark]
    assert body["messages"][-1]["content"] == [{"text": "hi"}, mark]
    assert "cachePoint" not in str(plain)


def test_reasoning_goes_back_as_it_came_and_other_vendors_reasoning_does_not():
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": base64.b64encode(b"\xff hidden").decode()}},
        {"text": "So."},
    ]
    got = answer({"output": {"message": {"content": content}}, "stopReason": "end_turn"}, vendor="v")
    thought, hidden, _ = got.parts
    assert thought == reasoning_part("Hm.", "bedrock:sig")
    assert hidden.HasField("redacted_reasoning")

    said = message(
        m.MESSAGE_ROLE_ASSISTANT,
        text("So."),
        thought,
        hidden,
        m.ContentPart(reasoning=m.ReasoningContent(reasoning="another's", signature="anthropics")),
    )
    body = sent(request(CLAUDE, Prompt(messages=kept(HI, said)), Fragments()))
    assert body["messages"][1]["content"] == content


def test_settings_take_the_form_of_converse():
    prompt = Prompt(messages=kept(HI), tools=[ToolDefinition(name="look")])
    prompt.settings.temperature = 1.5
    prompt.settings.effort = "low"
    wanted = prompt.settings.response_format.json_schema.json_schema
    wanted.name, wanted.schema = "n", '{"type": "object"}'
    prompt.tool_choice.CopyFrom(ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_TOOL, name="look"))

    body = sent(request(CLAUDE, prompt, Fragments(), max_tokens=50))

    assert body["inferenceConfig"] == {"maxTokens": 50, "temperature": 1.0}
    assert body["outputConfig"]["effort"] == "low"
    assert body["outputConfig"]["textFormat"]["structure"]["jsonSchema"] == {
        "schema": '{"type": "object"}',
        "name": "n",
    }
    assert body["toolConfig"]["toolChoice"] == {"tool": {"name": "look"}}


def test_thinking_is_claudes_alone_and_frees_the_choice_of_tools():
    prompt = Prompt(messages=kept(HI), tools=[ToolDefinition(name="look")])
    prompt.tool_choice.mode = ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED
    prompt.settings.thinking.type = THINKING_TYPE_ENABLED
    prompt.settings.thinking.budget_tokens = 2000
    prompt.settings.temperature = 0.2

    body = sent(request(CLAUDE, prompt, Fragments(), max_tokens=100))

    assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert body["inferenceConfig"] == {"maxTokens": 6096}
    assert body["toolConfig"]["toolChoice"] == {"auto": {}}
    assert "additionalModelRequestFields" not in sent(request("amazon.nova-pro-v1:0", prompt, Fragments()))


def test_calls_in_the_history_are_declared_even_when_no_tool_may_be_called():
    call = m.ContentPart(tool_call=m.ToolCallContent(id="c", name="look", input="{}"))
    back = m.ContentPart(tool_return=m.ToolReturnContent(tool_call_id="c", content=""))
    prompt = Prompt(messages=kept(HI, message(m.MESSAGE_ROLE_ASSISTANT, call), message(m.MESSAGE_ROLE_TOOL, back)))

    body = sent(request("amazon.nova-pro-v1:0", prompt, Fragments()))

    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["look"]
    assert "toolChoice" not in body["toolConfig"]
    assert body["messages"][2]["content"][0]["toolResult"]["content"] == [{"text": " "}], "blank text is refused"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (m.ImageSource(url=m.UrlImage(url="https://x.example/a.png")), "base64"),
        (m.ImageSource(base64=m.Base64Image(media_type="image/tiff", data=b"x")), "image/tiff"),
    ],
)
def test_images_that_cannot_be_sent_say_what_to_change(source, words):
    see = message(m.MESSAGE_ROLE_USER, m.ContentPart(image=m.ImageContent(source=source)))

    with pytest.raises(CapabilityMissing, match=words):
        sent(request(CLAUDE, Prompt(messages=kept(see)), Fragments()))


def test_an_image_goes_out_in_base64():
    held = m.ImageSource(base64=m.Base64Image(media_type="image/jpg", data=b"jpeg"))
    see = message(m.MESSAGE_ROLE_USER, m.ContentPart(image=m.ImageContent(source=held)))

    [turn] = sent(request("amazon.nova-pro-v1:0", Prompt(messages=kept(see)), Fragments()))["messages"]
    assert turn["content"][0] == {"image": {"format": "jpeg", "source": {"bytes": base64.b64encode(b"jpeg").decode()}}}


def test_a_response_format_that_the_vendor_lacks_is_named():
    prompt = Prompt(messages=kept(HI))
    prompt.settings.response_format.json_object.SetInParent()

    with pytest.raises(CapabilityMissing, match="json_object"):
        sent(request(CLAUDE, prompt, Fragments()))


@pytest.mark.parametrize("stop", ["malformed_tool_use", "malformed_model_output"])
def test_what_the_vendor_calls_malformed_is_refused(stop):
    with pytest.raises(LLMInvalidResponse, match=stop):
        answer({"output": {"message": {"content": []}}, "stopReason": stop}, vendor="v")


def test_a_stream_reads_reasoning_text_and_cached_tokens():
    reader = StreamReader(vendor="v", response_id="r")
    counts = {"inputTokens": 3, "outputTokens": 2, "cacheReadInputTokens": 10, "cacheWriteInputTokens": 5}
    got = [
        *reader.feed("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}}),
        *reader.feed("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}),
        *reader.feed("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "So."}}),
        *reader.feed("never heard of", {}),
        *reader.feed("messageStop", {"stopReason": "stop_sequence"}),
        *reader.feed("metadata", {"usage": counts}),
        *reader.end(),
    ]

    assert got[:5] == [
        PartStarted(index=0, part=reasoning_part()),
        Delta(0, "Hm."),
        Signed(0, "bedrock:s"),
        PartStarted(index=1, part=text_part()),
        Delta(1, "So."),
    ]
    assert got[-1] == Completed(
        answer_of(
            FinishReason.FINISH_REASON_STOP,
            TokenUsage(prompt_tokens=18, completion_tokens=2, cached_input_tokens=10, cache_write_tokens=5),
            "r",
        ),
        objects=True,
    )
