"""JSON schemas of tools, read from their source. The source is parsed, never imported or executed."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from letta_tool_schemas.annotations import Annotations, UnsupportedAnnotation
from letta_tool_schemas.borrowed_names import Borrowed, borrowed
from letta_tool_schemas.callables import RESERVED, Function, check_callable, function_of, parsed
from letta_tool_schemas.docstrings import Docstring, read_docstring
from letta_tool_schemas.errors import SourceInvalid

MAX_NAME = 48
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]*")
# Bounds for hostile schemas: a few definitions that refer to each other twice would grow without end.
_MAX_DEPTH = 64
_MAX_NODES = 20_000


@dataclass(frozen=True, slots=True)
class FunctionSchema:
    """What a model gets to know of a function: its name, what it does, and its parameters."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    def to_json(self) -> str:
        """Return `{"name", "description", "parameters"}` as text. Raises SourceInvalid for what is no JSON."""
        try:
            text = dump({"name": self.name, "description": self.description, "parameters": self.parameters})
            # Fails for half of a surrogate pair, which `dumps` lets pass.
            text.encode()
        except (ValueError, RecursionError) as error:  # not a number, digits without end, half of a character
            raise SourceInvalid(f"the schema of `{self.name}` is no JSON: {str(error)[:200]}") from error
        return text


def derive_schema(
    source: str, *, name: str = "", description: str = "", args_json_schema: Mapping[str, Any] | None = None
) -> FunctionSchema:
    """Derive the schema of a function: the named one, else the last at top level.

    With an `args_json_schema`, as pydantic writes it, the parameters come from there. Raises SourceInvalid.
    """
    module = parsed(source)
    function = function_of(module, name)
    check_name(function.name)
    docstring = read_docstring(ast.get_docstring(function) or "")
    described = docstring.description or description
    if not described:
        raise SourceInvalid(f"function `{function.name}` needs a docstring that says what it does")
    if args_json_schema is not None and args_json_schema.get("properties") is not None:
        parameters = parameters_of_model(args_json_schema)
        check_callable(module, function, parameters)
        return FunctionSchema(function.name, described, parameters)
    check_callable(module, function)
    return FunctionSchema(function.name, described, _parameters(function, Annotations(module), docstring))


def function_name(source: str, name: str = "") -> str:
    """Return the name of the function to call: the named one, else the last at top level. Raises SourceInvalid."""
    return function_of(parsed(source), name).name


def agreed_schema(source: str, given: Mapping[str, Any]) -> FunctionSchema:
    """Check that a given schema is about a function of the source. Raises SourceInvalid."""
    schema = given_schema(given)
    module = parsed(source)
    check_callable(module, function_of(module, schema.name), schema.parameters)
    return schema


@dataclass(frozen=True, slots=True)
class CallShape:
    """How a function is called: name, parameters to fill with null when missing, whether it takes the agent's id."""

    function: str
    nulls: tuple[str, ...] = ()
    takes_agent_id: bool = False
    borrowed: tuple[Borrowed, ...] = ()
    untyped: tuple[str, ...] = ()


def call_shape(source: str, name: str = "") -> CallShape:
    """Read from the source how the function is called. Raises SourceInvalid."""
    module = parsed(source)
    hints = Annotations(module)
    function = function_of(module, name)
    given = function.args
    plain = len(given.args) - len(given.defaults)
    bare = [
        *given.args[:plain],
        *(arg for arg, value in zip(given.kwonlyargs, given.kw_defaults, strict=True) if not value),
    ]
    nulls = tuple(arg.arg for arg in bare if arg.annotation is not None and _may_be_none(hints, arg.annotation))
    every = (*given.args, *given.kwonlyargs)
    return CallShape(
        function.name,
        tuple(name for name in nulls if name not in RESERVED),
        takes_agent_id=any(arg.arg == "agent_id" for arg in every),
        borrowed=borrowed(module),
        untyped=tuple(arg.arg for arg in every if arg.annotation is None),
    )


def _may_be_none(hints: Annotations, hint: ast.expr) -> bool:
    try:
        return hints.is_optional(hint)
    except (UnsupportedAnnotation, RecursionError):
        return False


def given_schema(schema: Mapping[str, Any], *, max_name: int = MAX_NAME) -> FunctionSchema:
    """Check a schema that the caller gives. Raises SourceInvalid."""
    name, description = schema.get("name"), schema.get("description") or ""
    parameters = {} if schema.get("parameters") is None else schema["parameters"]
    if not isinstance(name, str) or not name:
        raise SourceInvalid("json_schema needs a `name`")
    check_name(name, longest=max_name)
    if not isinstance(description, str):
        raise SourceInvalid("the `description` of json_schema must be a string")
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise SourceInvalid("the `parameters` of json_schema must be a JSON schema of type object")
    if not isinstance(parameters.get("properties", {}), dict):
        raise SourceInvalid("the `properties` of json_schema must be an object")
    return FunctionSchema(name, description, {"type": "object", "properties": {}, **parameters})


def parameters_of_model(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a model's schema into parameters: references are written out, titles left out. Raises SourceInvalid."""
    definitions = schema.get("$defs") or schema.get("definitions") or {}
    if not isinstance(schema.get("properties"), dict) or not isinstance(definitions, dict):
        raise SourceInvalid("args_json_schema needs `properties`")
    inliner = _Inliner(definitions)
    properties = {name: inliner.expand(value) for name, value in schema["properties"].items()}
    return {"type": "object", "properties": properties, "required": list(schema.get("required") or [])}


def check_name(name: str, *, longest: int = MAX_NAME) -> None:
    """Refuse names that providers refuse. Raises SourceInvalid."""
    if len(name) > longest:
        raise SourceInvalid(f"the name `{name[:longest]}...` has {len(name)} characters; {longest} are allowed")
    if not _NAME.fullmatch(name):
        raise SourceInvalid(f"the name `{name}` may have letters a to z, digits and underscores only")


def load_object(text: str, what: str) -> dict[str, Any]:
    """Read a JSON object that a caller gave. Raises SourceInvalid."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise SourceInvalid(f"{what} is not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise SourceInvalid(f"{what} must be a JSON object")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is too large for a number")
    return number


def dump(value: object) -> str:
    """Write JSON the way the registry keeps it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _parameters(function: Function, hints: Annotations, docstring: Docstring) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for argument, has_default in _arguments(function):
        name = argument.arg
        properties[name], optional = _property(function.name, argument, hints, docstring.parameters.get(name, ""))
        if not has_default and not optional:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _arguments(function: Function) -> list[tuple[ast.arg, bool]]:
    """Return the parameters that the model fills, each with whether it has a default."""
    given = function.args
    if given.vararg or given.kwarg:
        star = f"*{given.vararg.arg}" if given.vararg else f"**{given.kwarg.arg if given.kwarg else ''}"
        raise SourceInvalid(f"`{star}` of `{function.name}`: name every parameter, a model cannot guess them")
    plain = len(given.args) - len(given.defaults)
    pairs = [(argument, index >= plain) for index, argument in enumerate(given.args)]
    pairs += [
        (argument, default is not None) for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return [(argument, has_default) for argument, has_default in pairs if argument.arg not in RESERVED]


def _property(function: str, argument: ast.arg, hints: Annotations, described: str) -> tuple[dict[str, Any], bool]:
    name = argument.arg
    if argument.annotation is None:
        raise SourceInvalid(f"parameter `{name}` of `{function}` needs a type annotation", parameter=name)
    try:
        schema = hints.schema(argument.annotation)
        optional = hints.is_optional(argument.annotation)
    except UnsupportedAnnotation as error:
        raise SourceInvalid(f"type of parameter `{name}` of `{function}`: {error}", parameter=name) from error
    except RecursionError as error:
        raise SourceInvalid(f"type of parameter `{name}` of `{function}` is nested too deeply") from error
    text = described or schema.get("description", "")
    if not text:
        raise SourceInvalid(
            f"parameter `{name}` of `{function}` needs a description under `Args:` of the docstring", parameter=name
        )
    return {**schema, "description": text}, optional


class _Inliner:
    """Writes references out, up to a number of nodes: definitions may refer to each other many times over."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._left = _MAX_NODES

    def expand(self, value: Any, inside: tuple[str, ...] = ()) -> Any:
        self._left -= 1
        if self._left < 0 or len(inside) > _MAX_DEPTH:
            raise SourceInvalid("args_json_schema is too large or nested too deeply")
        deeper = (*inside, "")
        if isinstance(value, list):
            return [self.expand(item, deeper) for item in value]
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("$ref"), str):
            return self._reference(value, inside)
        properties = value.get("properties")
        # `title` is left out of schemas, but a property may be called so.
        kept = {k: self.expand(v, deeper) for k, v in value.items() if k not in {"title", "properties"}}
        if isinstance(properties, dict):
            kept["properties"] = {k: self.expand(v, deeper) for k, v in properties.items()}
        return kept

    def _reference(self, value: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
        name = value["$ref"].rpartition("/")[2]
        if name in inside:
            raise SourceInvalid(f"args_json_schema: `{name}` contains itself")
        if not isinstance(self._definitions.get(name), dict):
            raise SourceInvalid(f"args_json_schema refers to `{name}`, which it does not define")
        rest = {key: item for key, item in value.items() if key not in {"$ref", "title"}}
        return {**self.expand(self._definitions[name], (*inside, name)), **rest}
