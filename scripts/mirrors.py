"""Lists the dataclasses that repeat a message of the contracts: `python -m scripts.mirrors`.

What crosses a service is its message, in every layer. A dataclass repeats one when it has no behaviour and most of its
fields are fields of that message, by name: at least three of them, or most of the message's own. A field of the same
name that cannot have the same value is another field: a count is no cursor, and an object, or what may be one, is no
text. And where all that is shared says which thing is meant and nothing of it, by identifiers and a fence, the class is
a key, as every message about the thing has. A library that does not depend on the contracts has no message that it
could use.

What no wire may show has a message and must not be it: a class whose own `__repr__` leaves out secrets that the
contract only takes (INPUT_ONLY) has them open, and a message would print them. A class that keeps
sealed secrets is a row, which no wire may show.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from scripts.contracts import Contracts, read_contracts
from scripts.size import ROOT, packages, sources

_MOST = 0.5
_ENOUGH = 3
_NUMBERS = frozenset({"int", "float"})
_NUMERIC = frozenset({Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_UINT32, Field.TYPE_UINT64, Field.TYPE_FLOAT})
_NUMERIC |= {Field.TYPE_DOUBLE, Field.TYPE_ENUM, Field.TYPE_MESSAGE}
"""What a number may be told as: among messages are durations and moments."""
_SEALED = "secrets"
_KEYS = re.compile(r"(.+_)?ids?|fence")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A dataclass, and the message that it repeats."""

    package: str
    module: str
    name: str
    message: str
    shared: int
    fields: int

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.module}:{self.name}"


def mirrors(contracts: Contracts | None = None) -> list[Mirror]:
    """Return the dataclasses of the product that repeat a message."""
    known = contracts or read_contracts()
    found = []
    for package in filter(_knows_messages, packages()):
        for path in sources(package):
            if path.suffix == ".py":
                place, module = package.relative_to(ROOT).as_posix(), path.relative_to(ROOT).as_posix()
                found += [Mirror(place, module, *each) for each in repeats(path.read_text(), known)]
    return found


def _knows_messages(package: Path) -> bool:
    return "letta-protos" in (package / "pyproject.toml").read_text()


def repeats(source: str, contracts: Contracts) -> Iterator[tuple[str, str, int, int]]:
    """Yield each dataclass of a source that repeats a message: name, message, fields that are shared, fields."""
    messages = {
        name: {field.name: field for field in message.field}
        for name, message in contracts.messages.items()
        if not message.options.map_entry and _is_ours(name)
    }
    tree = ast.parse(source)
    objects = _objects(tree)
    for each in _values(tree):
        fields = {name: "dict" if kind in objects else kind for name, kind in _fields(each).items()}
        if fields.get(_SEALED) == "bytes":
            continue
        alike = [(_shared(fields, theirs), name) for name, theirs in messages.items() if _repeats(fields, theirs)]
        shared, name = max(alike, default=(0, ""))
        if name and not _hides(each, fields, messages[name]):
            yield each.name, name.removeprefix("."), shared, len(fields)


def _repeats(fields: dict[str, str], theirs: dict[str, Field]) -> bool:
    shared = _shared(fields, theirs)
    return shared > _MOST * len(fields) and (shared >= _ENOUGH or shared > _MOST * len(theirs))


def _shared(fields: dict[str, str], theirs: dict[str, Field]) -> int:
    """Count the fields that a class and a message share; none when they only say which thing is meant."""
    same = [name for name, kind in fields.items() if name in theirs and _fits(kind, theirs[name])]
    return 0 if all(_KEYS.fullmatch(name) for name in same) else len(same)


def _fits(kind: str, field: Field) -> bool:
    """Say whether a field of this type could have the value of a message's field."""
    told = kind.removesuffix(" | None")
    if told in _NUMBERS:
        return field.type in _NUMERIC
    return not told.startswith(("dict", "Mapping", "Any")) or field.type == Field.TYPE_MESSAGE


def _objects(tree: ast.Module) -> frozenset[str]:
    """Return the names that a module gives to types of objects."""
    named = (each for each in tree.body if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name))
    return frozenset(ast.unparse(each.targets[0]) for each in named if ast.unparse(each.value).startswith("dict["))


def _hides(each: ast.ClassDef, fields: Iterable[str], theirs: dict[str, Field]) -> bool:
    """Say whether a class keeps what the contract only takes out of what is printed of it."""
    printed = [ast.unparse(part) for part in each.body if isinstance(part, ast.FunctionDef) and part.name == "__repr__"]
    taken = [name for name in fields if name in theirs and _is_only_taken(theirs[name])]
    return bool(printed and taken) and not any(f"self.{name}" in text for text in printed for name in taken)


def _is_only_taken(field: Field) -> bool:
    return field_behavior_pb2.INPUT_ONLY in field.options.Extensions[field_behavior_pb2.field_behavior]


def _values(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """Yield the dataclasses and named tuples without behaviour."""
    for each in ast.walk(tree):
        if isinstance(each, ast.ClassDef) and _is_value(each) and not _behaves(each) and _fields(each):
            yield each


def _is_value(each: ast.ClassDef) -> bool:
    marks = [ast.unparse(mark) for mark in each.decorator_list]
    bases = [ast.unparse(base) for base in each.bases]
    return any(mark.split("(")[0].endswith("dataclass") for mark in marks) or any(
        base.endswith("NamedTuple") for base in bases
    )


def _behaves(each: ast.ClassDef) -> bool:
    """Say whether a class has a method: dunders do not count, nor properties that give a field another name."""
    methods = [part for part in each.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(not method.name.startswith("__") and not _renames(method) for method in methods)


def _renames(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    last = method.body[-1]
    plain = isinstance(last, ast.Return) and isinstance(last.value, ast.Attribute)
    return plain and any(ast.unparse(mark) == "property" for mark in method.decorator_list)


def _fields(each: ast.ClassDef) -> dict[str, str]:
    """Return the types of a class's fields by name."""
    parts = (part for part in each.body if isinstance(part, ast.AnnAssign))
    return {
        part.target.id.removeprefix("_"): ast.unparse(part.annotation)
        for part in parts
        if isinstance(part.target, ast.Name)
    }


def _is_ours(name: str) -> bool:
    return name.startswith(".letta.") and not name.startswith(".letta.jsonmap.")


def main() -> None:
    """Print what repeats which message, and how many in each package."""
    found = mirrors()
    for each in found:
        sys.stdout.write(f"{each.place}  {each.message}  {each.shared} of {each.fields}\n")
    for package in sorted({each.package for each in found}):
        sys.stdout.write(f"{package:<24}{sum(1 for each in found if each.package == package):>4}\n")
    sys.stdout.write(f"{'total':<24}{len(found):>4}\n")


if __name__ == "__main__":
    main()
