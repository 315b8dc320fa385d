"""Whatever a caller may write of keys, users, organizations, budgets, MCP servers and sandboxes is kept and shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.boundary.accounts import ACCOUNTS, SANDBOXES, UNSEEN, Account, RestEdge, RpcEdge, filled
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.fields import METHODS, Values, holds
from tests.e2e.tenants import mcp_server

ADDRESSES: dict[str, str] = {}
MASK = "********"
OVER = [
    pytest.param(edge, account, id=f"{edge.__name__.removesuffix('Edge').lower()}-{account.name}")
    for account in ACCOUNTS
    for edge in (RpcEdge, RestEdge)
    if edge is RpcEdge or account.name != "Budget"  # budgets have no path
]


def cases(method: str) -> list[Any]:
    return [
        pytest.param(*each.values, field, value, id=f"{each.id}.{field}-{number}")
        for each in OVER
        for number, (field, value) in enumerate(each.values[1].cases)
        if getattr(each.values[1], method) is not None
        and field in each.values[1].fields(getattr(each.values[1], method))
    ]


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[None]:
    """Run an MCP server of each transport over HTTP; one is listed when it is made known."""
    with mcp_server("sse") as sse, mcp_server("streamable_http") as streamable:
        ADDRESSES.update(sse=sse, streamable_http=streamable)
        yield


class Kept:
    """One resource, written and read over one edge."""

    def __init__(self, deployment: Deployment, edge: type[Any], account: Account) -> None:
        self._owned = {**deployment.caller.owned, "other_org_id": deployment.other.owned["org_id"], **ADDRESSES}
        self._edge, self._account = edge(deployment, account), account
        self._around = {name: self._owned[name] for name in account.around}

    def create(self, values: Values) -> tuple[Values, Values]:
        """Make one; return what was written and the answer."""
        written = filled({**self._account.base, **values}, self._owned)
        request = self._account.request(self._account.create, written, self._around)
        return written, self._edge.call(self._account.create, request)

    def update(self, identifier: str, values: Values) -> tuple[Values, Values]:
        """Change one; return what was written and the answer."""
        account = self._account
        written = filled(values, self._owned)
        around = {**self._around, account.id_field: identifier}
        return written, self._edge.call(account.update, account.request(account.update, written, around))

    def read(self, identifier: str) -> Values:
        """Read it again."""
        account = self._account
        around = {**self._around, account.read_id or account.id_field: identifier}
        found = self._edge.call(account.read, account.request(account.read, {}, around))
        return next(each for each in found if each["id"] == identifier) if isinstance(found, list) else found

    def require(self, field: str, written: Values, *answers: Values) -> None:
        """Fail unless all answers show what was written."""
        expected = self._edge.shown(self._account, as_shown({field: written[field]}))
        for answer in answers:
            assert all(holds(answer.get(key), value) for key, value in expected.items()), (answer, expected)


def as_shown(values: Values) -> Values:
    """Return values as answers have them: without secrets, and of headers the names alone."""
    found: Values = {}
    for name, each in values.items():
        if name == "custom_headers":
            found[name] = dict.fromkeys(each, MASK)
        elif name not in UNSEEN:
            found[name] = as_shown(each) if isinstance(each, dict) else each
    return found


@pytest.mark.parametrize(("edge", "account", "field", "value"), cases("create"))
def test_a_field_that_create_takes_is_kept(deployment: Deployment, edge: Any, account: Account, field: str, value: Any):
    kept = Kept(deployment, edge, account)

    written, made = kept.create({field: value})

    kept.require(field, written, made, kept.read(made["id"]))


@pytest.mark.parametrize(("edge", "account", "field", "value"), cases("update"))
def test_a_field_that_update_takes_is_kept(deployment: Deployment, edge: Any, account: Account, field: str, value: Any):
    kept = Kept(deployment, edge, account)
    base, made = kept.create({field: account.before(field, value)})
    values = {**base, field: value} if account.whole else {field: value}

    written, changed = kept.update(made["id"], values)

    kept.require(field, written, changed, kept.read(changed["id"]))


@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda account: account.name)
def test_every_field_has_a_case(account: Account):
    methods = [method for method in (account.create, account.update) if method is not None]

    assert {field for field, _ in account.cases} == set.union(*map(account.fields, methods))


def test_every_field_of_a_remote_servers_configuration_has_a_value():
    """Programs as servers are for an operator to allow: `tests/contract/rpc/tools` holds theirs."""
    (server,) = [account for account in ACCOUNTS if account.name == "MCPServer"]
    config = server.resource.message_type.fields_by_name["config"].message_type
    given: dict[str, set[str]] = {}
    for _, value in (each for each in server.cases if each[0] == "config"):
        ((kind, inner),) = value.items()
        given.setdefault(kind, set()).update(inner)

    known = {each.name: {inner.name for inner in each.message_type.fields} for each in config.fields}
    assert given == {kind: fields for kind, fields in known.items() if kind != "stdio"}


@pytest.mark.parametrize("edge", [RpcEdge, RestEdge], ids=["rpc", "rest"])
def test_every_field_of_a_local_sandbox_is_kept(deployment: Deployment, edge: Any):
    (account,) = [each for each in ACCOUNTS if each.name == "SandboxConfig"]
    given = SANDBOXES["local"][0]

    made = edge(deployment, account).call(METHODS["CreateLocalSandboxConfig"], {"config": given})

    shown = edge(deployment, account).shown(account, {"config": {"local": given}})
    assert holds(made["config"], shown["config"])


def test_every_setting_of_a_sandbox_has_a_value():
    """Hosts are for an operator to allow: `tests/contract/rpc/tools` holds theirs."""
    (account,) = [each for each in ACCOUNTS if each.name == "SandboxConfig"]
    settings = account.resource.message_type.fields_by_name["config"].message_type

    known = {each.name: {inner.name for inner in each.message_type.fields} for each in settings.fields}
    assert {kind: set(given) for kind, (given, _) in SANDBOXES.items()} == {
        kind: fields - {"egress_hosts"} for kind, fields in known.items()
    }
