"""Nouns whose fields a caller writes, values for any field, and two ways to write and read them: gRPC and REST."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.api.field_behavior_pb2 import OUTPUT_ONLY, field_behavior
from google.protobuf import json_format, message_factory

from buf.validate import validate_pb2
from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import call, methods

Values = dict[str, Any]
METHODS = {method.name: method for method in methods()}
_TEXTS = ("some text", "another text")
_PARTS = tuple(f"AGENT_INCLUDE_{part}" for part in ("BLOCKS", "IDENTITIES", "SECRETS", "TAGS", "TOOLS"))


@dataclass(frozen=True)
class Noun:
    """A kind of resource, and the methods that make, read and change it."""

    name: str
    id_field: str
    path: str
    base: Values
    wrapped: bool = True
    """The request to create holds the resource; else it holds the fields themselves."""
    get: Values = field(default_factory=dict)

    @property
    def create(self) -> Any:
        return METHODS[f"Create{self.name}"]

    @property
    def change(self) -> Any:
        return METHODS[f"Update{self.name}"]

    @property
    def resource(self) -> str:
        """The field of requests and answers that holds the resource."""
        return self.create.output_type.fields[0].name

    @property
    def made_of(self) -> Any:
        """The message whose fields a request to create fills."""
        made = self.create.input_type
        return made.fields_by_name[self.resource].message_type if self.wrapped else made

    @property
    def changed_by(self) -> Any:
        """The message whose fields an update fills."""
        return self.change.input_type.fields_by_name[self.resource].message_type


_PROVIDER = {"provider_type": "openai-compatible", "api_key": "sk", "base_url": "http://127.0.0.1:9/v1"}
TOOL = 'def {}(text: str) -> str:\n    """Return it.\n\n    Args:\n        text: Any.\n    """\n    return text\n'
NOUNS = {
    noun.name: noun
    for noun in (
        Noun("Agent", "agent_id", "/v1/agents/", {"model": "builtin/rules"}, get={"include": _PARTS}),
        Noun("Archive", "archive_id", "/v1/archives/", {"name": "base"}, wrapped=False),
        Noun("Block", "block_id", "/v1/blocks/", {"label": "base", "value": "base"}),
        Noun("Conversation", "conversation_id", "/v1/conversations/", {}, wrapped=False),
        Noun("Folder", "folder_id", "/v1/folders/", {}, wrapped=False),
        Noun("Provider", "provider_id", "/v1/providers/", _PROVIDER),
        Noun("Tool", "tool_id", "/v1/tools/", {}),
    )
}
CONDITIONS = {"etag", "request_id"}


def writable(message: Any) -> Iterator[Any]:
    """Yield the fields of a message that a caller writes."""
    for each in message.fields:
        if OUTPUT_ONLY not in each.GetOptions().Extensions[field_behavior] and each.name not in CONDITIONS:
            yield each


def value_of(each: Any, which: int) -> Any:
    """Return a value of a field in the JSON of protobuf; there are two, 0 and 1."""
    if each.is_repeated:
        return [_single(each, which)]
    return _single(each, which)


def _single(each: Any, which: int) -> Any:
    if mapping(each).raw:
        return json.dumps({"key": _TEXTS[which]})
    if each.message_type is not None and each.message_type.full_name == "google.protobuf.Duration":
        least = each.GetOptions().Extensions[validate_pb2.field].duration.gte.seconds
        return f"{least + 20 + which}s"
    if each.message_type is not None:
        return {inner.name: value_of(inner, which) for inner in each.message_type.fields}
    if each.enum_type is not None:
        return each.enum_type.values[1 + which].name
    if each.type == each.TYPE_BOOL:
        return not which
    if each.type == each.TYPE_STRING:
        choices = getattr(each.GetOptions().Extensions[validate_pb2.field].string, "in")
        return choices[which] if choices else _TEXTS[which]
    return 20 + which if each.cpp_type != each.CPPTYPE_DOUBLE else 0.25 * (1 + which)


def mapping(each: Any) -> jsonmap.FieldMapping:
    return each.GetOptions().Extensions[jsonmap.field]


def as_rest(message: Any, values: Values) -> Values:
    """Return values as the JSON of REST has them."""
    fields = message.fields_by_name
    return {mapping(fields[name]).name or name: _rest_value(fields[name], value) for name, value in values.items()}


def as_keys(message: Any, values: Values) -> Values:
    """Return values as an object of REST has them, with those of a flattened field beside the others."""
    found = as_rest(message, values)
    for name in values:
        if mapping(message.fields_by_name[name]).flatten:
            found.update(found.pop(name))
    return found


def _rest_value(each: Any, value: Any) -> Any:
    if value is None or (each.message_type is not None and each.message_type.GetOptions().map_entry):
        return value
    if isinstance(value, list | tuple):
        return [_rest_value(each, one) for one in value]
    if mapping(each).raw:
        return json.loads(value)
    if mapping(each).duration_unit == jsonmap.DURATION_UNIT_SECONDS:
        return int(value.removesuffix("s"))
    if each.message_type is not None and isinstance(value, dict):
        if each.message_type.GetOptions().Extensions[jsonmap.message].transparent:
            ((name, inner),) = value.items()
            return _rest_value(each.message_type.fields_by_name[name], inner)
        return _tagged(each.message_type, value)
    if each.enum_type is not None:
        prefix = each.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        said = each.enum_type.values_by_name[value].GetOptions().Extensions[jsonmap.value].name
        return said or value.removeprefix(prefix).lower()
    return value


def _tagged(message: Any, values: Values) -> Values:
    """Return a message in which one of several is written inline, with a key that says which."""
    ((name, inner), *others) = values.items() if values else (("", None),)
    oneof = message.fields_by_name[name].containing_oneof if name in message.fields_by_name else None
    tag = oneof.GetOptions().Extensions[jsonmap.oneof].discriminator if oneof and not others else ""
    return {tag: name, **as_rest(message.fields_by_name[name].message_type, inner)} if tag else as_keys(message, values)


def holds(shown: Any, expected: Any) -> bool:
    """Say whether an answer says at least what was written."""
    if isinstance(expected, str) and expected.startswith("{") and isinstance(shown, str):
        return holds(json.loads(shown), json.loads(expected))
    if isinstance(expected, dict) and isinstance(shown, dict):
        return all(holds(shown.get(key), each) for key, each in expected.items())
    if isinstance(expected, list | tuple) and isinstance(shown, list):
        return len(shown) == len(expected) and all(map(holds, shown, expected))
    # JSON of protobuf has integers of 64 bits as text.
    return (
        bool(shown == expected)
        or (type(expected) is int and shown == str(expected))
        or moment(shown) == moment(expected) is not None
    )


def moment(text: Any) -> datetime | None:
    """Return the time that a text tells; None when it tells none."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


class OverGrpc:
    """Writes and reads by the services."""

    def __init__(self, deployment: Deployment) -> None:
        self._channel = deployment.channel
        self._bearer = "authorization", f"Bearer {deployment.caller.secret}"
        self._agent_id = deployment.caller.owned["agent_id"]

    def create(self, noun: Noun, values: Values) -> Values:
        around = {"agent_id": self._agent_id} if noun.name == "Conversation" else {}
        return self._call(noun.create, {noun.resource: values} if noun.wrapped else {**values, **around})

    def read(self, noun: Noun, identifier: str) -> Values:
        return self._call(METHODS[f"Get{noun.name}"], {noun.id_field: identifier, **noun.get})

    def change(self, noun: Noun, identifier: str, values: Values, named: tuple[str, ...] = ()) -> Values:
        """Set what has a value; the mask names what is to be cleared too."""
        given = {name: value for name, value in values.items() if value is not None}
        mask = {"update_mask": ",".join(map(_camel, named))} if named else {}
        return self._call(noun.change, {noun.id_field: identifier, noun.resource: given, **mask})

    def shown(self, noun: Noun, values: Values) -> Values:
        """Return values as an answer has them."""
        return values

    def _call(self, method: Any, values: Values) -> Values:
        request = json_format.ParseDict(values, _new(method.input_type))
        code, answer = call(self._channel, method, request, self._bearer)
        assert code.name == "OK", f"{method.name}: {answer}"
        resource = getattr(answer, method.output_type.fields[0].name)
        return json_format.MessageToDict(
            resource, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )


class OverRest:
    """Writes and reads through the gateway."""

    def __init__(self, deployment: Deployment) -> None:
        self._http = deployment.caller.http
        self._agent_id = deployment.caller.owned["agent_id"]

    def create(self, noun: Noun, values: Values) -> Values:
        params = {"agent_id": self._agent_id} if noun.name == "Conversation" else {}
        return self._call("POST", noun.path, as_rest(noun.made_of, values), params)

    def read(self, noun: Noun, identifier: str) -> Values:
        params = {"include": [f"agent.{part.rpartition('_')[2].lower()}" for part in noun.get.get("include", ())]}
        return self._call("GET", noun.path + identifier, None, params)

    def change(self, noun: Noun, identifier: str, values: Values, named: tuple[str, ...] = ()) -> Values:
        body = {name: values.get(name) for name in named or values}
        return self._call("PATCH", noun.path + identifier, as_rest(noun.changed_by, body), {})

    def shown(self, noun: Noun, values: Values) -> Values:
        return as_rest(_Both(noun), values)

    def _call(self, verb: str, path: str, body: Values | None, params: Any) -> Values:
        answer = self._http.request(verb, path, json=body, params=params)
        assert answer.status_code == 200, f"{verb} {path}: {answer.text}"
        return dict(answer.json())


class _Both:
    """The fields of the message that makes a noun and of the one that changes it."""

    def __init__(self, noun: Noun) -> None:
        self.fields_by_name = {each.name: each for each in (*noun.changed_by.fields, *noun.made_of.fields)}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _new(message: Any) -> Any:
    return message_factory.GetMessageClass(message)()
