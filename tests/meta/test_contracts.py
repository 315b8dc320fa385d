"""Rules that every RPC keeps, beyond what buf lint can say."""

from __future__ import annotations

import re
from collections.abc import Callable

from buf.validate import validate_pb2
from scripts.contracts import ROOT, Contracts, Method, read_contracts

CONTRACTS: Contracts = read_contracts()
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


def breaking(rule: Callable[[Method], bool]) -> list[str]:
    """Return the methods for which a rule does not hold."""
    assert CONTRACTS.methods
    return [method.full_name for method in CONTRACTS.methods if not rule(method)]


def test_each_has_a_comment():
    assert breaking(lambda method: method.comment.endswith(".")) == []


def test_each_has_its_own_request_and_response():
    def own(method: Method) -> bool:
        name, (asked, answered) = method.proto.name, types(method)
        return asked == f"{name}Request" and answered in {f"{name}Response", "HttpBody"}

    assert breaking(own) == []


def types(method: Method) -> tuple[str, str]:
    """Return the names of the request and of the response."""
    return method.proto.input_type.rpartition(".")[2], method.proto.output_type.rpartition(".")[2]


def test_each_is_on_http_or_internal():
    assert breaking(lambda method: not (method.http and method.mapping.internal)) == []


def test_a_read_may_be_repeated():
    def repeatable(method: Method) -> bool:
        verb = method.http[0][0] if method.http else ""
        if method.full_name in MAKING:
            return method.idempotency == "IDEMPOTENT"
        if verb == "GET" or re.match(rf"({'|'.join(READS)})[A-Z]", method.proto.name):
            return method.idempotency == "NO_SIDE_EFFECTS"
        return verb not in {"PUT", "DELETE", "PATCH"} or method.idempotency != "IDEMPOTENCY_UNKNOWN"

    assert breaking(repeatable) == []


def test_a_public_list_has_pages():
    def paged(method: Method) -> bool:
        if not re.match(r"List[A-Z]", method.proto.name) or method.mapping.internal or method.full_name in WHOLE:
            return True
        fields = {field.name for field in CONTRACTS.messages[method.proto.input_type].field}
        ordered = "order" in fields or method.full_name in ONE_ORDER
        return fields >= PAGING and ordered and 0 < method.mapping.default_limit <= 1000

    assert breaking(paged) == []


def test_a_streaming_twin_exists():
    known = {method.full_name for method in CONTRACTS.methods}

    def twinned(method: Method) -> bool:
        twin = method.mapping.stream_method
        return (not twin or f"{method.service}.{twin}" in known) and bool(twin) == bool(method.mapping.stream_if)

    assert breaking(twinned) == []


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


def test_a_reason_has_an_example_and_a_status():
    assert CONTRACTS.reasons
    assert [value.name for value, comment in CONTRACTS.reasons if "Example: " not in comment] == []
    assert [value.name for value, _ in CONTRACTS.reasons if "http_status" not in str(value.options)] == []


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
