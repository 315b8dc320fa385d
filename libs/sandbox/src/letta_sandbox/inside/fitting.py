"""Makes what a function declares of the JSON that a model wrote: by its annotations, in the process of the call."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

from letta_sandbox.inside.agent_state import data
from letta_sandbox.inside.scalars import Unfit, container_of, maker_of, shown

_UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))
_WRAPPERS = {"Annotated", "Required", "NotRequired", "ReadOnly", "Final", "ClassVar"}
_SEQUENCES: dict[Any, Callable[..., Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.deque: collections.deque,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Iterator: iter,
    collections.abc.Collection: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
_MAPPINGS: dict[Any, Callable[..., Any]] = {
    dict: dict,
    collections.abc.Mapping: dict,
    collections.abc.MutableMapping: dict,
    collections.OrderedDict: collections.OrderedDict,
    collections.Counter: collections.Counter,
    collections.defaultdict: lambda value: collections.defaultdict(None, value),
}


class ArgumentError(TypeError):
    """An argument does not fit what the function declares."""


def fitted(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments as the function declares them. Raises ArgumentError, which names the one that does not fit.

    Null for a parameter that does not allow it and has a default is left out.
    """
    plain = inspect.unwrap(function)
    declared = getattr(plain, "__annotations__", {})
    hints = _hints(plain, declared, arguments)
    parameters = inspect.signature(plain).parameters
    made: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in declared:
            made[name] = value
        elif name not in hints:  # its type did not come along; what it has as attributes can be had of the data
            made[name] = data(value)
        elif value is None and _has_default(parameters.get(name)) and not _allows_none(hints[name]):
            continue
        else:
            made[name] = _argument(name, hints[name], value)
    return made


def _argument(name: str, hint: Any, value: Any) -> Any:
    try:
        return fit(hint, value)
    except Unfit as error:
        raise ArgumentError(f"argument `{name}{error.place}` {error}") from None
    except RecursionError:
        raise ArgumentError(f"argument `{name}` is nested too deeply") from None


def _hints(function: Callable[..., Any], declared: dict[str, Any], names: typing.Iterable[str]) -> dict[str, Any]:
    """Return the types of these parameters, of each whose annotation can be read."""
    scope = getattr(function, "__globals__", {})
    found: dict[str, Any] = {}
    for name in names:
        if name in declared:
            # One at a time, so that an annotation which cannot be read does not take the others with it.
            holder = types.SimpleNamespace(__annotations__={name: declared[name]})
            try:
                found |= typing.get_type_hints(holder, scope, include_extras=True)
            except Exception:  # noqa: S112 - an annotation may be anything; then nothing is known of the type
                continue
    return found


def _has_default(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.default is not inspect.Parameter.empty


def fit(hint: Any, value: Any) -> Any:
    """Return a value as a type has it. Raises Unfit."""
    hint = _unwrapped(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar | str):
        return value
    if _has_model(hint):
        return _of_model(hint, value)
    if origin in _UNIONS:
        return _one_of(inner, value)
    if origin is typing.Literal:
        return _constant(inner, value)
    kind = origin or hint
    if kind is None or kind is type(None):
        return _nothing(value)
    return _of_kind(kind, inner, value)


def _of_kind(kind: Any, inner: tuple[Any, ...], value: Any) -> Any:
    if kind is tuple:
        return _tuple(inner, value)
    if kind in _SEQUENCES:
        return _sequence(_SEQUENCES[kind], inner, value)
    if kind in _MAPPINGS:
        return _mapping(_MAPPINGS[kind], inner, value)
    if not isinstance(kind, type) or type(value) is kind:
        return value
    make = _class_maker(kind) or maker_of(kind)
    return value if make is None else make(value)


def _class_maker(kind: Any) -> Callable[[Any], Any] | None:
    """Return what makes values of a class that the tool defines; None for other classes."""
    made: Callable[[Any, Any], Any] | None = None
    if issubclass(kind, enum.Enum):
        made = _member
    elif dataclasses.is_dataclass(kind):
        made = _dataclass
    elif typing.is_typeddict(kind):
        made = _typed_dict
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        made = _named_tuple
    elif hasattr(kind, "parse_obj"):  # a model of pydantic before 2
        made = _old_model
    return functools.partial(made, kind) if made else None


def _unwrapped(hint: Any) -> Any:
    """Return what a hint stands for: without its wrappers, of an alias or a new type what it names."""
    while True:
        if hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif _wrapper(hint) and not _has_model(hint):
            hint = typing.get_args(hint)[0]
        else:
            return hint


def _wrapper(hint: Any) -> str:
    """Return the name of what a hint is wrapped in, or nothing."""
    origin = typing.Annotated if hasattr(hint, "__metadata__") else typing.get_origin(hint)
    name = getattr(origin, "_name", "") or getattr(origin, "__name__", "")
    return name if name in _WRAPPERS and typing.get_args(hint) else ""


def _allows_none(hint: Any) -> bool:
    hint = _unwrapped(hint)
    if hint in (Any, object, None, type(None)):
        return True
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return None in inner
    return typing.get_origin(hint) in _UNIONS and any(_allows_none(member) for member in inner)


def _one_of(members: tuple[Any, ...], value: Any) -> Any:
    """Return the value as the first member that it fits; as it is where one takes it so."""
    if value is None and any(_allows_none(member) for member in members):
        return None
    whys: list[str] = []
    changed: list[Any] = []
    for member in members:
        try:
            made = fit(member, value)
        except Unfit as error:
            whys.append(f"{error.place}{':' if error.place else ''} {error}".strip())
            continue
        # In `int | str` the text "1" stays a text: a member that takes the value unchanged goes first.
        if type(made) is type(value) and made == value:
            return made
        changed.append(made)
    if changed:
        return changed[0]
    raise Unfit("fits none of the declared types: " + "; ".join(dict.fromkeys(whys)))


def _constant(constants: tuple[Any, ...], value: Any) -> Any:
    # First by type, as `1 == True`, and only then by how the constants are written.
    for constant in constants:
        if type(constant) is type(value) and constant == value:
            return constant
    for constant in constants:
        plain = constant.value if isinstance(constant, enum.Enum) else constant
        texts = {str(plain)} | ({constant.name} if isinstance(constant, enum.Enum) else set())
        if str(value) in texts or (isinstance(plain, bool) and str(value).lower() == str(plain).lower()):
            return constant
    raise Unfit(f"must be one of {', '.join(map(repr, constants))}, not {shown(value)}")


def _member(kind: type[enum.Enum], value: Any) -> Any:
    """Return a member of an enumeration by its value, or by its name."""
    if isinstance(value, kind):
        return value
    for member in kind:
        if type(member.value) is type(value) and member.value == value:
            return member
    if isinstance(value, str) and (found := kind.__members__.get(value.removeprefix(f"{kind.__name__}."))):
        return found
    for member in kind:
        if str(member.value) == str(value):
            return member
    try:
        return kind(value)
    except (ValueError, TypeError):
        names = ", ".join(repr(member.value) for member in kind)
        raise Unfit(f"must be one of {names}, not {shown(value)}") from None


def _nothing(value: Any) -> None:
    if value is not None and value not in ("", "null", "None"):
        raise Unfit(f"must be null, not {shown(value)}")


def _sequence(make: Callable[..., Any], inner: tuple[Any, ...], value: Any) -> Any:
    items = container_of(value, list)
    hint = inner[0] if inner else Any
    try:
        return make([_at(index, hint, item) for index, item in enumerate(items)])
    except TypeError as error:  # what a set cannot hold
        raise Unfit(f"cannot be made: {error}") from None


def _tuple(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    items = container_of(value, list)
    if not inner:
        return tuple(items)
    if len(inner) == 2 and inner[1] is ...:
        return tuple(_at(index, inner[0], item) for index, item in enumerate(items))
    wanted = () if inner == ((),) else inner
    if len(items) != len(wanted):
        raise Unfit(f"must have {len(wanted)} items, not {len(items)}")
    return tuple(_at(index, hint, item) for index, (hint, item) in enumerate(zip(wanted, items, strict=True)))


def _mapping(make: Callable[..., Any], inner: tuple[Any, ...], value: Any) -> Any:
    given = container_of(value, dict)
    if len(inner) == 1:  # Counter[str]
        inner = (inner[0], int)
    if not inner:
        return make(given)
    return make({_at(f"[{key!r}]", inner[0], key): _at(str(key), inner[1], item) for key, item in given.items()})


def _fields(hints: dict[str, Any], required: typing.Iterable[str], value: dict[str, Any]) -> dict[str, Any]:
    """Return the members that a class declares, each fitted."""
    for name in value:
        if name not in hints:
            raise Unfit(f"has no `{name}`; it has {', '.join(hints)}")
    missing = [name for name in required if name not in value]
    if missing:
        raise Unfit(f"needs `{'`, `'.join(missing)}`")
    return {name: _at(name, hints[name], item) for name, item in value.items()}


def _dataclass(kind: Any, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    hints = _members(kind)
    own = [field for field in dataclasses.fields(kind) if field.init]
    none = dataclasses.MISSING
    required = [field.name for field in own if field.default is none and field.default_factory is none]
    types_ = {field.name: hints.get(field.name, Any) for field in own}
    return _made(kind, _fields(types_, required, container_of(value, dict)))


def _typed_dict(kind: Any, value: Any) -> Any:
    hints = _members(kind)
    required = [name for name, hint in hints.items() if _is_required(kind, name, _wrapper(hint))]
    return _fields(hints, required, container_of(value, dict))


def _is_required(kind: Any, name: str, wrapper: str) -> bool:
    return wrapper != "NotRequired" and (name in kind.__required_keys__ or wrapper == "Required")


def _old_model(kind: Any, value: Any) -> Any:
    return _made(kind, container_of(value, dict))


def _named_tuple(kind: Any, value: Any) -> Any:
    hints = dict.fromkeys(kind._fields, Any) | _members(kind)
    given = container_of(value, dict, list)
    if isinstance(given, list):
        if len(given) > len(hints):
            raise Unfit(f"must have {len(hints)} items, not {len(given)}")
        given = dict(zip(hints, given, strict=False))
    required = [name for name in hints if name not in kind._field_defaults]
    return _made(kind, _fields(hints, required, given))


def _members(kind: Any) -> dict[str, Any]:
    """Return the types of the members of a class; of those that cannot be read nothing is known."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:
        names = [name for base in reversed(kind.__mro__) for name in getattr(base, "__annotations__", ())]
        return dict.fromkeys(names, Any)


def _made(kind: Any, members: dict[str, Any]) -> Any:
    try:
        return kind(**members)
    except (TypeError, ValueError) as error:  # what the class says itself
        raise Unfit(f"is no {kind.__name__}: {error}") from None


def _at(place: int | str, hint: Any, value: Any) -> Any:
    try:
        return fit(hint, value)
    except Unfit as error:
        raise error.inside(place) from None


def _has_model(hint: Any) -> bool:
    """Say whether pydantic has to judge a type: a model, something that contains one, or bounds of a field."""
    # Read, not imported: a tool without models must not pay for pydantic. Before version 2 it had no TypeAdapter.
    if not hasattr(sys.modules.get("pydantic"), "TypeAdapter"):
        return False
    if isinstance(hint, type) and str(getattr(hint, "__module__", "")).startswith("pydantic"):
        return True
    if hasattr(hint, "model_validate") or any(_is_bound(each) for each in getattr(hint, "__metadata__", ())):
        return True
    return any(_has_model(inner) for inner in typing.get_args(hint))


def _is_bound(extra: Any) -> bool:
    return str(type(extra).__module__).partition(".")[0] in {"pydantic", "annotated_types"}


def _of_model(hint: Any, value: Any) -> Any:
    """Have pydantic make the value; where it refuses, of the value with its members fitted."""
    pydantic = sys.modules["pydantic"]
    adapter = pydantic.TypeAdapter(hint)
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError:
        loosened = _loosened(hint, value)
    try:
        return adapter.validate_python(loosened)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        unfit = Unfit(f"does not fit: {first['msg']}")
        for place in reversed(first["loc"]):
            unfit = unfit.inside(place)
        raise unfit from None


def _loosened(hint: Any, value: Any) -> Any:
    """Return a value of a type that pydantic refuses with what can be fitted of it; the rest as it is."""
    inner, origin = typing.get_args(hint), typing.get_origin(hint)
    try:
        if hasattr(hint, "model_fields"):
            return _loosened_model(hint, dict(container_of(value, dict)))
        if _wrapper(hint):
            return _loosened(inner[0], value)
        if origin in _UNIONS:
            return next((made for member in inner if (made := _tried(member, value)) is not None), value)
        if not _has_model(hint):
            return fit(hint, value)
        return _loosened_items(origin, inner, value)
    except Unfit:
        return value


def _loosened_model(hint: Any, given: dict[str, Any]) -> dict[str, Any]:
    hint.model_rebuild()
    for name, field in hint.model_fields.items():
        for key in {name, field.alias or name} & given.keys():
            given[key] = _loosened(field.annotation, given[key])
    return given


def _loosened_items(origin: Any, inner: tuple[Any, ...], value: Any) -> Any:
    if origin in _MAPPINGS:
        return {key: _loosened(inner[-1], item) for key, item in container_of(value, dict).items()}
    if origin in _SEQUENCES or origin is tuple:
        items = container_of(value, list)
        kinds = inner if origin is tuple and inner[-1] is not ... else (inner[0],) * len(items)
        return [_loosened(kind, item) for kind, item in zip(kinds, items, strict=False)]
    return value


def _tried(member: Any, value: Any) -> Any:
    """Return the value as a member of a union has it; None where it does not fit."""
    pydantic = sys.modules["pydantic"]
    loosened = _loosened(member, value)
    try:
        pydantic.TypeAdapter(member).validate_python(loosened)
    except pydantic.ValidationError:
        return None
    return loosened
