"""The spliced request is the one that the generated classes write."""

from hypothesis import given
from hypothesis import strategies as st

from letta.common.v1 import message_pb2, model_settings_pb2
from letta.llm.v1 import generation_service_pb2 as llm_pb2
from letta_agent.clients.models import encode
from letta_agent.domain.peers.models import Prompt, ToolSchema


def message(text):
    part = message_pb2.ContentPart(text=message_pb2.TextContent(text=text))
    return message_pb2.Message(id="message-1", role=message_pb2.MESSAGE_ROLE_USER, parts=[part])


@given(st.lists(st.text(max_size=300), max_size=5), st.text(max_size=50))
def test_the_spliced_request_reads_as_it_was_meant(texts, system):
    messages = [message(text) for text in texts]
    prompt = Prompt(
        model="a/b",
        system=system,
        messages=tuple(m.SerializeToString() for m in messages),
        tools=(ToolSchema("t", "does", "{}"),),
        settings=model_settings_pb2.ModelSettings(temperature=0.5),
        agent_id="agent-1",
    )
    read = llm_pb2.GenerateRequest.FromString(encode(prompt)).prompt

    assert list(read.messages) == messages
    assert (read.model, read.system, read.tools[0].name) == ("a/b", system, "t")
    assert (read.settings.temperature, read.attribution.agent_id) == (0.5, "agent-1")
    assert read.tool_choice.mode == llm_pb2.TOOL_CHOICE_MODE_AUTO


def test_a_forced_tool_is_named():
    prompt = Prompt(model="a/b", system="", messages=(), required=True, forced_tool="t")
    choice = llm_pb2.GenerateRequest.FromString(encode(prompt)).prompt.tool_choice
    assert (choice.mode, choice.name) == (llm_pb2.TOOL_CHOICE_MODE_TOOL, "t")


def test_a_long_message_keeps_its_length():
    prompt = Prompt(model="a/b", system="", messages=(message("x" * 100_000).SerializeToString(),))
    assert len(llm_pb2.GenerateRequest.FromString(encode(prompt)).prompt.messages[0].parts[0].text.text) == 100_000
