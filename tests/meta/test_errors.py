"""The classes of errors are what the contract says."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2

from letta_common import errors
from scripts import protoc_gen_errors
from scripts.contracts import ROOT, read_contracts


@pytest.fixture(scope="module")
def files() -> list[descriptor_pb2.FileDescriptorProto]:
    return read_contracts().files


def with_reason(files: list[descriptor_pb2.FileDescriptorProto], like: int) -> list[descriptor_pb2.FileDescriptorProto]:
    """Return the files with one reason more, which has what the reason at place `like` says of itself."""
    copies = [descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString()) for file in files]
    file = next(file for file in copies if file.name == protoc_gen_errors.SOURCE)
    values = file.enum_type[0].value
    place = next((place for place in file.source_code_info.location if list(place.path) == [5, 0, 2, like]), None)
    if place is not None:
        file.source_code_info.location.add(path=[5, 0, 2, len(values)], leading_comments=place.leading_comments)
    values.add(name="ERROR_REASON_MCP_API_GONE", number=9999, options=values[like].options)
    return copies


def test_module_is_what_the_contract_makes(files):
    assert (ROOT / "libs/common/src" / protoc_gen_errors.OUTPUT).read_text() == protoc_gen_errors.module(files)


def test_new_reason_becomes_a_class(files):
    made = protoc_gen_errors.module(with_reason(files, like=1))

    assert "class MCPAPIGone(AppError, code=Code.UNAUTHENTICATED," in made
    assert made.count("code=Code.UNAUTHENTICATED") == 2


def test_reason_without_a_code_is_refused(files):
    with pytest.raises(SystemExit, match="MCP_API_GONE needs a comment and a `code`"):
        protoc_gen_errors.module(with_reason(files, like=0))


def test_names_of_classes_are_unique():
    named = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.Code]

    assert len(named) == len(errors.BY_REASON) + 1
