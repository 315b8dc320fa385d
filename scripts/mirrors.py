"""Lists the dataclasses that repeat a message of the contracts: `python -m scripts.mirrors`.

What crosses a service is its message, in every layer. A dataclass repeats one when it has no behaviour and most of its
fields are fields of that message, by name: at least three of them, or most of the message's own.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.contracts import Contracts, read_contracts
from scripts.size import ROOT, packages, sources

_MOST = 0.5
_ENOUGH = 3


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
    messages = {
        name: frozenset(field.name for field in message.field)
        for name, message in known.messages.items()
        if not message.options.map_entry and _is_ours(name)
    }
    found = []
    for package in packages():
        for path in sources(package):
            if path.suffix == ".py":
                for each in _values(ast.parse(path.read_text())):
                    found += _mirror(package, path, each, messages)
    return found


def _mirror(package: Path, path: Path, each: ast.ClassDef, messages: dict[str, frozenset[str]]) -> list[Mirror]:
    fields = _fields(each)
    shared, name = max((len(fields & theirs), name) for name, theirs in messages.items())
    if shared <= _MOST * len(fields) or (shared < _ENOUGH and shared <= _MOST * len(messages[name])):
        return []
    place, module = package.relative_to(ROOT).as_posix(), path.relative_to(ROOT).as_posix()
    return [Mirror(place, module, each.name, name.removeprefix("."), shared, len(fields))]


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


def _fields(each: ast.ClassDef) -> frozenset[str]:
    parts = (part.target for part in each.body if isinstance(part, ast.AnnAssign))
    return frozenset(target.id.removeprefix("_") for target in parts if isinstance(target, ast.Name))


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
