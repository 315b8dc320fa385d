"""The spliced request is the one that the generated classes write."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letta.common.v1 import message_pb2, model_settings_pb2
from letta.llm.v1 import generation_service_pb2 as llm_pb2
from letta_agent.clients.models import encode


def message(text):
    part = message_pb2.ContentPart(text=message_pb2.TextContent(text=text))
    return message_pb2.Message(id="message-1", role=message_pb2.MESSAGE_ROLE_USER, parts=[part])


def spliced(prompt, *messages):
    return llm_pb2.GenerateRequest.FromString(encode(prompt, [m.SerializeToString() for m in messages]))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.text(max_size=300), max_size=5), st.text(max_size=50))
def test_the_spliced_request_reads_as_it_was_meant(texts, system):
    prompt = llm_pb2.Prompt(
        model="a/b",
        system=system,
        tools=[llm_pb2.ToolDefinition(name="t", description="does", parameters="{}")],
        tool_choice=llm_pb2.ToolChoice(mode=llm_pb2.TOOL_CHOICE_MODE_TOOL, name="t"),
        settings=model_settings_pb2.ModelSettings(temperature=0.5),
        attribution=llm_pb2.Attribution(agent_id="agent-1"),
    )
    whole = llm_pb2.Prompt()
    whole.CopyFrom(prompt)
    whole.messages.extend(message(text).SerializeToString() for text in texts)

    assert spliced(prompt, *map(message, texts)) == llm_pb2.GenerateRequest(prompt=whole)


def test_a_long_message_keeps_its_length():
    read = spliced(llm_pb2.Prompt(model="a/b"), message("x" * 100_000), message("y"))
    told = map(message_pb2.Message.FromString, read.prompt.messages)
    assert [len(each.parts[0].text.text) for each in told] == [100_000, 1]
