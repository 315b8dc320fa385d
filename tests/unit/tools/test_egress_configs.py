"""Which hosts an organization's tools may reach, by the settings and by its own configuration."""

import pytest

from letta.tools.v1.sandbox_config_pb2 import SandboxSettings
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import InvalidArgument, StaleEtag
from letta_common.sealing import Sealer
from letta_sandbox.destinations import read_destinations
from letta_tools.domain.executions.egress import Ceiling, EgressPolicy
from letta_tools.domain.executions.sandbox_configs import SandboxConfigs
from tests.fakes.tools.configs import FakeSandboxConfigStore

ANN = Actor(organization_id="org-1", user_id="user-1")
BOB = Actor(organization_id="org-2", user_id="user-2")


PACKAGES = SandboxSettings(local={"pip_requirements": {"packages": [{"specifier": "six"}]}})


def hosts(*names):
    return SandboxSettings(local={"egress_hosts": {"hosts": names}})


def configs(operator=(), ceiling=(), store=None, clock=None):
    policy = EgressPolicy(read_destinations(operator), Ceiling(read_destinations(ceiling)))
    return SandboxConfigs(store or FakeSandboxConfigStore(), Sealer([b"x" * 32]), clock or SystemClock(), policy)


async def opened(made, actor):
    found = (await made.surroundings(actor)).destinations
    return [str(each) for each in found.operator], [str(each) for each in found.organization]


async def test_nothing_is_open_by_default():
    assert await opened(configs(), ANN) == ([], [])


async def test_what_the_operator_lists_is_open_to_all():
    made = configs(operator=["api.example.com"])

    assert await opened(made, ANN) == await opened(made, BOB) == (["api.example.com:443"], [])


async def test_an_organization_opens_hosts_for_itself_alone():
    made = configs(ceiling=["*"])
    await made.create(ANN, hosts("api.example.com"))

    assert await opened(made, ANN) == ([], ["api.example.com:443"])
    assert await opened(made, BOB) == ([], [])


async def test_a_change_holds_at_once():
    made = configs(ceiling=["*"])
    config = await made.create(ANN, hosts("a.org"))
    await opened(made, ANN)
    await made.update(ANN, config.id, hosts("b.org"), ["config"])
    assert await opened(made, ANN) == ([], ["b.org:443"])
    await made.delete(ANN, config.id)
    assert await opened(made, ANN) == ([], [])


class Overtaken(FakeSandboxConfigStore):
    """Somebody makes settings right after the first look found none."""

    async def list_configs(self, actor, kind, page):
        found = await super().list_configs(actor, kind, page)
        if not found:
            await configs(ceiling=["*"], store=self).create(actor, hosts("mine.org"))
        return found


async def test_defaults_do_not_take_the_place_of_settings_made_meanwhile():
    found = await configs(store=Overtaken()).default(ANN, hosts())

    assert found.config.local.egress_hosts.hosts == ["mine.org"]


class Busy(FakeSandboxConfigStore):
    """Somebody changes another setting right after a look, as often as there are values."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    async def find(self, actor, config_id):
        found = await super().find(actor, config_id)
        if self.values:
            await configs(ceiling=["*"], store=self).create(actor, hosts(self.values.pop()))
        return found


async def test_a_change_leaves_what_others_change_meanwhile():
    store = Busy(["mine.org"])
    made = await configs(store=store).default(ANN, hosts())
    found = await configs(ceiling=["*"], store=store).update(ANN, made.id, PACKAGES, ["config"])

    settings = found.config.local
    assert (settings.egress_hosts.hosts, settings.pip_requirements, found.id) == (
        ["mine.org"],
        PACKAGES.local.pip_requirements,
        made.id,
    )


async def test_a_change_among_too_many_others_is_refused():
    store = Busy([f"n{number}.org" for number in range(9)])
    made = await configs(store=store).default(ANN, hosts())

    with pytest.raises(StaleEtag, match="try again"):
        await configs(ceiling=["*"], store=store).update(ANN, made.id, PACKAGES, ["config"])


@pytest.mark.parametrize("ceiling", [[], ["*.example.com"]])
async def test_hosts_above_the_ceiling_are_refused(ceiling):
    made = configs(ceiling=ceiling)
    with pytest.raises(InvalidArgument, match="tools_egress_hosts_of_organizations"):
        await made.create(ANN, hosts("evil.org"))
    config = await made.create(ANN, PACKAGES)
    with pytest.raises(InvalidArgument, match="tools_egress_hosts_of_organizations"):
        await made.update(ANN, config.id, hosts("*"), ["config"])

    assert await opened(made, ANN) == ([], [])


async def test_what_is_no_host_is_refused():
    with pytest.raises(InvalidArgument, match="no host"):
        await configs(ceiling=["*"]).create(ANN, hosts("a b"))


async def test_a_ceiling_that_was_lowered_holds_for_what_is_stored():
    store = FakeSandboxConfigStore()
    await configs(ceiling=["*"], store=store).create(ANN, hosts("a.org", "b.org"))

    assert await opened(configs(ceiling=["b.org"], store=store), ANN) == ([], ["b.org:443"])
    assert await opened(configs(store=store), ANN) == ([], [])
