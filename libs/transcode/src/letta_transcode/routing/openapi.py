"""The OpenAPI 3.1 document of everything that is routed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from letta_transcode.http.responses import LINES
from letta_transcode.mapping.plans import Field
from letta_transcode.mapping.schemas import Schema, Schemas, body_of
from letta_transcode.routing.bindings import HTTP_BODY, Binding, TextSource

if TYPE_CHECKING:
    from letta_transcode.mapping.codecs import Codecs
    from letta_transcode.routing.operations import Operation
    from letta_transcode.routing.routes import PeerRoutes, Routes


@dataclass(frozen=True, slots=True)
class Info:
    """What the document says of itself."""

    title: str
    version: str
    description: str = ""
    servers: tuple[str, ...] = ()


# OpenAPI has a place for these alone; methods bound to verbs of their own are left out of the document.
_VERBS = frozenset({"GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"})
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "detail": {"description": "What happened and what to do."},
        "error": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "detail": {"type": ["string", "null"]},
            },
        },
        "error_code": {"type": "string"},
    },
}
_INVALID: Schema = {
    "type": "object",
    "properties": {
        "trace_id": {"type": "string"},
        "detail": {"type": "string", "description": "A list of what is wrong, each with type, loc and msg."},
    },
    "required": ["detail"],
}


def document(routes: Routes, info: Info) -> dict[str, Any]:
    """Return the document."""
    schemas = Schemas()
    schemas.components.update({"Error": _ERROR, "ValidationError": _INVALID})
    paths: dict[str, dict[str, Any]] = {}
    used: set[str] = set()
    for peer, operation in routes.operations:
        if operation.verb in _VERBS:
            item = paths.setdefault(_path(operation), {})
            item.setdefault(operation.verb.lower(), _operation(schemas, peer, operation, used))
    about = {"title": info.title, "version": info.version, "description": info.description}
    tags = sorted({_tag(operation) for _, operation in routes.operations})
    return {
        "openapi": "3.1.0",
        "info": {key: value for key, value in about.items() if value},
        "servers": [{"url": url} for url in info.servers or ("/",)],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}, {}],
    }


def _operation(schemas: Schemas, peer: PeerRoutes, operation: Operation, used: set[str]) -> dict[str, Any]:
    codecs, binding = peer.codecs, operation.binding
    name = base = f"{operation.method.service.rpartition('.')[2]}_{operation.method.name}"
    number = 2
    while name in used:
        name, number = f"{base}_{number}", number + 1
    used.add(name)
    made: dict[str, Any] = {
        "operationId": name,
        "tags": [_tag(operation)],
        "parameters": [*_parameters(schemas, codecs, binding)],
        "responses": _responses(schemas, codecs, operation),
    }
    lines = operation.json_lines and operation.method.client_streaming
    body = _body(schemas, codecs, binding, LINES if lines else "application/json")
    if body:
        made["requestBody"] = {"required": _needed(binding), "content": body}
    if operation.deprecated:
        made["deprecated"] = True
    return made


def _parameters(schemas: Schemas, codecs: Codecs, binding: Binding) -> list[dict[str, Any]]:
    found = [_parameter(schemas, codecs, each, ".".join(path), "path") for path, each in binding.path.items()]
    found += [_parameter(schemas, codecs, each, key, "query") for key, each in binding.query.items()]
    found += [_parameter(schemas, codecs, each, each.field.header, "header") for each in binding.headers]
    return found


def _parameter(schemas: Schemas, codecs: Codecs, text: TextSource, name: str, where: str) -> dict[str, Any]:
    schema = schemas.field(codecs, text.field)
    made = {"name": name, "in": where, "required": where == "path" or text.field.required, "schema": schema}
    if text.field.deprecated:
        made["deprecated"] = True
    return made


def _body(schemas: Schemas, codecs: Codecs, binding: Binding, kind: str) -> dict[str, Any]:
    if not binding.body:
        return {}
    if binding.raw_body:
        return {"*/*": {"schema": {"type": "string", "contentEncoding": "binary"}}}
    if binding.body_plan is not None:
        schema = schemas.object(codecs, body_of(binding.body_plan))
    elif binding.body_field is not None:
        schema = schemas.field(codecs, binding.body_field)
    else:
        schema = schemas.message(codecs, binding.message)
    return {"multipart/form-data" if binding.takes_forms else kind: {"schema": schema}}


def _needed(binding: Binding) -> bool:
    plan = binding.body_plan
    return plan is not None and any(field.required for field in plan.fields())


def _responses(schemas: Schemas, codecs: Codecs, operation: Operation) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success"}
    content = _content(schemas, codecs, operation)
    if operation.twin is not None:
        content |= _content(schemas, codecs, operation.twin)
    if operation.status != 204:
        success["content"] = content
    failure = {"schema": {"$ref": "#/components/schemas/Error"}}
    invalid = {"schema": {"$ref": "#/components/schemas/ValidationError"}}
    return {
        str(operation.status): success,
        "422": {"description": "The request is not valid", "content": {"application/json": invalid}},
        "default": {"description": "Failure", "content": {"application/json": failure}},
    }


def _content(schemas: Schemas, codecs: Codecs, operation: Operation) -> dict[str, Any]:
    plan = operation.response_plan
    if plan == HTTP_BODY:
        return {"*/*": {"schema": {"type": "string", "contentEncoding": "binary"}}}
    if operation.constant is not None:
        return {"application/json": {"schema": {}}}
    if isinstance(plan, Field):
        schema = schemas.field(codecs, replace(plan, presence=plan.presence and not plan.value.form.is_message))
    else:
        schema = schemas.message(codecs, plan)
    streams = LINES if operation.json_lines else "text/event-stream"
    kind = streams if operation.method.server_streaming else "application/json"
    return {kind: {"schema": schema}}


def _path(operation: Operation) -> str:
    """Return the template with plain variables, as OpenAPI wants them."""
    template = operation.template
    pieces = list(template.segments)
    # From the end, so that the places of those before stay right.
    for variable in reversed(template.variables):
        pieces[variable.start : variable.end] = [f"{{{'.'.join(variable.path)}}}"]
    path = "/" + "/".join(pieces) + (f":{template.verb}" if template.verb else "")
    return path + "/" if template.text.endswith("/") and path != "/" else path


def _tag(operation: Operation) -> str:
    return operation.method.service.rpartition(".")[2].removesuffix("Service")
