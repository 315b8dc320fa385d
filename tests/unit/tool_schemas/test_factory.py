"""Tools from functions of a running program."""

import pytest
from pydantic import BaseModel, Field

from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.factory import Tool, ToolFactory


def roll(sides: int, label: str = "die") -> str:
    """Roll one die.

    Args:
        sides: How many sides.
        label: What to call it.
    """
    return f"{label}: 1 of {sides}"


class Throw(BaseModel):
    sides: int = Field(description="How many sides.", ge=2)


def throw(sides):
    """Throw a die."""
    return sides


def test_a_function_becomes_a_request():
    body = Tool.from_function(roll, tags=["games"]).to_dict()

    assert body["source_code"].startswith("def roll(sides: int")
    assert (body["tags"], body["json_schema"]["name"]) == (["games"], "roll")
    assert body["json_schema"]["parameters"]["required"] == ["sides"]
    assert "args_json_schema" not in body


def test_a_model_says_what_the_arguments_are():
    body = ToolFactory.create_from_function(throw, args_schema=Throw).to_dict()

    sides = {"type": "integer", "description": "How many sides.", "minimum": 2}
    assert body["json_schema"]["parameters"]["properties"] == {"sides": sides}
    assert body["args_json_schema"]["properties"]["sides"]["minimum"] == 2


def test_a_nested_function_is_unindented():
    def inner() -> int:
        """Inner."""
        return 1

    assert Tool.from_function(inner).source_code.startswith("def inner")


@pytest.mark.parametrize("wrong", [lambda: 1, len, Throw, eval("lambda: 1")])
def test_what_is_no_function(wrong):
    with pytest.raises(SourceInvalid):
        Tool.from_function(wrong)


def test_a_function_without_a_file():
    scope = {}
    exec("def f():\n    '''F.'''", scope)
    with pytest.raises(SourceInvalid, match="cannot be read"):
        Tool.from_function(scope["f"])
