"""What an update changes: the one way in which field masks are read.

An empty mask means each field that is set. It skips what an update cannot change, so that a resource may be sent back
as it was read; to name such a field is an error. `etag` is a condition of an update and no change. The fields of a
flattened one count as fields of the resource, those of the member of a union in it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from google.api.field_behavior_pb2 import IMMUTABLE, OUTPUT_ONLY, field_behavior

from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from letta_common.errors import InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.field_mask_pb2 import FieldMask
    from google.protobuf.message import Message

_CONDITION = "etag"


def changed_paths(given: Message, mask: FieldMask) -> tuple[str, ...]:
    """Return the paths that an update changes. Raises InvalidArgument for one that no update can change."""
    named = mask.paths or [*_given(given)]
    for path in named:
        _check(given.DESCRIPTOR, path)
    return tuple(dict.fromkeys(path for path in named if path != _CONDITION))


def changed_values(given: Message, mask: FieldMask) -> dict[str, Any]:
    """Return the new values of the fields that an update changes; None clears. Raises as changed_paths does.

    For resources without messages inside: there a path is the name of a field.
    """
    return {name: getattr(given, name) if _is_set(given, name) else None for name in changed_paths(given, mask)}


def copy_paths(given: Message, target: Message, paths: Iterable[str]) -> None:
    """Give a message the values that another one has at these paths; what the other one lacks is cleared."""
    for path in paths:
        *above, name = path.split(".")
        source, goal = _inside(given, above), _inside(target, above)
        goal.ClearField(name)
        _copy(source, goal, name)


def shared_fields(one: Descriptor, other: Descriptor) -> frozenset[str]:
    """Return the names of the fields that two messages have in common, of the same type."""
    theirs = other.fields_by_name
    return frozenset(field.name for field in one.fields if _type(field) == _type(theirs.get(field.name)))


def _given(message: Message, above: str = "") -> Iterator[str]:
    """Yield the paths of what is set and may change."""
    for field, value in message.ListFields():
        if not _changes(field):
            continue
        if _is_flat(field, within=bool(above)):
            yield from _given(value, f"{above}{field.name}.")
        else:
            yield f"{above}{field.name}"


def _is_flat(field: FieldDescriptor, *, within: bool) -> bool:
    """Say whether the fields of a field stand where it does; within a flattened field those of a union's member do."""
    union = field.containing_oneof if within else None
    member = union is not None and union.GetOptions().Extensions[jsonmap.oneof].discriminator
    return bool(member or field.GetOptions().Extensions[jsonmap.field].flatten)


def _check(message: Any, path: str) -> None:
    inside: Descriptor | None = message
    for name in path.split("."):
        field = inside.fields_by_name.get(name) if inside else None
        if field is None:
            raise InvalidArgument(f"{message.name} has no field {path}", field=f"update_mask.{path}")
        if not _changes(field):
            raise InvalidArgument(f"{path} cannot be changed by an update", field=f"update_mask.{path}")
        inside = None if field.is_repeated else field.message_type


def _changes(field: FieldDescriptor) -> bool:
    return not {OUTPUT_ONLY, IMMUTABLE} & {*field.GetOptions().Extensions[field_behavior]}


def _inside(message: Any, names: Iterable[str]) -> Any:
    for name in names:
        message = getattr(message, name)
    return message


def _copy(source: Any, target: Any, name: str) -> None:
    if not _is_set(source, name):
        return
    field, value = source.DESCRIPTOR.fields_by_name[name], getattr(source, name)
    if field.is_repeated:
        getattr(target, name).MergeFrom(value)
    elif field.message_type is not None:
        getattr(target, name).CopyFrom(value)
    else:
        setattr(target, name, value)


def _is_set(message: Any, name: str) -> bool:
    """Say whether a field has a value; one that cannot be absent always has."""
    return not message.DESCRIPTOR.fields_by_name[name].has_presence or message.HasField(name)


def _type(field: FieldDescriptor | None) -> tuple[Any, ...]:
    return (field.type, field.is_repeated, field.message_type, field.enum_type) if field else ()
