"""JSON schemas of type hints, read from syntax trees; nothing is imported or evaluated."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from letta_tool_schemas.docstrings import read_docstring

Schema = dict[str, Any]

_SCALARS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "None": "null", "NoneType": "null"}
_TEXTS = {
    "datetime": "date-time",
    "date": "date",
    "time": "time",
    "timedelta": "duration",
    "UUID": "uuid",
    "Path": "",
    "AnyUrl": "uri",
    "HttpUrl": "uri",
    "SecretStr": "",
}
"""Types that are written as text, with the format that JSON schemas have for it."""
_NUMBERS: dict[str, Schema] = {
    "Decimal": {"type": "number"},
    "PositiveInt": {"type": "integer", "exclusiveMinimum": 0},
    "NegativeInt": {"type": "integer", "exclusiveMaximum": 0},
    "NonNegativeInt": {"type": "integer", "minimum": 0},
    "PositiveFloat": {"type": "number", "exclusiveMinimum": 0},
    "NegativeFloat": {"type": "number", "exclusiveMaximum": 0},
    "NonNegativeFloat": {"type": "number", "minimum": 0},
}
_ARRAYS = {
    "list",
    "deque",
    "AbstractSet",
    "MutableSet",
    "List",
    "Sequence",
    "MutableSequence",
    "Iterable",
    "Collection",
    "set",
    "Set",
    "frozenset",
    "FrozenSet",
}
_OBJECTS = {"dict", "Dict", "Mapping", "MutableMapping", "OrderedDict", "defaultdict", "TypedDict", "Counter"}
# They say how an attribute may be used, and nothing about what it may be.
_WRAPPERS = {"Required", "NotRequired", "Final", "ReadOnly", "ClassVar"}
# Base classes that make a class a table of typed fields, which can be written as an object.
_MODELS = {"BaseModel", "TypedDict", "NamedTuple"}
_ENUMS = {"Enum", "StrEnum", "IntEnum"}
_BOUNDS = {
    "description": "description",
    "title": "title",
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
# Bounds for hostile source: a hint may name aliases that name aliases, each of them twice.
_MAX_DEPTH = 32
_MAX_NODES = 20_000


class UnsupportedAnnotation(Exception):
    """A type hint that no JSON schema can be made of."""


class Annotations:
    """Turns hints into schemas, given the classes and aliases that the module defines."""

    def __init__(self, module: ast.Module) -> None:
        self._left = _MAX_NODES
        self._classes: dict[str, ast.ClassDef] = {}
        self._aliases: dict[str, ast.expr] = {}
        self._imported = _imported(module)
        for node in module.body:
            if isinstance(node, ast.ClassDef):
                self._classes[node.name] = node
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self._aliases[node.targets[0].id] = _aliased(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self._aliases[node.target.id] = node.value
            # By name: `ast.TypeAlias` is there from Python 3.12 on.
            elif type(node).__name__ == "TypeAlias":
                self._aliases[node.name.id] = node.value  # type: ignore[attr-defined]

    def schema(self, hint: ast.expr) -> Schema:
        """Return the schema of a hint; `None` in a union is left out. Raises UnsupportedAnnotation."""
        return self._schema(hint, ())

    def is_optional(self, hint: ast.expr, depth: int = 0) -> bool:
        """Say whether a hint allows None."""
        hint = _unquoted(hint)
        if isinstance(hint, ast.Name):
            return (
                hint.id in self._aliases and depth < _MAX_DEPTH and self.is_optional(self._aliases[hint.id], depth + 1)
            )
        if isinstance(hint, ast.Subscript):
            name, arguments = self._type_name(hint.value), _arguments(hint)
            if name == "Annotated" and arguments:
                return self.is_optional(arguments[0], depth)
            return name == "Optional" or (name == "Union" and any(_is_none(_unquoted(member)) for member in arguments))
        return isinstance(hint, ast.BinOp) and any(_is_none(_unquoted(member)) for member in _members(hint))

    def _schema(self, hint: ast.expr, inside: tuple[str, ...]) -> Schema:
        self._left -= 1
        if self._left < 0 or len(inside) > _MAX_DEPTH:
            raise UnsupportedAnnotation("it is too large or nested too deeply")
        hint = _unquoted(hint)
        if _is_none(hint):
            return {"type": "null"}
        if isinstance(hint, ast.Subscript):
            return self._generic(self._type_name(hint.value), _arguments(hint), hint, (*inside, ""))
        if isinstance(hint, ast.BinOp) and isinstance(hint.op, ast.BitOr):
            return self._union(list(_members(hint)), (*inside, ""))
        return self._named(self._type_name(hint), hint, inside)

    def _type_name(self, node: ast.expr) -> str:
        """Return the name under which a type is known here, whatever the source imports it as."""
        name = _name(node)
        return self._imported.get(name, name) if isinstance(node, ast.Name) else name

    def _named(self, name: str, hint: ast.expr, inside: tuple[str, ...]) -> Schema:
        if name in self._classes:
            if name in inside:
                raise UnsupportedAnnotation(f"class `{name}` contains itself")
            return self._class(self._classes[name], (*inside, name))
        if name in self._aliases and isinstance(hint, ast.Name):
            if name in inside:
                raise UnsupportedAnnotation(f"`{name}` is defined by itself")
            return self._schema(self._aliases[name], (*inside, name))
        simple = _simple(name)
        if simple is None:
            raise UnsupportedAnnotation(f"`{ast.unparse(hint)}` has no JSON form")
        return simple

    def _generic(self, name: str, arguments: list[ast.expr], hint: ast.expr, inside: tuple[str, ...]) -> Schema:
        if (name in _WRAPPERS or name == "Optional") and len(arguments) == 1:
            return self._schema(arguments[0], inside)
        if name == "Union":
            return self._union(arguments, inside)
        if name == "Literal":
            return _literal(arguments)
        if name == "Annotated":
            return self._annotated(arguments, inside)
        return self._container(name, arguments, hint, inside)

    def _container(self, name: str, arguments: list[ast.expr], hint: ast.expr, inside: tuple[str, ...]) -> Schema:
        if name in _ARRAYS and len(arguments) == 1:
            return {"type": "array", "items": self._schema(arguments[0], inside)}
        if name in {"tuple", "Tuple"}:
            return self._tuple(arguments, inside)
        if name == "Counter" and len(arguments) == 1:
            return {"type": "object", "additionalProperties": {"type": "integer"}}
        if name in _OBJECTS and len(arguments) == 2:
            values = self._schema(arguments[1], inside)
            return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
        raise UnsupportedAnnotation(f"`{ast.unparse(hint)}` has no JSON form")

    def _union(self, members: Sequence[ast.expr], inside: tuple[str, ...]) -> Schema:
        schemas: list[Schema] = []
        for member in members:
            schema = self._schema(member, inside)
            if schema.get("type") != "null" and schema not in schemas:
                schemas.append(schema)
        if not schemas:
            return {"type": "null"}
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}

    def _tuple(self, arguments: list[ast.expr], inside: tuple[str, ...]) -> Schema:
        if len(arguments) == 2 and isinstance(arguments[1], ast.Constant) and arguments[1].value is ...:
            return {"type": "array", "items": self._schema(arguments[0], inside)}
        items = [self._schema(argument, inside) for argument in arguments]
        kinds = [schema for index, schema in enumerate(items) if schema not in items[:index]]
        each = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        return {"type": "array", "prefixItems": items, "items": each, "minItems": len(items), "maxItems": len(items)}

    def _annotated(self, arguments: list[ast.expr], inside: tuple[str, ...]) -> Schema:
        schema = self._schema(arguments[0], inside)
        for extra in arguments[1:]:
            if isinstance(extra, ast.Constant) and isinstance(extra.value, str):
                schema = {**schema, "description": extra.value}
            elif isinstance(extra, ast.Call) and _name(extra.func) == "Field":
                schema = {**schema, **_field(extra, schema)}
        return schema

    def _class(self, node: ast.ClassDef, inside: tuple[str, ...]) -> Schema:
        bases = {_name(base) for base in node.bases}
        if bases & _ENUMS:
            return _enum(node)
        if not self._is_model(node, ()):
            raise UnsupportedAnnotation(f"class `{node.name}` is no pydantic model, dataclass, TypedDict or Enum")
        properties: Schema = {}
        required: list[str] = []
        self._collect(node, properties, required, inside)
        schema: Schema = {"type": "object", "properties": properties, "required": required}
        described = read_docstring(ast.get_docstring(node) or "").description
        return {**schema, "description": described} if described else schema

    def _is_model(self, node: ast.ClassDef, seen: tuple[str, ...]) -> bool:
        names = [_name(base) for base in node.bases]
        decorators = {_name(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list}
        if set(names) & _MODELS or "dataclass" in decorators:
            return True
        local = [self._classes[name] for name in names if name in self._classes and name not in seen]
        return any(self._is_model(base, (*seen, node.name)) for base in local)

    def _collect(self, node: ast.ClassDef, properties: Schema, required: list[str], inside: tuple[str, ...]) -> None:
        for base in node.bases:
            name = _name(base)
            if name in self._classes and name not in inside:
                self._collect(self._classes[name], properties, required, (*inside, name))
        described = read_docstring(ast.get_docstring(node) or "").parameters
        for item in node.body:
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            name = item.target.id
            hint = _unquoted(item.annotation)
            wrapper = _name(hint.value) if isinstance(hint, ast.Subscript) else _name(hint)
            if name.startswith("_") or wrapper == "ClassVar" or name == "model_config":
                continue
            schema = self._schema(hint, inside)
            has_default = item.value is not None or wrapper == "NotRequired"
            if isinstance(item.value, ast.Call) and _name(item.value.func) in {"Field", "field"}:
                schema = {**schema, **_field(item.value, schema)}
                has_default = _field_has_default(item.value)
            if name in described and "description" not in schema:
                schema = {**schema, "description": described[name]}
            properties[name] = schema
            # A subclass may give a default to what its base requires.
            if name in required:
                required.remove(name)
            if not has_default:
                required.append(name)


def _imported(module: ast.Module) -> dict[str, str]:
    """Return what the source imports under a name of its own choice."""
    return {
        alias.asname: alias.name
        for node in module.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }


def _simple(name: str) -> Schema | None:
    """Return the schema of a type without members; None for one that has no JSON form."""
    if name in _SCALARS:
        return {"type": _SCALARS[name]}
    if name in _ARRAYS or name in {"tuple", "Tuple"}:
        return {"type": "array", "items": {}}
    if name in _OBJECTS:
        return {"type": "object"}
    if name in _TEXTS:
        return {"type": "string", **({"format": _TEXTS[name]} if _TEXTS[name] else {})}
    return {} if name in {"Any", "object"} else dict(_NUMBERS[name]) if name in _NUMBERS else None


def _aliased(value: ast.expr) -> ast.expr:
    """Return what `X = NewType("X", T)` and `X = T` stand for."""
    if isinstance(value, ast.Call) and _name(value.func) == "NewType" and len(value.args) == 2:
        return value.args[1]
    return value


def _unquoted(hint: ast.expr) -> ast.expr:
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        try:
            return ast.parse(hint.value.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise UnsupportedAnnotation(f"`{hint.value[:80]}` is no type") from error
    return hint


def _name(node: ast.expr) -> str:
    """Return the last part of a dotted name, or an empty string."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_none(node: ast.expr) -> bool:
    return (isinstance(node, ast.Constant) and node.value is None) or _name(node) == "NoneType"


def _arguments(node: ast.Subscript) -> list[ast.expr]:
    return list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]


def _members(node: ast.expr) -> Iterator[ast.expr]:
    """Yield the members of `A | B | C`."""
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield node.right
        node = node.left
    yield node


def _literal(arguments: list[ast.expr]) -> Schema:
    try:
        values = [ast.literal_eval(argument) for argument in arguments]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise UnsupportedAnnotation("a Literal must list constants") from error
    return _enumeration([value for value in values if value is not None])


def _enum(node: ast.ClassDef) -> Schema:
    values: list[Any] = []
    texts = any(_name(base) in {"StrEnum", "str"} for base in node.bases)
    for item in node.body:
        if isinstance(item, ast.Assign):
            if isinstance(item.value, ast.Call) and _name(item.value.func) == "auto":
                values.append(_numbered(item, values, texts=texts))
                continue
            try:
                values.append(ast.literal_eval(item.value))
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
                raise UnsupportedAnnotation(f"the values of enum `{node.name}` must be constants") from error
    return _enumeration(values)


def _numbered(item: ast.Assign, before: list[Any], *, texts: bool) -> str | int:
    """Return what `auto()` makes."""
    if texts:
        return _name(item.targets[0]).lower()
    numbers = [value for value in before if isinstance(value, int)]
    return max(numbers, default=0) + 1


def _enumeration(values: list[Any]) -> Schema:
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    kinds = {names.get(type(value), "") for value in values}
    if not values or "" in kinds:
        raise UnsupportedAnnotation("only strings and numbers can be listed")
    return {"type": kinds.pop(), "enum": values} if len(kinds) == 1 else {"enum": values}


def _field(call: ast.Call, schema: Schema) -> Schema:
    """Return what `Field(...)` adds to a schema."""
    extra: Schema = {}
    for keyword in call.keywords:
        try:
            value = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        name = keyword.arg or ""
        if name in _BOUNDS and isinstance(value, (str, int, float)):
            extra[_BOUNDS[name]] = value
        elif name in {"min_length", "max_length"} and isinstance(value, int):
            # JSON Schema has two words for what pydantic calls length.
            suffix = "Items" if schema.get("type") == "array" else "Length"
            extra[f"{name[:3]}{suffix}"] = value
    return extra


def _field_has_default(call: ast.Call) -> bool:
    if any(
        keyword.arg in {"default", "default_factory"} and not _is_ellipsis(keyword.value) for keyword in call.keywords
    ):
        return True
    return bool(call.args) and not _is_ellipsis(call.args[0])


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...
