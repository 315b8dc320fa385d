"""The descriptors of one server in a private pool, and the options its contract gives about HTTP and JSON."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from google.api import annotations_pb2 as http_annotations
from google.api import field_behavior_pb2, http_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from letta.jsonmap.v1 import annotations_pb2 as jsonmap

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

_OUTPUT_ONLY = field_behavior_pb2.OUTPUT_ONLY
# An update neither needs nor changes these, so a client may send back what it has read.
_KEPT = {_OUTPUT_ONLY, field_behavior_pb2.IMMUTABLE}
_NO_FIELD = jsonmap.FieldMapping()
_NO_ONEOF = jsonmap.OneofMapping()
_NO_MESSAGE = jsonmap.MessageMapping()
_NO_ENUM = jsonmap.EnumMapping()
_NO_VALUE = jsonmap.EnumValueMapping()
_NO_METHOD = jsonmap.MethodMapping()


class CatalogError(Exception):
    """The descriptors cannot be used: one is malformed or an import is missing."""


class Catalog:
    """Message classes, services and mapping options of one server.

    Descriptors live in a pool of their own, so that two servers, or two releases of one server, never collide. Options
    are read from a second parse with the pool that has the annotations linked in; options nobody knows are skipped.
    """

    def __init__(self, files: Iterable[bytes], services: Iterable[str]) -> None:
        self._options: dict[tuple[str, str], Any] = {}
        self._pool = descriptor_pool.DescriptorPool()
        parsed = [_parse(data) for data in files]
        for file in _ordered(parsed):
            self._add(file)
        self._services = tuple(sorted(set(services)))

    @property
    def pool(self) -> descriptor_pool.DescriptorPool:
        """The private pool."""
        return self._pool

    def services(self) -> Iterator[ServiceDescriptor]:
        """Yield the services that the server offers and describes, by name."""
        for name in self._services:
            with contextlib.suppress(KeyError):
                yield self._pool.FindServiceByName(name)

    @property
    def undescribed(self) -> tuple[str, ...]:
        """Names of services that the server offers without describing them."""
        described = {service.full_name for service in self.services()}
        return tuple(name for name in self._services if name not in described)

    def message(self, name: str) -> Descriptor:
        """Return the descriptor of a message."""
        return self._pool.FindMessageTypeByName(name)

    def enum(self, name: str) -> EnumDescriptor:
        """Return the descriptor of an enum."""
        return self._pool.FindEnumTypeByName(name)

    def message_class(self, name: str) -> type[Message]:
        """Return the class whose instances are messages of that name."""
        return message_factory.GetMessageClass(self.message(name))

    def field_mapping(self, full_name: str) -> jsonmap.FieldMapping:
        """Return the options of a field."""
        found: jsonmap.FieldMapping = self._options.get(("field", full_name), _NO_FIELD)
        return found

    def is_kept(self, full_name: str) -> bool:
        """Say whether no update changes a field: it is output only or immutable."""
        return bool(self._options.get(("kept", full_name)))

    def is_output(self, full_name: str) -> bool:
        """Say whether a field is output only."""
        return bool(self._options.get(("output", full_name)))

    def oneof_mapping(self, full_name: str) -> jsonmap.OneofMapping:
        """Return the options of a oneof."""
        found: jsonmap.OneofMapping = self._options.get(("oneof", full_name), _NO_ONEOF)
        return found

    def message_mapping(self, full_name: str) -> jsonmap.MessageMapping:
        """Return the options of a message."""
        found: jsonmap.MessageMapping = self._options.get(("message", full_name), _NO_MESSAGE)
        return found

    def enum_mapping(self, full_name: str) -> jsonmap.EnumMapping:
        """Return the options of an enum."""
        found: jsonmap.EnumMapping = self._options.get(("enum", full_name), _NO_ENUM)
        return found

    def value_mapping(self, enum_name: str, value_name: str) -> jsonmap.EnumValueMapping:
        """Return the options of an enum value."""
        found: jsonmap.EnumValueMapping = self._options.get(("value", f"{enum_name}.{value_name}"), _NO_VALUE)
        return found

    def method_mapping(self, method: MethodDescriptor) -> jsonmap.MethodMapping:
        """Return the options of a method."""
        found: jsonmap.MethodMapping = self._options.get(("method", method.full_name), _NO_METHOD)
        return found

    def http_rule(self, method: MethodDescriptor) -> http_pb2.HttpRule | None:
        """Return the `google.api.http` rule of a method."""
        rule: http_pb2.HttpRule | None = self._options.get(("http", method.full_name))
        return rule

    def deprecated(self, method: MethodDescriptor) -> bool:
        """Say whether the contract marks a method deprecated."""
        return bool(self._options.get(("deprecated", method.full_name)))

    def _add(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        try:
            self._pool.AddSerializedFile(file.SerializeToString())
        except TypeError as error:
            raise CatalogError(f"{file.name}: {error}") from error
        scope = f"{file.package}." if file.package else ""
        for message in file.message_type:
            self._read_message(scope, message)
        for enum in file.enum_type:
            self._read_enum(scope, enum)
        for service in file.service:
            for method in service.method:
                self._read_method(f"{scope}{service.name}.{method.name}", method)

    def _note(self, kind: str, name: str, options: Any, extension: Any) -> None:
        if options.HasExtension(extension):
            self._options[kind, name] = options.Extensions[extension]

    def _read_message(self, scope: str, message: descriptor_pb2.DescriptorProto) -> None:
        name = f"{scope}{message.name}"
        self._note("message", name, message.options, jsonmap.message)
        for field in message.field:
            self._note("field", f"{name}.{field.name}", field.options, jsonmap.field)
            said = {*field.options.Extensions[field_behavior_pb2.field_behavior]}
            self._options["kept", f"{name}.{field.name}"] = bool(_KEPT & said)
            self._options["output", f"{name}.{field.name}"] = _OUTPUT_ONLY in said
        for oneof in message.oneof_decl:
            self._note("oneof", f"{name}.{oneof.name}", oneof.options, jsonmap.oneof)
        for nested in message.nested_type:
            self._read_message(f"{name}.", nested)
        for enum in message.enum_type:
            self._read_enum(f"{name}.", enum)

    def _read_enum(self, scope: str, enum: descriptor_pb2.EnumDescriptorProto) -> None:
        name = f"{scope}{enum.name}"
        self._note("enum", name, enum.options, jsonmap.enum)
        for value in enum.value:
            self._note("value", f"{name}.{value.name}", value.options, jsonmap.value)

    def _read_method(self, name: str, method: descriptor_pb2.MethodDescriptorProto) -> None:
        self._note("method", name, method.options, jsonmap.method)
        self._note("http", name, method.options, http_annotations.http)
        if method.options.deprecated:
            self._options["deprecated", name] = True


def fingerprint(files: Iterable[bytes], services: Iterable[str]) -> str:
    """Return a digest that changes when a descriptor or the list of services does."""
    digest = hashlib.sha256()
    for data in sorted(files):
        # With their lengths, so that no two lists of files give the same run of bytes.
        digest.update(len(data).to_bytes(8, "big") + data)
    digest.update("\n".join(sorted(services)).encode())
    return digest.hexdigest()


def _parse(data: bytes) -> descriptor_pb2.FileDescriptorProto:
    try:
        return descriptor_pb2.FileDescriptorProto.FromString(data)
    except DecodeError as error:
        raise CatalogError(f"a file descriptor cannot be read: {error}") from error


def _ordered(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """Yield the files so that each comes after its imports."""
    waiting = {file.name: file for file in files}
    done: set[str] = set()

    def visit(name: str) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        # Marked before its imports are visited, so that imports in a circle come to an end.
        if name in done:
            return
        done.add(name)
        # Servers may leave out the files of google.protobuf and google.api, which every process has.
        file = waiting.get(name) or _linked(name)
        for dependency in file.dependency:
            yield from visit(dependency)
        yield file

    for name in waiting:
        yield from visit(name)


def _linked(name: str) -> descriptor_pb2.FileDescriptorProto:
    """Return a file that the server did not send from those linked into this process."""
    try:
        return _parse(descriptor_pool.Default().FindFileByName(name).serialized_pb)
    except KeyError as missing:
        raise CatalogError(f"the server does not describe {name}") from missing
