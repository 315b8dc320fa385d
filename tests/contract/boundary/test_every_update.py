"""Masks mean the same in every update of the contracts, before real services."""

from __future__ import annotations

from ast import literal_eval
from typing import Any

import pytest
from google.api.field_behavior_pb2 import IMMUTABLE, OUTPUT_ONLY, field_behavior

from letta.jsonmap.v1 import annotations_pb2
from letta.tools.v1.sandbox_config_pb2 import SandboxSettings
from letta_common.errors import InvalidArgument
from tests.contract.boundary.conftest import Deployment
from tests.contract.boundary.contracts import call, filled, methods, refusal
from tests.e2e.tenants import MARK

MASK = "google.protobuf.FieldMask"


def mask_of(method: Any) -> Any:
    return next(
        (field for field in method.input_type.fields if field.message_type and field.message_type.full_name == MASK),
        None,
    )


def resource_of(message: Any) -> Any:
    """Return the field that holds the resource of an update."""
    return next(field for field in message.fields if field.message_type and field.message_type.full_name != MASK)


UPDATES = {method.full_name: method for method in methods() if mask_of(method)}
# Its one field holds settings, of which a change keeps the others.
SETTINGS = "letta.tools.v1.SandboxConfigService.UpdateSandboxConfig"
EACH = pytest.mark.parametrize("method", UPDATES.values(), ids=UPDATES)

# Two fields of a resource: one that a test changes, and one that it sends beside without naming it.
CHANGING = {
    "letta.agent.v1.Agent": ("description", "project_id"),
    "letta.agent.v1.Conversation": ("summary", "model"),
    "letta.auth.v1.Organization": ("name", "privileged_tools"),
    "letta.auth.v1.User": ("name", "organization_id"),
    "letta.llm.v1.Provider": ("region", "api_version"),
    "letta.memory.v1.Archive": ("description", "metadata"),
    "letta.memory.v1.Block": ("description", "value"),
    "letta.memory.v1.Folder": ("description", "instructions"),
    "letta.memory.v1.Identity": ("name", "identifier_key"),
    "letta.tools.v1.MCPServer": ("config.streamable_http.auth_header", "server_name"),
    "letta.tools.v1.MCPServerSettings": ("auth_header", "server_url"),
    "letta.tools.v1.SandboxEnvironmentVariable": ("description", "key"),
    "letta.tools.v1.Tool": ("project_id", "metadata"),
}
# Resources that always have the first of these, so that clearing it leaves it.
ALWAYS = {"letta.auth.v1.Organization", "letta.auth.v1.User", "letta.memory.v1.Identity"}
UNNAMED = {"metadata": '{"not": "named"}', "privileged_tools": True}
# Where answers show what an update tells of a resource by another message.
WITHIN = {"letta.tools.v1.MCPServerSettings": "config.streamable_http."}


def bearer(deployment: Deployment, method: Any) -> tuple[str, str]:
    """Return the key of the caller, or that of the administrator for accounts."""
    by_admin = method.full_name.startswith("letta.auth.v1.")
    return "authorization", (deployment.admin if by_admin else deployment.caller.http).headers["authorization"]


def update(deployment: Deployment, method: Any, values: dict[str, Any], *paths: str) -> Any:
    """Update the caller's resource; return it as it is then."""
    code, answer = call(
        deployment.channel, method, asked(deployment, method, values, paths), bearer(deployment, method)
    )
    assert code.name == "OK", answer
    return getattr(answer, resource_of(method.output_type).name)


def asked(deployment: Deployment, method: Any, values: dict[str, Any], paths: tuple[str, ...]) -> Any:
    request = filled(method, deployment.caller.owned | {"mcp_server_name": MARK})
    resource = getattr(request, resource_of(method.input_type).name)
    resource.SetInParent()
    for path, value in values.items():
        if isinstance(value, dict):
            resource.MergeFrom(type(resource)(**{path: value}))
        else:
            setattr(*place(resource, path), value)
    getattr(request, mask_of(method).name).paths.extend(paths)
    return request


def place(message: Any, path: str) -> tuple[Any, str]:
    """Return the message that a path leads to, and the name of a field of it."""
    *above, name = path.split(".")
    for each in above:
        message = getattr(message, each)
    return message, name


def fixed(message: Any) -> list[str]:
    """Return the fields that no update changes."""
    kinds = {field.name: {*field.GetOptions().Extensions[field_behavior]} for field in message.fields}
    return [name for name, said in kinds.items() if said & {OUTPUT_ONLY, IMMUTABLE}]


def test_every_update_has_a_mask():
    lacking = {m.full_name for m in methods() if m.name.startswith(("Update", "Change")) and not mask_of(m)}

    assert not lacking
    assert all(mask_of(m).GetOptions().Extensions[annotations_pb2.field].mask for m in UPDATES.values())
    assert {resource_of(m.input_type).message_type.full_name for m in UPDATES.values()} == CHANGING.keys() | {
        "letta.tools.v1.SandboxConfig"
    }


@EACH
def test_paths_that_no_update_changes_are_refused_by_name(deployment: Deployment, method: Any):
    resource = resource_of(method.input_type).message_type
    for path in ("nonsense", "*", f"{resource.fields[0].name}.nonsense", *fixed(resource)):
        error = refusal(deployment.channel, method, asked(deployment, method, {}, (path,)), bearer(deployment, method))

        assert isinstance(error, InvalidArgument), path
        assert error.metadata["field"] == f"update_mask.{path}"


@pytest.mark.parametrize(
    "method", [each for name, each in UPDATES.items() if name != SETTINGS], ids=lambda method: method.name
)
def test_an_empty_mask_changes_what_is_set_and_a_mask_what_it_names(deployment: Deployment, method: Any):
    message = resource_of(method.input_type).message_type.full_name
    name, other = CHANGING[message]
    within = WITHIN.get(message, "")

    def shown(answer: Any, path: str) -> Any:
        return getattr(*place(answer, f"{within}{path}"))

    before = update(deployment, method, {})
    kept, unnamed = shown(before, other), UNNAMED.get(other, "NOT_NAMED")

    assert shown(update(deployment, method, {name: "set-alone"}), name) == "set-alone"
    assert shown(update(deployment, method, {name: "named", other: unnamed}, name), name) == "named"
    after = update(deployment, method, {})
    assert (shown(after, name), shown(after, other)) == ("named", kept)
    cleared = update(deployment, method, {}, name)
    holder, last = place(cleared, f"{within}{name}")
    assert getattr(holder, last) == "named" if message in ALWAYS else not holder.HasField(last)


@pytest.mark.parametrize("paths", [(), ("config",), ("config.e2b",), ("config.e2b.pip_requirements",)])
def test_settings_that_a_change_leaves_out_stay(deployment: Deployment, paths: tuple[str, ...]):
    before = update(deployment, UPDATES[SETTINGS], {}).config
    given = {"e2b": {"pip_requirements": {"packages": [{"named": {"name": "six"}}]}}}

    changed = update(deployment, UPDATES[SETTINGS], {"config": given}, *paths)
    after = update(deployment, UPDATES[SETTINGS], {})

    before.e2b.pip_requirements.Clear()
    before.MergeFrom(SandboxSettings(**given))
    assert changed.config == after.config == before


def test_a_path_clears_one_setting(deployment: Deployment):
    before = update(deployment, UPDATES[SETTINGS], {"config": {"e2b": {"template": "t"}}}).config
    assert before.e2b.template == "t"

    cleared = update(deployment, UPDATES[SETTINGS], {}, "config.e2b.template").config

    before.e2b.ClearField("template")
    assert cleared == before


@EACH
def test_a_resource_may_be_sent_back_as_it_was_read(deployment: Deployment, method: Any):
    read = update(deployment, method, {})
    resource = resource_of(method.input_type)
    if read.DESCRIPTOR is not resource.message_type:
        pytest.skip("it answers another message than it takes")
    request = filled(method, deployment.caller.owned)
    getattr(request, resource.name).CopyFrom(read)

    code, answer = call(deployment.channel, method, request, bearer(deployment, method))

    assert code.name == "OK", answer
    written = getattr(answer, resource_of(method.output_type).name)
    for message in (read, written):
        for field in set(fixed(message.DESCRIPTOR)) | {"etag"}:
            if field in message.DESCRIPTOR.fields_by_name:
                message.ClearField(field)
    assert written == read


def test_a_null_leaves_what_an_organization_always_has(deployment: Deployment):
    named = {"name": "nulls", "privileged_tools": True}
    made = deployment.admin.post("/v1/admin/orgs/", json=named).json()

    nulls = dict.fromkeys(named)
    answer = deployment.admin.patch("/v1/admin/orgs/", params={"org_id": made["id"]}, json=nulls)

    assert answer.json() == made | named


def test_a_null_leaves_what_a_user_always_has(deployment: Deployment):
    named = {"name": "nulls", "organization_id": deployment.caller.owned["org_id"]}
    made = deployment.admin.post("/v1/admin/users/", json=named).json()

    answer = deployment.admin.put("/v1/admin/users/", json={"id": made["id"], **dict.fromkeys(named)})

    assert answer.json() == made | {"updated_at": answer.json()["updated_at"]}


@pytest.mark.parametrize(
    ("body", "key"), [({}, "id"), ({"id": "wrong"}, "id"), ({"id": "user-none", "name": "n" * 257}, "name")]
)
def test_what_is_wrong_with_a_user_is_told_by_key(deployment: Deployment, body: dict[str, str], key: str):
    answer = deployment.admin.put("/v1/admin/users/", json=body)

    assert answer.status_code == 422
    assert [problem["loc"] for problem in literal_eval(answer.json()["detail"])] == [("body", key)]
