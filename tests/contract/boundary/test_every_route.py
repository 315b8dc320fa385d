"""Whatever stands in a path, a query, a header or a body, the answer is typed: over every route of the REST."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import httpx
import pytest

from tests.contract.boundary.conftest import Deployment

NUL = "a\0b"
HALF = b'"\\ud800"'
REFUSED = {400, 403, 404, 405, 409, 415, 422}
Operation = tuple[str, str, dict[str, Any]]
Fits = Callable[[dict[str, Any]], bool]
_DOCUMENT: dict[str, Any] = {}


@pytest.fixture(scope="module")
def operations(deployment: Deployment) -> list[Operation]:
    _DOCUMENT.update(httpx.get(f"{deployment.server.http_url}/openapi.json", timeout=60).json())
    paths = _DOCUMENT["paths"]
    return [(method.upper(), path, found[method]) for path, found in paths.items() for method in found]


def filled(path: str, owned: dict[str, str], **more: str) -> str:
    """Return a path with the caller's ids in it; the last `{name}` of the path may be given."""
    for name in _names(path):
        path = path.replace(f"{{{name}}}", more.get(name) or owned.get(name) or "x")
    return path


def _names(path: str) -> list[str]:
    return [part.partition("}")[0] for part in path.split("{")[1:]]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = _DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def is_text(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "string" and "enum" not in schema and schema.get("format") is None


def is_word(schema: dict[str, Any]) -> bool:
    return "enum" in schema


def bodies(
    schema: dict[str, Any], value: Any, fits: Fits = is_text, depth: int = 0, seen: tuple[int, ...] = ()
) -> Iterator[Any]:
    """Yield JSON values of a schema, each with the value in one of the places that it fits: its strings."""
    schema = resolved(schema)
    if depth > 6 or id(schema) in seen:
        return
    below = (*seen, id(schema))
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from bodies(choice, value, fits, depth, below)
    if fits(schema):
        yield value
    for inner in bodies(schema.get("items") or {}, value, fits, depth + 1, below):
        yield [inner]
    if isinstance(more := schema.get("additionalProperties"), dict):
        if fits({"type": "string"}):  # what keys are
            yield {value: "x"}
        for inner in bodies(more, value, fits, depth + 1, below):
            yield {"key": inner}
    required = {
        key: _plain(schema["properties"][key]) for key in schema.get("required", ()) if key in schema["properties"]
    }
    for key, each in (schema.get("properties") or {}).items():
        tag = resolved(each).get("const")
        if tag is None and not each.get("readOnly"):  # what only answers have is skipped in requests, whatever it is
            for inner in bodies(each, value, fits, depth + 1, below):
                yield {**required, key: inner}


def _plain(schema: dict[str, Any]) -> Any:
    schema = resolved(schema)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        return _plain(choice)
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    return {"string": "x", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}.get(
        str(schema.get("type")), "x"
    )


def body_schema(operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    return dict(content.get("application/json", {}).get("schema", {}))


def texts_kept(body: Any) -> bool:
    """Say whether a NUL stands where texts of messages, passages and tools are, which keep it."""
    text = json.dumps(body)
    return any(f'"{key}"' in text for key in ("messages", "input", "text", "content", "args", "memory", "arguments"))


def test_nul_in_a_path_is_refused(deployment: Deployment, operations: list[Operation]) -> None:
    bad = {}
    for method, path, _ in operations:
        for name in _names(path):
            for value in ("%00", f"{deployment.caller.owned.get(name, 'x')}%00", "a%00b"):
                url = filled(path, deployment.caller.owned, **{name: value})
                answer = deployment.caller.http.request(method, url, json={} if method != "GET" else None)
                if answer.status_code not in REFUSED:
                    bad[f"{method} {url}"] = answer.status_code

    assert bad == {}


def test_nul_in_a_query_is_refused(deployment: Deployment, operations: list[Operation]) -> None:
    bad, asked = {}, 0
    for method, path, operation in operations:
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query":
                asked += 1
                url = filled(path, deployment.caller.owned)
                sent = {} if method not in ("GET", "DELETE") else None
                answer = deployment.caller.http.request(method, url, params={parameter["name"]: NUL}, json=sent)
                if answer.status_code not in REFUSED:
                    bad[f"{method} {path} {parameter['name']}"] = answer.status_code

    assert asked > 100
    assert bad == {}


def test_nul_in_a_body_is_refused_or_kept(deployment: Deployment, operations: list[Operation]) -> None:
    bad, sent = {}, 0
    for method, path, operation in operations:
        url = filled(path, deployment.caller.owned)
        for body in bodies(body_schema(operation), NUL):
            sent += 1
            answer = deployment.caller.http.request(method, url, json=body)
            fine = answer.status_code < 500 if texts_kept(body) else answer.status_code in REFUSED
            if not fine:
                bad[f"{method} {path} {json.dumps(body)[:160]}"] = (answer.status_code, answer.text[:120])

    assert sent > 150
    assert bad == {}


@pytest.mark.parametrize("text", [HALF, b'"\xff\xfe"', b'"\\ud800\\ud800"', b'"\xed\xa0\x80"'])
def test_what_is_no_text_is_refused_in_every_body(
    deployment: Deployment, operations: list[Operation], text: bytes
) -> None:
    bad = {}
    for method, path, operation in operations:
        if body_schema(operation):
            for body in (b'{"name": ' + text + b"}", b"{" + text + b': 1, "messages": []}'):
                headers = {"content-type": "application/json"}
                url = filled(path, deployment.caller.owned)
                answer = deployment.caller.http.request(method, url, content=body, headers=headers)
                if answer.status_code not in REFUSED:
                    bad[f"{method} {path}"] = (answer.status_code, answer.text[:120])

    assert bad == {}


@pytest.mark.parametrize("value", [99, -1, 1.5, True, "99", "no such word", [], {}])
def test_what_is_no_word_of_an_enum_is_refused(deployment: Deployment, operations: list[Operation], value: Any) -> None:
    bad, bodies_sent, queries_sent = {}, 0, 0
    for method, path, operation in operations:
        url = filled(path, deployment.caller.owned)
        for body in bodies(body_schema(operation), value, is_word):
            bodies_sent += 1
            status = deployment.caller.http.request(method, url, json=body).status_code
            if status != 422:
                bad[f"{method} {path} {json.dumps(body)[:160]}"] = status
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query" and '"enum"' in json.dumps(resolved(parameter["schema"])):
                queries_sent += 1
                sent = {} if method not in ("GET", "DELETE") else None
                query = {parameter["name"]: str(value)}
                status = deployment.caller.http.request(method, url, params=query, json=sent).status_code
                if status != 422:
                    bad[f"{method} {path} {parameter['name']}"] = status

    assert bad == {}
    assert bodies_sent > 30
    assert queries_sent > 15


def test_a_body_of_another_type_is_refused_everywhere(deployment: Deployment, operations: list[Operation]) -> None:
    bad = {}
    for method, path, operation in operations:
        if operation.get("requestBody"):
            url = filled(path, deployment.caller.owned)
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                answer = deployment.caller.http.request(method, url, content=b"{}", headers={"content-type": kind})
                takes = kind.partition(";")[0] in operation["requestBody"]["content"]
                if answer.status_code != (422 if takes else 415):
                    bad[f"{method} {path} {kind}"] = answer.status_code

    assert bad == {}


@cache
def _strange() -> tuple[str, ...]:
    return ("", "x" * 5000, "%", "\u00e4", "-1", "null", "[]", "1e999", "9" * 40, "' or 1=1 --", "../..", "agent-x")


def test_strange_queries_are_no_fault(deployment: Deployment, operations: list[Operation]) -> None:
    bad = {}
    for method, path, operation in operations:
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query" and method == "GET":
                for value in _strange():
                    url = filled(path, deployment.caller.owned)
                    answer = deployment.caller.http.get(url, params={parameter["name"]: value})
                    if answer.status_code >= 500 and answer.status_code not in (501, 503):
                        bad[f"{path} {parameter['name']}={value[:40]}"] = answer.status_code

    assert bad == {}
