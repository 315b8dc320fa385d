"""Each RPC of sandbox configurations."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from letta.compat.tools.v1.sandbox_pb2 import SandboxLanguage
from letta.tools.v1 import sandbox_config_service_pb2 as pb
from letta.tools.v1 import sandbox_config_service_pb2_grpc, tool_execution_service_pb2_grpc
from letta.tools.v1.sandbox_config_pb2 import (
    SANDBOX_TYPE_E2B,
    SANDBOX_TYPE_LOCAL,
    SANDBOX_TYPE_MODAL,
    E2bSandboxConfig,
    LocalSandboxConfig,
    ModalSandboxConfig,
    NamedPackage,
    SandboxEnvironmentVariable,
    SandboxPackage,
    SandboxPackages,
    SandboxSettings,
)
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
    assert config.config == SandboxSettings(local=LocalSandboxConfig(pip_requirements=SandboxPackages()))
    e2b = await configs.GetDefaultE2bSandboxConfig(pb.GetDefaultE2bSandboxConfigRequest(), timeout=5)
    assert e2b.sandbox_config.config == SandboxSettings(e2b=E2bSandboxConfig(timeout=Duration(seconds=300)))


def named(name, version=None):
    return SandboxPackage(named=NamedPackage(name=name, version=version))


def packages(*items):
    return SandboxPackages(
        packages=[SandboxPackage(specifier=item) if isinstance(item, str) else item for item in items]
    )


async def create(configs, **settings):
    request = pb.CreateSandboxConfigRequest(config=SandboxSettings(**settings))
    return (await configs.CreateSandboxConfig(request, timeout=5)).sandbox_config


async def change(configs, config, *paths, **settings):
    request = pb.UpdateSandboxConfigRequest(
        sandbox_config_id=config.id,
        sandbox_config={"config": SandboxSettings(**settings)},
        update_mask=FieldMask(paths=paths),
    )
    return (await configs.UpdateSandboxConfig(request, timeout=5)).sandbox_config


async def test_settings_tell_the_type(configs):
    assert (await create(configs)).type == SANDBOX_TYPE_LOCAL
    e2b = await create(configs, e2b=E2bSandboxConfig(timeout=Duration(seconds=10), template="t"))
    assert (e2b.type, e2b.config.e2b.timeout.seconds, e2b.config.e2b.template) == (SANDBOX_TYPE_E2B, 10, "t")
    modal = await create(configs, modal=ModalSandboxConfig(npm_requirements=packages("left-pad")))
    assert (modal.type, modal.config.modal.timeout.seconds) == (SANDBOX_TYPE_MODAL, 60)
    assert modal.config.modal.compat.language == SandboxLanguage.SANDBOX_LANGUAGE_PYTHON
    assert modal.config.modal.npm_requirements == packages("left-pad")
    request = pb.CreateLocalSandboxConfigRequest(config=LocalSandboxConfig(pip_requirements=packages(named("six"))))
    made = (await configs.CreateLocalSandboxConfig(request, timeout=5)).sandbox_config
    assert made.config.local == LocalSandboxConfig(pip_requirements=packages(named("six")))


@pytest.mark.parametrize(
    ("kind", "field", "package"),
    [
        *(
            (kind, "pip_requirements", package)
            for kind in ("local", "e2b", "modal")
            for package in (
                named("requests", "--pre"),
                named("-r /etc/passwd"),
                SandboxPackage(specifier="requests\n--index-url=http://127.0.0.1:9"),
                named("x @ http://127.0.0.1:9/x.tar.gz"),
            )
        ),
        ("modal", "npm_requirements", named("left-pad", "-g")),
        ("modal", "npm_requirements", named("../x")),
        ("modal", "npm_requirements", SandboxPackage(specifier="x && y")),
    ],
    ids=str,
)
async def test_packages_that_no_tool_could_ask_for_are_refused(configs, kind, field, package):
    with pytest.raises(InvalidArgument):
        await create(configs, **{kind: {field: packages(package)}})


@pytest.mark.parametrize("kind", ["e2b", "modal"])
async def test_parts_of_seconds_are_refused(configs, kind):
    whole, half = {kind: {"timeout": Duration(seconds=1)}}, {kind: {"timeout": Duration(seconds=1, nanos=500_000_000)}}
    with pytest.raises(InvalidArgument, match="whole number of seconds") as refused:
        await create(configs, **half)
    made = await create(configs, **whole)
    with pytest.raises(InvalidArgument, match="whole number of seconds"):
        await change(configs, made, f"config.{kind}.timeout", **half)

    assert refused.value.metadata["field"] == f"config.{kind}.timeout"
    assert getattr(made.config, kind).timeout == Duration(seconds=1)


async def test_packages_are_kept(configs):
    given = packages(named("requests", "2.32.0"), "numpy>=2")

    assert (await create(configs, local={"pip_requirements": given})).config.local.pip_requirements == given


async def test_each_setting_is_changed_alone(configs):
    made = await create(configs, e2b=E2bSandboxConfig(timeout=Duration(seconds=10), template="t"))

    longer = await change(configs, made, e2b=E2bSandboxConfig(timeout=Duration(seconds=20)))
    assert (longer.config.e2b.timeout.seconds, longer.config.e2b.template) == (20, "t")
    # Keys that several kinds have do not tell which kind they are of.
    more = await change(configs, made, local=LocalSandboxConfig(pip_requirements=packages("six")))
    assert (more.config.e2b.pip_requirements, more.config.e2b.template) == (packages("six"), "t")
    cleared = await change(configs, made, "config.e2b.template")
    assert cleared.config.e2b == E2bSandboxConfig(timeout=Duration(seconds=20), pip_requirements=packages("six"))
    none = await change(configs, made, e2b=E2bSandboxConfig(pip_requirements=packages()))
    assert none.config.e2b == E2bSandboxConfig(timeout=Duration(seconds=20), pip_requirements=packages())
    with pytest.raises(InvalidArgument, match="e2b has no setting egress_hosts"):
        await change(configs, made, local={"egress_hosts": {"hosts": ["api.example.com"]}})


@pytest.mark.parametrize("key", ["A=B", "A\nB", "A\x7f"])
async def test_a_variable_that_would_end_every_call_is_refused(configs, key):
    with pytest.raises((InvalidArgument, ValidationFailed)):
        await set_variable(configs, await local(configs), key)


async def test_update_list_and_delete(configs, as_bob):
    config = await local(configs)
    settings = SandboxSettings(local=LocalSandboxConfig(pip_requirements=packages("six")))
    request = pb.UpdateSandboxConfigRequest(sandbox_config_id=config.id, sandbox_config={"config": settings})
    updated = (await configs.UpdateSandboxConfig(request, timeout=5)).sandbox_config
    assert (updated.id, updated.config, updated.version) == (config.id, settings, config.version + 1)
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
    async def made(*hosts):
        return await create(configs, local={"egress_hosts": {"hosts": hosts}})

    assert (await made("api.example.com")).config.local.egress_hosts.hosts == ["api.example.com"]
    with pytest.raises(InvalidArgument, match="tools_egress_hosts_of_organizations"):
        await made("evil.org")
    with pytest.raises(InvalidArgument, match="no host"):
        await made("https://api.example.com")


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
