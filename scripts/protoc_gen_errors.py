"""A protoc plugin that writes the classes of `letta_common.errors` from `letta.common.v1.ErrorReason`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2
from google.rpc import code_pb2

SOURCE, OUTPUT = "letta/common/v1/error_reason.proto", "letta_common/errors.py"
HEAD = '''"""The errors, one class a reason of `letta.common.v1.ErrorReason`. Made by `make gen`; do not edit."""

from __future__ import annotations

from letta_common.app_error import AppError as AppError  # noqa: PLC0414  (the family with its base)
from letta_common.codes import Code
'''
CLASS = '''

class {name}(AppError, code=Code.{code}, reason="{reason}"):
    """{doc}"""
'''
FOOT = """

BY_REASON: dict[str, type[AppError]] = {kind.reason: kind for kind in AppError.__subclasses__()}
"""
_INITIALS = {"API", "LLM", "MCP"}
# Their plain names are Python's own, or say too little where they are raised.
_OTHER_NAMES = {
    "INTERNAL": "InternalError",
    "NOT_IMPLEMENTED": "OperationUnimplemented",
    "CANCELLED": "RequestCancelled",
}
_PREFIX, _EXTENSION = "ERROR_REASON_", "letta.jsonmap.v1.error"
_ENUM, _VALUE = 5, 2
"""Field numbers of an enum in FileDescriptorProto and of a value in its enum."""


def main() -> None:
    """Read a CodeGeneratorRequest from stdin, write the response to stdout."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse()
    response.supported_features = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    if SOURCE in request.file_to_generate:
        response.file.add(name=OUTPUT, content=module(list(request.proto_file)))
    sys.stdout.buffer.write(response.SerializeToString())


def module(files: list[descriptor_pb2.FileDescriptorProto]) -> str:
    """Return the text of the module. Raises SystemExit when a reason has no comment or no code."""
    mapping = _reader_of_mappings(files)
    file = next(file for file in files if file.name == SOURCE)
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    classes = [
        _class(value.name.removeprefix(_PREFIX), comments.get((_ENUM, 0, _VALUE, at), ""), mapping(value).code)
        for at, value in enumerate(file.enum_type[0].value)
        if value.number
    ]
    return HEAD + "".join(classes) + FOOT


def _reader_of_mappings(files: list[descriptor_pb2.FileDescriptorProto]) -> Any:
    # The request brings its own annotations: those that are generated beside this file may be a version behind.
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    extension = pool.FindExtensionByName(_EXTENSION)
    options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.EnumValueOptions"))
    return lambda value: options.FromString(value.options.SerializeToString()).Extensions[extension]


def _class(reason: str, comment: str, code: int) -> str:
    text = " ".join(comment.partition("Example:")[0].split())
    if not text or not code:
        raise SystemExit(f"{_PREFIX}{reason} needs a comment and a `code`")
    return CLASS.format(
        name=_OTHER_NAMES.get(reason) or "".join(_words(reason)),
        doc=text,
        code=code_pb2.Code.Name(code),
        reason=reason,
    )


def _words(reason: str) -> Iterator[str]:
    return (word if word in _INITIALS else word.capitalize() for word in reason.split("_"))


if __name__ == "__main__":
    main()
