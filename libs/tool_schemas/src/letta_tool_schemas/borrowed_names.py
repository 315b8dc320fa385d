"""Names that source may use without importing them: the reader of schemas knows them, and who runs the source has them.

Source taken with `inspect.getsource` comes without the imports of its file.
"""

from __future__ import annotations

import ast
import builtins
import datetime
import importlib
import typing
from collections.abc import Iterator
from typing import NamedTuple

_MODULES = (  # noqa: SIM905 - names are easier to read so
    "asyncio base64 collections copy csv dataclasses datetime decimal enum functools hashlib inspect io itertools json "
    "logging math operator os pathlib pydantic random re statistics string sys textwrap time traceback typing "
    "urllib.parse urllib.request uuid zoneinfo"
).split()
_CLASSES = {
    "pydantic": (  # noqa: SIM905 - names are easier to read so
        "AnyUrl BaseModel ConfigDict Field HttpUrl NegativeFloat NegativeInt NonNegativeFloat NonNegativeInt "
        "PositiveFloat PositiveInt RootModel SecretStr TypeAdapter ValidationError computed_field field_serializer "
        "field_validator model_validator"
    ).split(),
    "collections": ["defaultdict", "deque", "namedtuple", "OrderedDict", "Counter"],
    "datetime": ["date", "datetime", "time", "timedelta", "timezone", "UTC"],
    "dataclasses": ["dataclass", "field", "asdict"],
    "enum": ["Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "auto", "unique"],
    "uuid": ["UUID", "uuid4"],
    "decimal": ["Decimal"],
    "pathlib": ["Path"],
    "zoneinfo": ["ZoneInfo"],
    "types": ["NoneType"],
    "typing": list(typing.__all__),
}
KNOWN = {name: (module, name) for module, names in reversed(_CLASSES.items()) for name in names}
"""Where a name comes from; what is defined in several places comes from the first one of the list above."""
ROOTS = {module.partition(".")[0] for module in _MODULES}
"""Names of modules."""
_BUILTIN = set(dir(builtins))
# Names of a class and of the module it is in: which one is meant shows in what the source takes from it.
_BOTH = {"datetime": datetime, "time": importlib.import_module("time")}


class Borrowed(NamedTuple):
    """A name, the module to import for it, and the attribute that it stands for; none: the module itself."""

    name: str
    module: str
    attribute: str = ""


def borrowed(module: ast.Module) -> tuple[Borrowed, ...]:
    """Return what source uses and does not define, of what it need not import."""
    own = defined(module) | _BUILTIN
    bare: set[str] = set()
    dotted: set[str] = set()
    for node in _all_nodes(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted.add(f"{node.value.id}.{node.attr}")
            if isinstance(node.value.ctx, ast.Load):
                bare.add(node.value.id)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            bare.add(node.id)
    found = [_borrow(name, dotted) for name in sorted(bare - own) if name in KNOWN or name in ROOTS]
    return (*(each for group in found for each in group), *_abbreviated(module, own))


def defined(module: ast.Module) -> set[str]:
    """Return the names that the top level of a module binds, on any path."""
    names: set[str] = set()
    waiting: list[ast.AST] = list(module.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            # What a function or a class binds inside is no name of the module.
            names.add(node.name)
            continue
        waiting.extend(ast.iter_child_nodes(node))
    return names


def _borrow(name: str, dotted: set[str]) -> list[Borrowed]:
    if name in KNOWN and not (name in _BOTH and _is_module(name, dotted)):
        return [Borrowed(name, *KNOWN[name])]
    deeper = [place for place in _MODULES if place.startswith(f"{name}.") and place in dotted]
    return [Borrowed(name, place) for place in ([name] if name in _MODULES else []) + deeper]


def _abbreviated(module: ast.Module, own: set[str]) -> list[Borrowed]:
    """Return modules under names that only annotations tell: the `t` of `t.Optional[int]`."""
    places: dict[str, str] = {}
    for hint in _annotations(module):
        for node in (*ast.walk(hint), *_quoted_nodes(hint)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in KNOWN:
                places.setdefault(node.value.id, KNOWN[node.attr][0])
    return [Borrowed(name, place) for name, place in places.items() if name not in own | ROOTS]


def _is_module(name: str, dotted: set[str]) -> bool:
    """Say whether `datetime` or `time` is used as the module rather than the class of this name."""
    attributes = [place.partition(".")[2] for place in dotted if place.startswith(f"{name}.")]
    return any(hasattr(_BOTH[name], attribute) for attribute in attributes)


def _all_nodes(module: ast.Module) -> Iterator[ast.AST]:
    """Yield every node, also those of annotations that are written as text."""
    yield from ast.walk(module)
    for hint in _annotations(module):
        yield from _quoted_nodes(hint)


def _annotations(module: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(module):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if hint is not None:
                yield hint


def _quoted_nodes(hint: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(hint):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                inner = ast.parse(node.value.strip(), mode="eval")
            except (SyntaxError, ValueError, MemoryError, RecursionError):
                continue
            yield from ast.walk(inner)
