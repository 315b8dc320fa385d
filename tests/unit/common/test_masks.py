"""One reading of field masks."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.agent.v1 import agent_pb2, agent_service_pb2, conversation_pb2
from letta.common.v1 import model_settings_pb2
from letta.compat.v1.agent_pb2 import AgentCompat
from letta.llm.v1 import provider_pb2
from letta.memory.v1 import block_pb2
from letta.tools.v1.mcp_server_pb2 import MCPServer, MCPServerConfig, StreamableHttpMCPConfig
from letta_common.errors import InvalidArgument
from letta_rpc.masks import changed_paths, changed_values, copy_paths, shared_fields

Conversation, Settings = conversation_pb2.Conversation, model_settings_pb2.ModelSettings


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


def test_an_empty_mask_means_what_is_set_and_may_change():
    block = block_pb2.Block(id="block-1", value="v", tags=["a"], hidden=False, etag="3", version=3)
    provider = provider_pb2.Provider(name="immutable", region="eu")

    assert changed_paths(block, mask()) == ("value", "tags", "hidden")
    assert changed_values(block, mask()) == {"value": "v", "tags": ["a"], "hidden": False}
    assert changed_paths(provider, mask()) == ("region",)


def test_an_empty_mask_goes_into_a_flattened_field_and_the_member_of_its_union():
    remote = StreamableHttpMCPConfig(auth_header="x-key", custom_headers={"a": "b"})
    server = MCPServer(id="mcp_server-1", server_name="demo", config=MCPServerConfig(streamable_http=remote))
    agent = agent_pb2.Agent(compat=AgentCompat(message_ids=["message-1"]))

    within = "config.streamable_http"
    assert changed_paths(server, mask()) == ("server_name", f"{within}.auth_header", f"{within}.custom_headers")
    assert changed_paths(server, mask("config")) == ("config",)
    assert changed_paths(agent, mask()) == ("compat.message_ids",)


def test_a_mask_names_what_changes_and_what_is_cleared():
    block = block_pb2.Block(value="v", label="not named", etag="3")

    named = mask("value", "description", "tags", "etag", "value")

    assert changed_paths(block, named) == ("value", "description", "tags")
    assert changed_values(block, named) == {"value": "v", "description": None, "tags": []}


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        (block_pb2.Block(), "nope"),
        (block_pb2.Block(), ""),
        (block_pb2.Block(), "*"),
        (block_pb2.Block(), "value.x"),
        (block_pb2.Block(), "tags.0"),
        (block_pb2.Block(), "created_at"),
        (block_pb2.Block(), "created_at.seconds"),
        (provider_pb2.Provider(), "name"),
        (Conversation(), "agent_id"),
        (Conversation(), "model_settings.nope"),
        (agent_pb2.Agent(), "secret_values.KEY"),
        (agent_pb2.Agent(), "compat.llm_config.model_wrapper"),
    ],
)
def test_a_path_that_no_update_changes_is_refused(resource: Any, path: str):
    with pytest.raises(InvalidArgument) as caught:
        changed_paths(resource, mask(path))

    assert caught.value.metadata["field"] == f"update_mask.{path}"
    assert path in str(caught.value)


def test_a_path_inside_changes_only_what_it_names():
    given = Conversation(model_settings=Settings(temperature=0.5, max_output_tokens=9))
    target = Conversation(summary="s", model_settings=Settings(temperature=1, max_output_tokens=1, strict=True))

    copy_paths(given, target, changed_paths(given, mask("model_settings.temperature", "model_settings.strict")))

    assert target == Conversation(summary="s", model_settings=Settings(temperature=0.5, max_output_tokens=1))


def test_a_message_is_replaced_as_a_whole_also_by_an_empty_one():
    target = Conversation(model_settings=Settings(temperature=1, strict=True))

    copy_paths(Conversation(model_settings=Settings(temperature=2)), target, ["model_settings"])
    assert target == Conversation(model_settings=Settings(temperature=2))
    copy_paths(Conversation(model_settings=Settings()), target, ["model_settings"])
    assert target == Conversation(model_settings=Settings())
    copy_paths(Conversation(), target, ["model_settings"])
    assert target == Conversation()


def test_lists_and_maps_are_replaced():
    given = agent_pb2.Agent(tags=["b"], secret_values={"B": "2"})
    target = agent_pb2.Agent(tags=["a"], secret_values={"A": "1"}, name="n")

    copy_paths(given, target, changed_paths(given, mask()))

    assert target == agent_pb2.Agent(tags=["b"], secret_values={"B": "2"}, name="n")


def test_shared_fields_have_the_same_type():
    shared = shared_fields(Conversation.DESCRIPTOR, agent_pb2.Agent.DESCRIPTOR)

    assert shared >= {"model", "model_settings", "id"}
    assert "tools" not in shared_fields(agent_pb2.Agent.DESCRIPTOR, agent_service_pb2.CreateAgentRequest.DESCRIPTOR)
