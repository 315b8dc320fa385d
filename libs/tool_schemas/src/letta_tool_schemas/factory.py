"""Tools from functions of a running program: the source is read, the schema derived, nothing is sent."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.schemas import FunctionSchema, derive_schema


@dataclass(frozen=True, slots=True)
class NewTool:
    """What a request to create a tool says."""

    source_code: str
    schema: FunctionSchema
    args_json_schema: Mapping[str, Any] | None = None
    tags: Sequence[str] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Return the body of `POST /v1/tools/`."""
        body: dict[str, Any] = {
            "source_code": self.source_code,
            "source_type": "python",
            "json_schema": json.loads(self.schema.to_json()),
            "tags": list(self.tags),
        }
        return body if self.args_json_schema is None else {**body, "args_json_schema": dict(self.args_json_schema)}


class ToolFactory:
    """Makes tools of functions."""

    @staticmethod
    def create_from_function(
        function: Callable[..., Any], *, args_schema: type[Any] | None = None, tags: Sequence[str] = ()
    ) -> NewTool:
        """Read the source of a function; a pydantic model may say what its arguments are. Raises SourceInvalid."""
        source = _source_of(function)
        arguments = args_schema.model_json_schema() if args_schema is not None else None
        schema = derive_schema(source, name=function.__name__, args_json_schema=arguments)
        return NewTool(source, schema, arguments, tuple(tags))


class Tool:
    """Shorthand for programs: `Tool.from_function(f)`."""

    from_function = staticmethod(ToolFactory.create_from_function)


def _source_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or name == "<lambda>":
        raise SourceInvalid(f"`{name or function!r}` is no function defined with `def`")
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise SourceInvalid(f"the source of `{name}` cannot be read: define it in a file") from error
