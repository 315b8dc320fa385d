"""Each RPC of sandbox configurations."""

import json

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import sandbox_config_service_pb2 as pb
from letta.tools.v1 import sandbox_config_service_pb2_grpc, tool_execution_service_pb2_grpc
from letta.tools.v1.sandbox_config_pb2 import SANDBOX_TYPE_E2B, SANDBOX_TYPE_LOCAL, SandboxEnvironmentVariable
from letta.tools.v1.tool_execution_service_pb2 import ExecuteRequest, ToolSource
from letta_common.errors import AlreadyExists, InvalidArgument, SandboxConfigNotFound, ValidationFailed
from letta_common.values.ids import new_id


@pytest.fixture
def configs(channel):
    return sandbox_config_service_pb2_grpc.SandboxConfigServiceStub(channel)


async def local(configs):
    return (
        await configs.GetDefaultLocalSandboxConfig(pb.GetDefaultLocalSandboxConfigRequest(), timeout=5)
    ).sandbox_config


async def set_variable(configs, config, key, value="secret", **values):
    request = pb.CreateSandboxEnvironmentVariableRequest(
        sandbox_config_id=config.id,
        environment_variable=SandboxEnvironmentVariable(key=key, value=value, **values),
    )
    return (await configs.CreateSandboxEnvironmentVariable(request, timeout=5)).environment_variable


async def update(configs, variable, *paths, **values):
    request = pb.UpdateSandboxEnvironmentVariableRequest(
        environment_variable_id=variable.id,
        environment_variable=SandboxEnvironmentVariable(**values),
        update_mask=FieldMask(paths=paths or list(values)),
    )
    return (await configs.UpdateSandboxEnvironmentVariable(request, timeout=5)).environment_variable


async def test_defaults_are_made_once(configs, ann):
    config = await local(configs)

    assert config == await local(configs)
    assert config == (await configs.RecreateLocalSandbox(pb.RecreateLocalSandboxRequest(), timeout=5)).sandbox_config
    assert (config.type, config.organization_id) == (SANDBOX_TYPE_LOCAL, ann.organization_id)
    assert json.loads(config.config) == {
        "sandbox_dir": None,
        "use_venv": False,
        "venv_name": "venv",
        "pip_requirements": [],
    }
    e2b = await configs.GetDefaultE2bSandboxConfig(pb.GetDefaultE2bSandboxConfigRequest(), timeout=5)
    assert json.loads(e2b.sandbox_config.config)["timeout"] == 300


async def test_keys_tell_the_type(configs):
    async def create(**config):
        request = pb.CreateSandboxConfigRequest(config=json.dumps(config))
        return (await configs.CreateSandboxConfig(request, timeout=5)).sandbox_config

    assert (await create(use_venv=True)).type == SANDBOX_TYPE_LOCAL
    assert (await create(timeout=10, template="t")).type == SANDBOX_TYPE_E2B
    with pytest.raises(InvalidArgument, match="nonsense"):
        await create(nonsense=1)
    request = pb.CreateLocalSandboxConfigRequest(config=pb.LocalSandboxConfig(pip_requirements='[{"name": "six"}]'))
    made = json.loads((await configs.CreateLocalSandboxConfig(request, timeout=5)).sandbox_config.config)
    assert (made["pip_requirements"], made["venv_name"]) == ([{"name": "six"}], "venv")


@pytest.mark.parametrize(
    "packages",
    [
        {"pip_requirements": [{"name": "requests", "version": "--pre"}]},
        {"pip_requirements": [{"name": "-r /etc/passwd"}]},
        {"pip_requirements": ["requests\n--index-url=http://127.0.0.1:9"]},
        {"pip_requirements": [{"name": "x @ http://127.0.0.1:9/x.tar.gz"}]},
        {"pip_requirements": "requests"},
        {"pip_requirements": [7]},
        {"npm_requirements": [{"name": "left-pad", "version": "-g"}]},
        {"npm_requirements": [{"name": "../x"}]},
        {"npm_requirements": [{"name": "x && y"}]},
    ],
    ids=str,
)
async def test_packages_that_no_tool_could_ask_for_are_refused(configs, packages):
    with pytest.raises(InvalidArgument):
        await configs.CreateSandboxConfig(pb.CreateSandboxConfigRequest(config=json.dumps(packages)), timeout=5)


async def test_packages_are_kept(configs):
    given = {"pip_requirements": [{"name": "requests", "version": "2.32.0"}, "numpy>=2"]}
    request = pb.CreateSandboxConfigRequest(config=json.dumps(given))
    config = (await configs.CreateSandboxConfig(request, timeout=5)).sandbox_config

    assert json.loads(config.config)["pip_requirements"] == given["pip_requirements"]


@pytest.mark.parametrize("key", ["A=B", "A\nB", "A\x7f"])
async def test_a_variable_that_would_end_every_call_is_refused(configs, key):
    with pytest.raises((InvalidArgument, ValidationFailed)):
        await set_variable(configs, await local(configs), key)


async def test_update_list_and_delete(configs, as_bob):
    config = await local(configs)
    request = pb.UpdateSandboxConfigRequest(
        sandbox_config_id=config.id, sandbox_config={"config": '{"use_venv": true}'}
    )
    updated = (await configs.UpdateSandboxConfig(request, timeout=5)).sandbox_config
    assert (updated.id, json.loads(updated.config)["use_venv"], json.loads(updated.config)["venv_name"]) == (
        config.id,
        True,
        "venv",
    )
    listed = (await configs.ListSandboxConfigs(pb.ListSandboxConfigsRequest(), timeout=5)).sandbox_configs
    assert list(listed) == [updated]
    only = pb.ListSandboxConfigsRequest(sandbox_type=SANDBOX_TYPE_E2B)
    assert not (await configs.ListSandboxConfigs(only, timeout=5)).sandbox_configs
    deletion = pb.DeleteSandboxConfigRequest(sandbox_config_id=config.id)
    with as_bob(), pytest.raises(SandboxConfigNotFound):
        await configs.DeleteSandboxConfig(deletion, timeout=5)
    with as_bob(), pytest.raises(SandboxConfigNotFound):
        await configs.UpdateSandboxConfig(request, timeout=5)
    await configs.DeleteSandboxConfig(deletion, timeout=5)
    with pytest.raises(SandboxConfigNotFound):
        await configs.DeleteSandboxConfig(deletion, timeout=5)


async def test_hosts_that_tools_may_reach_are_kept_within_the_ceiling(configs):
    def wanted(*hosts):
        return pb.CreateSandboxConfigRequest(config=json.dumps({"egress_hosts": hosts}))

    made = (await configs.CreateSandboxConfig(wanted("api.example.com"), timeout=5)).sandbox_config
    assert json.loads(made.config)["egress_hosts"] == ["api.example.com"]
    with pytest.raises(InvalidArgument, match="tools_egress_hosts_of_organizations"):
        await configs.CreateSandboxConfig(wanted("evil.org"), timeout=5)
    with pytest.raises(InvalidArgument, match="no host"):
        await configs.CreateSandboxConfig(wanted("https://api.example.com"), timeout=5)


async def test_values_of_variables_stay_inside(configs):
    config = await local(configs)
    variable = await set_variable(configs, config, "TOKEN", description="why")

    assert (variable.key, variable.value, variable.description) == ("TOKEN", "********", "why")
    request = pb.ListSandboxEnvironmentVariablesRequest(sandbox_config_id=config.id)
    listed = (await configs.ListSandboxEnvironmentVariables(request, timeout=5)).environment_variables
    assert list(listed) == [variable]


async def test_variables_are_changed(configs):
    config = await local(configs)
    variable = await set_variable(configs, config, "TOKEN", description="why")
    other = await set_variable(configs, config, "OTHER")

    assert (await update(configs, variable, key="NAME")).key == "NAME"
    assert not (await update(configs, variable, "description")).HasField("description")
    with pytest.raises(AlreadyExists):
        await update(configs, other, key="NAME")
    with pytest.raises(InvalidArgument):
        await update(configs, other, "nonsense")
    with pytest.raises(ValidationFailed):
        await set_variable(configs, config, "NO-NAME")
    again = await set_variable(configs, config, "NAME", "new")
    assert again.id == variable.id


async def test_what_does_not_exist(configs, as_bob):
    config = await local(configs)
    variable = await set_variable(configs, config, "TOKEN")
    deletion = pb.DeleteSandboxEnvironmentVariableRequest(environment_variable_id=variable.id)

    with as_bob(), pytest.raises(SandboxConfigNotFound):
        await set_variable(configs, config, "A")
    with as_bob(), pytest.raises(SandboxConfigNotFound):
        await update(configs, variable, key="A")
    with as_bob(), pytest.raises(SandboxConfigNotFound):
        await configs.DeleteSandboxEnvironmentVariable(deletion, timeout=5)
    request = pb.ListSandboxEnvironmentVariablesRequest(sandbox_config_id=new_id("sandbox"))
    with pytest.raises(SandboxConfigNotFound):
        await configs.ListSandboxEnvironmentVariables(request, timeout=5)
    await configs.DeleteSandboxEnvironmentVariable(deletion, timeout=5)
    with pytest.raises(SandboxConfigNotFound):
        await configs.DeleteSandboxEnvironmentVariable(deletion, timeout=5)


async def test_tools_see_the_variables(configs, channel):
    config = await local(configs)
    await set_variable(configs, config, "TOKEN", "of the sandbox")
    await set_variable(configs, config, "COLOUR", "of the sandbox")
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    source = ToolSource(source_code="import os\ndef f():\n    return [os.environ['TOKEN'], os.environ['COLOUR']]\n")
    request = ExecuteRequest(source=source, environment_variables={"COLOUR": "of the agent"})

    answer = await executions.Execute(request, timeout=20)

    assert json.loads(answer.result) == ["of the sandbox", "of the agent"]
