"""The time zone of an agent: checked where it comes in, harmless where something else was stored."""

from datetime import UTC, datetime

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.agent.v1 import agent_pb2
from letta.agent.v1 import agent_service_pb2 as pb
from letta_agent.domain.context.system_prompt import facts_of
from letta_common.errors import InvalidArgument

NO_ZONES = ["Mars/Base", "GMT+2", "+09:00", "CEST", "localtime", "../etc/passwd", "Europe/", "Europe/Berlin ", "UTC\n"]
EVENING = datetime(2026, 11, 29, 20, 0, tzinfo=UTC)


async def _set(stubs, agent_id, zone):
    request = pb.UpdateAgentRequest(
        agent_id=agent_id, agent=agent_pb2.Agent(timezone=zone), update_mask=FieldMask(paths=["timezone"])
    )
    return (await stubs.agents.UpdateAgent(request, timeout=5)).agent.timezone


@pytest.mark.parametrize("zone", NO_ZONES)
async def test_what_is_no_time_zone_is_refused(stubs, zone):
    with pytest.raises(InvalidArgument, match="time zone") as made:
        await stubs.agent(timezone=zone)
    assert made.value.metadata["field"] == "timezone"
    agent = await stubs.agent(timezone="Asia/Tokyo")
    with pytest.raises(InvalidArgument, match="time zone"):
        await _set(stubs, agent.id, zone)
    assert (
        await stubs.agents.GetAgent(pb.GetAgentRequest(agent_id=agent.id), timeout=5)
    ).agent.timezone == "Asia/Tokyo"


async def test_a_time_zone_is_kept_as_the_database_of_zones_writes_it(stubs):
    agent = await stubs.agent(timezone="asia/tokyo")
    assert agent.timezone == "Asia/Tokyo"
    assert await _set(stubs, agent.id, "Etc/GMT-2") == "Etc/GMT-2"
    assert await _set(stubs, agent.id, "") == "UTC"
    assert (await stubs.agent()).timezone == "UTC"


@pytest.mark.parametrize("stored", ["Mars/Base", "GMT+2", "", "/etc/passwd", "a" * 64])
def test_a_date_is_labelled_with_the_zone_it_is_of(stored):
    assert facts_of(EVENING, stored, 0, 0) == ["Today is Sunday, 2026-11-29 (UTC)"]
    assert facts_of(EVENING, "Asia/Tokyo", 0, 0) == ["Today is Monday, 2026-11-30 (Asia/Tokyo)"]
