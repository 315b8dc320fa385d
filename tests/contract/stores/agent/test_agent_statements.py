"""What screens cost in the database: one statement each, without a transaction around it."""

from letta.agent.v1.agent_service_pb2 import AGENT_ORDER_BY_UPDATED_AT
from letta_agent.domain.agents.records import ListAgentsRequest, Stage
from letta_agent.store.agents import SqlAgentStore
from letta_common.values.paging import Page
from tests.contract.stores.agent.conftest import agent_of
from tests.support.statements import Statements


async def test_making_reading_and_listing_agents_are_one_statement_each(db, database_url, ann):
    store, counted = SqlAgentStore(db), Statements(database_url)
    agent = agent_of(stage=Stage.MAKING, tool_ids=("tool-b", "tool-a"), request_id="once", tags=["t"])
    assert await store.create(ann, agent)
    assert not await store.create(ann, agent_of(stage=Stage.MAKING, request_id="once"))
    assert (await store.get_by_request(ann, "once")).id == agent.id
    await store.finish(ann, agent.id)
    found = await store.get(ann, agent.id)
    filters = ListAgentsRequest(tags=("t", "u"), query_text="ad", order_by=AGENT_ORDER_BY_UPDATED_AT)
    assert [one.id for one in await store.list_agents(ann, filters, Page(limit=5))] == [agent.id]
    filters.query_text = "%"
    assert not await store.list_agents(ann, filters, Page(limit=5))

    sent = counted.sent()
    assert sum(calls for _, calls in sent) == 6, sent  # one that is refused is not counted by the database
    assert (found.tool_ids, found.creation, found.state) == (("tool-b", "tool-a"), b"", agent.state)
