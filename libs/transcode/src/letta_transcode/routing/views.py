"""Views: messages that read the bytes of others, so that one method has another JSON under another path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from letta_transcode.mapping.plans import MappingError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, MethodDescriptor

    from letta_transcode.mapping.codecs import Codecs


@dataclass(frozen=True, slots=True)
class JsonView:
    """The messages whose JSON a method has under a path, and the status of success; 0 is that of the method."""

    request: str
    response: str
    status: int


def view_of(codecs: Codecs, method: MethodDescriptor, path: str) -> JsonView:
    """Return how a method looks under a path. Raises MappingError for a view that cannot read its message."""
    request, response = method.input_type, method.output_type
    for given in codecs.catalog.method_mapping(method).views:
        if given.path == path:
            return JsonView(
                _checked(codecs, given.request, request),
                _checked(codecs, given.response, response),
                given.success_status,
            )
    return JsonView(request.full_name, response.full_name, 0)


def _checked(codecs: Codecs, name: str, message: Descriptor) -> str:
    if not name:
        return message.full_name
    try:
        view = codecs.catalog.message(name)
    except KeyError:
        raise MappingError(f"{name}, a view of {message.full_name}, is not described") from None
    _check(view, message, ())
    return name


def _check(view: Descriptor, message: Descriptor, above: tuple[Descriptor, ...]) -> None:
    """Refuse a view that would read other values than its message wrote."""
    # A message that contains itself was compared one level above.
    if view is message or view in above:
        return
    for field in view.fields:
        real = message.fields_by_number.get(field.number)
        if real is None or (real.type, real.is_repeated) != (field.type, field.is_repeated):
            raise MappingError(f"{field.full_name} is no view of a field of {message.full_name}")
        if field.message_type is not None and real.message_type is not None:
            _check(field.message_type, real.message_type, (*above, view))
