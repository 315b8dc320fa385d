"""Rules that every RPC keeps, beyond what buf lint can say."""

from __future__ import annotations

import re

import pytest

from buf.validate import validate_pb2
from scripts.contracts import ROOT, Contracts, Method, read_contracts

CONTRACTS: Contracts = read_contracts()
METHODS = pytest.mark.parametrize("method", CONTRACTS.methods, ids=lambda method: method.full_name)
PAGING = {"before", "after", "limit"}
READS = ("Get", "List", "Count", "Search", "Retrieve")

# Lists that the retired server answers whole.
WHOLE = {
    "letta.tools.v1.MCPServerService.ListMCPOffers": "what one server offers",
    "letta.llm.v1.ModelService.ListModels": "the SDK takes it whole",
    "letta.llm.v1.ModelService.ListEmbeddingModels": "the SDK takes it whole",
    "letta.tools.v1.MCPServerService.ListMCPServers": "a handful; the SDK takes it whole",
    "letta.tools.v1.MCPServerService.ListMCPServerTools": "what one server offers",
}
# Lists in one order.
ONE_ORDER = {
    "letta.memory.v1.PassageService.ListArchivalMemory": "the SDK says `ascending`",
    "letta.tools.v1.SandboxConfigService.ListSandboxConfigs": "the SDK names none",
    "letta.tools.v1.SandboxConfigService.ListSandboxEnvironmentVariables": "the SDK names none",
}
# Reads that write.
MAKING = {
    "letta.tools.v1.MCPServerService.CompleteMCPOAuth": "a browser is sent there",
    "letta.tools.v1.MCPServerService.ConnectMCPServer": "it keeps the tools of the server",
    "letta.tools.v1.SandboxConfigService.GetDefaultLocalSandboxConfig": "the first call makes it",
    "letta.tools.v1.SandboxConfigService.GetDefaultE2bSandboxConfig": "the first call makes it",
}


@METHODS
def test_it_has_a_comment(method: Method):
    assert method.comment.endswith(".")


@METHODS
def test_it_has_its_own_request_and_response(method: Method):
    name = method.proto.name

    assert method.proto.input_type.rpartition(".")[2] == f"{name}Request"
    assert method.proto.output_type.rpartition(".")[2] in {f"{name}Response", "HttpBody"}


@METHODS
def test_it_is_on_http_or_internal(method: Method):
    assert not (method.http and method.mapping.internal)


@METHODS
def test_a_read_may_be_repeated(method: Method):
    verb = method.http[0][0] if method.http else ""

    if method.full_name in MAKING:
        assert method.idempotency == "IDEMPOTENT"
    elif verb == "GET" or re.match(rf"({'|'.join(READS)})[A-Z]", method.proto.name):
        assert method.idempotency == "NO_SIDE_EFFECTS"
    elif verb in {"PUT", "DELETE", "PATCH"}:
        assert method.idempotency != "IDEMPOTENCY_UNKNOWN"


@METHODS
def test_a_public_list_has_pages(method: Method):
    if not re.match(r"List[A-Z]", method.proto.name) or method.mapping.internal or method.full_name in WHOLE:
        return
    fields = {field.name for field in CONTRACTS.messages[method.proto.input_type].field}

    assert fields >= PAGING
    assert "order" in fields or method.full_name in ONE_ORDER
    assert 0 < method.mapping.default_limit <= 1000


@METHODS
def test_a_streaming_twin_exists(method: Method):
    twin = method.mapping.stream_method
    names = {one.proto.name for one in CONTRACTS.methods if one.service == method.service}

    assert not twin or twin in names
    assert bool(twin) == bool(method.mapping.stream_if)


def test_no_two_methods_take_one_http_place():
    places: dict[tuple[str, str], list[str]] = {}
    for method in CONTRACTS.methods:
        for verb, path in method.http:
            shape = re.sub(r"\{[^}]*\}", "{}", path.rstrip("/"))
            places.setdefault((verb, shape), []).append(method.full_name)

    assert not [names for names in places.values() if len(names) > 1]


def _reachable(name: str, seen: set[str]) -> set[str]:
    """Return the messages that a message holds, itself included."""
    if name not in seen and name in CONTRACTS.messages:
        seen.add(name)
        for field in CONTRACTS.messages[name].field:
            _reachable(field.type_name, seen)
    return seen


def test_metadata_of_every_request_has_a_size():
    requests = {name for method in CONTRACTS.methods for name in _reachable(method.proto.input_type, set())}
    found = {
        f"{name}.{field.name}": field.options.Extensions[validate_pb2.field].string
        for name in requests
        for field in CONTRACTS.messages[name].field
        if field.name == "metadata" and field.type == field.TYPE_STRING
    }

    assert len(found) >= 6
    assert not [name for name, rule in found.items() if not 0 < (rule.max_bytes or rule.max_len) <= 262_144]


def test_exceptions_exist():
    names = {method.full_name for method in CONTRACTS.methods}

    assert WHOLE.keys() | ONE_ORDER.keys() | MAKING.keys() <= names


@pytest.mark.parametrize(("value", "comment"), CONTRACTS.reasons, ids=lambda part: getattr(part, "name", ""))
def test_a_reason_has_an_example_and_a_status(value, comment):
    options = str(value.options)

    assert "Example: " in comment
    assert "http_status" in options


def test_times_and_lengths_of_time_are_no_integers():
    numbers = {1, 2, 3, 4, 5, 6, 7, 13, 15, 16, 17, 18}  # every number of a FieldDescriptorProto.Type
    held = {
        name
        for method in CONTRACTS.methods
        for message in (method.proto.input_type, method.proto.output_type)
        for name in _reachable(message, set())
    }
    counting = re.compile(r"_(ns|us|ms|s|sec|seconds|minutes|hours)$")
    assert not [
        f"{name}.{field.name}"
        for name in held
        for field in CONTRACTS.messages[name].field
        if field.type in numbers
        and (counting.search(field.name) or "seconds" in CONTRACTS.field_comments.get(f"{name}.{field.name}", ""))
    ]


def test_methods_that_texts_name_exist():
    methods = {f"{method.service.rpartition('.')[2]}.{method.proto.name}" for method in CONTRACTS.methods}
    services = {name.partition(".")[0] for name in methods}
    pages = [
        page
        for pattern in ("proto/**/*.proto", "docs/**/*.md", "services/*/README.md", "README.md")
        for page in ROOT.glob(pattern)
    ]
    named = {
        (page.relative_to(ROOT).as_posix(), f"{service}.{name}")
        for page in pages
        for service, name in re.findall(r"\b(\w+Service)[./]([A-Z]\w+)\b", page.read_text())
        if service in services
    }
    assert named
    assert {(page, name) for page, name in named if name not in methods} == set()
