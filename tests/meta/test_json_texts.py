"""A field holds JSON in a string where its form is not ours to say; what has a form of ours is a message."""

from __future__ import annotations

from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from scripts.contracts import read_contracts

# The data, schemas, arguments and results of callers, tools and vendors: each may be anything.
THEIRS = frozenset(
    {
        *(f"agent.v1.{name}" for name in ("Agent.metadata", "ClientTool.parameters")),
        "memory.v1.IdentityProperty.value",
        *("agent.v1.InitToolRule.args", "agent.v1.RunAgentToolRequest.args", "agent.v1.ToolCallNode.args"),
        "agent.v1.RunAgentToolResponse.func_return",
        *(f"agent.v1.{name}.metadata" for name in ("BundledAgent", "BundledBlock", "BundledFolder", "BundledTool")),
        *("agent.v1.BundledFunction.arguments", "agent.v1.BundledReturn.text", "agent.v1.BundledTool.args_json_schema"),
        *("agent.v1.ChatCalledFunction.arguments", "agent.v1.ChatFunction.parameters"),
        "agent.v1.BundledServer.stdio_config",  # as another server wrote it
        *(f"common.v1.{name}" for name in ("ToolCall.arguments", "ToolCallContent.input", "EventMessage.event_data")),
        "common.v1.AnswerSchema.schema",
        *("llm.v1.ProviderTrace.response_json", "llm.v1.ToolDefinition.parameters"),
        "llm.v1.ProviderTrace.request_json",  # the body that went over the vendor's wire
        *(f"memory.v1.{name}.metadata" for name in ("Archive", "Block", "CreateArchiveRequest")),
        *(f"memory.v1.{name}.metadata" for name in ("NewPassage", "Passage", "PassageRecord")),
        *(f"memory.v1.{name}.metadata" for name in ("CreateFolderRequest", "Folder", "SourceView")),
        *("tools.v1.ConnectedMCPTool.input_schema", "tools.v1.MCPOffer.input_schema"),
        *("tools.v1.FunctionSchema.parameters_schema", "tools.v1.ToolSource.parameters_schema"),
        *("tools.v1.ExecuteRequest.arguments", "tools.v1.ExecuteResponse.result"),
        # What programs of users read as their parameter `agent_state`, in the form that they were written for.
        "tools.v1.ExecuteRequest.agent_state",
        *("tools.v1.GenerateToolResponse.sample_args", "tools.v1.MCPToolResultView.result"),
        *("tools.v1.RunMCPServerToolRequest.args", "tools.v1.RunMCPServerToolResponse.func_return"),
        *("tools.v1.RunToolRequest.args", "tools.v1.RunToolRequest.args_json_schema"),
        *("tools.v1.Tool.args_json_schema", "tools.v1.Tool.metadata"),
    }
)
# Ours, but REST shows the text to the byte, with its blanks, which the JSON of a message does not have.
SHOWN = frozenset(
    {
        *("agent.v1.GetContextWindowResponse.functions_definitions", "agent.v1.GetContextWindowResponse.messages"),
        "agent.v1.Run.metadata",
    }
)


def test_json_in_a_string_is_the_data_of_others():
    contracts = read_contracts()
    found = set()
    for name, message in contracts.messages.items():
        if name.startswith(".letta.jsonmap."):
            continue
        for field in message.field:
            if field.type == field.TYPE_STRING and (
                field.options.Extensions[jsonmap.field].raw
                or "JSON" in contracts.field_comments.get(f"{name}.{field.name}", "")
            ):
                found.add(f"{name.removeprefix('.letta.')}.{field.name}")

    assert not THEIRS & SHOWN
    assert found == THEIRS | SHOWN
