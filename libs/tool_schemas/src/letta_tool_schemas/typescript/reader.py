"""The functions of a TypeScript module: which one is the tool, how it is called, what the model is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tree_sitter import Node

from letta_tool_schemas.callables import RESERVED
from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.schemas import FunctionSchema, check_name
from letta_tool_schemas.typescript.comments import Comment, comment_before
from letta_tool_schemas.typescript.erasure import erase
from letta_tool_schemas.typescript.trees import invalid, parse, text
from letta_tool_schemas.typescript.types import Types, UnsupportedType

EXPORT = "letta_tool"
"""Name under which the JavaScript of a tool exports its function."""
_FUNCTIONS = {"function_declaration", "arrow_function", "function_expression"}
_GENERATORS = {"generator_function_declaration", "generator_function"}


@dataclass(frozen=True, slots=True)
class _Function:
    """A function at top level and the statement it stands in."""

    name: str
    node: Node
    statement: Node
    exported: bool


@dataclass(frozen=True, slots=True)
class _Parameter:
    """A parameter, or a member of the one object that a function takes."""

    name: str
    hint: Node | None
    has_default: bool


@dataclass(frozen=True, slots=True)
class Script:
    """A function of TypeScript source: JavaScript that exports it, and how it takes its arguments.

    They are taken in the order of `names`, or `as_object`: as one object that the function takes apart. Parameters in
    `nulls` allow null and get it when their argument is missing.
    """

    name: str
    javascript: str
    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    as_object: bool = False
    nulls: tuple[str, ...] = ()


def read_script(source: str, name: str = "") -> Script:
    """Erase the types and say how the function is called. Raises SourceInvalid.

    The function is the named one, else the last one that is exported, else the last one.
    """
    root = parse(source)
    function = _find(root, name)
    types = Types(root)
    pattern = _pattern(function.node)
    parameters = _members(pattern, types) if pattern is not None else _parameters(function)
    nulls = tuple(item.name for item in parameters if item.hint is not None and types.allows(item.hint, "null"))
    return Script(
        name=function.name,
        javascript=f"{erase(source)}\nexport {{ {function.name} as {EXPORT} }};\n",
        names=tuple(item.name for item in parameters),
        required=tuple(item.name for item in parameters if not _is_optional(item, types)),
        as_object=pattern is not None,
        nulls=tuple(name for name in nulls if name not in RESERVED),
    )


def read_schema(source: str, *, name: str = "", description: str = "") -> FunctionSchema:
    """Derive the schema from types and JSDoc. Raises SourceInvalid."""
    root = parse(source)
    function = _find(root, name)
    erase(source)  # for what it refuses: a schema without a call would be of no use
    check_name(function.name)
    comment = comment_before(function.statement)
    described = comment.description or description
    if not described:
        raise invalid(function.node, f"function `{function.name}` needs a JSDoc comment that says what it does")
    try:
        parameters = _schema(function, Types(root), comment)
    except RecursionError as error:
        raise invalid(function.node, "a type is nested too deeply") from error
    return FunctionSchema(function.name, described, parameters)


def _find(root: Node, name: str) -> _Function:
    """Return the named function, else the last one that is exported, else the last one."""
    functions = _functions(root)
    if name:
        named = [function for function in functions if function.name == name]
        if not named:
            raise SourceInvalid(f"the source has no function `{name}` at top level")
        return named[-1]
    exported = [function for function in functions if function.exported]
    if not functions:
        raise SourceInvalid("the source has no function at top level; write `export function name(...) {...}`")
    return (exported or functions)[-1]


def _functions(root: Node) -> list[_Function]:
    found: list[_Function] = []
    exported: set[str] = set()
    for statement in root.named_children:
        is_export = statement.type == "export_statement"
        declaration = statement.child_by_field_name("declaration") if is_export else statement
        if declaration is None:
            value = statement.child_by_field_name("value")
            if value is not None and value.type in _FUNCTIONS:
                raise invalid(statement, "a function that is exported by default needs a name")
            exported |= {text(item.child_by_field_name("name")) for item in _specifiers(statement)}
            continue
        found += [_Function(name, node, statement, is_export) for name, node in _declared(declaration)]
    return [_Function(item.name, item.node, item.statement, item.exported or item.name in exported) for item in found]


def _specifiers(statement: Node) -> list[Node]:
    clauses = [child for child in statement.named_children if child.type == "export_clause"]
    return [item for clause in clauses for item in clause.named_children if item.type == "export_specifier"]


def _declared(declaration: Node) -> list[tuple[str, Node]]:
    """Return the functions that a declaration gives names to."""
    if declaration.type in _GENERATORS:
        raise invalid(declaration, "a generator cannot be a tool; return an array")
    if declaration.type == "function_declaration":
        return [(text(declaration.child_by_field_name("name")), declaration)]
    if declaration.type != "lexical_declaration":
        return []
    pairs = [
        (item.child_by_field_name("name"), item.child_by_field_name("value")) for item in declaration.named_children
    ]
    return [(text(name), value) for name, value in pairs if value is not None and value.type in _FUNCTIONS]


def _given(function: Node) -> list[Node]:
    """Return the parameters that a caller fills."""
    formal = function.child_by_field_name("parameters")
    if formal is None:
        raise invalid(function, "a parameter needs a type; write it in parentheses")
    given = [child for child in formal.named_children if child.type in {"required_parameter", "optional_parameter"}]
    return [item for item in given if text(item.child_by_field_name("pattern")) != "this"]


def _pattern(function: Node) -> Node | None:
    """Return the parameter of a function that takes its arguments as members of one object."""
    given = _given(function)
    patterns = [item for item in given if _kind(item) == "object_pattern"]
    if patterns and len(given) > 1:
        raise invalid(patterns[0], "give the object a name, or take all arguments from it")
    return patterns[0] if patterns else None


def _kind(parameter: Node) -> str:
    pattern = parameter.child_by_field_name("pattern")
    return pattern.type if pattern is not None else ""


def _parameters(function: _Function) -> list[_Parameter]:
    parameters = []
    for item in _given(function.node):
        if _kind(item) != "identifier":
            raise invalid(
                item, f"`{text(item)[:80]}` of `{function.name}`: name every parameter, a model cannot guess them"
            )
        has_default = item.type == "optional_parameter" or item.child_by_field_name("value") is not None
        parameters.append(_Parameter(text(item.child_by_field_name("pattern")), _hint(item), has_default))
    return parameters


def _hint(node: Node) -> Node | None:
    annotation = node.child_by_field_name("type")
    if annotation is None:
        return None
    return next((child for child in annotation.named_children if child.type != "comment"), None)


def _members(parameter: Node, types: Types) -> list[_Parameter]:
    """Return the members of the object that a function takes: those its type names, else those it takes apart."""
    pattern = parameter.child_by_field_name("pattern")
    taken: dict[str, bool] = {}
    for item in pattern.named_children if pattern is not None else []:
        if item.type == "object_assignment_pattern":
            taken[text(item.child_by_field_name("left"))] = True
        elif item.type == "pair_pattern":
            value = item.child_by_field_name("value")
            taken[text(item.child_by_field_name("key"))] = value is not None and value.type == "assignment_pattern"
        elif item.type == "shorthand_property_identifier_pattern":
            taken[text(item)] = False
    whole = parameter.child_by_field_name("value") is not None or parameter.type == "optional_parameter"
    hint = _hint(parameter)
    try:
        schema = types.schema(hint) if hint is not None else {}
    except (UnsupportedType, RecursionError):
        schema = {}
    names = list(schema.get("properties", taken))
    needed = set(schema.get("required", [name for name in names if "properties" not in schema]))
    return [_Parameter(name, None, whole or taken.get(name, False) or name not in needed) for name in names]


def _is_optional(parameter: _Parameter, types: Types) -> bool:
    hint = parameter.hint
    return parameter.has_default or (hint is not None and types.allows(hint, "null", "undefined", "void"))


def _schema(function: _Function, types: Types, comment: Comment) -> dict[str, Any]:
    pattern = _pattern(function.node)
    if pattern is not None:
        return _schema_of_object(function, pattern, types, comment)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for item in _parameters(function):
        if item.name in RESERVED:
            continue
        schema = _property(function, item, types)
        described = comment.parameters.get(item.name, "") or schema.get("description", "")
        properties[item.name] = _described(function, item.name, _with_members(schema, item.name, comment), described)
        if not _is_optional(item, types):
            required.append(item.name)
    return {"type": "object", "properties": properties, "required": required}


def _schema_of_object(function: _Function, pattern: Node, types: Types, comment: Comment) -> dict[str, Any]:
    hint = _hint(pattern)
    whole = _type_of(function, hint, types) if hint is not None else {}
    if "properties" not in whole:
        raise invalid(pattern, f"the object that `{function.name}` takes needs a type that names its members")
    by_member = {key.rpartition(".")[2]: value for key, value in comment.parameters.items()}
    optional = {item.name for item in _members(pattern, types) if item.has_default}
    properties = {
        name: _described(function, name, schema, by_member.get(name, "") or schema.get("description", ""))
        for name, schema in whole["properties"].items()
        if name not in RESERVED
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in whole["required"] if name not in optional and name not in RESERVED],
    }


def _property(function: _Function, item: _Parameter, types: Types) -> dict[str, Any]:
    if item.hint is None:
        raise invalid(function.node, f"parameter `{item.name}` of `{function.name}` needs a type annotation")
    return _type_of(function, item.hint, types, f"type of parameter `{item.name}` of ")


def _type_of(function: _Function, hint: Node, types: Types, of: str = "type of the object of ") -> dict[str, Any]:
    """Return the schema of a type. Raises SourceInvalid naming the function."""
    try:
        return types.schema(hint)
    except UnsupportedType as error:
        raise invalid(hint, f"{of}`{function.name}`: {error}") from error


def _described(function: _Function, name: str, schema: dict[str, Any], described: str) -> dict[str, Any]:
    if not described:
        raise invalid(
            function.node,
            f"parameter `{name}` of `{function.name}` needs a description: `@param {name} - ...` in its JSDoc",
        )
    return {**schema, "description": described}


def _with_members(schema: dict[str, Any], name: str, comment: Comment) -> dict[str, Any]:
    """Add what `@param name.member` says."""
    properties = schema.get("properties", {})
    described = {
        key: comment.parameters[f"{name}.{key}"] for key in properties if f"{name}.{key}" in comment.parameters
    }
    if not described:
        return schema
    changed = {
        key: {**value, "description": described[key]} if key in described else value
        for key, value in properties.items()
    }
    return {**schema, "properties": changed}
