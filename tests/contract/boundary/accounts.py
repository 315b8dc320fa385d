"""Resources of accounts and of tools, whose updates hold fields and not a resource, and two values for each field."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count
from typing import Any

from google.api import annotations_pb2
from google.protobuf import json_format, message_factory

from letta.jsonmap.v1 import annotations_pb2 as jsonmap
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import call
from tests.contract.boundary.fields import METHODS, Values, as_keys, mapping, writable

_COUNT = count()
_HTTP = tuple(
    {"auth_header": f"X-{name}", "auth_token": name, "custom_headers": {f"x-{name}": name}} for name in ("one", "two")
)
_REMOTE = ("sse", "streamable_http")
_SIX, _NODE = {"packages": [{"specifier": "six"}, {"named": {"name": "x"}}]}, {"packages": [{"specifier": "left-pad"}]}
_PYTHON, _SCRIPT = ({"language": f"SANDBOX_LANGUAGE_{name}"} for name in ("PYTHON", "TYPESCRIPT"))
SANDBOXES: dict[str, tuple[Values, ...]] = {
    "e2b": (
        {"timeout": "40s", "template": "one", "pip_requirements": _SIX},
        {"timeout": "50s", "template": "two", "pip_requirements": {"packages": [{"specifier": "idna"}]}},
    ),
    "modal": (
        {"timeout": "40s", "pip_requirements": _SIX, "npm_requirements": _NODE, "compat": _PYTHON},
        {
            "timeout": "50s",
            "pip_requirements": {"packages": [{"named": {"name": "six", "version": "1.17.0"}}]},
            "npm_requirements": {"packages": [{"specifier": "ms"}]},
            "compat": _SCRIPT,
        },
    ),
    "local": ({"pip_requirements": _SIX}, {"pip_requirements": {"packages": [{"specifier": "idna"}]}}),
}
"""What a caller may say of each kind of sandbox; hosts are for operators to allow."""
UNSEEN = {"auth_token", "value"}
"""Secrets, which no answer shows."""


@dataclass(frozen=True)
class Account:
    """A kind of resource: its methods, and what may be written in each field, told as cases."""

    name: str
    id_field: str
    cases: tuple[tuple[str, Any], ...]
    """A field and a value of it."""
    base: Values
    read_id: str = ""
    """The field of the request to read, where it is another than that of an update."""
    whole: bool = False
    """An update takes all fields, not those alone that change."""
    by_admin: bool = False
    creates: str = ""
    reads: str = ""
    updates: str = ""
    around: tuple[str, ...] = ()
    """The caller's ids that stand beside the resource."""

    @property
    def create(self) -> Any:
        return METHODS[self.creates or f"Create{self.name}"]

    @property
    def read(self) -> Any:
        return METHODS[self.reads or f"Get{self.name}"]

    @property
    def update(self) -> Any:
        return METHODS.get(self.updates or f"Update{self.name}")

    @property
    def resource(self) -> Any:
        """The field of answers that holds the resource."""
        return self.create.output_type.fields[0]

    def fields(self, method: Any) -> set[str]:
        """Return the names of what a caller writes by a method."""
        wrapper = method.input_type.fields_by_name.get(self.resource.name)
        known = wrapper.message_type if wrapper else method.input_type
        return {each.name for each in writable(known)} - {self.id_field, "id", "update_mask"}

    def before(self, field: str, value: Any) -> Any:
        """Return another value of a field, which may become this one; this one where it has no other."""
        kind = value.keys() if isinstance(value, dict) else None
        others = [each for name, each in self.cases if name == field and each != value]
        return next((each for each in others if kind is None or each.keys() == kind), value)

    def request(self, method: Any, values: Values, around: Values) -> Values:
        """Return a request with values, within the resource where the method has it."""
        known = method.input_type.fields_by_name
        values = {self.resource.name: values} if self.resource.name in known else values
        return {**values, **{name: each for name, each in around.items() if name in known}}


ACCOUNTS = (
    Account(
        "APIKey",
        "api_key_id",
        (
            ("name", "a name"),
            ("user_id", "{user_id}"),
            ("scopes", ["SCOPE_READ"]),
            ("scopes", ["SCOPE_READ", "SCOPE_WRITE"]),
            ("expires_at", "2099-01-02T03:04:05Z"),
        ),
        {"name": "base"},
    ),
    Account(
        "User",
        "user_id",
        (("name", "a name"), ("name", "another name"), ("organization_id", "{other_org_id}")),
        {"name": "base", "organization_id": "{org_id}"},
        by_admin=True,
    ),
    Account(
        "Organization",
        "org_id",
        (("name", "a name"), ("privileged_tools", True)),
        {"name": "base"},
        by_admin=True,
    ),
    Account(
        "MCPServer",
        "mcp_server_id",
        (
            ("server_name", "unique-{}"),
            *(("config", {kind: {"server_url": f"{{{kind}}}", **each}}) for kind in _REMOTE for each in _HTTP),
        ),
        {"server_name": "unique-{}", "config": {"sse": {"server_url": "{sse}"}}},
        whole=True,
    ),
    Account(
        "SandboxConfig",
        "sandbox_config_id",
        tuple(("config", {kind: each}) for kind, settings in SANDBOXES.items() for each in settings),
        {"config": {"e2b": {"timeout": "30s", "template": "base"}}},
        reads="ListSandboxConfigs",
    ),
    Account(
        "SandboxEnvironmentVariable",
        "environment_variable_id",
        (("key", "UNIQUE_{}"), ("value", "one"), ("description", "some text"), ("description", "another text")),
        {"key": "UNIQUE_{}", "value": "base"},
        reads="ListSandboxEnvironmentVariables",
        around=("sandbox_config_id",),
    ),
    Account(
        "Budget",
        "id",
        (
            ("scope", "BUDGET_SCOPE_USER"),
            ("scope", "BUDGET_SCOPE_AGENT"),
            ("subject_id", "{user_id}"),
            ("period", "BUDGET_PERIOD_DAY"),
            ("period", "BUDGET_PERIOD_FOREVER"),
            ("limit_microdollars", "5000"),
            ("action", "BUDGET_ACTION_REFUSE"),
            ("action", "BUDGET_ACTION_WARN"),
        ),
        {
            "scope": "BUDGET_SCOPE_USER",
            "subject_id": "{user_id}",
            "period": "BUDGET_PERIOD_MONTH",
            "limit_microdollars": "1000",
            "action": "BUDGET_ACTION_WARN",
        },
        creates="SetBudget",
        reads="ListBudgets",
        updates="SetBudget",
        whole=True,
    ),
)


def filled(value: Any, owned: dict[str, str]) -> Any:
    """Return a value with ids of the caller in place of their names, and a number in place of `{}`."""
    if isinstance(value, dict):
        return {name: filled(each, owned) for name, each in value.items()}
    known = re.fullmatch(r"\{(\w+)\}", value) if isinstance(value, str) else None
    if known:
        return owned[known[1]]
    return value.replace("{}", str(next(_COUNT))) if isinstance(value, str) and "{}" in value else value


class RpcEdge:
    """Calls methods at the services."""

    def __init__(self, deployment: Deployment, account: Account) -> None:
        http = deployment.admin if account.by_admin else deployment.caller.http
        self._channel, self._bearer = deployment.channel, ("authorization", http.headers["authorization"])

    def call(self, method: Any, values: Values) -> Any:
        """Return what the first field of the answer holds."""
        request = json_format.ParseDict(values, message_factory.GetMessageClass(method.input_type)())
        code, answer = call(self._channel, method, request, self._bearer)
        assert code.name == "OK", f"{method.name}: {answer}"
        shown = json_format.MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return shown[method.output_type.fields[0].name]

    def shown(self, account: Account, values: Values) -> Values:
        """Return values as an answer has them."""
        made = message_factory.GetMessageClass(account.resource.message_type)()
        return json_format.MessageToDict(
            json_format.ParseDict(values, made),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=False,
        )


class RestEdge:
    """Calls methods through the gateway, at the paths that the contracts give them."""

    def __init__(self, deployment: Deployment, account: Account) -> None:
        self._http = deployment.admin if account.by_admin else deployment.caller.http

    def call(self, method: Any, values: Values) -> Any:
        """Return the answer."""
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        path, left = getattr(rule, verb), dict(values)
        for name in re.findall(r"\{(\w+)\}", path):
            path = path.replace(f"{{{name}}}", left.pop(name))
        known = method.input_type.fields_by_name
        inside = {rule.body} if rule.body != "*" else known.keys()
        params = {name: left.pop(name) for name in list(left) if name not in inside or mapping(known[name]).query}
        left = left.get(rule.body, left) if rule.body != "*" else left
        message = known[rule.body].message_type if rule.body in known else shape(method, getattr(rule, verb))
        body = as_keys(message, left) if rule.body else None
        answer = self._http.request(verb.upper(), path, json=body, params=params)
        assert answer.status_code in (200, 201), f"{verb} {path}: {answer.text}"
        return answer.json()

    def shown(self, account: Account, values: Values) -> Values:
        """Return values as an answer has them."""
        message = account.resource.message_type
        return as_keys(message, values)


def shape(method: Any, path: str) -> Any:
    """Return the message whose JSON a body under a path has: the request, or a view of it."""
    views = method.GetOptions().Extensions[jsonmap.method].views
    names = [view.request for view in views if view.path == path and view.request]
    return method.input_type.file.pool.FindMessageTypeByName(names[0]) if names else method.input_type
