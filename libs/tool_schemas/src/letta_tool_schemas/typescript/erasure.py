"""TypeScript to JavaScript by blanking out its types, so that every line and column of code stays where it is."""

from __future__ import annotations

from collections.abc import Callable

from tree_sitter import Node

from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.typescript.trees import has, invalid, parse, walk

_NOT_ERASABLE = {
    "enum_declaration": "an enum has code of its own; use a union of literals, or an object `as const`",
    "internal_module": "a namespace has code of its own; use plain functions",
    "module": "a namespace has code of its own; use plain functions",
    "decorator": "decorators are not supported",
    "import_alias": "`import x = ...` has code of its own; use `import`",
    "import_require_clause": "`import x = require(...)` has code of its own; use `import`",
    "type_assertion": "write `value as Type` instead of `<Type>value`",
}
_STATEMENTS = {"interface_declaration", "type_alias_declaration", "ambient_declaration", "function_signature"}
_MEMBERS = {"method_signature", "abstract_method_signature", "index_signature"}
_TYPES = {
    "type_annotation",
    "type_predicate_annotation",
    "asserts_annotation",
    "type_parameters",
    "type_arguments",
    "implements_clause",
    "accessibility_modifier",
    "override_modifier",
}
_MODIFIERS = {
    "public_field_definition": {"readonly", "?", "!", "override"},
    "method_definition": {"?", "readonly", "override"},
    "abstract_class_declaration": {"abstract"},
    "optional_parameter": {"?"},
    "variable_declarator": {"!"},
    "non_null_expression": {"!"},
}
_OPENERS = (b"(", b"[", b"`")


def erase(source: str) -> str:
    """Return the source as JavaScript. Raises SourceInvalid for what is more than types."""
    root = parse(source)
    _check(root)
    eraser = _Eraser(source.encode(errors="replace"))
    try:
        eraser.visit(root)
    except RecursionError as error:
        raise SourceInvalid("the source is nested too deeply") from error
    erased = eraser.result().decode()
    left = next((node for node in walk(parse(erased)) if node.type in _TYPES or node.type in _NOT_ERASABLE), None)
    if left is not None:
        raise invalid(left, "the types here cannot be erased")  # the same line as before: no line was moved
    return erased


def _check(root: Node) -> None:
    """Refuse what the parser reads otherwise than TypeScript does."""
    for node in walk(root):
        if node.type in {"lookup_type", "array_type"}:
            bracket = next(child for child in node.children if child.type == "[")
            # TypeScript ends a type before a bracket on the next line; this parser takes it for an index.
            if bracket.start_point.row != node.children[0].end_point.row:
                raise invalid(bracket, "end the line before this one with a semicolon")
        if node.type == "binary_expression" and has(node, ">") and node.children[-1].type == "template_string":
            raise invalid(node, "the type arguments of a template cannot be erased")


class _Eraser:
    """Blanks out what is types alone. Semicolons go where an erased line would join the next one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._out = bytearray(data)
        self._special: dict[str, Callable[[Node], bool]] = {
            "import_statement": self._import_or_export,
            "export_statement": self._import_or_export,
            "import_specifier": self._specifier,
            "export_specifier": self._specifier,
            "required_parameter": self._parameter,
            "optional_parameter": self._parameter,
            "public_field_definition": self._field,
            "as_expression": self._cast,
            "satisfies_expression": self._cast,
            "arrow_function": self._arrow,
        }

    def result(self) -> bytes:
        """Return what is left."""
        return bytes(self._out)

    def visit(self, root: Node) -> None:
        """Blank out the types below a node."""
        stack = [root]
        while stack:
            node = stack.pop()
            if not node.is_named:
                continue
            if node.type in _STATEMENTS or node.type in _MEMBERS:
                self._blank(node, ";")
                continue
            if node.type in _NOT_ERASABLE:
                raise invalid(node, _NOT_ERASABLE[node.type])
            if node.type in _TYPES:
                self._blank(node)
                continue
            special = self._special.get(node.type)
            if special is not None and special(node):
                continue
            unwanted = _MODIFIERS.get(node.type, set())
            for child in node.children:
                if child.type in unwanted:
                    self._blank(child)
            stack.extend(node.children)

    def _blank(self, node: Node, first: str = "") -> None:
        self._range(node.start_byte, node.end_byte, first)

    def _range(self, start: int, end: int, first: str = "") -> None:
        for place in range(start, end):
            # Byte for byte: lines and columns in errors of the JavaScript are those of the source.
            if self._out[place] not in b"\r\n":
                self._out[place] = 0x20
        if first and end > start:
            self._out[start] = ord(first)

    def _import_or_export(self, node: Node) -> bool:
        """Blank out what imports or exports types alone."""
        if node.type == "export_statement" and has(node, "="):
            raise invalid(node, "`export =` has code of its own; use `export`")
        if has(node, "type") or any(child.type in _STATEMENTS for child in node.children):
            self._blank(node, ";")
            return True
        return False

    def _specifier(self, node: Node) -> bool:
        """Blank out `type X` in a list of names, with the comma behind it."""
        if not has(node, "type"):
            return False
        self._blank(node)
        self._comma(node)
        return True

    def _comma(self, node: Node) -> None:
        if node.next_sibling is not None and node.next_sibling.type == ",":
            self._blank(node.next_sibling)

    def _parameter(self, node: Node) -> bool:
        """Blank out the parameter `this`; refuse those that are properties too."""
        if any(child.type in {"accessibility_modifier", "readonly", "override_modifier"} for child in node.children):
            raise invalid(node, "a parameter that is a property has code of its own; assign it in the constructor")
        pattern = node.child_by_field_name("pattern")
        if pattern is None or pattern.type != "this":
            return False
        self._blank(node)
        self._comma(node)
        return True

    def _field(self, node: Node) -> bool:
        """Blank out a field that is declared alone; end one without a value, lest it join the next line."""
        if has(node, "declare", "abstract"):
            self._blank(node, ";")
            return True
        if node.child_by_field_name("value") is not None:
            return False
        name, annotation = node.child_by_field_name("name"), node.child_by_field_name("type")
        if annotation is None or name is None:
            return False
        self._range(name.end_byte, annotation.end_byte, ";")
        for child in node.children:
            if child.type in {"accessibility_modifier", "override_modifier", "readonly"}:
                self._blank(child)
        return name.type != "computed_property_name"

    def _cast(self, node: Node) -> bool:
        """Blank out `as T`; where the statement ends with it, end it before a line that would go on."""
        value = node.children[0]
        rest = self._data[node.end_byte :]
        following = rest.lstrip()
        ends_line = b"\n" in rest[: len(rest) - len(following)]
        # JavaScript goes on with a line that begins so, where TypeScript had ended the statement after the type.
        joins = ends_line and following.startswith(_OPENERS)
        self._range(value.end_byte, node.end_byte, ";" if joins else "")
        self.visit(value)
        return True

    def _arrow(self, node: Node) -> bool:
        """Keep a parenthesis beside `=>` and beside what comes before, where an erased type had line breaks."""
        parameters = node.child_by_field_name("parameters")
        returned = node.child_by_field_name("return_type")
        generic = node.child_by_field_name("type_parameters")
        arrow = next(child for child in node.children if child.type == "=>")
        for child in node.children:
            if child not in (returned, generic):
                self.visit(child)
        for erased in (returned, generic):
            if erased is not None:
                self._blank(erased)
        if parameters is not None and returned is not None and self._breaks(parameters.end_byte, arrow.start_byte):
            # No line break may stand between the parameters and `=>`, so the parenthesis moves behind the break.
            self._out[parameters.end_byte - 1] = 0x20
            self._out[returned.end_byte - 1] = ord(")")
        if parameters is not None and generic is not None and self._breaks(generic.start_byte, parameters.start_byte):
            self._out[parameters.start_byte] = 0x20
            self._out[generic.start_byte] = ord("(")
        return True

    def _breaks(self, start: int, end: int) -> bool:
        return b"\n" in self._data[start:end]
