"""Reads the contracts as buf sees them: services, methods, reasons, comments and options."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from google.api import annotations_pb2, field_behavior_pb2  # noqa: F401
from google.protobuf import descriptor_pb2

# What is imported before the contracts are read makes its options readable.
from buf.validate import validate_pb2  # noqa: F401
from letta.jsonmap.v1 import annotations_pb2 as jsonmap

ROOT = Path(__file__).resolve().parent.parent
VERBS = ("get", "put", "post", "delete", "patch")
_MESSAGE, _ENUM, _SERVICE, _MEMBER = 4, 5, 6, 2
"""Field numbers in FileDescriptorProto, and of the member in each of them: field, value, method."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC."""

    service: str
    comment: str
    proto: descriptor_pb2.MethodDescriptorProto

    @property
    def full_name(self) -> str:
        """Name with package and service."""
        return f"{self.service}.{self.proto.name}"

    @property
    def mapping(self) -> jsonmap.MethodMapping:
        """What the contract says of its JSON."""
        return self.proto.options.Extensions[jsonmap.method]

    @property
    def idempotency(self) -> str:
        """NO_SIDE_EFFECTS, IDEMPOTENT or IDEMPOTENCY_UNKNOWN."""
        return descriptor_pb2.MethodOptions.IdempotencyLevel.Name(self.proto.options.idempotency_level)

    @property
    def http(self) -> list[tuple[str, str]]:
        """Verb and path of each HTTP rule."""
        if not self.proto.options.HasExtension(annotations_pb2.http):
            return []
        rule = self.proto.options.Extensions[annotations_pb2.http]
        rules = [rule, *rule.additional_bindings]
        return [(verb.upper(), getattr(one, verb)) for one in rules for verb in VERBS if getattr(one, verb)]


@dataclass(frozen=True, slots=True)
class ServiceContract:
    """One service."""

    name: str
    file: str
    comment: str
    methods: tuple[Method, ...]

    @property
    def package(self) -> str:
        """The proto package."""
        return self.name.rpartition(".")[0]


class Contracts:
    """All contracts of this repository."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self.files = list(files.file)
        self._files = [file for file in files.file if file.name.startswith("letta/")]

    @cached_property
    def services(self) -> tuple[ServiceContract, ...]:
        """Every service, by name."""
        found = [made for file in self._files for made in _services(file)]
        return tuple(sorted(found, key=lambda service: service.name))

    @cached_property
    def methods(self) -> tuple[Method, ...]:
        """Every method of every service."""
        return tuple(method for service in self.services for method in service.methods)

    @cached_property
    def messages(self) -> dict[str, descriptor_pb2.DescriptorProto]:
        """Top-level messages by full name, with the leading dot that types are named with."""
        return {f".{file.package}.{message.name}": message for file in self._files for message in file.message_type}

    @cached_property
    def file_names(self) -> tuple[str, ...]:
        """The files, relative to the root of the contracts."""
        return tuple(file.name for file in self._files)

    @cached_property
    def field_comments(self) -> dict[str, str]:
        """Comments of the fields of top-level messages, by the full name of the field with a leading dot."""
        return {
            f".{file.package}.{message.name}.{field.name}": comments.get((_MESSAGE, at, _MEMBER, index), "")
            for file in self._files
            for comments in [_comments(file)]
            for at, message in enumerate(file.message_type)
            for index, field in enumerate(message.field)
        }

    @cached_property
    def reasons(self) -> tuple[tuple[descriptor_pb2.EnumValueDescriptorProto, str], ...]:
        """Values of ErrorReason with their comments, but the zero value."""
        file = next(file for file in self._files if file.name.endswith("common/v1/error_reason.proto"))
        comments = _comments(file)
        values = file.enum_type[0].value
        return tuple(
            (value, comments.get((_ENUM, 0, _MEMBER, index), "")) for index, value in enumerate(values) if index
        )


@cache
def read_contracts() -> Contracts:
    """Build the contracts, once a process. Raises CalledProcessError when they do not build."""
    buf = Path(sys.executable).with_name("buf")
    done = subprocess.run([str(buf), "build", "-o", "-"], cwd=ROOT, check=True, capture_output=True)
    return Contracts(descriptor_pb2.FileDescriptorSet.FromString(done.stdout))


def _services(file: descriptor_pb2.FileDescriptorProto) -> Iterator[ServiceContract]:
    comments = _comments(file)
    for at, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        methods = tuple(
            Method(name, comments.get((_SERVICE, at, _MEMBER, index), ""), method)
            for index, method in enumerate(service.method)
        )
        yield ServiceContract(name, file.name, comments.get((_SERVICE, at), ""), methods)


def _comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(place.path): place.leading_comments.strip() for place in file.source_code_info.location}
