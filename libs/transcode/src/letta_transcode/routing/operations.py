"""One method as HTTP sees it: how its request is read, how its response is written, and how it streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from letta_transcode.http.errors import HttpError, in_openai_words
from letta_transcode.mapping.plans import Field, MappingError, MessagePlan, Union
from letta_transcode.routing.bindings import HTTP_BODY, Binding
from letta_transcode.routing.views import JsonView, view_of

if TYPE_CHECKING:
    from google.api.http_pb2 import HttpRule
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from letta_transcode.mapping.codecs import Codecs
    from letta_transcode.mapping.encoders import Encoder
    from letta_transcode.routing.templates import Template


@dataclass(frozen=True, slots=True)
class UpstreamMethod:
    """A method of a server: where it is called and with which classes."""

    peer: str
    service: str
    name: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    internal: bool
    pool: Any

    @property
    def path(self) -> str:
        """The path of the call."""
        return f"/{self.service}/{self.name}"


@dataclass(frozen=True, slots=True)
class Operation:
    """A method under one HTTP verb and path."""

    method: UpstreamMethod
    verb: str
    template: Template
    binding: Binding
    status: int
    write: Encoder
    event: Callable[[Any], str] | None
    response_plan: Field | str
    constant: bytes | None = None
    sse_done: bool = False
    http_body: bool = False
    json_lines: bool = False
    deprecated: bool = False
    stream_key: str = ""
    stream_default: bool = False
    twin: Operation | None = None
    openai_errors: bool = False

    def streams(self, body: Any) -> Operation:
        """Return the operation that serves a body: the streaming twin when the body asks for it."""
        if self.twin is not None:
            flag = body.get(self.stream_key) if isinstance(body, dict) else None
            if flag is True or (flag is None and self.stream_default):
                return self.twin
        return self

    def told(self, error: HttpError) -> HttpError:
        """Return an error as callers of this operation read it."""
        return in_openai_words(error) if self.openai_errors else error


def describe(peer: str, codecs: Codecs, method: MethodDescriptor, view: JsonView | None = None) -> UpstreamMethod:
    """Return a method with the classes of its catalog, or with those of a view of it."""
    catalog = codecs.catalog
    view = view or JsonView(method.input_type.full_name, method.output_type.full_name, 0)
    return UpstreamMethod(
        peer=peer,
        service=method.containing_service.full_name,
        name=method.name,
        request=catalog.message_class(view.request),
        response=catalog.message_class(view.response),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        internal=catalog.method_mapping(method).internal,
        pool=catalog.pool,
    )


def operation(peer: str, codecs: Codecs, method: MethodDescriptor, rule: HttpRule, template: Template) -> Operation:
    """Compile the operation that one HTTP rule makes of a method. Raises MappingError."""
    mapping = codecs.catalog.method_mapping(method)
    twin = _twin(peer, codecs, method, rule, template) if mapping.stream_method else None
    view = view_of(codecs, method, template.text)
    output = view.response
    if rule.response_body:
        plan: Field | str = codecs.planner.field(output, rule.response_body)
        write = codecs.encoders.field(codecs.planner.field(output, rule.response_body))
    else:
        plan, write = output, codecs.encoders.message(output)
    binding = Binding(codecs, view.request, template, rule.body)
    if mapping.json_lines:
        _require_items(method, binding.body_field if method.client_streaming else plan)
    elif method.client_streaming and len(binding.files) != 1:
        raise MappingError(
            f"{method.full_name} streams its requests, which over HTTP is for one uploaded file or for JSON lines"
        )
    return Operation(
        method=describe(peer, codecs, method, view),
        verb=_verb(rule)[0],
        template=template,
        binding=binding,
        status=view.status or mapping.success_status or 200,
        write=write,
        event=_event(codecs, output, rule.response_body) if method.server_streaming else None,
        response_plan=plan,
        constant=mapping.response_json.encode() if mapping.response_json else None,
        sse_done=mapping.sse_done,
        http_body=output == HTTP_BODY,
        json_lines=mapping.json_lines,
        deprecated=codecs.catalog.deprecated(method),
        stream_key=mapping.stream_if,
        stream_default=mapping.stream_default,
        twin=twin,
        openai_errors=mapping.error_body == jsonmap.ERROR_BODY_OPENAI,
    )


def _require_items(method: MethodDescriptor, items: Field | str | None) -> None:
    streams = method.client_streaming != method.server_streaming
    if not streams or not isinstance(items, Field) or not items.is_list:
        raise MappingError(f"{method.full_name}: JSON lines are the items of a list that is streamed one way")


def rules(rule: HttpRule) -> list[HttpRule]:
    """Return a rule and its additional bindings."""
    return [rule, *rule.additional_bindings]


def _verb(rule: HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise MappingError("the HTTP rule has no path")
    if kind == "custom":
        return rule.custom.kind.upper(), rule.custom.path
    return kind.upper(), getattr(rule, kind)


def path_of(rule: HttpRule) -> str:
    """Return the path template of a rule."""
    return _verb(rule)[1]


def _twin(peer: str, codecs: Codecs, method: MethodDescriptor, rule: HttpRule, template: Template) -> Operation:
    name = codecs.catalog.method_mapping(method).stream_method
    found = method.containing_service.methods_by_name.get(name)
    if found is None or not found.server_streaming:
        raise MappingError(f"{method.full_name}: {name!r} is no server-streaming method of its service")
    own = codecs.catalog.http_rule(found)
    twin = type(rule)()
    twin.CopyFrom(rule)
    twin.response_body = own.response_body if own is not None else ""
    return operation(peer, codecs, found, twin, template)


def _event(codecs: Codecs, message: str, response_body: str) -> Callable[[Any], str] | None:
    """Return the function that names the server-sent event of a response, or None when none has a name."""
    path: tuple[str, ...] = (response_body,) if response_body else ()
    if response_body:
        message = codecs.planner.field(message, response_body).value.message
    return _event_of(codecs, codecs.planner.plan(message), path) if message else None


def _event_of(codecs: Codecs, plan: MessagePlan, path: tuple[str, ...]) -> Callable[[Any], str] | None:
    for part in plan.parts:
        if isinstance(part, Union):
            names = {member.field.path[-1]: member.field.event for member in part.members if member.field.event}
            if names:
                return _named((*path, *part.path), names)
    if plan.transparent and isinstance(plan.parts[0], Field) and plan.parts[0].value.message:
        inner = plan.parts[0]
        return _event_of(codecs, codecs.planner.plan(inner.value.message), (*path, *inner.path))
    return None


def _named(path: tuple[str, ...], names: dict[str, str]) -> Callable[[Any], str]:
    def event(message: Any) -> str:
        for name in path[:-1]:
            message = getattr(message, name)
        return names.get(message.WhichOneof(path[-1]) or "", "")

    return event
